// Frames and the reader of the log: a ring of any blocks, each frame's checksum made right.
#include "format/log_frame.h"

#include "base/aligned_buffer.h"
#include "dev/memory_device.h"
#include "fuzz/fuzz.h"
#include "fuzz/seal.h"
#include "log/log_reader.h"

namespace {

constexpr uint64_t kRingBlocks = 8;

/// Each block that begins a frame of a length that fits gets the checksum for it.
void seal_frames(caw::AlignedBuffer& ring) {
  for (uint64_t block = kRingBlocks; block-- > 0;) {
    char* const at = ring.chars() + block * caw::kBlockSize;
    const auto bytes = caw::load_fixed<uint32_t>(at + 48);
    const uint64_t blocks = caw::frame_blocks(bytes);
    if (blocks > kRingBlocks - block) continue;
    std::memcpy(at, "CAWFSLOG", 8);
    caw::seal_log_frame(at, blocks * caw::kBlockSize);
  }
}

}  // namespace

/// A position, then for each block its length and what it begins with.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  caw::Input input(caw::as_input(data, size));
  const uint64_t position = input.take<uint16_t>();
  caw::AlignedBuffer ring(kRingBlocks * caw::kBlockSize);
  for (uint64_t block = 0; block < kRingBlocks && !input.at_end(); ++block) {
    const std::string_view bytes = input.bytes(input.take<uint16_t>() % (caw::kBlockSize + 1));
    std::memcpy(ring.chars() + block * caw::kBlockSize, bytes.data(), bytes.size());
  }
  seal_frames(ring);
  const auto image = caw::make_ref<caw::MemoryImage>(kRingBlocks + 2);
  image->write(caw::BlockAddr{2}, ring.span());
  const std::unique_ptr<caw::BlockDevice> device = caw::make_memory_device(image, true);
  const caw::LogSegment segments[] = {{caw::BlockAddr{2}, 5}, {caw::BlockAddr{7}, 3}};
  const caw::LogRing log(segments);
  const caw::Result<caw::LogContents> contents = caw::read_log(*device, log, {}, position);
  FUZZ_CHECK(contents.has_value());
  FUZZ_CHECK(contents->end >= position && contents->end - position <= kRingBlocks);
  FUZZ_CHECK(contents->flushed_bytes <= contents->bytes.size());
  caw::LogCursor cursor(*contents);
  size_t before = 0;
  while (true) {
    const caw::Result<bool> more = cursor.next();
    if (!more || !*more) return 0;
    FUZZ_CHECK(cursor.end_offset() > before && cursor.end_offset() <= contents->bytes.size());
    before = cursor.end_offset();
  }
}
