#include "store/blob_cache.h"

#include "base/assert.h"

namespace caw {

BlobCache::Found BlobCache::find_or_claim(const BlobRef& blob, bool wait, BlobDataRef* data) {
  Shard& at = shard(blob.addr);
  std::unique_lock lock(at.mutex);
  while (true) {
    Slot& slot = at.slots[blob.addr];
    if (slot.data && slot.checksum == blob.checksum) {
      slot.used = true;
      *data = slot.data;
      return Found::data;
    }
    if (!slot.loading) {
      drop_data(slot);
      slot = Slot{.checksum = blob.checksum, .data = nullptr, .loading = true};
      return Found::claimed;
    }
    if (slot.stale || slot.checksum != blob.checksum) return Found::bypass;
    if (!wait) return Found::busy;
    at.loaded.wait(lock);
  }
}

void BlobCache::finish_load(const BlobRef& blob, const Result<BlobDataRef>& loaded) {
  {
    Shard& at = shard(blob.addr);
    const std::scoped_lock lock(at.mutex);
    const auto found = at.slots.find(blob.addr);
    CAW_ASSERT(found != at.slots.end() && found->second.loading);
    Slot& slot = found->second;
    at.loaded.notify_all();
    if (!loaded || slot.stale) {
      at.slots.erase(found);
      return;
    }
    slot.loading = false;
    slot.used = true;
    slot.data = *loaded;
    bytes_ += slot.data->bytes().size();
    at.ring.push_back(blob.addr);
    if (at.ring.size() > 2 * at.slots.size() + 64) {
      std::erase_if(at.ring, [&at](BlockAddr addr) { return !at.slots.contains(addr); });
    }
  }
  evict();
}

void BlobCache::erase(BlockAddr addr) {
  Shard& at = shard(addr);
  const std::scoped_lock lock(at.mutex);
  const auto found = at.slots.find(addr);
  if (found == at.slots.end()) return;
  if (found->second.loading) {
    found->second.stale = true;
    return;
  }
  drop_data(found->second);
  at.slots.erase(found);
}

void BlobCache::drop_data(Slot& slot) {
  if (!slot.data) return;
  bytes_ -= slot.data->bytes().size();
  slot.data = nullptr;
}

void BlobCache::evict() {
  for (size_t i = 0; i < 16 * kShards && bytes() > budget_bytes_; ++i) {
    Shard& at = shards_[next_shard_.fetch_add(1, std::memory_order_relaxed) % kShards];
    const std::scoped_lock lock(at.mutex);
    evict_shard(at);
  }
}

/// Moves the clock's hand an eighth of a turn.
void BlobCache::evict_shard(Shard& shard) {
  for (size_t steps = shard.ring.size() / 8 + 1; steps > 0 && !shard.ring.empty(); --steps) {
    if (shard.hand >= shard.ring.size()) shard.hand = 0;
    const auto found = shard.slots.find(shard.ring[shard.hand]);
    const bool present = found != shard.slots.end() && found->second.data;
    if (present && found->second.used) {
      found->second.used = false;
      ++shard.hand;
      continue;
    }
    if (present) {
      drop_data(found->second);
      shard.slots.erase(found);
    }
    shard.ring[shard.hand] = shard.ring.back();
    shard.ring.pop_back();
  }
}

}  // namespace caw
