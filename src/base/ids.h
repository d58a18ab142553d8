// Distinct types for the numbers that must not be mixed up.  An id or address of 0 is invalid.
#pragma once

#include <cstdint>

namespace caw {

/// A node, run or tree root.  Stable for the object's life, never reused in a volume.
enum class NodeId : uint64_t {};
/// Index of a 4 KiB block on the device.
enum class BlockAddr : uint64_t {};

inline constexpr NodeId kNoNode{0};
inline constexpr BlockAddr kNoBlock{0};

/// Order of operations; every message carries the number of its operation.
using Seq = uint64_t;
/// Number of a checkpoint.
using Epoch = uint64_t;
/// Levels above the leaves; leaf = 0.
using Height = uint8_t;

inline constexpr uint64_t raw(NodeId id) { return static_cast<uint64_t>(id); }
inline constexpr uint64_t raw(BlockAddr addr) { return static_cast<uint64_t>(addr); }
inline constexpr BlockAddr operator+(BlockAddr addr, uint64_t blocks) {
  return BlockAddr{raw(addr) + blocks};
}

inline constexpr uint32_t kBlockSize = 4096;
/// Blocks needed for `bytes`.
inline constexpr uint64_t blocks_for(uint64_t bytes) { return (bytes + kBlockSize - 1) / kBlockSize; }

}  // namespace caw
