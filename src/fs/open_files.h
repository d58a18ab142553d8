// OpenFiles: which inodes are open, and which of them may be mapped and written.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <mutex>

#include "base/assert.h"
#include "fs/inode.h"

namespace caw {

/// All methods from any thread.
class OpenFiles {
 public:
  void add(Inode& inode, bool mappable) {
    std::lock_guard lock(mutex_);
    Count& count = open_[&inode];
    ++count.opens;
    if (mappable) ++count.mappable;
  }
  /// True if that was the last one.
  bool drop(Inode& inode, bool mappable) {
    std::lock_guard lock(mutex_);
    const auto at = open_.find(&inode);
    CAW_ASSERT(at != open_.end() && (!mappable || at->second.mappable > 0));
    if (mappable) --at->second.mappable;
    if (--at->second.opens > 0) return false;
    open_.erase(at);
    return true;
  }
  bool is_open(Inode& inode) const {
    std::lock_guard lock(mutex_);
    return open_.contains(&inode);
  }
  /// Calls `visit` for each, and whether it is open for mapping, until it returns false; it may not
  /// call back.
  template <typename Visit>
  void for_each(const Visit& visit) const {
    std::lock_guard lock(mutex_);
    for (const auto& [inode, count] : open_) {
      if (!visit(*inode, count.mappable > 0)) return;
    }
  }

 private:
  struct Count {
    uint32_t opens = 0, mappable = 0;
  };
  mutable std::mutex mutex_;
  absl::flat_hash_map<Inode*, Count> open_;
};

}  // namespace caw
