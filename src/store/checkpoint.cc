// Writing a checkpoint: settle the counts, write the images, change the node table, then the
// bitmaps, then the superblock.  Until the table's batch is applied nothing is decided, so want of
// space up to there only puts the sealing set back into the open epoch.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/bytes.h"
#include "store/store_impl.h"

namespace caw {
namespace {

constexpr uint64_t kGroupBytes = 4U << 20;     ///< raw payload sealed and written in one piece

/// Nodes smaller than this on average are copied together: one request instead of a thousand.
constexpr uint64_t kJoinBelowBytes = 48U << 10;

bool is_want_of_space(Code code) { return code == Code::no_space || code == Code::device_full; }

std::string payload_of(const Image& image) {
  if (image.kind() == NodeKind::interior) {
    return encode_interior(static_cast<const InteriorImage&>(image).node());
  }
  return static_cast<const BlockImage&>(image).bytes();
}

Height height_of(const Image& image) {
  if (image.kind() != NodeKind::interior) return 0;
  return static_cast<const InteriorImage&>(image).node().height;
}

}  // namespace

class CheckpointWriter {
 public:
  CheckpointWriter(NodeStoreImpl& store, Epoch epoch) : store_(store), epoch_(epoch) {}

  /// Everything before the point of no return.  On failure nothing is left behind but what settle
  /// dropped and freed in this epoch, which holds in any later epoch too.
  Result<void> prepare();
  /// The table has changed; now make it durable.
  Result<void> finish(Seq seq, bool clean, uint64_t log_position);

 private:
  struct Sealed {
    NodeId id = kNoNode;
    NodeEntry entry;
    AlignedBuffer bytes;
  };

  Result<void> settle_nodes();
  Result<void> settle_blobs();
  Result<void> drop_unwritten(NodeId id);
  Result<void> write_images();
  Result<void> write_group(std::vector<Sealed>& group);
  Result<void> reserve_group(std::vector<Sealed>& group);
  Result<Sealed> seal(NodeId id, const Image& image) const;
  Result<void> list_changes();
  Result<void> list_node_counts();
  Result<void> list_blob_counts();
  void list_count(MetaSpace space, const CountTable::Settled& settled);
  void put(MetaSpace space, uint64_t id, std::string value) {
    changes_.push_back({MetaKey{space, id}, std::move(value)});
  }
  void erase(MetaSpace space, uint64_t id) {
    changes_.push_back({MetaKey{space, id}, std::nullopt});
  }

  NodeStoreImpl& store_;
  const Epoch epoch_;
  std::vector<Extent> reserved_;            ///< of this checkpoint, not yet committed
  std::vector<Extent> replaced_;            ///< of the copies before
  std::vector<NodeId> written_;             ///< sorted
  std::vector<NodeId> newly_dead_;
  std::vector<MetaChange> changes_;
};

Result<void> CheckpointWriter::prepare() {
  const auto attempt = [this]() -> Result<void> {
    CAW_TRY(settle_nodes());
    CAW_TRY(settle_blobs());
    CAW_TRY(write_images());
    CAW_TRY(list_changes());
    store_.node_counts_.bump();
    store_.blob_counts_.bump();
    return store_.meta_->apply(changes_, epoch_);
  };
  const Result<void> result = attempt();
  if (!result) {
    for (const Extent& extent : reserved_) store_.allocator_->cancel(extent);
    return result;
  }
  store_.node_counts_.bump();
  store_.blob_counts_.bump();
  for (const Extent& extent : reserved_) store_.allocator_->commit(extent, epoch_);
  for (const Extent& extent : replaced_) store_.allocator_->free(extent, epoch_);
  return {};
}

/// Fixes the counts, and drops what was never worth writing: a run merged away, a tree made and
/// removed between two checkpoints.
Result<void> CheckpointWriter::settle_nodes() {
  CountTable& counts = store_.node_counts_;
  std::vector<uint64_t> work = counts.changed(epoch_, /*sunk_only=*/true);
  while (!work.empty()) {
    for (const uint64_t id : work) {
      const CountTable::Settled settled = CAW_TRY(counts.settle(id, epoch_));
      if (settled.count == 0) CAW_TRY(drop_unwritten(NodeId{id}));
    }
    work = counts.take_candidates(epoch_, SIZE_MAX);
  }
  for (const uint64_t id : counts.changed(epoch_, false)) {
    const CountTable::Settled settled = CAW_TRY(counts.settle(id, epoch_));
    if (settled.count < 0) return fail(Code::count_underflow, id, "checkpoint: node");
  }
  return {};
}

Result<void> CheckpointWriter::drop_unwritten(NodeId id) {
  if (store_.may_drop_ && !store_.may_drop_(id)) return {};
  const ImageCache::State state = store_.images_.state(id);
  if (state.dropped || state.has_sealing || state.dirty != epoch_) return {};
  if (!store_.dead_.claim(id)) return {};
  const std::optional<NodeEntry> entry = CAW_TRY(store_.find_entry(id));
  store_.drop_node(id, state.image.get(), entry ? &*entry : nullptr, epoch_);
  store_.dead_.remove(id);
  return {};
}

Result<void> CheckpointWriter::settle_blobs() {
  CountTable& counts = store_.blob_counts_;
  for (const uint64_t addr : counts.changed(epoch_, false)) {
    const CountTable::Settled settled = CAW_TRY(counts.settle(addr, epoch_));
    if (settled.count < 0) return fail(Code::count_underflow, addr, "checkpoint: blob");
    if (settled.count > 0) continue;
    uint64_t blocks = 0;
    if (!counts.mark_freed(addr, epoch_, &blocks)) continue;
    store_.free_blob(BlockAddr{addr}, blocks, epoch_);
  }
  return {};
}

/// Fails for what no reader would take: it grew out of damage.
Result<CheckpointWriter::Sealed> CheckpointWriter::seal(NodeId id, const Image& image) const {
  const NodeInfo info{.id = id,
                      .kind = image.kind(),
                      .height = height_of(image),
                      .owns_refs = image.owns_refs(),
                      .birth = epoch_,
                      .max_seq = image.max_seq()};
  if (image.kind() == NodeKind::interior) {
    CAW_TRY(check_limits(static_cast<const InteriorImage&>(image).node()));
  }
  const std::string payload = payload_of(image);
  if (id == kNoNode || payload.size() > kMaxNodePayload) {
    return fail(Code::node_payload, raw(id), "checkpoint: too large");
  }
  SealedNode node = seal_node(info, payload, store_.superblock_.compression);
  NodeEntry entry{.addr = kNoBlock,
                  .stored_bytes = node.stored_bytes,
                  .checksum = node.checksum,
                  .kind = info.kind,
                  .owns_refs = info.owns_refs,
                  .height = info.height,
                  .compression = node.compression,
                  .birth = epoch_,
                  .max_seq = info.max_seq,
                  .owner = 0};
  return Sealed{id, entry, std::move(node.bytes)};
}

/// In id order, so that what was made together lies together.
Result<void> CheckpointWriter::write_images() {
  const std::vector<ImageCache::DirtyImage> images = store_.images_.dirty_images(epoch_);
  std::vector<Sealed> group;
  uint64_t group_bytes = 0;
  for (const ImageCache::DirtyImage& dirty : images) {
    group.push_back(CAW_TRY(seal(dirty.id, *dirty.image)));
    group_bytes += group.back().bytes.size();
    if (group_bytes < kGroupBytes && &dirty != &images.back()) continue;
    CAW_TRY(write_group(group));
    group.clear();
    group_bytes = 0;
  }
  return {};
}

/// One extent for all, else (no such long one left) one for each.
Result<void> CheckpointWriter::reserve_group(std::vector<Sealed>& group) {
  uint64_t blocks = 0;
  for (const Sealed& node : group) blocks += node.entry.extent().blocks;
  const Result<BlockAddr> together =
      store_.allocator_->reserve(blocks, SpaceClass::essential);
  if (!together && !is_want_of_space(together.error().code)) {
    return std::unexpected<Error>(together.error());
  }
  BlockAddr next = together ? *together : kNoBlock;
  for (Sealed& node : group) {
    const uint64_t of_node = node.entry.extent().blocks;
    node.entry.addr =
        together ? next : CAW_TRY(store_.allocator_->reserve(of_node, SpaceClass::essential));
    next = next + of_node;
    reserved_.push_back(node.entry.extent());
  }
  return {};
}

Result<void> CheckpointWriter::write_group(std::vector<Sealed>& group) {
  CAW_TRY(reserve_group(group));
  uint64_t bytes = 0;
  for (const Sealed& node : group) bytes += node.bytes.size();
  const bool contiguous = group.front().entry.addr + bytes / kBlockSize ==
                          group.back().entry.addr + group.back().entry.extent().blocks;
  if (contiguous && bytes < group.size() * kJoinBelowBytes) {
    AlignedBuffer joined(bytes);
    size_t at = 0;
    for (const Sealed& node : group) {
      std::memcpy(joined.data() + at, node.bytes.data(), node.bytes.size());
      at += node.bytes.size();
    }
    CAW_TRY(store_.device_->write(group.front().entry.addr, joined.span()));
  } else {
    std::vector<WriteRequest> requests;
    for (const Sealed& node : group) requests.push_back({node.entry.addr, node.bytes.span()});
    CAW_TRY(store_.device_->write_batch(requests));
  }
  for (const Sealed& node : group) {
    const std::optional<NodeEntry> old = CAW_TRY(store_.find_entry(node.id));
    if (old) replaced_.push_back(old->extent());
    put(MetaSpace::node, raw(node.id), encode_node_entry(node.entry));
    written_.push_back(node.id);
  }
  store_.figures_.node_writes.fetch_add(group.size(), std::memory_order_relaxed);
  store_.figures_.node_write_bytes.fetch_add(bytes, std::memory_order_relaxed);
  return {};
}

Result<void> CheckpointWriter::list_changes() {
  for (const NodeId id : store_.images_.dropped(epoch_)) {
    for (const MetaSpace space : {MetaSpace::node, MetaSpace::dead_node}) {
      if (CAW_TRY(store_.meta_->get({space, raw(id)}))) erase(space, raw(id));
    }
  }
  CAW_TRY(list_node_counts());
  CAW_TRY(list_blob_counts());
  std::ranges::sort(changes_, {}, &MetaChange::key);
  return {};
}

void CheckpointWriter::list_count(MetaSpace space, const CountTable::Settled& settled) {
  if (settled.count == settled.base) return;
  if (settled.count > 1) {
    std::string value;
    put_varint(value, static_cast<uint64_t>(settled.count));
    put(space, settled.id, std::move(value));
  } else if (settled.base > 1) {
    erase(space, settled.id);
  }
}

Result<void> CheckpointWriter::list_node_counts() {
  for (const uint64_t id : store_.node_counts_.changed(epoch_, false)) {
    const CountTable::Settled settled = CAW_TRY(store_.node_counts_.settle(id, epoch_));
    list_count(MetaSpace::node_count, settled);
    if (settled.count > 0) continue;
    const ImageCache::State state = store_.images_.state(NodeId{id});
    if (state.dropped && state.dropped_epoch == epoch_) continue;
    const bool stored = std::ranges::binary_search(written_, NodeId{id}) ||
                        CAW_TRY(store_.find_entry(NodeId{id})).has_value();
    if (!stored) continue;
    put(MetaSpace::dead_node, id, {});
    newly_dead_.push_back(NodeId{id});
  }
  return {};
}

Result<void> CheckpointWriter::list_blob_counts() {
  for (const uint64_t addr : store_.blob_counts_.changed(epoch_, false)) {
    list_count(MetaSpace::blob_count, CAW_TRY(store_.blob_counts_.settle(addr, epoch_)));
  }
  return {};
}

Result<void> CheckpointWriter::finish(Seq seq, bool clean, uint64_t log_position) {
  Superblock next = store_.durable_;
  next.epoch = epoch_;
  next.next_seq = seq;
  next.clean = clean;
  next.log_position = log_position;
  next.log_segments = store_.log_segments_;
  next.meta_root = store_.meta_->root();
  next.meta_height = store_.meta_->height();
  for (size_t i = 0; i < kCounters; ++i) {
    next.counters[i] = store_.next_numbers_[i].load() + number_slack(i);
  }
  CAW_TRY(store_.allocator_->write_checkpoint(epoch_, next));
  CAW_TRY(store_.device_->flush());
  // Never over the newest one: after a checkpoint that found no space, parity of the epoch would
  // name the wrong block.
  const unsigned slot = store_.durable_slot_ ^ 1U;
  const AlignedBuffer block = encode_superblock(next);
  CAW_TRY(store_.device_->write(BlockAddr{slot}, block.span()));
  CAW_TRY(store_.device_->flush());
  store_.durable_slot_ = slot;
  store_.durable_ = next;
  for (size_t i = 0; i < kCounters; ++i) store_.safe_numbers_[i] = next.counters[i];
  store_.images_.finish(epoch_);
  store_.node_counts_.forget(epoch_);
  store_.blob_counts_.forget(epoch_);
  // Last: a block given out again must not meet the counts of what it held before.
  store_.allocator_->release_through(epoch_);
  for (const NodeId id : newly_dead_) store_.dead_.add(id);
  store_.figures_.checkpoints.fetch_add(1, std::memory_order_relaxed);
  return {};
}

Result<void> NodeStoreImpl::make_log(uint64_t blocks) {
  CAW_TRY(check_writable());
  if (log_segments_.front().blocks != 0) return {};
  constexpr uint64_t kLeastBlocks = 16;
  // Not backed by the host ahead of use, as data are; but it does not come out of the reserve.
  const SpaceFigures figures = allocator_->figures();
  if (figures.used_blocks + figures.reserve_blocks + 2 * blocks > figures.total_blocks) return {};
  uint64_t piece = std::min(blocks, kMaxLogSegmentBlocks);
  uint64_t left = blocks;
  for (size_t i = 0; i < kLogSegments && left >= kLeastBlocks;) {
    piece = std::min(piece, left);
    const Result<BlockAddr> first = allocator_->reserve(piece, SpaceClass::essential);
    if (!first) {
      if (!is_want_of_space(first.error().code)) return std::unexpected<Error>(first.error());
      piece /= 2;
      if (piece < kLeastBlocks) break;
      continue;
    }
    allocator_->commit(Extent{*first, piece}, open_epoch());
    log_segments_[i++] = {*first, piece};
    left -= piece;
  }
  return {};
}

/// What the sealing epoch held belongs to the open one from now on.
void NodeStoreImpl::give_up_sealing(Epoch epoch) {
  images_.merge_into_next(epoch);
  node_counts_.merge_into_next(epoch);
  blob_counts_.merge_into_next(epoch);
  sealing_epoch_ = 0;
}

Result<void> NodeStoreImpl::write_checkpoint(Seq seq, bool clean, uint64_t log_position) {
  CAW_TRY(check_writable());
  const Epoch epoch = sealing_epoch_.load();
  CAW_ASSERT(epoch != 0 && !sealing_closed_);
  sealing_closed_ = true;
  CheckpointWriter writer(*this, epoch);
  Result<void> prepared = writer.prepare();
  if (prepared && failed()) prepared = fail(Code::volume_failed, 0, "found while preparing");
  if (!prepared && is_want_of_space(prepared.error().code)) {
    give_up_sealing(epoch);
    return prepared;
  }
  const Result<void> written = prepared ? writer.finish(seq, clean, log_position) : prepared;
  if (!written) {
    mark_failed(written.error());
    return written;
  }
  sealing_epoch_ = 0;
  return {};
}

}  // namespace caw
