#include "store/image_cache.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace caw {

ImageCache::Found ImageCache::find(NodeId id, ImageRef* image) {
  Shard& at = shard(id);
  const std::scoped_lock lock(at.mutex);
  const auto found = at.slots.find(id);
  if (found == at.slots.end()) return Found::missing;
  Slot& slot = found->second;
  if (slot.dropped != 0) return Found::dropped;
  if (!slot.image) return Found::missing;
  slot.used = true;
  *image = slot.image;
  return Found::image;
}

ImageCache::Found ImageCache::find_or_claim(NodeId id, bool wait, ImageRef* image) {
  Shard& at = shard(id);
  std::unique_lock lock(at.mutex);
  while (true) {
    Slot& slot = at.slots[id];
    if (slot.dropped != 0) return Found::dropped;
    if (slot.image) {
      slot.used = true;
      *image = slot.image;
      return Found::image;
    }
    if (!slot.loading) {
      slot.loading = true;
      return Found::claimed;
    }
    if (!wait) return Found::busy;
    at.loaded.wait(lock);
  }
}

Result<ImageRef> ImageCache::finish_load(NodeId id, Result<ImageRef> loaded) {
  Shard& at = shard(id);
  const std::scoped_lock lock(at.mutex);
  const auto found = at.slots.find(id);
  CAW_ASSERT(found != at.slots.end() && found->second.loading);
  Slot& slot = found->second;
  slot.loading = false;
  at.loaded.notify_all();
  if (slot.dropped != 0) {
    if (slot.dropped <= finished_epoch_.load()) at.slots.erase(found);
    return fail(Code::node_absent, raw(id), "dropped");
  }
  if (slot.image) return slot.image;
  if (!loaded) {
    at.slots.erase(found);
    return loaded;
  }
  slot.image = *loaded;
  clean_bytes_ += slot.image->memory_bytes();
  make_clean(at, id, slot);
  return loaded;
}

/// Enters the slot's image among the evictable ones.
void ImageCache::make_clean(Shard& shard, NodeId id, Slot& slot) {
  slot.dirty = 0;
  slot.used = true;
  if (slot.in_ring) return;
  slot.in_ring = true;
  std::vector<NodeId>& ids = ring_of(shard, *slot.image).ids;
  ids.push_back(id);
  if (ids.size() > 2 * shard.slots.size() + 64) {
    std::erase_if(ids, [&shard](NodeId each) { return !shard.slots.contains(each); });
  }
}

/// Takes the current image out of the figures; where a checkpoint still needs it, keeps it there.
void ImageCache::forget_image(Slot& slot) {
  if (!slot.image) return;
  const uint64_t bytes = slot.image->memory_bytes();
  slot.image->mark_superseded();
  (slot.dirty != 0 ? dirty_bytes_ : clean_bytes_) -= bytes;
  slot.image = nullptr;
}

bool ImageCache::publish(NodeId id, ImageRef image, Epoch epoch) {
  CAW_ASSERT(image && epoch != 0);
  Shard& at = shard(id);
  const std::scoped_lock lock(at.mutex);
  Slot& slot = at.slots[id];
  if (slot.dropped != 0) return false;
  if (slot.image == image && slot.dirty == epoch) return true;
  const bool was_dirty_in_epoch = slot.image && slot.dirty == epoch;
  if (slot.image && slot.dirty != 0 && slot.dirty != epoch) {
    if (slot.dirty + 1 != epoch || slot.sealing) return false;
    slot.image->mark_superseded();
    slot.sealing = std::move(slot.image);
    slot.image = nullptr;
  } else {
    forget_image(slot);
  }
  dirty_bytes_ += image->memory_bytes();
  slot.image = std::move(image);
  slot.dirty = epoch;
  if (!was_dirty_in_epoch) at.dirty_ids[epoch & 1U].push_back(id);
  at.loaded.notify_all();
  return true;
}

bool ImageCache::drop(NodeId id, Epoch epoch) {
  Shard& at = shard(id);
  const std::scoped_lock lock(at.mutex);
  Slot& slot = at.slots[id];
  if (slot.dropped != 0 || slot.sealing || (slot.dirty != 0 && slot.dirty != epoch)) return false;
  forget_image(slot);
  slot.dirty = 0;
  slot.dropped = epoch;
  at.dropped_ids[epoch & 1U].push_back(id);
  at.loaded.notify_all();
  return true;
}

ImageCache::State ImageCache::state(NodeId id) {
  Shard& at = shard(id);
  const std::scoped_lock lock(at.mutex);
  const auto found = at.slots.find(id);
  if (found == at.slots.end()) return {};
  const Slot& slot = found->second;
  return State{slot.image, slot.image ? slot.dirty : 0, static_cast<bool>(slot.sealing),
               slot.dropped != 0, slot.dropped};
}

std::vector<ImageCache::DirtyImage> ImageCache::dirty_images(Epoch epoch) {
  std::vector<DirtyImage> images;
  for (Shard& at : shards_) {
    const std::scoped_lock lock(at.mutex);
    for (const NodeId id : at.dirty_ids[epoch & 1U]) {
      const auto found = at.slots.find(id);
      if (found == at.slots.end()) continue;
      const Slot& slot = found->second;
      if (slot.sealing) {
        images.push_back({id, slot.sealing});
      } else if (slot.image && slot.dirty == epoch) {
        images.push_back({id, slot.image});
      }
    }
  }
  std::ranges::sort(images, {}, &DirtyImage::id);
  const auto same = [](const DirtyImage& a, const DirtyImage& b) { return a.id == b.id; };
  images.erase(std::unique(images.begin(), images.end(), same), images.end());
  return images;
}

std::vector<NodeId> ImageCache::dropped(Epoch epoch) {
  std::vector<NodeId> ids;
  for (Shard& at : shards_) {
    const std::scoped_lock lock(at.mutex);
    const std::vector<NodeId>& of_shard = at.dropped_ids[epoch & 1U];
    ids.insert(ids.end(), of_shard.begin(), of_shard.end());
  }
  std::ranges::sort(ids);
  return ids;
}

void ImageCache::finish(Epoch epoch) {
  finished_epoch_.store(epoch);
  for (Shard& at : shards_) {
    const std::scoped_lock lock(at.mutex);
    finish_shard(at, epoch);
  }
  evict();
}

void ImageCache::finish_shard(Shard& shard, Epoch epoch) {
  for (const NodeId id : std::exchange(shard.dirty_ids[epoch & 1U], {})) {
    const auto found = shard.slots.find(id);
    if (found == shard.slots.end()) continue;
    Slot& slot = found->second;
    if (slot.sealing) {
      dirty_bytes_ -= slot.sealing->memory_bytes();
      slot.sealing = nullptr;
    } else if (slot.image && slot.dirty == epoch) {
      dirty_bytes_ -= slot.image->memory_bytes();
      clean_bytes_ += slot.image->memory_bytes();
      make_clean(shard, id, slot);
    }
  }
  for (const NodeId id : std::exchange(shard.dropped_ids[epoch & 1U], {})) {
    const auto found = shard.slots.find(id);
    if (found != shard.slots.end() && found->second.dropped == epoch && !found->second.loading) {
      shard.slots.erase(found);
    }
  }
}

void ImageCache::merge_into_next(Epoch epoch) {
  for (Shard& at : shards_) {
    const std::scoped_lock lock(at.mutex);
    merge_shard(at, epoch);
  }
}

void ImageCache::merge_shard(Shard& shard, Epoch epoch) {
  const size_t from = epoch & 1U;
  const size_t to = from ^ 1U;
  for (const NodeId id : std::exchange(shard.dirty_ids[from], {})) {
    const auto found = shard.slots.find(id);
    if (found == shard.slots.end()) continue;
    Slot& slot = found->second;
    if (slot.sealing) {
      dirty_bytes_ -= slot.sealing->memory_bytes();
      slot.sealing = nullptr;
    } else if (slot.image && slot.dirty == epoch) {
      slot.dirty = epoch + 1;
      shard.dirty_ids[to].push_back(id);
    }
  }
  for (const NodeId id : std::exchange(shard.dropped_ids[from], {})) {
    const auto found = shard.slots.find(id);
    if (found == shard.slots.end() || found->second.dropped != epoch) continue;
    found->second.dropped = epoch + 1;
    shard.dropped_ids[to].push_back(id);
  }
}

void ImageCache::evict() {
  if (clean_bytes() <= budget_bytes_) return;
  const uint64_t enough = budget_bytes_ - std::min<uint64_t>(budget_bytes_ / 16, 2U << 20);
  for (const size_t ring : {size_t{0}, size_t{1}}) {
    for (size_t i = 0; i < kShards * 2 * kVisitsPerTurn && clean_bytes() > enough; ++i) {
      Shard& at = shards_[next_shard_.fetch_add(1, std::memory_order_relaxed) % kShards];
      const std::scoped_lock lock(at.mutex);
      evict_ring(at, at.rings[ring]);
    }
  }
}

/// Moves the hand a part of a turn; images that somebody holds stay.
void ImageCache::evict_ring(Shard& shard, Ring& ring) {
  for (size_t steps = ring.ids.size() / kVisitsPerTurn + 1; steps > 0; --steps) {
    if (ring.ids.empty()) return;
    if (ring.hand >= ring.ids.size()) ring.hand = 0;
    const auto found = shard.slots.find(ring.ids[ring.hand]);
    const bool is_clean =
        found != shard.slots.end() && found->second.image && found->second.dirty == 0;
    if (is_clean && (found->second.used || found->second.image->ref_count() > 1)) {
      found->second.used = false;
      ++ring.hand;
      continue;
    }
    if (is_clean) {
      clean_bytes_ -= found->second.image->memory_bytes();
      found->second.image = nullptr;
    }
    if (found != shard.slots.end()) {
      found->second.in_ring = false;
      if (is_empty(found->second)) shard.slots.erase(found);
    }
    ring.ids[ring.hand] = ring.ids.back();
    ring.ids.pop_back();
  }
}

}  // namespace caw
