// Reads pages of the meta tree through a bounded cache.
//
// Pages are known by address and checksum: a block that was freed and written anew is another page,
// so nothing ever has to be dropped from the cache for being out of date.
//
// Any thread may call anything.  Each shard has a mutex, held for look-ups only.
#pragma once

#include <array>
#include <atomic>
#include <mutex>
#include <span>
#include <unordered_map>
#include <vector>

#include "dev/block_device.h"
#include "meta/meta_page.h"

namespace caw {

class PageCache {
 public:
  PageCache(BlockDevice& device, uint64_t capacity_bytes)
      : device_(device), shard_bytes_(capacity_bytes / kShards) {}

  /// Fails: meta_page, device_read.
  Result<MetaPageHandle> get(PageRef ref, uint8_t level);
  /// The same for many pages of one level, in one batch of reads.
  Result<std::vector<MetaPageHandle>> get_all(std::span<const PageRef> refs, uint8_t level);
  void put(MetaPageHandle page);

  uint64_t cached_bytes() const { return cached_bytes_.load(std::memory_order_relaxed); }

 private:
  static constexpr size_t kShards = 16;
  /// Map node, slot and allocator overhead of one page.
  static constexpr size_t kOverheadBytes = 128;

  struct Slot {
    MetaPageHandle page;
    bool recent = false;   ///< used since the hand last came by
  };
  struct Shard {
    std::mutex mutex;
    std::unordered_map<uint64_t, size_t> index;   ///< address -> slot
    std::vector<Slot> slots;
    size_t hand = 0;
    uint64_t bytes = 0;
  };

  Shard& shard_of(BlockAddr addr) { return shards_[raw(addr) % kShards]; }
  MetaPageHandle find(PageRef ref, uint8_t level);
  void evict(Shard& shard);
  void drop(Shard& shard, size_t slot);
  static uint64_t cost(const MetaPage& page) { return page.memory_bytes() + kOverheadBytes; }

  BlockDevice& device_;
  const uint64_t shard_bytes_;
  std::array<Shard, kShards> shards_;
  std::atomic<uint64_t> cached_bytes_{0};
};

}  // namespace caw
