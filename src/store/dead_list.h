// DeadList: nodes whose count is zero and that wait to be dropped, each worked on by one at a time.
// All methods may be called from any thread.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>

#include <absl/container/flat_hash_map.h>

#include "base/ids.h"

namespace caw {

class DeadList {
 public:
  /// Nothing if it is there already.
  void add(NodeId id) {
    const std::scoped_lock lock(mutex_);
    if (busy_.try_emplace(id, false).second) queue_.push_back(id);
  }
  /// The oldest that nobody works on; the caller gives it back with release() or remove().
  std::optional<NodeId> claim_next() {
    const std::scoped_lock lock(mutex_);
    while (!queue_.empty()) {
      const NodeId id = queue_.front();
      queue_.pop_front();
      const auto found = busy_.find(id);
      if (found == busy_.end() || found->second) continue;
      found->second = true;
      return id;
    }
    return std::nullopt;
  }
  /// Claims this one, whether it was listed or not; false if somebody works on it.
  bool claim(NodeId id) {
    const std::scoped_lock lock(mutex_);
    const auto [found, added] = busy_.try_emplace(id, true);
    if (added) return true;
    if (found->second) return false;
    found->second = true;
    return true;
  }
  void release(NodeId id) {
    const std::scoped_lock lock(mutex_);
    const auto found = busy_.find(id);
    if (found == busy_.end()) return;
    found->second = false;
    queue_.push_back(id);
  }
  void remove(NodeId id) {
    const std::scoped_lock lock(mutex_);
    busy_.erase(id);
  }
  bool contains(NodeId id) const {
    const std::scoped_lock lock(mutex_);
    return busy_.contains(id);
  }
  bool queue_empty() const {
    const std::scoped_lock lock(mutex_);
    return queue_.empty();
  }
  uint64_t size() const {
    const std::scoped_lock lock(mutex_);
    return busy_.size();
  }

 private:
  mutable std::mutex mutex_;
  absl::flat_hash_map<NodeId, bool> busy_;
  std::deque<NodeId> queue_;
};

}  // namespace caw
