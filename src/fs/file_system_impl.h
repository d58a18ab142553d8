// FileSystemImpl: the one FileSystem.  Its methods are spread over *.cc by subject.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/acl.h"
#include "fs/file_system.h"
#include "fs/id_pool.h"
#include "fs/inode.h"
#include "fs/inode_numbers.h"
#include "fs/inode_table.h"
#include "fs/locks.h"
#include "fs/open_files.h"
#include "fs/topology.h"
#include "schema/keys.h"
#include "schema/records.h"

namespace caw {

/// For contents of unknown size: makes the flusher act soon.
inline constexpr uint64_t kManyDeadBytes = uint64_t{1} << 30;
/// Data of up to so many chunks are copied record by record; beyond, the file comes to own a tree.
inline constexpr uint64_t kMaxCopiedChunks = 64;
inline constexpr uint64_t kMaxCopiedFileBytes = 64 * 1024;  ///< of those, without blobs

/// Lets so many through at once, and some more each second.  Any thread.
class Budget {
 public:
  Budget(int64_t burst, int64_t each_second) : burst_(burst), each_second_(each_second) {}
  bool take(int64_t now_seconds) {
    std::lock_guard lock(mutex_);
    if (now_seconds > last_) {
      left_ = std::min(burst_, left_ + std::min(burst_, now_seconds - last_) * each_second_);
      last_ = now_seconds;
    }
    if (left_ == 0) return false;
    --left_;
    return true;
  }

 private:
  const int64_t burst_;
  const int64_t each_second_;
  std::mutex mutex_;
  int64_t left_ = 0;
  int64_t last_ = 0;
};

/// What a file lets others do in the name of its owner ends when others change it.
inline void drop_privileges(InodeFields& fields) {
  fields.mode &= ~uint32_t{S_ISUID};
  if ((fields.mode & S_IXGRP) != 0) fields.mode &= ~uint32_t{S_ISGID};
}

class FileSystemImpl final : public FileSystem {
 public:
  FileSystemImpl(Forest& forest, const FsOptions& options);
  /// Reads the root, drops orphans.
  Result<void> start();

  Inode* root() override { return root_; }
  Result<Entry> lookup(Inode& parent, std::string_view name) override;
  void forget(Inode& inode, uint64_t lookups) override;
  Result<Entry> create(Inode& parent, std::string_view name, uint32_t mode, uint32_t rdev,
                       const Caller& caller) override;
  Result<Entry> create_unnamed(Inode& parent, uint32_t mode, const Caller& caller) override;
  Result<Entry> mkdir(Inode& parent, std::string_view name, uint32_t mode,
                      const Caller& caller) override;
  Result<Entry> symlink(Inode& parent, std::string_view name, std::string_view target,
                        const Caller& caller) override;
  Result<std::string> readlink(Inode& inode) override;
  Result<void> unlink(Inode& parent, std::string_view name) override;
  Result<void> rmdir(Inode& parent, std::string_view name) override;
  Result<void> rename(Inode& from_parent, std::string_view from, Inode& to_parent,
                      std::string_view to, RenameFlags flags) override;
  Result<void> readdir(Inode& directory, uint64_t after,
                       const std::function<bool(const DirectoryEntry&)>& emit) override;
  Result<void> readdirplus(
      Inode& directory, uint64_t after,
      const std::function<bool(const DirectoryEntry&, const Entry&)>& emit) override;
  Result<Attributes> getattr(Inode& inode) override;
  Result<Attributes> setattr(Inode& inode, const SetAttributes& set, const Caller& caller) override;
  Result<void> open_file(Inode& inode, OpenFor what, bool truncate, bool drop_privileges) override;
  void release_file(Inode& inode, OpenFor what) override;
  Result<size_t> read(Inode& inode, uint64_t offset, std::span<char> out) override;
  Result<size_t> write(Inode& inode, uint64_t offset, std::string_view data,
                       bool drop_privileges) override;
  Result<size_t> copy_data(Inode& from, uint64_t from_offset, Inode& to, uint64_t to_offset,
                           uint64_t length) override;
  Result<uint64_t> seek_data(Inode& inode, uint64_t offset, bool hole) override;
  Result<void> fallocate(Inode& inode, uint32_t mode, uint64_t offset, uint64_t length) override;
  Result<std::string> get_xattr(Inode& inode, std::string_view name) override;
  Result<std::string> list_xattrs(Inode& inode, const Caller& caller) override;
  Result<void> set_xattr(Inode& inode, std::string_view name, std::string_view value,
                         const XattrFlags& flags) override;
  Result<void> remove_xattr(Inode& inode, std::string_view name) override;
  Result<StatFs> statfs() override;
  Result<void> sync() override;
  Result<void> checkpoint() override;
  std::vector<uint64_t> writers_below(Inode& source) override;
  Result<Entry> clone(Inode& source, Inode& parent, std::string_view name,
                      const Caller& caller) override;
  Result<void> remove_tree(Inode& parent, std::string_view name, const Caller& caller) override;
  Result<bool> same(Inode& a, Inode& b) override;

 private:
  using Hold = InodeHold;

  // ---- inodes (inodes.cc)
  void save_numbers();
  Result<void> check_writable() const;
  /// As check_writable(), and waits for room.  Before any lock is taken.
  Result<void> begin_change();
  static Result<void> check_new_name(std::string_view name);
  Timestamp now() { return options_.clock->now(); }
  /// A stamp no change ever had.
  uint64_t next_stamp() { return stamps_.next(); }
  Result<std::optional<Dirent>> find_dirent(const Place& place, std::string_view name);
  Result<InodeRecord> read_inode_record(const Spot& spot, Value* value = nullptr);
  /// The inode in core, or none if there is no such record any more.
  Result<Hold> load(Inode& parent, uint64_t entry);
  /// Brings a record just read or written into core; none if it may be out of date.
  Result<Hold> adopt(Inode& parent, uint64_t entry, const InodeRecord& record, NodeId tree,
                     uint32_t evictions);
  /// As adopt, and load if that gives none.
  Result<Entry> adopt_new(Inode& parent, uint64_t entry, const InodeRecord& record, NodeId tree,
                          uint32_t evictions);
  /// Fails: not_found.
  Result<Hold> find_child(Inode& parent, std::string_view name);
  Result<uint64_t> ino_of(Inode& inode);
  Result<Attributes> attributes_of(Inode& inode);
  Result<Entry> entry_of(Hold hold);
  /// Fields of a directory whose entries change now.
  InodeFields touched(const Inode& directory);
  Result<void> put_content(Batch& batch, const Inode& inode, const InodeFields& fields);
  std::unique_ptr<Inode> make_fixed_inode(Inode* parent, uint64_t entry, TreeRef tree);
  Result<void> drop_orphans();

  // ---- names (names.cc)
  struct NewEntry {
    std::string_view name;
    uint32_t mode = 0;
    uint32_t rdev = 0;
    std::string_view target;
  };
  Result<Entry> make_entry(Inode& parent, const NewEntry& what, const Caller& caller);
  Result<void> remove_entry(Inode& parent, std::string_view name, bool directory);
  /// In an attempt: the mode of a new file in `parent`, whose record is to lie before `xattrs`.
  Result<void> inherit_attributes(Batch& batch, const Inode& parent, const Caller& caller,
                                  const Spot& xattrs, InodeFields& fields);
  /// Owner and group of what `caller` makes in a directory.
  static void inherit_owner(const InodeFields& parent, const Caller& caller, InodeFields& fields);
  Result<void> check_empty(const Inode& directory);
  /// Fails with not_found and sets `changed` unless `name` still leads to `child` (null: nowhere).
  Result<void> check_still(const Place& place, std::string_view name, const Inode* child,
                           bool& changed);

  // ---- moving and erasing records, in an attempt (moves.cc)
  /// Erases the record and the data of a file, or the record of a directory.
  Result<void> erase_records(Batch& batch, const Inode& inode);
  void erase_chunks(Batch& batch, const Spot& data, uint64_t first, uint64_t old_size);
  /// Sees to it that the contents can move with the record: few, or in a tree of their own.
  /// Requires an exclusive attempt; fails with tree_not_private if something changed.
  Result<void> make_movable(Inode& inode, const Place& to, bool essential);
  struct Destination {
    Place place;
    uint64_t domain = 0;  ///< of the directory
    uint64_t entry = 0;
    std::string_view name;
  };
  /// Requires: make_movable().
  Result<void> move_records(Batch& batch, const Inode& inode, const InodeFields& fields,
                            const Destination& to);
  Result<void> copy_range(Batch& batch, const Spot& from, const Spot& to, bool erase);
  Result<bool> is_small(const Spot& range, uint64_t& records_left, uint64_t& bytes_left);
  Result<void> move_to_orphans(Batch& batch, Inode& inode, uint64_t entry);
  void mark_removed(Inode& inode);
  void mark_orphan(Inode& inode, uint64_t entry);
  void reap_orphan(Inode& inode);
  bool any_open_within(const Inode& inode) const;

  // ---- extended attributes (xattrs.cc)
  static bool may_have_xattrs(const Inode& inode) {
    return (inode.load_fields().flags & kInodeXattrs) != 0;
  }
  struct XattrSizes;
  Result<XattrSizes> xattr_sizes(const Spot& xattrs);
  Result<std::optional<Value>> find_xattr(const Spot& xattrs, std::string_view name);
  /// In an attempt: to another place, with the record.
  Result<void> copy_xattrs(Batch& batch, const Inode& inode, const Spot& to, bool erase);
  /// In an attempt: keeps the access ACL in step with fields.mode.
  Result<void> change_acl_mode(Batch& batch, const Inode& inode, const InodeFields& fields);
  /// In an attempt: as SetAttributes::drop_privileges; `fields` had them dropped already.
  Result<void> drop_capabilities(Batch& batch, const Inode& inode);
  /// Empty: permission bits say it all.
  Result<Acl> access_acl(const Inode& inode);
  struct XattrChange;
  Result<void> change_xattr(Inode& inode, const XattrChange& change);
  Result<void> plan_xattr(Batch& batch, const Inode& inode, XattrChange change,
                          InodeFields& fields);

  // ---- rename (rename.cc)
  struct Rename;
  Result<void> try_rename(Rename& rename, Batch& batch);
  Result<void> rename_within(Rename& rename, Batch& batch);
  Result<void> rename_across(Rename& rename, Batch& batch);
  Result<void> add_aliases(Rename& rename);
  Result<void> remove_replaced(Rename& rename, Batch& batch);
  Result<void> put_new_name(Batch& batch, const Inode& inode, const InodeFields& fields,
                            std::string_view name);
  void put_whiteout(Batch& batch, const Place& from, const Rename& rename);
  void finish_rename(Rename& rename);

  // ---- data (data.cc, extents.cc)
  struct Extent;
  Result<std::vector<Extent>> plan_write(const Inode& inode, uint64_t offset, std::string_view data,
                                         uint64_t old_size);
  void cancel(const std::vector<Extent>& extents);
  Result<void> read_chunks(const Spot& data, uint64_t offset, std::span<char> out);
  void read_ahead(const Spot& data, uint64_t chunk, uint64_t size);
  void note_read(Inode& inode);
  Result<uint64_t> allocated_blocks(Inode& inode, uint64_t size);
  Result<uint64_t> share_chunks(Inode& from, uint64_t from_offset, Inode& to, uint64_t to_offset,
                                uint64_t length);
  Result<size_t> copy_bytes(Inode& from, uint64_t from_offset, Inode& to, uint64_t to_offset,
                            uint64_t length);
  Result<void> zero_range(Batch& batch, const Spot& data, uint64_t from, uint64_t to);
  /// In an attempt: erases what lies beyond `size`.
  void cut_data(Batch& batch, const Spot& data, uint64_t size, uint64_t old_size);

  // ---- directories (directory.cc)
  struct Listed;
  Result<Listed> decode_listed(const Cursor& cursor, size_t prefix_bytes);
  Result<void> list(Inode& directory, uint64_t after,
                    const std::function<Result<bool>(const Listed&)>& emit);
  Result<bool> emit_dots(Inode& directory, uint64_t after,
                         const std::function<bool(const DirectoryEntry&)>& emit);

  // ---- clone, removal (clone.cc)
  Result<bool> may(const Inode& inode, const Caller& caller, uint32_t wanted);
  Result<void> check_clone_permission(const Inode& source, const Inode& parent,
                                      const Caller& caller);
  Result<void> check_removal_permission(const Inode& parent, Inode& child, const Caller& caller);
  Result<bool> owns_all_below(Inode& directory, uint32_t uid);
  Result<bool> owns_all_in(const Place& directory, uint32_t uid);
  Result<NodeId> clone_contents(Batch& batch, const Inode& source, const InodeRecord& record,
                                const Destination& to);
  bool needs_detour(const Inode& source, const Inode& parent) const;
  Result<bool> is_copied_whole(const Inode& source);
  struct Aside;
  Result<void> hang_clone(Inode& parent, const InodeFields& parent_fields, const Destination& to,
                          const Aside& aside);
  Result<void> remove_contents(Batch& batch, Inode& directory, uint64_t orphan_entry);
  struct Comparison;
  Result<bool> same_contents(Comparison& comparison, const Place& a, const Place& b);

  Forest& forest_;
  const FsOptions options_;
  InodeNumbers numbers_;
  IdPool entries_;
  IdPool files_;
  IdPool stamps_;
  std::unique_ptr<Inode> system_;
  std::unique_ptr<Inode> orphans_;
  Topology topology_;
  InodeLocks locks_;
  OpenFiles open_files_;
  InodeTable table_;
  Budget atime_budget_{64, 16};
  Inode* root_ = nullptr;
};

}  // namespace caw
