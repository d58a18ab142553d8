// Notes: what a repair did, one sentence for each thing, in a list that cannot grow without end.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace caw {

class RepairNotes {
 public:
  explicit RepairNotes(size_t limit) : limit_(limit) {}

  /// Counts it; keeps it if there is room.
  void say(std::string sentence) {
    ++count_;
    if (list_.size() < limit_) list_.push_back(std::move(sentence));
  }
  uint64_t count() const { return count_; }
  std::vector<std::string> take() { return std::move(list_); }

 private:
  size_t limit_;
  uint64_t count_ = 0;
  std::vector<std::string> list_;
};

}  // namespace caw
