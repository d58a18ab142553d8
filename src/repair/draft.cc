#include "repair/draft.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"

namespace caw {

Draft::Draft(BlockDevice& device, const FoundSuperblock& found)
    : device_(&device),
      superblock_(found.superblock),
      layout_(found.superblock.block_count),
      slot_(found.slot),
      epoch_(found.superblock.epoch + 1),
      in_use_(found.superblock.block_count),
      kept_(found.superblock.block_count) {}

Result<Draft> Draft::open(BlockDevice& device, const FoundSuperblock& found) {
  Draft draft(device, found);
  Findings ignored(0);
  draft.regions_ = read_region_table(device, draft.superblock_, ignored);
  draft.table_ = read_node_table(device, draft.superblock_, ignored);
  for (const NodeRow& row : draft.table_.nodes) {
    draft.keep(row.addr, blocks_for(row.stored_bytes));
    draft.note_used(Counter::node_id, raw(row.id));
  }
  for (const BlockAddr page : draft.table_.pages) draft.keep(page, 1);
  for (const LogSegment& segment : draft.superblock_.log_segments) {
    draft.keep(segment.first, segment.blocks);
  }
  draft.read_bitmaps(draft.regions_);
  return draft;
}

/// What the bitmaps call free may be written to.
void Draft::read_bitmaps(const RegionTable& regions) {
  for (uint64_t region = 0; region < layout_.regions; ++region) {
    const uint64_t start = region * kRegionBlocks;
    kept_.mark(start, layout_.fixed_blocks(region));
    const RegionRow& row = regions.rows[region];
    if (!regions.readable[region]) bitmaps_complete_ = false;
    if (!regions.readable[region] || !row.written) continue;
    const Result<AlignedBuffer> bitmap = read_bitmap(*device_, layout_, region, row);
    if (!bitmap) {
      bitmaps_complete_ = false;
      continue;
    }
    for (uint64_t i = 0; i < layout_.region_blocks(region); ++i) {
      if ((bitmap->chars()[i / 8] >> (i % 8) & 1) == 0) continue;
      in_use_.mark(start + i, 1);
      kept_.mark(start + i, 1);
    }
  }
}

NodeRow* Draft::find(NodeId id) {
  const std::optional<size_t> found = table_.find(id);
  return found ? &table_.nodes[*found] : nullptr;
}

uint64_t Draft::draw(Counter counter) {
  return superblock_.counters[static_cast<size_t>(counter)]++;
}

void Draft::note_used(Counter counter, uint64_t number) {
  uint64_t& next = superblock_.counters[static_cast<size_t>(counter)];
  next = std::max(next, number + 1);
}

void Draft::keep(BlockAddr first, uint64_t blocks) {
  for (uint64_t block = raw(first); blocks > 0; ++block, --blocks) {
    if (block >= layout_.block_count) return;
    kept_.mark(block, 1);
  }
}

bool Draft::is_place(BlockAddr first, uint64_t blocks) const {
  const uint64_t region = raw(first) / kRegionBlocks;
  const uint64_t at = raw(first) % kRegionBlocks;
  return region < layout_.regions && at >= layout_.fixed_blocks(region) &&
         at + blocks <= layout_.region_blocks(region);
}

std::optional<uint64_t> Draft::find_free(uint64_t region, uint64_t from, uint64_t blocks) const {
  const uint64_t start = region * kRegionBlocks;
  uint64_t length = 0;
  for (uint64_t i = std::max(from, layout_.fixed_blocks(region)); i < layout_.region_blocks(region);
       ++i) {
    length = kept_.is_set(start + i) ? 0 : length + 1;
    if (length == blocks) return start + i + 1 - blocks;
  }
  return std::nullopt;
}

/// Next fit, through all regions and the first one once more.
Result<BlockAddr> Draft::take(uint64_t blocks) {
  for (uint64_t tried = 0; tried <= layout_.regions; ++tried) {
    if (const auto found = find_free(next_region_, next_block_, blocks)) {
      kept_.mark(*found, blocks);
      next_block_ = *found % kRegionBlocks + blocks;
      CAW_TRY(device_->ensure_backed(BlockAddr{*found}, blocks));
      return BlockAddr{*found};
    }
    next_region_ = (next_region_ + 1) % layout_.regions;
    next_block_ = 0;
  }
  return fail(Code::no_space, blocks, "repair");
}

Result<void> Draft::write_node(NodeInfo info, std::string_view payload) {
  info.birth = epoch_;
  const SealedNode sealed = seal_node(info, payload, superblock_.compression);
  const BlockAddr addr = CAW_TRY(take(blocks_for(sealed.stored_bytes)));
  CAW_TRY(device_->write(addr, sealed.bytes.span()));
  ++changes_;
  NodeRow* row = find(info.id);
  if (row == nullptr) {
    const auto at = std::ranges::lower_bound(table_.nodes, info.id, {}, &NodeRow::id);
    row = &*table_.nodes.insert(at, NodeRow{});
    row->id = info.id;
    note_used(Counter::node_id, raw(info.id));
  }
  row->addr = addr;
  row->checksum = sealed.checksum;
  row->birth = info.birth;
  row->max_seq = info.max_seq;
  row->stored_bytes = sealed.stored_bytes;
  row->kind = info.kind;
  row->height = info.height;
  row->owns_refs = info.owns_refs;
  row->compression = sealed.compression;
  return {};
}

void Draft::add_row(const NodeRow& row) {
  ++changes_;
  table_.nodes.insert(std::ranges::lower_bound(table_.nodes, row.id, {}, &NodeRow::id), row);
  keep(row.addr, blocks_for(row.stored_bytes));
  note_used(Counter::node_id, raw(row.id));
}

void Draft::remove_nodes(const std::vector<NodeId>& sorted) {
  changes_ += sorted.size();
  std::erase_if(table_.nodes, [&](const NodeRow& row) {
    return std::ranges::binary_search(sorted, row.id);
  });
}

Result<BlobRef> Draft::write_blob(std::string_view bytes) {
  SealedBlob sealed = seal_blob(bytes, superblock_.compression);
  sealed.ref.addr = CAW_TRY(take(sealed.ref.blocks()));
  CAW_TRY(device_->write(sealed.ref.addr, sealed.bytes.span()));
  return sealed.ref;
}

Result<BlobRef> Draft::lost_blob(uint32_t raw_bytes) {
  const auto found = lost_blobs_.find(raw_bytes);
  if (found != lost_blobs_.end()) return found->second;
  SealedBlob sealed = seal_lost_blob(raw_bytes);
  sealed.ref.addr = CAW_TRY(take(1));
  CAW_TRY(device_->write(sealed.ref.addr, sealed.bytes.span()));
  lost_blobs_[raw_bytes] = sealed.ref;
  return sealed.ref;
}

bool Draft::is_lost(const BlobRef& blob) const {
  const auto found = lost_blobs_.find(blob.raw_bytes);
  if (found != lost_blobs_.end() && found->second == blob) return true;
  return std::ranges::find(lost_before_, blob) != lost_before_.end();
}

std::vector<BlobRef> Draft::all_lost() const {
  std::vector<BlobRef> out = lost_before_;
  for (const auto& [raw_bytes, blob] : lost_blobs_) out.push_back(blob);
  return out;
}

}  // namespace caw
