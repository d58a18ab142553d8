// BlobCache: decoded blobs in memory, within a bound.
//
// The key is address and checksum: an address is used again after its blob was freed, and a reader
// may still hold the old reference.
//
// All methods may be called from any thread.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "base/error.h"
#include "base/ref.h"
#include "format/value.h"

namespace caw {

/// The raw bytes of a blob.
class BlobData : public RefCounted {
 public:
  explicit BlobData(std::string bytes) : bytes_(std::move(bytes)) {}
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};
using BlobDataRef = Ref<const BlobData>;

class BlobCache {
 public:
  explicit BlobCache(uint64_t budget_bytes) : budget_bytes_(budget_bytes) {}

  enum class Found : uint8_t {
    data,      ///< here it is
    claimed,   ///< the caller reads it and calls finish_load()
    busy,      ///< somebody else reads it (only without `wait`)
    bypass,    ///< the place is taken by another blob: read without the cache
  };
  Found find_or_claim(const BlobRef& blob, bool wait, BlobDataRef* data);
  void finish_load(const BlobRef& blob, const Result<BlobDataRef>& loaded);
  /// The blob was freed.
  void erase(BlockAddr addr);
  uint64_t bytes() const { return bytes_.load(std::memory_order_relaxed); }

 private:
  struct Slot {
    uint64_t checksum = 0;
    BlobDataRef data;
    bool loading = false;
    bool stale = false;            ///< freed while it was being read
    bool used = false;
  };
  struct alignas(64) Shard {
    std::mutex mutex;
    std::condition_variable loaded;
    absl::flat_hash_map<BlockAddr, Slot> slots;
    std::vector<BlockAddr> ring;   ///< may hold addresses that are gone
    size_t hand = 0;
  };
  static constexpr size_t kShards = 8;

  Shard& shard(BlockAddr addr) {
    return shards_[static_cast<size_t>((raw(addr) * 0x9e3779b97f4a7c15ULL) >> 61U)];
  }
  void drop_data(Slot& slot);
  void evict();
  void evict_shard(Shard& shard);

  const uint64_t budget_bytes_;
  std::atomic<uint64_t> bytes_{0};
  std::atomic<size_t> next_shard_{0};
  std::array<Shard, kShards> shards_;
};

}  // namespace caw
