// Frames: what is written to the log at once.  The log is a ring of blocks; a frame's *position*
// counts blocks since the log began and never repeats, so that a frame of an earlier turn of the
// ring is not taken for a newer one.  The records of successive frames form one string of bytes; a
// record may go on in the next frame.  Pure; no I/O.
#pragma once

#include <array>
#include <cstdint>
#include <string_view>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/ids.h"

namespace caw {

inline constexpr size_t kFrameHeaderBytes = 64;
inline constexpr uint64_t kMaxFrameBlocks = 256;

struct FrameInfo {
  std::array<uint8_t, 16> uuid{};  ///< of the volume
  uint64_t position = 0;
  /// Everything written before that position, and all blobs that records there refer to, was on the
  /// medium when this frame was written.
  uint64_t flushed = 0;
  uint32_t bytes = 0;  ///< of records, behind the header
};

/// Bytes of records that fit into a frame of so many blocks.
inline constexpr uint64_t frame_capacity(uint64_t blocks) {
  return blocks * kBlockSize - kFrameHeaderBytes;
}
/// Blocks of a frame with so many bytes of records.
inline constexpr uint64_t frame_blocks(uint64_t bytes) {
  return blocks_for(kFrameHeaderBytes + bytes);
}

/// Whole blocks, the rest of the last one zero.  Requires: at most kMaxFrameBlocks.
AlignedBuffer encode_frame(const FrameInfo& info, std::string_view records);

/// What the first block says, with the header's fields checked but not the checksum: how much is to
/// be read.  Fails: log_frame (where the log ends, as a rule).
Result<FrameInfo> peek_frame(std::string_view first_block, const std::array<uint8_t, 16>& uuid,
                             uint64_t position);
/// The records of a whole frame.  Fails: log_frame.
Result<std::string_view> open_frame(std::string_view frame, const FrameInfo& info);

}  // namespace caw
