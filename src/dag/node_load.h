// NodeLoad: what is pending in an interior node, run by run and edge by edge.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "dag/merge.h"
#include "store/node_store.h"

namespace caw {

/// One run of a node, the embedded one included, with its block at hand.
struct LoadedRun {
  RunRef ref;  ///< for the embedded run: run = kNoNode
  ImageRef holder;
  const SortedBlock* block = nullptr;
};

/// Bytes of runs that are taken into memory together; a hundred times what writers leave pending.
inline constexpr uint64_t kMaxPendingBytes = 128U << 20;

/// The runs of `image` with a position from `oldest` to `newest`, newest first; by default all.
/// Reads them.  Fails: interior_malformed where they are more than kMaxPendingBytes.
Result<std::vector<LoadedRun>> load_runs(NodeStore& store, const Ref<const InteriorImage>& image,
                                         uint64_t oldest = 0, uint64_t newest = UINT64_MAX);

/// Upper bound of edge `index`.
std::string_view edge_end(const Interior& node, size_t index);

/// True if the run is pending for some edge.
bool run_is_live(const Interior& node, const RunRef& run);

/// Layers of the messages pending for edge `index`, newest first, in the node's coordinates.
std::vector<Layer> pending_layers(const Interior& node, const std::vector<LoadedRun>& runs,
                                  size_t index);

/// Layers of everything pending in `runs` (a subset, newest first): each run clipped to the ranges
/// of the edges it is still live for.
std::vector<Layer> live_layers(const Interior& node, const std::vector<LoadedRun>& runs);

struct EdgeLoad {
  uint64_t weight = 0;  ///< α rule: larger of message bytes and bytes made dead
  uint64_t bytes = 0;
};

/// Pending weight of each edge; `per_run[r][e]` of each run.
struct NodeLoad {
  std::vector<EdgeLoad> edges;
  std::vector<std::vector<uint64_t>> per_run;
  uint64_t weight = 0;
  uint64_t bytes = 0;
};
NodeLoad measure_load(const Interior& node, const std::vector<LoadedRun>& runs);

/// Weight of a whole block.
uint64_t block_weight(const SortedBlock& block);

/// A reference to a run in the node's own coordinates, with bounds as tight as its messages allow.
RunRef run_ref(NodeId id, uint64_t pos, const BlockImage& image);
/// Puts `run` among the node's runs, in its place by position.
void insert_run(Interior& node, RunRef run);

/// True if range erases of `layers` alone leave nothing of [lo, hi) from older layers.
bool covers_wholly(const std::vector<Layer>& layers, std::string_view lo, std::string_view hi);

}  // namespace caw
