#include "log/log_reader.h"

#include <algorithm>

#include "base/aligned_buffer.h"
#include "format/log_frame.h"

namespace caw {
namespace {

/// Blocks of the ring, read many at a time: most frames are of one block.
class Window {
 public:
  Window(BlockDevice& device, const LogRing& ring) : device_(device), ring_(ring) {}

  /// `blocks` from `position` on; within one segment, at most kMaxFrameBlocks.
  Result<std::string_view> at(uint64_t position, uint64_t blocks) {
    if (position < first_ || position + blocks > first_ + blocks_) {
      const LogRing::Place place = ring_.at(position);
      const uint64_t some = std::min(place.blocks, kMaxFrameBlocks);
      buffer_ = AlignedBuffer(some * kBlockSize);
      blocks_ = 0;
      CAW_TRY(device_.read(place.addr, buffer_.span()));
      first_ = position;
      blocks_ = some;
    }
    return buffer_.view().substr((position - first_) * kBlockSize, blocks * kBlockSize);
  }

 private:
  BlockDevice& device_;
  const LogRing& ring_;
  AlignedBuffer buffer_;
  uint64_t first_ = 0;
  uint64_t blocks_ = 0;
};

}  // namespace

Result<LogContents> read_log(BlockDevice& device, const LogRing& ring,
                             const std::array<uint8_t, 16>& uuid, uint64_t position) {
  struct Mark {
    uint64_t position = 0;
    size_t offset = 0;
  };
  LogContents out;
  out.end = position;
  std::vector<Mark> marks;
  uint64_t flushed = position;
  Window window(device, ring);
  while (out.end - position < ring.blocks()) {
    const Result<FrameInfo> info = peek_frame(CAW_TRY(window.at(out.end, 1)), uuid, out.end);
    if (!info) break;
    const uint64_t blocks = frame_blocks(info->bytes);
    if (blocks > ring.at(out.end).blocks) break;
    const Result<std::string_view> records = open_frame(CAW_TRY(window.at(out.end, blocks)), *info);
    if (!records) break;
    marks.push_back({out.end, out.bytes.size()});
    flushed = std::max(flushed, info->flushed);
    out.bytes += *records;
    out.end += blocks;
  }
  marks.push_back({out.end, out.bytes.size()});
  for (const Mark& mark : marks) {
    if (mark.position <= flushed) out.flushed_bytes = mark.offset;
  }
  return out;
}

Result<bool> LogCursor::next() {
  const size_t bytes = log_record_bytes(rest_);
  if (bytes == 0) return false;
  record_ = CAW_TRY(decode_log_record(rest_.substr(0, bytes)));
  rest_.remove_prefix(bytes);
  return true;
}

}  // namespace caw
