// decode_superblock: any block, its checksum made right.
#include "base/aligned_buffer.h"
#include "format/superblock.h"
#include "fuzz/fuzz.h"
#include "fuzz/seal.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string block(caw::as_input(data, size));
  block.resize(caw::kBlockSize);
  caw::seal_superblock(block);
  const caw::Result<caw::Superblock> decoded = caw::decode_superblock(block);
  if (!decoded) return 0;
  const caw::AlignedBuffer again = caw::encode_superblock(*decoded);
  FUZZ_CHECK(again.view() == block);
  return 0;
}
