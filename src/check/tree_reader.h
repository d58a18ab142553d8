// TreeReader: a tree's records with all pending messages applied, in key order, read by code of the
// checker's own: the rules of docs/format.md once more, in the plainest form.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "check/tables.h"
#include "dev/block_device.h"
#include "format/interior.h"
#include "format/sorted_block.h"

namespace caw {

class TreeReader {
 public:
  /// Both outlive it.
  TreeReader(BlockDevice& device, const NodeTable& table) : device_(device), table_(table) {}

  /// Calls `visit` for each record.  Holds the blocks of one path in memory.  Fails: node_absent,
  /// node_height, as reading a node does, and as `visit` does.
  using Visit = std::function<Result<void>(std::string_view key, const Value& value)>;
  Result<void> scan(NodeId root, const Visit& visit) { return scan(root, {}, kKeyEnd, visit); }
  /// Only the records in [lo, hi).
  Result<void> scan(NodeId root, std::string_view lo, std::string_view hi, const Visit& visit);

  /// Calls `enter` for each node that a scan reads, with the range of the tree's keys it is read
  /// for.
  using Enter = std::function<void(NodeId node, std::string_view lo, std::string_view hi)>;
  void on_enter(Enter enter) { enter_ = std::move(enter); }

 private:
  /// Part of a tree: the keys [lo, hi), in the tree's coordinates, as a block sees them.
  struct View {
    Translation down;  ///< from the tree's coordinates to the block's
    std::string lo, hi;
  };
  struct Layer {
    std::string bytes;
    SortedBlock block;
    View view;
    uint64_t pos = 0;
  };
  /// A child to visit, or (child none, no layers to merge) the end of a node's layers.
  struct Step {
    NodeId child = kNoNode;
    bool leave = false;
    size_t layers_before = 0;  ///< leave: how many stay
    Height parent_height = 0;
    View view;
    std::vector<const Layer*> newer;  ///< newest first
  };

  Result<OpenedNode> open(NodeId id) const;
  Result<void> enter(const Step& step, const Visit& visit);
  Result<void> enter_interior(const Step& step, const Interior& node);
  Result<void> load_layers(const Step& step, const Interior& node,
                           std::vector<const Layer*>* layers);
  Result<const Layer*> add_layer(std::string bytes, View view, uint64_t pos);
  Result<void> merge(const Step& step, const Layer* leaf, const Visit& visit) const;

  BlockDevice& device_;
  const NodeTable& table_;
  Enter enter_;
  std::vector<std::unique_ptr<Layer>> layers_;
  std::vector<Step> steps_;
};

}  // namespace caw
