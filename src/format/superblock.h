// The superblock: 4 KiB, at blocks 0 and 1, written in turn by epoch.  Pure; no I/O.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/ids.h"
#include "format/compression.h"

namespace caw {

inline constexpr uint32_t kFormatVersion = 3;  ///< written
inline constexpr uint32_t kOldestVersion = 2;  ///< read
inline constexpr uint64_t kMinVolumeBlocks = 4096;          ///< 16 MiB
inline constexpr uint64_t kRegionBlocks = 32768;            ///< 128 MiB; one bitmap block each

/// Epochs, operations, positions of the log and drawn numbers stay below it: no volume lives that
/// long, and counting on from a number that was read never overflows.
inline constexpr uint64_t kMaxNumber = uint64_t{1} << 62;

inline constexpr size_t kMaxLabelBytes = 64;
inline constexpr uint32_t kMaxInlineValueBytes = 256 * 1024;

/// Reference to a page of the node table: physical, with the page's checksum.
struct PageRef {
  BlockAddr addr = kNoBlock;
  uint64_t checksum = 0;
  explicit operator bool() const { return addr != kNoBlock; }
  friend bool operator==(const PageRef&, const PageRef&) = default;
};

/// A piece of the ring that the log is written to.
struct LogSegment {
  BlockAddr first = kNoBlock;
  uint64_t blocks = 0;                  ///< 0: not there
  friend bool operator==(const LogSegment&, const LogSegment&) = default;
};
inline constexpr size_t kLogSegments = 8;
inline constexpr uint64_t kMaxLogSegmentBlocks = 4096;

/// Shape of the trees; fixed when the volume is made; see shape_is_valid().
struct TreeShape {
  uint32_t leaf_bytes = 128 * 1024;
  uint32_t fanout = 32;
  uint32_t buffer_bytes = 512 * 1024;   ///< B: capacity of a node's messages
  uint32_t alpha_num = 1;
  uint32_t alpha_den = 8;               ///< α = num/den; at most 1/6 holds the read bound
  uint32_t floor_bytes = 4096;          ///< no copy of a shared node for less weight
  uint32_t run_bytes = 64 * 1024;       ///< cap of a run
  uint32_t max_runs = 24;
  uint32_t inline_bytes = 3072;         ///< cap of a root's embedded run
  uint32_t inline_value_bytes = 16 * 1024;  ///< larger values become blobs
  friend bool operator==(const TreeShape&, const TreeShape&) = default;
};

/// All fields within their limits, and F * α * leaf <= B: a full buffer always has a child that may
/// be copied.
bool shape_is_valid(const TreeShape& shape);

/// Counters that outlive a crash: never handed out twice (Forest::draw).
enum class Counter : uint8_t { node_id = 0, entry = 1, file = 2, domain = 3, chunk = 4,
                               change = 5 };
inline constexpr size_t kCounters = 8;

struct Superblock {
  uint32_t version = kFormatVersion;
  uint64_t features_incompatible = 0;
  std::array<uint8_t, 16> uuid{};
  std::string label;                    ///< at most 64 bytes
  uint64_t block_count = 0;
  Epoch epoch = 0;                      ///< of the checkpoint this superblock stands for
  Seq next_seq = 1;
  std::array<uint64_t, kCounters> counters{};   ///< high-water marks: first never handed out
  PageRef meta_root;
  uint8_t meta_height = 0;
  NodeId system_tree = kNoNode;
  Compression compression = Compression::lz4;
  TreeShape shape;
  uint64_t used_blocks = 0;             ///< a statistic; the bitmaps rule
  bool clean = false;                   ///< unmounted in order
  std::array<uint64_t, 32> region_table_slots{};  ///< which slot of each region-table block is current
  uint64_t region_table_hash = 0;
  uint64_t log_position = 0;            ///< of the first frame that this checkpoint does not hold
  std::array<LogSegment, kLogSegments> log_segments{};  ///< those that are there come first
  friend bool operator==(const Superblock&, const Superblock&) = default;
};

/// 4096 bytes, checksummed.  Requires: label within its limit, shape_is_valid().
AlignedBuffer encode_superblock(const Superblock& superblock);
/// Fails: not_a_volume (no magic), format_version, superblock_damaged (checksum, fields).
Result<Superblock> decode_superblock(std::string_view block);

}  // namespace caw
