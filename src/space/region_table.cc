#include "space/region_table.h"

#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"
#include "format/compression.h"

namespace caw {
namespace {

constexpr size_t kHeaderBytes = 32;
constexpr size_t kEntryBytes = 12;
constexpr uint8_t kFlagWritten = 1;
static_assert(kHeaderBytes + kRegionsPerTableBlock * kEntryBytes <= kBlockSize);
static_assert(2 + 2 * kMaxTableBlocks + 2 < kRegionBlocks, "the tables lie inside region 0");

constexpr const char* kWhere = "region table";

Result<RegionEntry> decode_entry(const char* at, uint32_t region, const RegionGeometry& geometry) {
  const auto slot = static_cast<uint8_t>(at[10]);
  const auto flags = static_cast<uint8_t>(at[11]);
  RegionEntry entry{load_fixed<uint64_t>(at), load_fixed<uint16_t>(at + 8), slot,
                    (flags & kFlagWritten) != 0};
  const uint32_t usable = geometry.usable_blocks(region);
  const bool fits = slot <= 1 && (flags & ~kFlagWritten) == 0 && entry.free_blocks <= usable;
  const bool fresh_is_free =
      entry.written || (entry.free_blocks == usable && entry.checksum == 0 && slot == 0);
  if (!fits || !fresh_is_free) return fail(Code::region_table, region, kWhere);
  return entry;
}

}  // namespace

RegionGeometry::RegionGeometry(uint64_t blocks) : block_count(blocks) {
  CAW_ASSERT(blocks >= kMinVolumeBlocks && blocks <= kMaxVolumeBlocks);
  const uint64_t rest = blocks % kRegionBlocks;
  regions = static_cast<uint32_t>(blocks / kRegionBlocks + (rest >= 3 ? 1 : 0));
  table_blocks = (regions + kRegionsPerTableBlock - 1) / kRegionsPerTableBlock;
}

uint64_t encode_region_table_block(const RegionTableBlock& block, char* out) {
  CAW_ASSERT(block.entries.size() <= kRegionsPerTableBlock);
  std::memset(out, 0, kBlockSize);
  store_fixed<uint32_t>(out + 8, kRegionTableMagic);
  store_fixed<uint32_t>(out + 12, block.index);
  store_fixed<uint64_t>(out + 16, block.epoch);
  store_fixed<uint32_t>(out + 24, static_cast<uint32_t>(block.entries.size()));
  char* at = out + kHeaderBytes;
  for (const RegionEntry& entry : block.entries) {
    store_fixed<uint64_t>(at, entry.checksum);
    store_fixed<uint16_t>(at + 8, entry.free_blocks);
    at[10] = static_cast<char>(entry.slot);
    at[11] = static_cast<char>(entry.written ? kFlagWritten : 0);
    at += kEntryBytes;
  }
  const uint64_t checksum = checksum64({out + 8, kBlockSize - 8});
  store_fixed<uint64_t>(out, checksum);
  return checksum;
}

Result<RegionTableBlock> decode_region_table_block(std::string_view bytes, uint32_t index,
                                                   const RegionGeometry& geometry) {
  const uint32_t count = geometry.regions_in(index);
  if (bytes.size() != kBlockSize ||
      load_fixed<uint64_t>(bytes.data()) != checksum64(bytes.substr(8)) ||
      load_fixed<uint32_t>(bytes.data() + 8) != kRegionTableMagic ||
      load_fixed<uint32_t>(bytes.data() + 12) != index ||
      load_fixed<uint32_t>(bytes.data() + 24) != count) {
    return fail(Code::region_table, index, kWhere);
  }
  RegionTableBlock block;
  block.index = index;
  block.epoch = load_fixed<uint64_t>(bytes.data() + 16);
  block.entries.reserve(count);
  for (uint32_t i = 0; i < count; ++i) {
    const char* at = bytes.data() + kHeaderBytes + i * kEntryBytes;
    block.entries.push_back(
        CAW_TRY(decode_entry(at, index * kRegionsPerTableBlock + i, geometry)));
  }
  return block;
}

uint64_t region_table_hash(const std::vector<uint64_t>& checksums) {
  return checksum64({reinterpret_cast<const char*>(checksums.data()), checksums.size() * 8});
}

}  // namespace caw
