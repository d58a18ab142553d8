// Control: what a mounted volume does beyond POSIX (include/caw/ioctl.h), without libfuse.
//
// The clone protocol: (1) pages that the kernel holds dirty for open files below the source are
// written back, without locks; (2) FileSystem::clone, one instant; (3) the kernel's idea of the new
// name and of its directory is dropped.  Only then does the caller hear of it.  Steps 1 and 3 wait
// for other requests to be answered, so whoever calls must leave threads for those.
//
// All methods may be called from any thread, without locks held.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string_view>

#include "base/error.h"
#include "caw/ioctl.h"
#include "fs/file_system.h"
#include "fuse/token_table.h"

namespace caw {

/// What the kernel remembers of this file system, as far as we can reach it.  Nodes are node ids of
/// the FUSE protocol.  What the kernel does not know is not an error.
class KernelCaches {
 public:
  virtual ~KernelCaches() = default;
  /// The next use of the name asks the file system again.
  virtual void expire_entry(uint64_t parent, std::string_view name) = 0;
  /// Writes back the pages dirtied through mmap, waits for that, then drops pages, listing and
  /// attributes.
  virtual void invalidate_node(uint64_t node) = 0;
};

/// Node ids: the root's is fixed by the protocol, others are Inode pointers.
inline constexpr uint64_t kRootNode = 1;
inline uint64_t node_of(FileSystem& fs, Inode& inode) {
  return &inode == fs.root() ? kRootNode : reinterpret_cast<uint64_t>(&inode);
}
inline Inode& inode_of(FileSystem& fs, uint64_t node) {
  return node == kRootNode ? *fs.root() : *reinterpret_cast<Inode*>(node);
}

class Control {
 public:
  /// `fill_info` gives the members of caw_info that the volume knows.
  Control(FileSystem& fs, KernelCaches& caches, std::function<void(caw_info&)> fill_info);

  Result<caw_token> token(Inode& inode);
  /// Sets request.ino.
  Result<void> clone(Inode& parent, caw_clone& request, const Caller& caller);
  Result<void> remove_tree(Inode& parent, const caw_remove& request, const Caller& caller);
  /// Sets request.same.
  Result<void> same(Inode& inode, caw_same& request);
  Result<void> sync() { return fs_.sync(); }
  Result<void> checkpoint() { return fs_.checkpoint(); }
  caw_info info() const;

  /// The kernel forgets `inode`.
  void forget(Inode& inode, uint64_t lookups);
  void expire_tokens() { tokens_.expire(TokenTable::Clock::now()); }
  bool has_tokens() const { return tokens_.size() != 0; }

 private:
  Result<TokenTable::Pin> resolve(const caw_token& token);
  void flush_writers(Inode& inode);

  FileSystem& fs_;
  KernelCaches& caches_;
  const std::function<void(caw_info&)> fill_info_;
  TokenTable tokens_;
  std::atomic<uint64_t> clones_{0};
  std::atomic<uint64_t> flushed_writers_{0};
};

/// 1 to 255 bytes without '/', neither "." nor "..".  Fails: not_found (empty), exists ("." and
/// ".."), name_too_long, invalid_argument.
Result<void> check_new_name(std::string_view name);

}  // namespace caw
