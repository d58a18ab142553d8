// Draft: writing tables and superblock.
#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "format/compression.h"
#include "meta/meta_page.h"
#include "repair/draft.h"
#include "space/region_table.h"
#include "store/node_entry.h"

namespace caw {

/// Packs entries, given in key order, into full pages, and those below pages of the next level.
class Draft::PageWriter {
 public:
  explicit PageWriter(Draft& draft) : draft_(draft) {}

  Result<void> add(MetaSpace space, uint64_t id, std::string_view value) {
    const MetaKey key{space, id};
    CAW_TRY(make_room(key, kLeafEntryBytes + value.size()));
    append_leaf_entry(page_.entries, key, value);
    ++page_.count;
    return {};
  }
  /// Writes the upper levels and puts the root into the superblock.
  Result<void> finish() {
    CAW_TRY(write_page());
    while (done_.size() > 1) {
      const std::vector<Done> below = std::exchange(done_, {});
      page_.level = static_cast<uint8_t>(page_.level + 1);
      for (const Done& child : below) {
        CAW_TRY(make_room(child.first, kInteriorEntryBytes));
        append_interior_entry(page_.entries, child.first, child.ref);
        ++page_.count;
      }
      CAW_TRY(write_page());
    }
    draft_.superblock_.meta_root = done_.empty() ? PageRef{} : done_.front().ref;
    draft_.superblock_.meta_height =
        done_.empty() ? uint8_t{0} : static_cast<uint8_t>(page_.level + 1);
    return {};
  }

 private:
  struct Done {
    MetaKey first;
    PageRef ref;
  };

  Result<void> make_room(MetaKey key, size_t bytes) {
    if (page_.entries.size() + bytes > kMetaCapacityBytes) CAW_TRY(write_page());
    if (page_.count == 0) first_ = key;
    return {};
  }
  Result<void> write_page() {
    if (page_.count == 0) return {};
    const BlockAddr addr = CAW_TRY(draft_.take(1));
    AlignedBuffer block(kBlockSize);
    const uint64_t checksum = encode_meta_page(page_, addr, draft_.epoch_, block.chars());
    CAW_TRY(draft_.device_->write(addr, block.span()));
    draft_.pages_.push_back(addr);
    done_.push_back({first_, {addr, checksum}});
    page_.count = 0;
    page_.entries.clear();
    return {};
  }

  Draft& draft_;
  MetaPageContent page_;
  MetaKey first_;
  std::vector<Done> done_;
};

Result<void> Draft::write_table(const Counts& counts) {
  PageWriter writer(*this);
  for (const NodeRow& row : table_.nodes) {
    const NodeEntry entry{.addr = row.addr,
                          .stored_bytes = row.stored_bytes,
                          .checksum = row.checksum,
                          .kind = row.kind,
                          .owns_refs = row.owns_refs,
                          .height = row.height,
                          .compression = row.compression,
                          .birth = row.birth,
                          .max_seq = row.max_seq,
                          .owner = row.owner};
    CAW_TRY(writer.add(MetaSpace::node, raw(row.id), encode_node_entry(entry)));
  }
  for (const auto& [space, rows] : {std::pair{MetaSpace::node_count, &counts.nodes},
                                    std::pair{MetaSpace::blob_count, &counts.blobs}}) {
    for (const CountRow& row : *rows) {
      std::string value;
      put_varint(value, row.count);
      CAW_TRY(writer.add(space, row.id, value));
    }
  }
  for (const uint64_t id : table_.dead) CAW_TRY(writer.add(MetaSpace::dead_node, id, {}));
  return writer.finish();
}

Result<void> Draft::write_bitmap(uint64_t region, const BlockMap& used, RegionRow& row) {
  const uint64_t blocks = layout_.region_blocks(region);
  const uint64_t fixed = layout_.fixed_blocks(region);
  AlignedBuffer bitmap(kBlockSize);
  uint64_t free_blocks = 0;
  for (uint64_t i = 0; i < kRegionBlocks; ++i) {
    const bool set = i < fixed || i >= blocks || used.is_set(region * kRegionBlocks + i);
    if (set) {
      bitmap.chars()[i / 8] = static_cast<char>(bitmap.chars()[i / 8] | (1 << (i % 8)));
    } else {
      ++free_blocks;
    }
  }
  superblock_.used_blocks += blocks - fixed - free_blocks;
  row.written = row.written || !regions_.readable[region] || free_blocks != blocks - fixed;
  row.free_blocks = static_cast<uint32_t>(free_blocks);
  if (!row.written) return {};
  row.slot = regions_.readable[region] ? static_cast<uint8_t>(row.slot ^ 1U) : uint8_t{0};
  row.bitmap_checksum = checksum64(bitmap.view());
  return device_->write(layout_.bitmap(region, row.slot), bitmap.span());
}

Result<void> Draft::write_space(const BlockMap& used) {
  superblock_.used_blocks = 0;
  std::vector<uint64_t> checksums;
  AlignedBuffer block(kBlockSize);
  for (uint64_t table = 0; table < layout_.table_blocks; ++table) {
    RegionTableBlock out{.index = static_cast<uint32_t>(table), .epoch = epoch_, .entries = {}};
    const uint64_t end = std::min<uint64_t>(layout_.regions, (table + 1) * kRegionsPerTableBlock);
    for (uint64_t region = table * kRegionsPerTableBlock; region < end; ++region) {
      RegionRow row = regions_.readable[region] ? regions_.rows[region] : RegionRow{};
      CAW_TRY(write_bitmap(region, used, row));
      out.entries.push_back({row.bitmap_checksum, static_cast<uint16_t>(row.free_blocks), row.slot,
                             row.written});
    }
    uint64_t& slots = superblock_.region_table_slots[table / 64];
    slots ^= uint64_t{1} << (table % 64);
    const uint64_t slot = slots >> (table % 64) & 1U;
    checksums.push_back(encode_region_table_block(out, block.chars()));
    CAW_TRY(device_->write(BlockAddr{2 + 2 * table + slot}, block.span()));
  }
  superblock_.region_table_hash = region_table_hash(checksums);
  return {};
}

Result<void> Draft::commit(const Counts& counts) {
  CAW_TRY(write_table(counts));
  BlockMap used(layout_.block_count);
  for (uint64_t block = 0; block < layout_.block_count; ++block) {
    if (counts.used->region(block / kRegionBlocks) == nullptr) {
      block |= kRegionBlocks - 1;
    } else if (counts.used->is_set(block)) {
      used.mark(block, 1);
    }
  }
  for (const BlockAddr page : pages_) used.mark(raw(page), 1);
  for (const LogSegment& segment : superblock_.log_segments) {
    if (segment.blocks != 0) used.mark(raw(segment.first), segment.blocks);
  }
  CAW_TRY(write_space(used));
  superblock_.epoch = epoch_;
  CAW_TRY(device_->flush());
  const AlignedBuffer block = encode_superblock(superblock_);
  CAW_TRY(device_->write(BlockAddr{slot_ ^ 1U}, block.span()));
  return device_->flush();
}

}  // namespace caw
