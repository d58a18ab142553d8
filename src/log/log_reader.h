// Reading the log after a crash.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "dev/block_device.h"
#include "format/log_record.h"
#include "log/log_ring.h"

namespace caw {

struct LogContents {
  /// Where the records that were already flushed end, when the newest frame was written.
  size_t flushed_bytes = 0;
  std::string bytes;        ///< the records of all frames; the last one may be cut off
  uint64_t end = 0;         ///< position behind the last frame
};

/// All frames from `position` on, up to the first that is not there or not whole.
/// Fails: device_read.
Result<LogContents> read_log(BlockDevice& device, const LogRing& ring,
                             const std::array<uint8_t, 16>& uuid, uint64_t position);

/// Walks the records of a log.
class LogCursor {
 public:
  explicit LogCursor(const LogContents& log) : rest_(log.bytes), size_(log.bytes.size()) {}
  /// False: at the end, or what follows is not all there.  Fails: log_malformed.
  Result<bool> next();
  LogRecord& record() { return record_; }
  /// Bytes of the log up to the end of the record.
  size_t end_offset() const { return size_ - rest_.size(); }

 private:
  std::string_view rest_;
  size_t size_;
  LogRecord record_;
};

}  // namespace caw
