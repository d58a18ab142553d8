// Findings: what is wrong with a volume, as a list that a hostile volume cannot make long.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace caw {

struct Finding {
  Code code = Code::check_found;
  uint64_t where = 0;  ///< node id, block address, region …: what `text` says
  std::string text;
};

class Findings {
 public:
  explicit Findings(size_t limit) : limit_(limit) {}

  /// Counts it; keeps it if there is room.
  void add(Code code, uint64_t where, std::string text) {
    ++count_;
    if (list_.size() < limit_) list_.push_back({code, where, std::move(text)});
  }
  void add(const Error& error, uint64_t where, std::string text) {
    add(error.code, where, text + ": " + error.to_string());
  }
  uint64_t count() const { return count_; }
  std::vector<Finding> take() { return std::move(list_); }

 private:
  size_t limit_;
  uint64_t count_ = 0;
  std::vector<Finding> list_;
};

}  // namespace caw
