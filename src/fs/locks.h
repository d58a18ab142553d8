// Locks of the file-system layer.  Order, outermost first:
//
//   1. inode locks (InodeLocks), all that an operation needs at once, by rising stripe
//   1a. FileSystemImpl::links_mutex_: shared by link, exclusive by clones of directories
//   2. the topology gate (Topology): shared while keys are in use by a mutation, exclusive while
//   the
//      place of an inode or the tree it owns changes
//   3. OpenFiles, shards of InodeTable (two of them by rising index), InodeNumbers, IdPool; each
//      alone
//   4. the lock in Inode::state_
//
// The forest takes its own locks inside; it never calls back.  Reads of the forest hold none of
// these: they note the topology's sequence with the key and look again if it changed meanwhile.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <mutex>

#include "base/assert.h"

namespace caw {

class Inode;

/// One mutex per inode in effect; fewer in fact.
class InodeLocks {
 public:
  static constexpr size_t kStripes = 1024;
  static constexpr size_t kMaxHeld = 4;

  /// Holds the locks of some inodes (null ones and repeated ones are skipped).
  class Held {
   public:
    Held(InodeLocks& locks, std::initializer_list<const Inode*> inodes) : locks_(locks) {
      for (const Inode* inode : inodes) {
        if (inode == nullptr) continue;
        CAW_ASSERT(count_ < kMaxHeld);
        stripes_[count_++] = stripe_of(inode);
      }
      std::sort(stripes_.begin(), stripes_.begin() + count_);
      count_ = static_cast<size_t>(std::unique(stripes_.begin(), stripes_.begin() + count_) -
                                   stripes_.begin());
      for (size_t i = 0; i < count_; ++i) locks_.stripes_[stripes_[i]].lock();
    }
    ~Held() {
      for (size_t i = count_; i-- > 0;) locks_.stripes_[stripes_[i]].unlock();
    }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

   private:
    InodeLocks& locks_;
    std::array<size_t, kMaxHeld> stripes_{};
    size_t count_ = 0;
  };

 private:
  static size_t stripe_of(const Inode* inode) {
    const auto address = reinterpret_cast<uintptr_t>(inode) >> 4;
    return (address * 0x9e3779b97f4a7c15ULL) >> 54;
  }
  static_assert(kStripes == size_t{1} << (64 - 54));
  std::array<std::mutex, kStripes> stripes_;
};

}  // namespace caw
