// Reclaim: finds what nobody refers to any more, and gives back what it held.
//
// Judging.  A count of zero is final: only existing references are copied.  But in the middle of an
// operation a count may pass through zero, so candidates are judged under the exclusive gate, where
// no operation is under way; what that needs from the node table is read before.
//
// Dropping.  Everything a node's end changes (its references' counts, its entry, its extent)
// happens under one hold of the shared gate, so in one epoch.  A node whose image a checkpoint is
// just writing has to wait for it, since its extent is changing.
#include <utility>

#include "store/store_impl.h"

namespace caw {
namespace {

constexpr size_t kDeadBatch = 4096;
constexpr size_t kNodesJudged = 256;    ///< under one hold of the exclusive gate: microseconds
constexpr size_t kBlobsJudged = 256;

}  // namespace

Result<void> NodeStoreImpl::load_dead() {
  const std::scoped_lock lock(reclaim_mutex_);
  return load_dead_batch();
}

Result<void> NodeStoreImpl::load_dead_batch() {
  size_t read = 0;
  CAW_TRY(meta_->scan(MetaSpace::dead_node, dead_scan_from_,
                      [&](uint64_t id, std::string_view /*value*/) {
                        dead_.add(NodeId{id});
                        dead_scan_from_ = id + 1;
                        return ++read < kDeadBatch;
                      }));
  if (read < kDeadBatch) dead_scanned_ = true;
  return {};
}

bool NodeStoreImpl::has_dead() const {
  const Epoch epoch = open_epoch();
  return !dead_.queue_empty() || !dead_scanned_ || node_counts_.has_candidates(epoch) ||
         blob_counts_.has_candidates(epoch);
}

Result<uint64_t> NodeStoreImpl::reclaim(uint64_t max_nodes) {
  if (options_.read_only) return 0;
  const std::scoped_lock lock(reclaim_mutex_);
  std::vector<NodeId> postponed;
  uint64_t dropped = 0;
  Result<void> result;
  while (dropped < max_nodes && result) {
    result = check_writable();
    if (!result) break;
    if (dead_.queue_empty()) {
      const Result<bool> judged = judge_candidates();
      if (judged && dead_.queue_empty() && !dead_scanned_) result = load_dead_batch();
      if (!judged) result = std::unexpected<Error>(judged.error());
      if (result && dead_.queue_empty() && !*judged) break;
      continue;
    }
    const std::optional<NodeId> id = dead_.claim_next();
    if (!id) continue;
    const Result<Drop> drop = drop_dead(*id);
    if (!drop) {
      // It stays claimed: nobody tries again before the next mount, the stored list keeps it.
      result = std::unexpected<Error>(drop.error());
    } else if (*drop == Drop::postponed) {
      postponed.push_back(*id);
    } else {
      dead_.remove(*id);
      if (*drop == Drop::done) ++dropped;
    }
  }
  for (const NodeId id : postponed) dead_.release(id);
  if (!result) return std::unexpected<Error>(result.error());
  return dropped;
}

/// False: there was nothing to judge.
Result<bool> NodeStoreImpl::judge_candidates() {
  // Until the sealing set is closed, the checkpointer may still add to the epoch before.
  if (sealing_epoch_ != 0 && !sealing_closed_) return false;
  const Epoch epoch = open_epoch();
  const std::vector<uint64_t> nodes = node_counts_.take_candidates(epoch, kNodesJudged);
  const std::vector<uint64_t> blobs = blob_counts_.take_candidates(epoch, kBlobsJudged);
  if (nodes.empty() && blobs.empty()) return false;
  const Result<void> judged = judge(nodes, blobs, epoch);
  if (!judged) return std::unexpected<Error>(judged.error());
  return true;
}

Result<void> NodeStoreImpl::judge(const std::vector<uint64_t>& nodes,
                                  const std::vector<uint64_t>& blobs, Epoch epoch) {
  const uint64_t node_generation = node_counts_.generation();
  const uint64_t blob_generation = blob_counts_.generation();
  std::vector<int64_t> node_bases;
  std::vector<int64_t> blob_bases;
  for (const uint64_t id : nodes) node_bases.push_back(CAW_TRY(node_counts_.base(id)));
  for (const uint64_t id : blobs) blob_bases.push_back(CAW_TRY(blob_counts_.base(id)));
  std::vector<uint64_t> free_blobs;
  uint64_t underflow = 0;
  {
    const Gate::Exclusive exclusive(gate_);
    if (open_epoch() != epoch) return {};   // a checkpoint was cut: it judges them itself
    if (node_counts_.generation() != node_generation ||
        blob_counts_.generation() != blob_generation) {
      node_counts_.return_candidates(nodes, epoch);
      blob_counts_.return_candidates(blobs, epoch);
      return {};
    }
    for (size_t i = 0; i < nodes.size(); ++i) {
      const int64_t count = node_counts_.count_over(node_bases[i], nodes[i]);
      if (count == 0) dead_.add(NodeId{nodes[i]});
      if (count < 0) underflow = nodes[i];
    }
    for (size_t i = 0; i < blobs.size(); ++i) {
      const int64_t count = blob_counts_.count_over(blob_bases[i], blobs[i]);
      if (count == 0) free_blobs.push_back(blobs[i]);
      if (count < 0) underflow = blobs[i];
    }
  }
  if (underflow != 0) return fail(Code::count_underflow, underflow, "reclaim");
  if (free_blobs.empty()) return {};
  const Gate::Shared shared(gate_);
  if (open_epoch() != epoch) return {};
  for (const uint64_t addr : free_blobs) {
    uint64_t blocks = 0;
    if (blob_counts_.mark_freed(addr, epoch, &blocks)) free_blob(BlockAddr{addr}, blocks, epoch);
  }
  return {};
}

Result<NodeStoreImpl::Drop> NodeStoreImpl::drop_dead(NodeId id) {
  while (true) {
    const std::optional<Drop> drop = CAW_TRY(try_drop_dead(id));
    if (drop) return *drop;
  }
}

/// Nothing: a checkpoint changed the node table meanwhile; try again.
Result<std::optional<NodeStoreImpl::Drop>> NodeStoreImpl::try_drop_dead(NodeId id) {
  const auto must_wait = [this](const ImageCache::State& state) {
    return state.has_sealing || (state.dirty != 0 && state.dirty != open_epoch());
  };
  // Asked first: what the image is taken from then on may not change any more.
  if (may_drop_ && !may_drop_(id)) return Drop::postponed;
  const uint64_t generation = node_counts_.generation();
  ImageCache::State state = images_.state(id);
  if (state.dropped) return Drop::gone;
  if (must_wait(state)) return Drop::postponed;
  const std::optional<NodeEntry> entry = CAW_TRY(find_entry(id));
  ImageRef image = state.image;
  if (!image) {
    if (!entry) return Drop::gone;
    if (entry->must_read_to_drop()) image = CAW_TRY(get(id));
  }
  const Gate::Shared shared(gate_);
  if (node_counts_.generation() != generation) return std::nullopt;
  state = images_.state(id);
  if (state.dropped) return Drop::gone;
  if (must_wait(state)) return Drop::postponed;
  if (state.image && state.image != image) return std::nullopt;
  drop_node(id, image.get(), entry ? &*entry : nullptr, open_epoch());
  return Drop::done;
}

void NodeStoreImpl::drop_node(NodeId id, const Image* image, const NodeEntry* entry, Epoch epoch) {
  if (!images_.drop(id, epoch)) {
    mark_failed({Code::count_underflow, 0, raw(id), "a node dropped in use"});
    return;
  }
  if (image != nullptr) add_image_refs(*image, -1, epoch);
  if (entry != nullptr) allocator_->free(entry->extent(), epoch);
}

}  // namespace caw
