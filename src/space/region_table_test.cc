#include "space/region_table.h"

#include <gtest/gtest.h>

#include <string>

#include "base/bytes.h"
#include "format/compression.h"

namespace caw {
namespace {

std::string encode(const RegionTableBlock& block) {
  std::string out(kBlockSize, 'x');
  encode_region_table_block(block, out.data());
  return out;
}

RegionTableBlock example() {
  return {0, 7, {{0x1122334455667788, 0x0102, 1, true}, {0, 4094, 0, false}}};
}
const RegionGeometry kTwoRegions(kRegionBlocks + 4096);

TEST(RegionTable, GoldenBytes) {
  const std::string bytes = encode(example());
  std::string expected(kBlockSize, '\0');
  const unsigned char head[] = {'C', 'A', 'W', 'R', 0, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0,
                                2,   0,   0,   0,   0, 0, 0, 0};
  std::memcpy(expected.data() + 8, head, sizeof(head));
  const unsigned char entries[] = {
      0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11, 2, 1, 1, 1,  //
      0, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0x0f, 0, 0};
  std::memcpy(expected.data() + 32, entries, sizeof(entries));
  EXPECT_EQ(bytes.substr(8), expected.substr(8));
  EXPECT_EQ(load_fixed<uint64_t>(bytes.data()), checksum64(bytes.substr(8)));
}

TEST(RegionTable, ReadsBackWhatItWrote) {
  const auto block = decode_region_table_block(encode(example()), 0, kTwoRegions);
  ASSERT_TRUE(block) << block.error().to_string();
  EXPECT_EQ(block->epoch, 7U);
  EXPECT_EQ(block->entries, example().entries);
}

TEST(RegionTable, EveryFlippedByteIsNoticed) {
  const std::string good = encode(example());
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 0x10);
    const auto block = decode_region_table_block(bad, 0, kTwoRegions);
    ASSERT_FALSE(block) << i;
    ASSERT_EQ(block.error().code, Code::region_table);
  }
}

TEST(RegionTable, FieldsOutOfRangeAreRefusedDespiteAGoodChecksum) {
  const auto refused = [](RegionTableBlock block, uint32_t index) {
    return !decode_region_table_block(encode(block), index, kTwoRegions);
  };
  RegionTableBlock too_free = example();
  too_free.entries[1] = {5, 4095, 0, true};
  RegionTableBlock slot = example();
  slot.entries[0].slot = 2;
  RegionTableBlock fresh_but_used = example();
  fresh_but_used.entries[1].free_blocks = 4000;
  RegionTableBlock too_few = example();
  too_few.entries.pop_back();
  RegionTableBlock other_index = example();
  other_index.index = 1;
  EXPECT_FALSE(refused(example(), 0));
  EXPECT_TRUE(refused(too_free, 0));
  EXPECT_TRUE(refused(slot, 0));
  EXPECT_TRUE(refused(fresh_but_used, 0));
  EXPECT_TRUE(refused(too_few, 0));
  EXPECT_TRUE(refused(other_index, 0));
}

TEST(RegionTable, Geometry) {
  const RegionGeometry small(4096);
  EXPECT_EQ(small.regions, 1U);
  EXPECT_EQ(small.table_blocks, 1U);
  EXPECT_EQ(small.bitmap_slot(0, 0), BlockAddr{4});
  EXPECT_EQ(small.usable_blocks(0), 4090U);

  const RegionGeometry rest(2 * kRegionBlocks + 2);   // too short a rest is no region
  EXPECT_EQ(rest.regions, 2U);
  const RegionGeometry just(2 * kRegionBlocks + 3);
  EXPECT_EQ(just.regions, 3U);
  EXPECT_EQ(just.usable_blocks(2), 1U);
  EXPECT_EQ(just.bitmap_slot(2, 1), BlockAddr{2 * kRegionBlocks + 1});

  const RegionGeometry large(uint64_t{64} << 28);     // 64 TiB
  EXPECT_EQ(large.regions, 524288U);
  EXPECT_LE(large.table_blocks, kMaxTableBlocks);
  EXPECT_EQ(large.bitmap_slot(0, 0), BlockAddr{2 + 2 * uint64_t{large.table_blocks}});
}

}  // namespace
}  // namespace caw
