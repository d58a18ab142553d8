// A device in memory, for tests: its contents outlive the device and are copied in O(blocks)
// pointers.
//
// MemoryImage is the medium; any number of devices may be opened on it, one after another or at
// once.  All methods may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <shared_mutex>
#include <span>
#include <vector>

#include "base/ref.h"
#include "dev/block_device.h"

namespace caw {

/// The bytes of one block, never changed once they are in an image.
struct BlockContent final : RefCounted {
  explicit BlockContent(std::span<const std::byte, kBlockSize> data);
  std::array<std::byte, kBlockSize> bytes;
  uint64_t hash;  ///< of the bytes
};
using BlockContentRef = Ref<const BlockContent>;

/// Copies `data`, whole blocks, into contents that images can share.
std::vector<BlockContentRef> make_block_contents(std::span<const std::byte> data);

class MemoryImage final : public RefCounted {
 public:
  /// All zeros.
  explicit MemoryImage(uint64_t blocks) : contents_(blocks) {}

  uint64_t block_count() const { return contents_.size(); }
  /// Requires: the range is inside the image.
  void read(BlockAddr first, std::span<std::byte> out) const;
  void write(BlockAddr first, std::span<const std::byte> data);
  void put(BlockAddr at, BlockContentRef content);
  void clear(BlockAddr first, uint64_t blocks);
  /// Tells images of different contents apart; kept up to date, costs nothing to ask.
  uint64_t digest() const;
  /// An image that starts with the same contents and then goes its own way.
  Ref<MemoryImage> clone() const;

 private:
  void replace(uint64_t block, BlockContentRef content);

  mutable std::shared_mutex mutex_;
  std::vector<BlockContentRef> contents_;  // guarded by mutex_; null = zeros
  uint64_t digest_ = 0;                    // guarded by mutex_; sum over the blocks
};

/// A device on `image`.  Its flush() has nothing to do; ensure_backed() always succeeds.
std::unique_ptr<BlockDevice> make_memory_device(Ref<MemoryImage> image, bool read_only = false);

}  // namespace caw
