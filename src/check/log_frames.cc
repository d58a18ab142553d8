#include "check/log_frames.h"

#include <optional>

#include "base/aligned_buffer.h"
#include "format/log_frame.h"

namespace caw {
namespace {

class FrameReader {
 public:
  FrameReader(BlockDevice& device, const Superblock& superblock)
      : device_(device), superblock_(superblock) {
    for (const LogSegment& segment : superblock.log_segments) ring_blocks_ += segment.blocks;
  }
  uint64_t ring_blocks() const { return ring_blocks_; }

  /// Nothing: there is no whole frame of this position.
  Result<std::optional<FrameInfo>> at(uint64_t position) const {
    uint64_t room = 0;
    const BlockAddr addr = place(position, &room);
    AlignedBuffer block(kBlockSize);
    CAW_TRY(device_.read(addr, block.span()));
    const Result<FrameInfo> info = peek_frame(block.view(), superblock_.uuid, position);
    if (!info || frame_blocks(info->bytes) > room) return std::nullopt;
    AlignedBuffer frame(frame_blocks(info->bytes) * kBlockSize);
    CAW_TRY(device_.read(addr, frame.span()));
    if (!open_frame(frame.view(), *info)) return std::nullopt;
    return *info;
  }

 private:
  BlockAddr place(uint64_t position, uint64_t* room) const {
    uint64_t offset = position % ring_blocks_;
    for (const LogSegment& segment : superblock_.log_segments) {
      if (offset < segment.blocks) {
        *room = segment.blocks - offset;
        return segment.first + offset;
      }
      offset -= segment.blocks;
    }
    return kNoBlock;
  }

  BlockDevice& device_;
  const Superblock& superblock_;
  uint64_t ring_blocks_ = 0;
};

}  // namespace

Result<LogFrames> read_log_frames(BlockDevice& device, const Superblock& superblock) {
  const FrameReader reader(device, superblock);
  LogFrames out;
  out.end = superblock.log_position;
  if (reader.ring_blocks() == 0) return out;
  const uint64_t limit = superblock.log_position + reader.ring_blocks();
  while (out.end < limit) {
    const std::optional<FrameInfo> info = CAW_TRY(reader.at(out.end));
    if (!info) break;
    ++out.frames;
    out.end += frame_blocks(info->bytes);
  }
  for (uint64_t position = out.end + 1; position < limit; ++position) {
    const std::optional<FrameInfo> info = CAW_TRY(reader.at(position));
    if (info && info->flushed > out.end) ++out.cut_off;
  }
  return out;
}

}  // namespace caw
