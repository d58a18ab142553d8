// Operations on the bits of one region: a set bit is a block in use.  Pure; no I/O, no locks.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

#include "format/superblock.h"

namespace caw {

inline constexpr size_t kRegionWords = kRegionBlocks / 64;

/// Bit i of word w is block 64 * w + i of the region; as bytes (little-endian) this is the bitmap
/// block on disk: bit i of byte b is block 8 * b + i.
using RegionBits = std::array<uint64_t, kRegionWords>;
static_assert(sizeof(RegionBits) == kBlockSize);

/// First clear (set) bit in [from, limit), or limit.  Requires: limit <= kRegionBlocks.
uint32_t find_clear(const RegionBits& bits, uint32_t from, uint32_t limit);
uint32_t find_set(const RegionBits& bits, uint32_t from, uint32_t limit);

/// One past the last set bit below `before`, 0 if there is none: where the clear run that ends at
/// `before` begins.
uint32_t clear_run_begin(const RegionBits& bits, uint32_t before);

/// Requires of these: first + count <= kRegionBlocks.
void set_bits(RegionBits& bits, uint32_t first, uint32_t count);
void clear_bits(RegionBits& bits, uint32_t first, uint32_t count);
uint32_t count_set(const RegionBits& bits, uint32_t first, uint32_t count);

/// A run of clear bits, found first-fit.
struct ClearRun {
  uint32_t first = kRegionBlocks;   ///< where the run begins; `limit` if there is none
  uint32_t longest_skipped = 0;     ///< longest run passed over because it was too short
};
/// First run of `count` clear bits within [from, limit).
ClearRun find_clear_run(const RegionBits& bits, uint32_t from, uint32_t limit, uint32_t count);

}  // namespace caw
