// FileSystemImpl: the one FileSystem.  Its methods are spread over *.cc by subject.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "fs/acl.h"
#include "fs/budget.h"
#include "fs/comparison.h"
#include "fs/file_system.h"
#include "fs/id_pool.h"
#include "fs/inode.h"
#include "fs/inode_numbers.h"
#include "fs/inode_table.h"
#include "fs/link_changes.h"
#include "fs/links.h"
#include "fs/locks.h"
#include "fs/making.h"
#include "fs/open_files.h"
#include "fs/topology.h"
#include "schema/keys.h"
#include "schema/records.h"

namespace caw {

class FileSystemImpl final : public FileSystem {
 public:
  FileSystemImpl(Forest& forest, const FsOptions& options);
  /// Reads the root, drops orphans.
  Result<void> start();

  Inode* root() override { return root_; }
  Result<Entry> lookup(Inode& parent, std::string_view name) override;
  void forget(Inode& inode, uint64_t lookups) override;
  Result<Entry> create(Inode&, std::string_view, uint32_t, uint32_t, const Caller&) override;
  Result<Entry> create_unnamed(Inode& parent, uint32_t mode, const Caller& caller) override;
  Result<Entry> mkdir(Inode&, std::string_view, uint32_t, const Caller&) override;
  Result<Entry> symlink(Inode&, std::string_view, std::string_view, const Caller&) override;
  Result<std::string> readlink(Inode& inode) override;
  Result<Entry> link(Inode& inode, Inode& parent, std::string_view name) override;
  Result<void> unlink(Inode& parent, std::string_view name) override;
  Result<void> rmdir(Inode& parent, std::string_view name) override;
  Result<void> rename(Inode&, std::string_view, Inode&, std::string_view, RenameFlags) override;
  Result<void> readdir(Inode&, uint64_t, const EmitEntry& emit) override;
  Result<void> readdirplus(Inode&, uint64_t, const EmitEntryPlus& emit) override;
  Result<Attributes> getattr(Inode& inode) override;
  Result<Attributes> setattr(Inode& inode, const SetAttributes& set, const Caller& caller) override;
  Result<void> open_file(Inode& inode, OpenFor what, bool truncate, bool drop_privileges) override;
  void release_file(Inode& inode, OpenFor what) override;
  Result<size_t> read(Inode& inode, uint64_t offset, std::span<char> out) override;
  Result<size_t> write(Inode&, uint64_t offset, std::string_view, bool drop_privileges) override;
  Result<size_t> copy_data(Inode& from, uint64_t, Inode& to, uint64_t, uint64_t length) override;
  Result<uint64_t> seek_data(Inode& inode, uint64_t offset, bool hole) override;
  Result<void> fallocate(Inode& inode, uint32_t mode, uint64_t offset, uint64_t length) override;
  Result<std::string> get_xattr(Inode& inode, std::string_view name) override;
  Result<std::string> list_xattrs(Inode& inode, const Caller& caller) override;
  Result<void> set_xattr(Inode&, std::string_view, std::string_view, const XattrFlags&) override;
  Result<void> remove_xattr(Inode& inode, std::string_view name) override;
  Result<StatFs> statfs() override;
  Result<void> sync() override;
  Result<void> checkpoint() override;
  std::vector<uint64_t> writers_below(Inode& source) override;
  Result<Entry> clone(Inode& source, Inode&, std::string_view, const Caller&) override;
  Result<std::vector<uint64_t>> remove_tree(Inode&, std::string_view, const Caller&) override;
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
  Result<void> look_for_links();

  // ---- names (names.cc)
  Result<Entry> make_entry(Inode& parent, const NewEntry& what, const Caller& caller);
  Result<void> remove_entry(Inode& parent, std::string_view name, bool directory);
  /// In an attempt: the mode of a new file in `parent`, whose record is to lie before `xattrs`.
  Result<void> inherit_attributes(Batch&, const Inode& parent, const Caller&, const Spot& xattrs,
                                  InodeFields& fields);
  /// Owner and group of what `caller` makes in a directory.
  static void inherit_owner(const InodeFields& parent, const Caller& caller, InodeFields& fields);
  Result<void> check_empty(const Inode& directory);
  /// Fails with not_found and sets `changed` unless `name` in `parent` still leads to `child`
  /// (null: nowhere).  Returns its dirent, if any.
  Result<std::optional<Dirent>> check_still(const Inode& parent, std::string_view name,
                                            const Inode* child, bool& changed);
  Result<void> drop_name(Batch&, const Place&, std::string_view name, const NameDrop& drop);
  void finish_drop(const NameDrop& drop);
  /// The attempt did not begin since `child` was removed meanwhile.
  static bool is_gone(const Result<void>& done, const Inode& child);

  // ---- moving and erasing records, in an attempt (moves.cc)
  /// Erases the record and the data of a file, or the record of a directory.
  Result<void> erase_records(Batch& batch, const Inode& inode);
  void erase_chunks(Batch& batch, const Spot& data, uint64_t first, uint64_t old_size);
  /// Sees to it that the contents can move with the record: few, or in a tree of their own.
  /// Requires an exclusive attempt; fails with tree_not_private if something changed.
  Result<void> make_movable(Inode& inode, const Place& to, bool essential);
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
  static bool may_have_xattrs(const Inode& inode);
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
  Result<void> plan_xattr(Batch&, const Inode& inode, XattrChange change, InodeFields& fields);

  // ---- hard links: names and link counts (link_names.cc)
  /// The root or clone in whose domain `directory` is; null: among the orphans.  Under the gate.
  Inode* top_of(const Inode& directory) const;
  bool is_top(const Inode& directory) const;
  static bool is_in_orphan(const Inode& inode);
  /// Where the inode of a name is.  Under the gate.
  bool leads_to(const Inode& parent, const Dirent& dirent, const Inode& child) const;
  bool is_linked(const Inode& inode) const;
  LinkScope scope_of(const Inode& linked) const;
  /// The top of `directory` with one reference more.  Under the gate.
  Hold hold_top(const Inode& directory);
  /// Links directory of `top` in core, its counts taken; none if there is none.
  Result<Hold> links_directory(Inode& top);
  Result<Hold> make_links_directory(Inode& top);
  /// The inode that the linked name leads to; none if that changed meanwhile.  Fails: not_found.
  Result<Hold> load_linked(Inode& parent, std::string_view name);
  /// Of every owner of a tree at or above `directory`.
  Result<void> put_marks(Batch& batch, const Inode& directory);
  Result<void> move_links(Batch& batch, const Inode& directory, const Destination& to);
  Result<void> put_links(Batch& batch, const Inode& linked, uint32_t nlink, const Timestamp& ctime);
  Result<void> take_counts(Inode& links);
  Result<void> count_in_memory(Inode& links);
  uint32_t counted_links(const Inode& parent, uint64_t entry, uint32_t recorded);
  Result<void> correct_counts(Batch& batch, const Place& place, const LinkCounts& counts);

  // ---- hard links: where their records are (link_groups.cc)
  enum class Home : uint8_t { gone, plain, same_domain, other_domain };
  Home home_of(const Inode& file, const Inode& parent) const;
  Result<void> add_name(Inode& file, Inode& parent, std::string_view name, bool& changed);
  /// Gives a file with one name a record in the links directory of its domain.
  Result<void> make_linked(Inode& file);
  struct Regrouping;
  /// Makes local groups of the domain of `within` global: that of `file`, or, if it is null, all
  /// with a name at or below `within`.
  Result<void> globalize(Inode& within, const Inode* file);
  Result<void> prepare(Regrouping& work);
  Result<void> find_names(Regrouping& work);
  Result<void> try_globalize(Regrouping& work, Batch& batch);
  /// True if `directory` moves out of the domain of links that some names in it are local to.
  Result<bool> needs_globalize(const Inode& directory, const Inode& from, const Inode& to);
  Result<void> drop_names_below(Batch& batch, Inode& directory, TreeRemoval& removal);
  Result<void> drop_group(Batch&, Inode& links, uint64_t group, uint32_t names, TreeRemoval&);
  void finish_removal(TreeRemoval& removal);

  // ---- hard links: clones (link_clone.cc)
  /// Puts into the new clone `id` what the local groups of its source need.
  Result<void> share_links(Batch& batch, const Inode& source, uint64_t domain, NodeId id);
  Result<bool> holds_globals(const Inode& source);
  struct GlobalClone;
  Result<NodeId> clone_with_globals(const Inode& source, const InodeRecord& record,
                                    const Destination& to, const InodeFields& parent_fields);

  // ---- rename (rename.cc)
  struct Rename;
  Result<void> try_rename(Rename& rename, Batch& batch);
  Result<void> rename_within(Rename& rename, Batch& batch);
  Result<void> rename_across(Rename& rename, Batch& batch);
  struct Moving;
  void erase_old_name(Batch& batch, const Moving& moving);
  Result<void> put_moved_name(Batch& batch, const Moving& moving);
  Result<void> put_name_within(Batch& batch, const Moving& moving);
  Result<void> check_domain(Rename& rename, const Moving& moving, Inode*& to_globalize);
  Result<void> add_aliases(Rename& rename);
  Result<void> remove_replaced(Rename& rename, Batch& batch);
  Result<void> put_new_name(Batch& batch, const Inode& inode, const InodeFields& fields,
                            std::string_view name);
  void put_whiteout(Batch& batch, const Place& from, const Rename& rename);
  void drop_alias(const Moving& moving);
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
  Result<Hold> load_listed(Inode& directory, const Listed& listed);
  Result<bool> emit_dots(Inode& directory, uint64_t after, const EmitEntry& emit);

  // ---- clone, removal (clone.cc)
  Result<bool> may(const Inode& inode, const Caller& caller, uint32_t wanted);
  Result<void> check_clone_permission(const Inode& source, const Inode& parent,
                                      const Caller& caller);
  Result<void> check_removal_permission(const Inode& parent, Inode& child, const Caller& caller);
  bool may_have_name_in(const Inode& file, const Inode& source) const;
  InodeRecord record_of_clone(const Inode& source, const Inode& parent, std::string_view name);
  Result<Hold> links_around(const Inode& directory);
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
  Result<Comparison::Side> compared(const Inode& directory);

  Forest& forest_;
  const FsOptions options_;
  InodeNumbers numbers_;
  IdPool entries_;
  IdPool files_;
  IdPool stamps_;
  std::unique_ptr<Inode> system_;
  std::unique_ptr<Inode> orphans_;
  std::unique_ptr<Inode> globals_;  ///< links directory of files linked between domains
  Topology topology_;
  InodeLocks locks_;
  OpenFiles open_files_;
  InodeTable table_;
  Budget atime_budget_{64, 16};
  /// Held by who adds linked names without the exclusive topology gate (shared), and by clones that
  /// rely on there being none (exclusive).
  std::shared_mutex links_mutex_;
  std::atomic<bool> has_globals_{false};  ///< set before the first, under the exclusive gate
  std::mutex counts_mutex_;
  /// Of a read-only volume: counts that cannot be written.  Each links directory stays in core.
  std::map<const Inode*, LinkCounts> counts_;
  Inode* root_ = nullptr;
};

}  // namespace caw
