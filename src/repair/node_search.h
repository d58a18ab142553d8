// NodeSearch: finds nodes on the device that the node table has lost, by what they say of
// themselves.  Their checksums are lost with the table, so only the form of what they hold speaks
// for them.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "check/block_map.h"
#include "repair/draft.h"
#include "repair/notes.h"

namespace caw {

class NodeSearch {
 public:
  /// Both outlive it.
  NodeSearch(Draft& draft, RepairNotes& notes) : draft_(draft), notes_(notes) {}

  /// Reads all blocks that are in use, or, where that is not known, all there are.
  /// Fails: device_read.
  Result<void> run();
  /// What was found, all copies.
  std::vector<NodeRow> rows() const;
  /// Adds the row of the newest copy.  False: none was found.
  bool add(NodeId id);
  /// Adds all others that do not lie in `used`.  Only what the bitmaps say is in use: elsewhere
  /// there are nodes that were given up.  True if there were any.
  bool add_others(const BlockMap& used);

 private:
  void look_at(uint64_t block, std::string_view bytes);
  void add(const NodeRow& row);

  Draft& draft_;
  RepairNotes& notes_;
  std::multimap<NodeId, NodeRow> found_;
};

}  // namespace caw
