// OpenFiles: which inodes are open, and for writing.
#pragma once

#include <absl/container/flat_hash_set.h>

#include <mutex>
#include <vector>

#include "base/assert.h"
#include "fs/inode.h"

namespace caw {

/// All methods from any thread.
class OpenFiles {
 public:
  void add(Inode& inode, bool for_write) {
    std::lock_guard lock(mutex_);
    if (inode.opens++ == 0) open_.insert(&inode);
    if (for_write) ++inode.writers;
  }
  /// True if that was the last one.
  bool drop(Inode& inode, bool for_write) {
    std::lock_guard lock(mutex_);
    CAW_ASSERT(inode.opens > 0 && (!for_write || inode.writers > 0));
    if (for_write) --inode.writers;
    if (--inode.opens > 0) return false;
    open_.erase(&inode);
    return true;
  }
  bool is_open(const Inode& inode) const {
    std::lock_guard lock(mutex_);
    return inode.opens > 0;
  }
  /// Calls `visit` for each until it returns false; it may not call back.
  template <typename Visit>
  void for_each(const Visit& visit) const {
    std::lock_guard lock(mutex_);
    for (Inode* inode : open_) {
      if (!visit(*inode)) return;
    }
  }

 private:
  mutable std::mutex mutex_;
  absl::flat_hash_set<Inode*> open_;
};

}  // namespace caw
