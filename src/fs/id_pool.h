// Numbers drawn from a counter of the forest, a range at a time.  Any thread.
#pragma once

#include <cstdint>
#include <mutex>

#include "volume/forest.h"

namespace caw {

class IdPool {
 public:
  /// Numbers are at least `floor`.
  IdPool(Forest& forest, Counter counter, uint64_t floor, uint64_t range)
      : forest_(forest), counter_(counter), floor_(floor), range_(range) {}

  uint64_t next() {
    std::lock_guard lock(mutex_);
    if (next_ == end_) {
      next_ = forest_.draw(counter_, range_) + floor_;
      end_ = next_ + range_;
    }
    return next_++;
  }

 private:
  Forest& forest_;
  const Counter counter_;
  const uint64_t floor_;
  const uint64_t range_;
  std::mutex mutex_;
  uint64_t next_ = 0, end_ = 0;
};

}  // namespace caw
