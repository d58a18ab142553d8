// BlockMap: a bit for every block of a volume, in memory only where some are set.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/ids.h"
#include "format/superblock.h"

namespace caw {

class BlockMap {
 public:
  static constexpr size_t kWords = kRegionBlocks / 64;
  /// Bit i of word w is block 64 w + i of the region.
  using Bits = std::array<uint64_t, kWords>;

  explicit BlockMap(uint64_t block_count)
      : regions_((block_count + kRegionBlocks - 1) / kRegionBlocks) {}

  /// Sets blocks; returns the first one that was set before.  Requires: within the volume.
  std::optional<uint64_t> mark(uint64_t first, uint64_t blocks) {
    std::optional<uint64_t> twice;
    for (uint64_t block = first; block < first + blocks; ++block) {
      std::unique_ptr<Bits>& bits = regions_[block / kRegionBlocks];
      if (bits == nullptr) bits = std::make_unique<Bits>();
      uint64_t& word = (*bits)[block % kRegionBlocks / 64];
      const uint64_t bit = uint64_t{1} << (block % 64);
      if ((word & bit) != 0 && !twice) twice = block;
      word |= bit;
    }
    return twice;
  }
  bool is_set(uint64_t block) const {
    const std::unique_ptr<Bits>& bits = regions_[block / kRegionBlocks];
    return bits != nullptr &&
           ((*bits)[block % kRegionBlocks / 64] >> (block % 64) & 1U) != 0;
  }
  /// Null: nothing is set in it.
  const Bits* region(uint64_t index) const { return regions_[index].get(); }

 private:
  std::vector<std::unique_ptr<Bits>> regions_;
};

}  // namespace caw
