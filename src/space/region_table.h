// Where allocation state lies on disk, and region-table blocks as bytes.  Pure; no I/O.
//
// Volume layout, in blocks:
//   0, 1                 superblocks
//   2 + 2 t + s          slot s (0 or 1) of region-table block t, t < T
//   2 + 2 T + s          slot s of the bitmap of region 0
//   r * 32768 + s        slot s of the bitmap of region r >= 1
// Region r is blocks [r * 32768, (r + 1) * 32768), the last one may be shorter; a rest of fewer
// than 3 blocks at the end of the volume belongs to no region and is never used.
//
// Bitmap block: bit i of byte b is block 8 b + i of the region, set = in use.  Set for good: the
// blocks of the list above, and what lies past the end of the volume.  It has no header: its
// checksum is in its table entry.  Writes go to the slot that is not current, and the table entry
// then names that one.
//
// Region-table block (4096 bytes, little-endian):
//   off size field
//     0    8 checksum     XXH3-64 of bytes [8, 4096)
//     8    4 magic        "CAWR"
//    12    4 index        t: exposes a misdirected write
//    16    8 epoch        checkpoint that wrote this copy
//    24    4 count        entries in use: regions t * 338 + [0, count)
//    28    4 reserved     zero
//    32 4056 entries      338 of 12 bytes, unused ones zero
//  4088    8 reserved     zero
// Entry:
//     0    8 checksum     XXH3-64 of the current bitmap block; 0 if never written
//     8    2 free_blocks  clear bits
//    10    1 slot         0 or 1: which bitmap slot is current
//    11    1 flags        bit 0: the bitmap was written.  Clear: never touched, all free, and
//                         neither slot means anything
// Superblock: region_table_slots bit t (word t / 64) = current slot of table block t;
// region_table_hash = XXH3-64 of the T checksum fields (8 bytes each) of the current blocks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "format/superblock.h"

namespace caw {

inline constexpr uint32_t kRegionTableMagic = 0x52574143;   // "CAWR"
inline constexpr uint32_t kRegionsPerTableBlock = 338;
inline constexpr uint32_t kMaxTableBlocks = 32 * 64;        ///< bits in region_table_slots
/// About 84 TiB.
inline constexpr uint64_t kMaxVolumeBlocks =
    uint64_t{kMaxTableBlocks} * kRegionsPerTableBlock * kRegionBlocks;

/// Where things are in a volume of `block_count` blocks.
/// Requires: kMinVolumeBlocks <= block_count <= kMaxVolumeBlocks.
struct RegionGeometry {
  explicit RegionGeometry(uint64_t block_count);

  uint64_t block_count;
  uint32_t regions;
  uint32_t table_blocks;

  BlockAddr table_slot(uint32_t table_block, uint32_t slot) const {
    return BlockAddr{2 + 2 * uint64_t{table_block} + slot};
  }
  /// Blocks of `region` that are used for good, all at its start.
  uint32_t fixed_blocks(uint32_t region) const {
    return region == 0 ? 2 + 2 * table_blocks + 2 : 2;
  }
  BlockAddr bitmap_slot(uint32_t region, uint32_t slot) const {
    return BlockAddr{region * kRegionBlocks + fixed_blocks(region) - 2 + slot};
  }
  /// Blocks of `region` that exist.
  uint32_t size_blocks(uint32_t region) const {
    const uint64_t begin = region * kRegionBlocks;
    return static_cast<uint32_t>(std::min<uint64_t>(kRegionBlocks, block_count - begin));
  }
  /// Blocks of `region` that can be given out.
  uint32_t usable_blocks(uint32_t region) const {
    return size_blocks(region) - fixed_blocks(region);
  }
  uint32_t regions_in(uint32_t table_block) const {
    return std::min(kRegionsPerTableBlock, regions - table_block * kRegionsPerTableBlock);
  }
};

struct RegionEntry {
  uint64_t checksum = 0;
  uint16_t free_blocks = 0;
  uint8_t slot = 0;
  bool written = false;
  friend bool operator==(const RegionEntry&, const RegionEntry&) = default;
};

struct RegionTableBlock {
  uint32_t index = 0;
  Epoch epoch = 0;
  std::vector<RegionEntry> entries;   ///< at most kRegionsPerTableBlock
};

/// Fills `out` (4096 bytes); returns the checksum.
uint64_t encode_region_table_block(const RegionTableBlock& block, char* out);
/// Fails: region_table (checksum, magic, index, entry fields out of range for `geometry`).
Result<RegionTableBlock> decode_region_table_block(std::string_view bytes, uint32_t index,
                                                   const RegionGeometry& geometry);
/// The value of Superblock::region_table_hash for these block checksums.
uint64_t region_table_hash(const std::vector<uint64_t>& checksums);

}  // namespace caw
