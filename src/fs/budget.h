// Budget: a rate of something that is better not done than done often.
#pragma once

#include <algorithm>
#include <cstdint>
#include <mutex>

namespace caw {

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

}  // namespace caw
