#include "format/log_frame.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/assert.h"
#include "base/bytes.h"
#include "format/compression.h"

namespace caw {
namespace {

/// Frame header.  Integers are little-endian.
///   off size field
///     0    8 magic      "CAWFSLOG"
///     8    8 checksum   XXH3-64 of all whole blocks of the frame from byte 16 on
///    16   16 uuid       the volume's
///    32    8 position   in blocks since the log began
///    40    8 flushed    position before which everything was on the medium
///    48    4 bytes      of records
///    52   12 reserved   zero on write, checked on read
struct FrameHeader {
  char magic[8];
  uint64_t checksum;
  uint8_t uuid[16];
  uint64_t position;
  uint64_t flushed;
  uint32_t bytes;
  uint8_t reserved[12];
};
static_assert(sizeof(FrameHeader) == kFrameHeaderBytes &&
              std::has_unique_object_representations_v<FrameHeader>);

constexpr char kMagic[8] = {'C', 'A', 'W', 'F', 'S', 'L', 'O', 'G'};
constexpr size_t kChecksumFrom = 16;

}  // namespace

AlignedBuffer encode_frame(const FrameInfo& info, std::string_view records) {
  const uint64_t blocks = frame_blocks(records.size());
  CAW_ASSERT(!records.empty() && blocks <= kMaxFrameBlocks);
  FrameHeader header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  std::copy(info.uuid.begin(), info.uuid.end(), header.uuid);
  header.position = info.position;
  header.flushed = info.flushed;
  header.bytes = static_cast<uint32_t>(records.size());
  AlignedBuffer out(blocks * kBlockSize);
  std::memcpy(out.data(), &header, sizeof(header));
  std::memcpy(out.data() + kFrameHeaderBytes, records.data(), records.size());
  store_fixed(out.chars() + offsetof(FrameHeader, checksum),
              checksum64(out.view().substr(kChecksumFrom)));
  return out;
}

Result<FrameInfo> peek_frame(std::string_view first_block, const std::array<uint8_t, 16>& uuid,
                             uint64_t position) {
  FrameHeader in;
  if (first_block.size() < sizeof(in)) return fail(Code::log_frame, position, "size");
  std::memcpy(&in, first_block.data(), sizeof(in));
  const bool ours = std::memcmp(in.magic, kMagic, sizeof(kMagic)) == 0 &&
                    std::equal(uuid.begin(), uuid.end(), in.uuid) && in.position == position;
  const bool sound = in.flushed <= position && in.bytes != 0 &&
                     frame_blocks(in.bytes) <= kMaxFrameBlocks &&
                     std::ranges::all_of(in.reserved, [](uint8_t byte) { return byte == 0; });
  if (!ours || !sound) return fail(Code::log_frame, position, "header");
  return FrameInfo{uuid, in.position, in.flushed, in.bytes};
}

Result<std::string_view> open_frame(std::string_view frame, const FrameInfo& info) {
  if (frame.size() != frame_blocks(info.bytes) * kBlockSize ||
      checksum64(frame.substr(kChecksumFrom)) !=
          load_fixed<uint64_t>(frame.data() + offsetof(FrameHeader, checksum))) {
    return fail(Code::log_frame, info.position, "checksum");
  }
  return frame.substr(kFrameHeaderBytes, info.bytes);
}

}  // namespace caw
