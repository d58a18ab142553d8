// LogRing: where a position of the log is on the device.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/ids.h"
#include "format/superblock.h"

namespace caw {

class LogRing {
 public:
  struct Place {
    BlockAddr addr = kNoBlock;
    uint64_t blocks = 0;  ///< until the end of its segment
  };

  LogRing() = default;
  explicit LogRing(std::span<const LogSegment> segments) {
    for (const LogSegment& segment : segments) {
      if (segment.blocks == 0) continue;
      segments_.push_back(segment);
      blocks_ += segment.blocks;
    }
  }

  uint64_t blocks() const { return blocks_; }
  /// Requires: blocks() > 0.
  Place at(uint64_t position) const {
    uint64_t offset = position % blocks_;
    size_t i = 0;
    for (; offset >= segments_[i].blocks; ++i) offset -= segments_[i].blocks;
    return {segments_[i].first + offset, segments_[i].blocks - offset};
  }

 private:
  std::vector<LogSegment> segments_;
  uint64_t blocks_ = 0;
};

}  // namespace caw
