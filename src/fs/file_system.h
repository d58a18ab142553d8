// FileSystem: POSIX semantics over a Forest, without FUSE.
//
// An Inode is the in-core state of one file or directory *in its clone* (its place in the forest),
// kept while the kernel knows it (lookup count) or it is open.  The `fuse` module uses the pointer
// as node id.  All methods may be called from any thread at once; permissions are the kernel's
// business (default_permissions) except where said.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "volume/forest.h"

namespace caw {

class Inode;   // fs/inode.h; opaque outside fs

struct Attributes {
  uint64_t ino = 0;
  uint64_t size = 0;
  uint64_t blocks = 0;            ///< of 512 bytes
  uint32_t mode = 0;              ///< type and permissions
  uint32_t nlink = 1;
  uint32_t uid = 0, gid = 0;
  uint32_t rdev = 0;
  Timestamp atime, mtime, ctime, btime;
};

struct Entry {
  Inode* inode = nullptr;         ///< one lookup more: forget() it
  Attributes attributes;
};

struct Caller {
  uint32_t uid = 0, gid = 0;
  uint32_t pid = 0;
  bool privileged = true;         ///< root or CAP_FOWNER
  uint32_t umask = 0;             ///< for what is made where no default ACL says more
};

struct SetAttributes {
  std::optional<uint32_t> mode, uid, gid;
  std::optional<uint64_t> size;
  std::optional<Timestamp> atime, mtime, ctime;
  /// Takes away what the file lets others do in its owner's name: set-user-id, set-group-id where
  /// the group may execute, capabilities.  A new owner of what is no directory always does.
  bool drop_privileges = false;
};

struct DirectoryEntry {
  std::string_view name;
  uint64_t ino = 0;
  uint64_t cookie = 0;            ///< pass it to readdir to go on after this entry
  uint32_t mode = 0;              ///< type bits suffice
};

struct StatFs {
  uint64_t total_bytes = 0, free_bytes = 0, available_bytes = 0;
  uint64_t files = 0, free_files = 0;
};

struct RenameFlags {
  bool no_replace = false;
  bool exchange = false;
  bool whiteout = false;          ///< leaves a character device 0/0 in its place
};

struct XattrFlags {
  bool create = false;   ///< fails with exists if it is there
  bool replace = false;  ///< fails with xattr_absent if it is not
  bool drop_set_gid = false;  ///< an ACL of one who is not of the file's group
};

/// What a file is opened for.  Only a file opened to be read and written can have pages dirtied
/// through a shared mapping; what write(2) brings never waits in the kernel.
enum class OpenFor : uint8_t { reading, writing, mapping };

using EmitEntry = std::function<bool(const DirectoryEntry&)>;
using EmitEntryPlus = std::function<bool(const DirectoryEntry&, const Entry&)>;

struct FsOptions {
  Clock* clock = &Clock::system();
  bool read_only = false;
  bool no_atime = false;
};

class FileSystem {
 public:
  /// Makes the root directory (mode 0755, `uid`:`gid`) in a new forest.
  static Result<void> make(Forest& forest, Clock& clock, uint32_t uid, uint32_t gid);
  /// `forest` outlives it.  Drops orphans left by a crash.
  static Result<std::unique_ptr<FileSystem>> open(Forest& forest, const FsOptions& options);
  virtual ~FileSystem() = default;

  virtual Inode* root() = 0;      ///< always there; not counted

  // ---- names
  virtual Result<Entry> lookup(Inode& parent, std::string_view name) = 0;
  virtual void forget(Inode& inode, uint64_t lookups) = 0;
  virtual Result<Entry> create(Inode& parent, std::string_view name, uint32_t mode, uint32_t rdev,
                               const Caller& caller) = 0;   ///< regular files, fifos, devices, sockets
  /// A regular file without a name, in what is to be the group and under the default ACL of
  /// `parent`; it is gone after the last release_file().
  virtual Result<Entry> create_unnamed(Inode& parent, uint32_t mode, const Caller& caller) = 0;
  virtual Result<Entry> mkdir(Inode& parent, std::string_view name, uint32_t mode,
                              const Caller& caller) = 0;
  virtual Result<Entry> symlink(Inode& parent, std::string_view name, std::string_view target,
                                const Caller& caller) = 0;
  virtual Result<std::string> readlink(Inode& inode) = 0;
  /// Another name for a file that is no directory.
  virtual Result<Entry> link(Inode& inode, Inode& parent, std::string_view name) = 0;
  virtual Result<void> unlink(Inode& parent, std::string_view name) = 0;
  virtual Result<void> rmdir(Inode& parent, std::string_view name) = 0;
  virtual Result<void> rename(Inode& from_parent, std::string_view from, Inode& to_parent,
                              std::string_view to, RenameFlags flags) = 0;
  /// Entries with a cookie > `after`, in cookie order, "." and ".." included (cookies 1 and 2),
  /// until `emit` returns false.  Cookies are stable for the entry's life.
  virtual Result<void> readdir(Inode& directory, uint64_t after,
                               const std::function<bool(const DirectoryEntry&)>& emit) = 0;
  /// The same with a lookup of each entry (but "." and ".."): `emit` takes over the lookup count;
  /// if it returns false that entry was not taken.
  virtual Result<void> readdirplus(
      Inode& directory, uint64_t after,
      const std::function<bool(const DirectoryEntry&, const Entry&)>& emit) = 0;

  // ---- attributes and data
  virtual Result<Attributes> getattr(Inode& inode) = 0;
  virtual Result<Attributes> setattr(Inode& inode, const SetAttributes& set,
                                     const Caller& caller) = 0;
  /// Keeps the file alive, if unlinked, until release_file() with the same `what`.
  /// `drop_privileges`, here and below: see SetAttributes; for those who may not keep them.
  virtual Result<void> open_file(Inode& inode, OpenFor what, bool truncate,
                                 bool drop_privileges = false) = 0;
  virtual void release_file(Inode& inode, OpenFor what) = 0;
  virtual Result<size_t> read(Inode& inode, uint64_t offset, std::span<char> out) = 0;
  virtual Result<size_t> write(Inode& inode, uint64_t offset, std::string_view data,
                               bool drop_privileges = false) = 0;
  /// Copies up to `length` bytes that the source has, shares what it can; perhaps fewer than asked.
  /// The ranges do not overlap.
  virtual Result<size_t> copy_data(Inode& from, uint64_t from_offset, Inode& to,
                                   uint64_t to_offset, uint64_t length) = 0;
  virtual Result<uint64_t> seek_data(Inode& inode, uint64_t offset, bool hole) = 0;
  virtual Result<void> fallocate(Inode& inode, uint32_t mode, uint64_t offset, uint64_t length) = 0;

  // ---- extended attributes: user., trusted., security. and POSIX ACLs

  /// Fails: xattr_absent, xattr_unsupported.
  virtual Result<std::string> get_xattr(Inode& inode, std::string_view name) = 0;
  /// All names that `caller` may see, each followed by NUL.
  virtual Result<std::string> list_xattrs(Inode& inode, const Caller& caller) = 0;
  /// Fails: exists, xattr_absent, xattr_unsupported, xattr_too_large, xattr_no_space.
  virtual Result<void> set_xattr(Inode& inode, std::string_view name, std::string_view value,
                                 const XattrFlags& flags) = 0;
  virtual Result<void> remove_xattr(Inode& inode, std::string_view name) = 0;

  virtual Result<StatFs> statfs() = 0;
  virtual Result<void> sync() = 0;
  /// As sync(), in a checkpoint: figures of space are those of everything so far.
  virtual Result<void> checkpoint() = 0;

  // ---- clone and removal (contract: docs/clone.md)

  /// Inodes at or below `source` that are open for mapping: their dirty pages must be written back
  /// before clone().
  virtual std::vector<uint64_t> writers_below(Inode& source) = 0;   ///< node ids (Inode pointers)
  /// Clones `source` to `name` in `parent`.  Checks contract 10 for `caller`.
  virtual Result<Entry> clone(Inode& source, Inode& parent, std::string_view name,
                              const Caller& caller) = 0;
  /// Removes a whole tree, or a file, at once.  Checks contract 12.  Returns the node ids (Inode
  /// pointers) of files in core that had names in it and have others, or are open: their link
  /// counts are others now.
  virtual Result<std::vector<uint64_t>> remove_tree(Inode& parent, std::string_view name,
                                                    const Caller& caller) = 0;
  /// True if the two still share all their content, without reading it.
  virtual Result<bool> same(Inode& a, Inode& b) = 0;
};

}  // namespace caw
