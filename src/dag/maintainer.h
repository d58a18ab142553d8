// Maintainer: keeps one tree in shape: absorbs sealed runs, merges runs, flushes, splits.
//
// Copy-on-abundant-write: a shared child is copied only for weight >= max(α·c, floor); eligibility
// permits, pressure (pending weight above B) triggers, and the best weight per byte goes first.
// Every step is computed off the gate on immutable images and published in one go under the shared
// gate, children before parents; a step whose path was shared meanwhile is dropped and done again.
//
// Threads: the caller holds core.maintenance.
#pragma once

#include <span>
#include <string>
#include <utility>
#include <vector>

#include "dag/fold.h"
#include "dag/node_load.h"
#include "dag/slim.h"
#include "dag/tree_core.h"

namespace caw {

class Maintainer {
 public:
  /// `generation` is raised whenever a value stops referring to its blob: a batch that was prepared
  /// from what was read before must not put that blob again.
  Maintainer(NodeStore& store, const TreeShape& shape, TreeCore& core,
             std::atomic<uint64_t>& generation)
      : store_(store), shape_(shape), core_(core), generation_(generation) {}

  /// Moves sealed runs attached in epochs <= `through` into the root.
  Result<void> absorb(Epoch through);
  /// Merges, flushes and splits until no node that was touched is over its capacity.
  Result<void> settle();
  /// Absorbs all sealed runs and merges small runs of the root; flushes nothing.
  Result<void> gather();
  /// Replaces nodes that hold more than the tree's bounds show where that keeps other trees alive.
  Result<void> slim(SlimCache& cache);
  /// True if settle() stopped early because an operation waits for the tree: do it again.
  bool interrupted() const { return interrupted_; }
  /// Memtable bytes absorbed so far.
  uint64_t absorbed_bytes() const { return absorbed_bytes_; }

 private:
  /// A private interior node on the way from the root, and how its parent reaches it.
  struct PathNode {
    NodeId id = kNoNode;
    Ref<const InteriorImage> image;
  };
  /// What one step changes.
  struct Change {
    std::vector<std::pair<NodeId, ImageRef>> nodes;  ///< new or replaced, children first
    std::vector<ImageRef> retained;                  ///< their references count once more
    std::vector<ImageRef> released;                  ///< their references count once less
    std::vector<std::pair<NodeId, int>> counts;
    ValueFolder* folder = nullptr;
    NodeId in_place = kNoNode;  ///< a child changed under its own id
    /// Of `counts`: must still be there, and as it was.
    std::vector<std::pair<NodeId, ImageRef>> shared;
  };
  /// A leaf or run just built.
  struct Built {
    std::string lo;
    Ref<const BlockImage> image;
    NodeId id = kNoNode;
  };
  struct Record {
    std::string key;
    MessageKind kind;
    std::string body;
  };

  // absorb.cc
  void absorb_whole(Interior root, const FrozenRef& frozen, const BlockImage& block);
  Result<void> absorb_oldest(std::span<const FrozenRef> oldest);
  void publish_absorbed(Interior root, const Change& change, std::span<const FrozenRef> absorbed);
  void set_root(const Ref<const InteriorImage>& root, size_t absorbed);

  // maintainer.cc
  Result<void> settle_node(std::vector<PathNode>& path);
  Result<bool> relieve(std::vector<PathNode>& path);
  void apply_change(const Change& change, Epoch epoch);
  bool now_too_wide(const std::vector<PathNode>& path) const;
  Result<bool> publish(std::vector<PathNode>& path, Interior node, Change& change);
  Result<void> check_sole(const std::vector<PathNode>& path);
  Result<bool> path_is_private(const std::vector<PathNode>& path);
  Result<std::vector<size_t>> eligible_edges(const Interior& node, const NodeLoad& load);
  Result<bool> merge_runs(std::vector<PathNode>& path);
  size_t tier_from(const std::vector<RunRef>& runs, size_t first) const;
  Result<bool> merge_newest(std::vector<PathNode>& path, size_t first, size_t count);
  Result<bool> compact_runs(std::vector<PathNode>& path);

  // flush.cc
  Result<bool> flush_edge(std::vector<PathNode>& path, const std::vector<LoadedRun>& runs,
                          NodeLoad& load, size_t measured, size_t index);
  Result<bool> flush_to_leaf(std::vector<PathNode>& path, const std::vector<LoadedRun>& runs,
                             NodeLoad& load, size_t measured, size_t index, ImageRef leaf);
  Result<bool> flush_to_interior(std::vector<PathNode>& path, const std::vector<LoadedRun>& runs,
                                 NodeLoad& load, size_t measured, size_t index,
                                 const Ref<const InteriorImage>& child);
  Result<std::vector<Record>> collect(std::vector<Layer> layers, bool complete, ValueFolder& folder,
                                      std::vector<RangeErase>* ranges);
  std::vector<Built> build_blocks(NodeKind kind, const std::vector<Record>& records,
                                  const std::vector<RangeErase>& ranges, std::string_view lo,
                                  uint32_t target_bytes, Seq max_seq);
  Result<void> finish_flush(Interior& node, const std::vector<LoadedRun>& runs, NodeLoad& load,
                            size_t measured, Change& change);
  static Result<void> trim_inline(Interior& node, const LoadedRun& run, Change& change);
  static void drop_dead_runs(Interior& node, Change& change);

  // slim.cc
  struct Slimming;
  struct Replacement {
    Slimmed outcome;
    bool is_new = false;  ///< a copy made in this step
  };
  Result<bool> slim_interior(Slimming& slimming, Interior& node, bool counted);
  Result<Replacement> slim_child(Slimming& slimming, NodeId id, const std::string& lo,
                                 const std::string& hi, Height above);
  Replacement slim_block(Slimming& slimming, NodeId id, const BlockImage& image,
                         std::string_view lo, std::string_view hi);
  Result<Replacement> slim_interior_child(Slimming& slimming, NodeId id, const Interior& node,
                                          const std::string& lo, const std::string& hi);

  // split.cc
  Result<bool> split_root(std::vector<PathNode>& path);
  Result<bool> split_child(std::vector<PathNode>& path, size_t index,
                           const Ref<const InteriorImage>& child);
  Result<bool> bundle_low_children(std::vector<PathNode>& path);
  std::vector<Interior> split_parts(const Interior& node) const;
  Result<bool> tidy_child(std::vector<PathNode>& path, NodeId child_id);

  NodeStore& store_;
  const TreeShape& shape_;
  TreeCore& core_;
  std::atomic<uint64_t>& generation_;
  uint64_t absorbed_bytes_ = 0;
  bool interrupted_ = false;
};

}  // namespace caw
