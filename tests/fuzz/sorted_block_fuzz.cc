// SortedBlock::open; what it accepts can be walked, searched, and built again.
#include "format/sorted_block.h"

#include "fuzz/fuzz.h"

namespace {

using caw::SortedBlock;

std::string rebuilt(const SortedBlock& block) {
  caw::SortedBlockBuilder builder;
  for (const caw::RangeErase& range : block.range_erases()) builder.add_range_erase(range);
  SortedBlock::Iterator it(block);
  for (it.seek_to_first(); it.valid(); it.next()) builder.add(it.key(), it.kind(), it.body());
  return builder.finish();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const caw::Result<SortedBlock> block = SortedBlock::open(caw::as_input(data, size));
  if (!block) return 0;
  SortedBlock::Iterator it(*block);
  SortedBlock::Iterator search(*block);
  uint32_t count = 0;
  for (it.seek_to_first(); it.valid(); it.next(), ++count) {
    search.seek(it.key());
    FUZZ_CHECK(search.valid() && search.key() == it.key() && search.body() == it.body());
    FUZZ_CHECK(caw::decode_message(it.kind(), it.body()).has_value());
  }
  FUZZ_CHECK(count == block->count());
  const std::string bytes = rebuilt(*block);
  const caw::Result<SortedBlock> again = SortedBlock::open(bytes);
  FUZZ_CHECK(again && again->count() == count);
  FUZZ_CHECK(again->range_erases() == block->range_erases() && rebuilt(*again) == bytes);
  return 0;
}
