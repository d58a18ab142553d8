// Interior nodes: a skeleton of edges and references to runs.  Pure; no I/O.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"

namespace caw {

/// Going down: strip `strip` from the front of a key, prepend `prepend`.  Coming up: the reverse.
/// Bounds of an edge are in the coordinates of the node that holds the edge: clip first, then
/// translate.  Bounds may be wider than `strip`: keys that do not start with it are not below the
/// edge.
struct Translation {
  std::string strip;
  std::string prepend;
  bool is_identity() const { return strip.empty() && prepend.empty(); }
  friend bool operator==(const Translation&, const Translation&) = default;
};

/// One child.  Its range is [lo, lo of the next edge), the last one's [lo, Interior::hi).
struct Edge {
  std::string lo;
  NodeId child = kNoNode;       ///< kNoNode: nothing there yet
  Translation translation;
  uint64_t applied_pos = 0;     ///< runs with pos <= this have been flushed to the child
  uint32_t child_bytes = 0;     ///< size of the child's payload when last written, a hint
  Height child_height = 0;
  Seq max_seq = 0;
  friend bool operator==(const Edge&, const Edge&) = default;
};

/// One run of pending messages, clipped to [lo, hi) in this node's coordinates, then translated.
struct RunRef {
  NodeId run = kNoNode;
  std::string lo;
  std::string hi;
  Translation translation;
  uint64_t pos = 0;             ///< order among the node's runs; larger is newer
  uint32_t bytes = 0;           ///< payload bytes of the whole run
  uint64_t weight = 0;          ///< α-rule weight of the whole run
  Seq max_seq = 0;
  friend bool operator==(const RunRef&, const RunRef&) = default;
};

/// Edges tile [lo of the first, hi); runs are sorted newest first.  One run may be embedded: its
/// block stands in `inline_block`, its place in the order is `inline_pos`.
struct Interior {
  Height height = 1;
  std::string hi{"\xff"};
  uint64_t next_pos = 1;
  std::vector<Edge> edges;
  std::vector<RunRef> runs;
  std::string inline_block;     ///< a SortedBlock, or empty
  uint64_t inline_pos = 0;
  Seq max_seq = 0;
  friend bool operator==(const Interior&, const Interior&) = default;
};

/// What a node may hold; writers stay far below, readers take no more.  Keys that share their
/// fronts can be a thousand times as large in memory as on the device, hence the last one.
inline constexpr size_t kMaxEdges = 16'384;
inline constexpr size_t kMaxRuns = 4'096;
inline constexpr uint64_t kMaxInteriorMemoryBytes = 32U << 20;
/// Fails: interior_malformed.
Result<void> check_limits(const Interior& node);

std::string encode_interior(const Interior& node);
/// Checks everything: order of edges and positions, bounds, heights, the inline block.
/// Fails: interior_malformed and SortedBlock's.
Result<Interior> decode_interior(std::string_view payload);

}  // namespace caw
