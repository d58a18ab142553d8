// HostileImage: putting together.
#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "format/log_frame.h"
#include "fuzz/hostile_image.h"
#include "fuzz/seal.h"
#include "log/log_ring.h"
#include "space/region_table.h"

namespace caw {

/// Nothing was edited in it.
bool HostileImage::in_place(const NodeEntry& row) const {
  return raw(row.addr) < next_free_ && row.extent().blocks <= next_free_ - raw(row.addr);
}

/// Into blocks that were free, marked as used.
BlockAddr HostileImage::place(std::string_view bytes) {
  const uint64_t blocks = blocks_for(bytes.size());
  const uint64_t first = next_free_;
  if (first + blocks > image_->block_count()) return kNoBlock;
  AlignedBuffer buffer(bytes.size());
  std::memcpy(buffer.data(), bytes.data(), bytes.size());
  image_->write(BlockAddr{first}, buffer.span());
  set_bits(bits_, static_cast<uint32_t>(first), static_cast<uint32_t>(blocks));
  next_free_ += blocks;
  return BlockAddr{first};
}

void HostileImage::seal_nodes() {
  for (auto& [id, node] : nodes_) {
    if (!node.changed || node.payload.size() > kMaxNodePayload) continue;
    const SealedNode sealed =
        seal_node(node.info, node.payload, found_.superblock.compression);
    const BlockAddr addr = place(sealed.bytes.view());
    if (addr == kNoBlock) continue;
    if (in_place(node.row)) give_back(node.row.addr, node.row.extent().blocks);
    node.row.addr = addr;
    node.row.stored_bytes = sealed.stored_bytes;
    node.row.checksum = sealed.checksum;
    node.row.compression = sealed.compression;
    node.row.birth = node.info.birth;
    node.row.max_seq = node.info.max_seq;
  }
}

/// The records in one frame for each ring turn's worth, from log_position on.
void HostileImage::seal_log() {
  const LogRing ring(found_.superblock.log_segments);
  if (!log_changed_ || ring.blocks() == 0) return;
  std::string all;
  for (const std::string& record : records_) all += record;
  std::string_view rest(all);
  uint64_t position = found_.superblock.log_position;
  for (uint64_t used = 0; !rest.empty() && used < ring.blocks();) {
    const LogRing::Place at = ring.at(position);
    const uint64_t room = std::min(at.blocks, kMaxFrameBlocks);
    const std::string_view part = rest.substr(0, frame_capacity(room));
    const AlignedBuffer frame = encode_frame(
        {found_.superblock.uuid, position, position, 0}, part);
    const uint64_t blocks = frame.size() / kBlockSize;
    if (raw(at.addr) + blocks <= image_->block_count()) image_->write(at.addr, frame.span());
    rest.remove_prefix(part.size());
    position += blocks;
    used += blocks;
  }
}

void HostileImage::seal_table() {
  struct Page {
    MetaKey first{MetaSpace::node, 0};
    MetaPageContent content;
  };
  std::vector<Page> pages;
  const auto room_for = [&](uint8_t level, MetaKey key, size_t bytes) -> Page& {
    if (pages.empty() || pages.back().content.entries.size() + bytes > kMetaCapacityBytes) {
      pages.push_back({key, {level, 0, {}}});
    }
    ++pages.back().content.count;
    return pages.back();
  };
  const auto put = [&](MetaKey key, const std::string& value) {
    Page& page = room_for(0, key, kLeafEntryBytes + value.size());
    append_leaf_entry(page.content.entries, key, value);
  };
  const auto put_count = [&](MetaSpace space, uint64_t id, uint64_t count) {
    std::string value;
    put_varint(value, count);
    put({space, id}, value);
  };
  for (const auto& [id, node] : nodes_) put({MetaSpace::node, id}, encode_node_entry(node.row));
  for (const auto& [id, count] : node_counts_) put_count(MetaSpace::node_count, id, count);
  for (const auto& [id, count] : blob_counts_) put_count(MetaSpace::blob_count, id, count);
  for (const auto& [id, is_dead] : dead_) put({MetaSpace::dead_node, id}, {});
  PageRef root;
  uint8_t level = 0;
  size_t ordinal = 0;
  while (!pages.empty()) {
    const std::vector<Page> below = std::exchange(pages, {});
    ++level;
    for (const Page& page : below) {
      std::string bytes(kBlockSize, '\0');
      encode_meta_page(page.content, BlockAddr{next_free_}, found_.superblock.epoch, bytes.data());
      for (const Patched& patch : page_patches_) {
        if (patch.page % 4 == ordinal % 4) {
          bytes.replace(patch.offset, patch.bytes.size(), patch.bytes);
        }
      }
      ++ordinal;
      root = {place(bytes), checksum64(bytes)};
      append_interior_entry(room_for(level, page.first, kInteriorEntryBytes).content.entries,
                            page.first, root);
    }
    if (below.size() == 1) break;
  }
  found_.superblock.meta_root = root;
  found_.superblock.meta_height = level;
}

void HostileImage::seal_space() {
  const RegionGeometry geometry(image_->block_count());
  const auto size = static_cast<uint32_t>(image_->block_count());
  set_bits(bits_, size, static_cast<uint32_t>(kRegionBlocks) - size);
  AlignedBuffer bitmap(kBlockSize);
  std::memcpy(bitmap.data(), bits_.data(), kBlockSize);
  image_->write(geometry.bitmap_slot(0, 0), bitmap.span());
  const int64_t clear = static_cast<int64_t>(kRegionBlocks) -
                        count_set(bits_, 0, static_cast<uint32_t>(kRegionBlocks));
  found_.superblock.used_blocks =
      geometry.size_blocks(0) - static_cast<uint64_t>(clear) - geometry.fixed_blocks(0);
  found_.superblock.used_blocks =
      std::min(found_.superblock.used_blocks, found_.superblock.block_count);
  RegionTableBlock table;
  table.epoch = found_.superblock.epoch;
  table.entries.push_back(
      {checksum64(bitmap.view()), static_cast<uint16_t>(clear + free_error_), 0, true});
  std::string bytes(kBlockSize, '\0');
  encode_region_table_block(table, bytes.data());
  for (const Patched& patch : region_patches_) {
    bytes.replace(patch.offset, patch.bytes.size(), patch.bytes);
  }
  seal_region_table_block(bytes);
  image_->write(geometry.table_slot(0, 0), as_bytes(bytes));
  found_.superblock.region_table_slots = {};
  found_.superblock.region_table_hash = region_table_hash({load_fixed<uint64_t>(bytes.data())});
}

void HostileImage::seal_superblock_block() {
  if (!shape_is_valid(found_.superblock.shape)) found_.superblock.shape = TreeShape{};
  std::string block(encode_superblock(found_.superblock).view());
  for (const Patched& patch : superblock_patches_) {
    block.replace(patch.offset, patch.bytes.size(), patch.bytes);
  }
  seal_superblock(block);
  image_->write(BlockAddr{found_.slot}, as_bytes(block));
  image_->clear(BlockAddr{found_.slot ^ 1U}, 1);
}

Ref<MemoryImage> HostileImage::seal() {
  seal_nodes();
  seal_log();
  seal_table();
  seal_space();
  seal_superblock_block();
  return image_;
}

}  // namespace caw
