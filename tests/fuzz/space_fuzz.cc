// Region tables, their checksum made right, and the search in bitmaps, against a plain one.
#include "base/aligned_buffer.h"
#include "fuzz/fuzz.h"
#include "fuzz/seal.h"
#include "space/bitmap.h"
#include "space/region_table.h"

namespace {

void check_table(caw::Input& input) {
  const uint64_t blocks = caw::kMinVolumeBlocks + input.take<uint32_t>() % (1U << 27);
  const caw::RegionGeometry geometry(blocks);
  const uint32_t index = input.take<uint16_t>() % geometry.table_blocks;
  std::string bytes(input.bytes(caw::kBlockSize));
  bytes.resize(caw::kBlockSize);
  caw::seal_region_table_block(bytes);
  const auto table = caw::decode_region_table_block(bytes, index, geometry);
  if (!table) return;
  caw::AlignedBuffer again(caw::kBlockSize);
  caw::encode_region_table_block(*table, again.chars());
  const auto redecoded = caw::decode_region_table_block(again.view(), index, geometry);
  FUZZ_CHECK(redecoded && redecoded->entries == table->entries);
}

/// First run of `count` clear bits of [from, limit), else limit.
uint32_t plain_search(const caw::RegionBits& bits, uint32_t from, uint32_t limit, uint32_t count) {
  uint32_t run = 0;
  for (uint32_t i = from; i < limit; ++i) {
    run = (bits[i / 64] >> (i % 64) & 1U) == 0 ? run + 1 : 0;
    if (run == count) return i + 1 - count;
  }
  return limit;
}

void check_bitmap(caw::Input& input) {
  const uint32_t from = input.take<uint16_t>() % 4096;
  const uint32_t limit = from + input.take<uint16_t>() % 4096;
  const uint32_t count = 1 + input.take<uint16_t>() % 300;
  caw::RegionBits bits{};
  for (uint64_t& word : bits) {
    if (input.at_end()) break;
    word = input.take<uint64_t>();
  }
  FUZZ_CHECK(caw::find_clear_run(bits, from, limit, count).first ==
             plain_search(bits, from, limit, count));
  FUZZ_CHECK(caw::find_clear(bits, from, limit) == plain_search(bits, from, limit, 1));
  const uint32_t set = caw::count_set(bits, from, limit - from);
  caw::set_bits(bits, from, limit - from);
  FUZZ_CHECK(set <= limit - from && caw::count_set(bits, from, limit - from) == limit - from);
  caw::clear_bits(bits, from, limit - from);
  FUZZ_CHECK(caw::find_set(bits, from, limit) == limit);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  caw::Input input(caw::as_input(data, size));
  if ((input.take<uint8_t>() & 1U) != 0) {
    check_table(input);
  } else {
    check_bitmap(input);
  }
  return 0;
}
