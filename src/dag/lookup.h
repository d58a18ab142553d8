// Reading trees: point lookups, ordered chunks, and whether a record is reached by one path only.
//
// A reader takes the memtable's messages and the view together, then descends immutable images
// without locks.  After taking a child it checks that the image it came from is still current; if
// not, it starts again (A4 in the design notes: a flush publishes the child before the parent).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dag/tree_core.h"

namespace caw {

Result<std::optional<Value>> lookup(NodeStore& store, TreeCore& core, std::string_view key);

struct ScanChunk {
  std::vector<std::pair<std::string, Value>> entries;
  std::string next;  ///< where to go on
  bool end = false;
};
/// The first entries of [from, hi): what one leaf and all messages above it give, at most
/// `max_entries`, possibly none (then go on at `next`).
Result<ScanChunk> scan_chunk(NodeStore& store, TreeCore& core, std::string_view from,
                             std::string_view hi, size_t max_entries);

/// True if the record at `key` lies on a path where every node has one reference, and so has the
/// tree it owns.  Requires: the tree `core` is itself private.
Result<bool> record_is_private(NodeStore& store, TreeCore& core, std::string_view key);

/// Index of the edge whose range holds `key`, clamped to the first and the last.
size_t edge_index(const Interior& node, std::string_view key);

}  // namespace caw
