// What became of nodes at the borders of clones, so that clones of one source share the outcome.
//
// A clone refers to whole nodes of its source and clips them.  What lies outside stays referred to:
// the trees that such records own would live as long as the clone, and what those hold in turn.  So
// maintenance replaces such nodes, once for each node and bounds, by copies of what lies inside.
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "base/ids.h"

namespace caw {

/// The outcome for one node and bounds.
struct Slimmed {
  NodeId id = kNoNode;  ///< what to refer to: the node itself, a copy, kNoNode = nothing is inside
  uint32_t bytes = 0;   ///< of a copy: size of its payload
  uint64_t weight = 0;  ///< of a copy of a run
  Height height = 0;
  /// Of an interior copy, as it was made: the clone it was made for may change it under its id.
  uint64_t next_pos = 0;
  Seq max_seq = 0;
};

/// Remembers outcomes.  A copy may have been dropped since: whoever takes one makes sure.
/// Threads: one at a time.
class SlimCache {
 public:
  struct Key {
    NodeId node = kNoNode;
    uint64_t next_pos = 0;  ///< of an interior node: it changes under its id, in place, and keeps
    Seq max_seq = 0;        ///< what it shows as long as both stay
    std::string lo;        ///< in the node's own coordinates
    std::string hi;
    friend auto operator<=>(const Key&, const Key&) = default;
  };

  std::optional<Slimmed> find(const Key& key) const {
    const auto at = entries_.find(key);
    return at == entries_.end() ? std::nullopt : std::optional<Slimmed>(at->second);
  }
  void put(Key key, const Slimmed& outcome) {
    if (entries_.size() >= kMostEntries) entries_.clear();
    entries_.insert_or_assign(std::move(key), outcome);
  }
  void clear() { entries_.clear(); }

 private:
  static constexpr size_t kMostEntries = 1024;
  std::map<Key, Slimmed> entries_;
};

}  // namespace caw
