// The log of a volume, as far as it can be told whole from damaged.
#pragma once

#include <cstdint>

#include "base/error.h"
#include "dev/block_device.h"
#include "format/superblock.h"

namespace caw {

struct LogFrames {
  uint64_t frames = 0;  ///< from the checkpoint's position on, without a gap
  uint64_t end = 0;     ///< position behind them
  /// Frames beyond a gap which say that what lies in it had been on the medium: the log is damaged
  /// there.  (A gap that a power cut leaves has no such frames behind it.)
  uint64_t cut_off = 0;
};

/// Reads the whole ring.  Fails: device_read.
Result<LogFrames> read_log_frames(BlockDevice& device, const Superblock& superblock);

}  // namespace caw
