// Making sure on the host of what is given out, and giving back to the host what is free.
#include <algorithm>

#include "space/bitmap_allocator.h"

namespace caw {
namespace {
constexpr const char* kWhere = "host backing";
/// Free blocks to keep while a zone is away being discarded, above the reserve.
constexpr uint64_t kDiscardMarginBlocks = 32768;
}  // namespace

uint32_t BitmapAllocator::zone_begin(uint32_t region, uint32_t zone) const {
  return std::min(std::max(zone * kZoneBlocks, geometry_.fixed_blocks(region)),
                  geometry_.size_blocks(region));
}

uint32_t BitmapAllocator::zone_end(uint32_t region, uint32_t zone) const {
  return std::max(zone_begin(region, zone),
                  std::min((zone + 1) * kZoneBlocks, geometry_.size_blocks(region)));
}

/// Requires: the region is in memory or was never touched.
uint32_t BitmapAllocator::zone_free(uint32_t region, uint32_t zone) {
  const uint32_t begin = zone_begin(region, zone);
  const uint32_t size = zone_end(region, zone) - begin;
  const Region& r = regions_[region];
  return r.bits == nullptr ? size : size - count_set(r.bits->used(), begin, size);
}

/// Backs zones until `blocks` can be taken and the reserve is still backed, or nothing is left to
/// back.  Fails: device_full.
Result<void> BitmapAllocator::back_ahead(Lock& lock, uint32_t blocks) {
  while (backed_free_ < reserve_blocks_ + blocks && unbacked_free_ > 0) {
    Spot zone{};
    if (!next_zone_to_back(&zone)) break;
    CAW_TRY(back_zone(lock, zone.region, zone.first));
  }
  return {};
}

/// The region and (as `first`) number of an unbacked zone with free blocks: where the cursors
/// will come next, if possible.
bool BitmapAllocator::next_zone_to_back(Spot* zone) {
  auto find_in = [&](uint32_t index) {
    const Region& region = regions_[index];
    if (region.free_blocks == 0) return false;
    const bool known = region.bits != nullptr || !region.written;
    for (uint32_t z = 0; z < kZones; ++z) {
      const bool backed = (region.backed_zones >> z & 1U) != 0;
      if (backed || zone_begin(index, z) == zone_end(index, z)) continue;
      if (known && zone_free(index, z) == 0) continue;
      *zone = {index, z};
      return true;
    }
    return false;
  };
  for (const Cursor* cursor : {&small_, &large_}) {
    if (cursor->region != kNone && find_in(cursor->region)) return true;
  }
  for (const bool roomy_only : {true, false}) {
    for (uint32_t i = 0; i < geometry_.regions; ++i, ++back_next_) {
      if (back_next_ >= geometry_.regions) back_next_ = 0;
      if (roomy_only && !is_roomy(back_next_)) continue;
      if (find_in(back_next_)) return true;
    }
  }
  return false;
}

/// Backs all zones that [spot, spot + blocks) touches.
Result<void> BitmapAllocator::back_spot(Lock& lock, Spot spot, uint32_t blocks) {
  const uint32_t last = (spot.first + blocks - 1) / kZoneBlocks;
  for (uint32_t zone = spot.first / kZoneBlocks; zone <= last; ++zone) {
    if ((regions_[spot.region].backed_zones >> zone & 1U) == 0) {
      CAW_TRY(back_zone(lock, spot.region, zone));
    }
  }
  return {};
}

Result<void> BitmapAllocator::back_zone(Lock& lock, uint32_t index, uint32_t zone) {
  Region& region = regions_[index];
  ++region.outstanding;   // stays in memory
  const auto unpin = [&](Result<void> result) {
    --region.outstanding;
    return result;
  };
  while (region.bits == nullptr && region.written) {
    const Result<void> loaded = load(lock, index);
    if (!loaded) return unpin(loaded);
  }
  ++backing_;
  lock.unlock();
  const Result<void> backed = ensure_zone_backed(index, zone);
  lock.lock();
  --backing_;
  const auto bit = static_cast<uint8_t>(1U << zone);
  if (backed && (region.backed_zones & bit) == 0) {
    region.backed_zones |= bit;
    const uint32_t free_blocks = zone_free(index, zone);
    backed_free_ += free_blocks;
    unbacked_free_ -= free_blocks;
  }
  return unpin(backed);
}

/// Also the region's bitmap slots: a checkpoint must not fail for want of them.
Result<void> BitmapAllocator::ensure_zone_backed(uint32_t region, uint32_t zone) {
  CAW_TRY(device_.ensure_backed(geometry_.bitmap_slot(region, 0), 2));
  const uint32_t begin = zone_begin(region, zone);
  return device_.ensure_backed(addr_of({region, begin}), zone_end(region, zone) - begin);
}

/// For essential requests, and others while the reserve is backed: any backed zone, then any that
/// the host turns out to hold (it was backed in an earlier mount).  Keeps the lock.
Result<BitmapAllocator::Spot> BitmapAllocator::take_on_full_host(Lock& lock, uint32_t blocks) {
  for (const bool try_unbacked : {false, true}) {
    for (uint32_t index = 0; index < geometry_.regions; ++index) {
      Region& region = regions_[index];
      const bool touched = region.backed_zones != 0 || (try_unbacked && index < high_water_);
      if (!touched || region.free_blocks < blocks) continue;
      while (region.bits == nullptr) CAW_TRY(load(lock, index));
      for (uint32_t zone = 0; zone < kZones; ++zone) {
        const auto bit = static_cast<uint8_t>(1U << zone);
        if ((region.backed_zones & bit) == 0) {
          if (!try_unbacked || zone_free(index, zone) < blocks) continue;
          if (!ensure_zone_backed(index, zone)) continue;
          region.backed_zones |= bit;
          backed_free_ += zone_free(index, zone);
          unbacked_free_ -= zone_free(index, zone);
        }
        Spot found{};
        if (take_in_zone(index, zone, blocks, &found)) return found;
      }
    }
  }
  return fail(Code::device_full, blocks, kWhere);
}

bool BitmapAllocator::take_in_zone(uint32_t region, uint32_t zone, uint32_t blocks, Spot* found) {
  const uint32_t end = zone_end(region, zone);
  const ClearRun run =
      find_clear_run(regions_[region].bits->used(), zone_begin(region, zone), end, blocks);
  if (run.first == end) return false;
  raise_high_water(region + 1);
  *found = {region, run.first};
  mark_used(*found, blocks);
  return true;
}

/// Gives zones (region * kZones + zone) that are wholly free back to the host, as far as the
/// reserve stays backed.  A zone counts as used while the lock is dropped for the discard, so no
/// one begins to back it then; if someone is about to back a zone now, none is discarded.
void BitmapAllocator::discard_free_zones(Lock& lock, std::vector<uint32_t>& zones) {
  std::sort(zones.begin(), zones.end());
  zones.erase(std::unique(zones.begin(), zones.end()), zones.end());
  for (const uint32_t id : zones) {
    if (backing_ > 0) return;
    const uint32_t index = id / kZones;
    const uint32_t zone = id % kZones;
    Region& region = regions_[index];
    const uint32_t begin = zone_begin(index, zone);
    const uint32_t size = zone_end(index, zone) - begin;
    const auto bit = static_cast<uint8_t>(1U << zone);
    if (region.bits == nullptr || (region.backed_zones & bit) == 0 || size == 0) continue;
    if (zone_free(index, zone) != size || index == small_.region || index == large_.region) {
      continue;
    }
    if (backed_free_ < reserve_blocks_ + kDiscardMarginBlocks + size ||
        free_blocks_ < reserve_blocks_ + kDiscardMarginBlocks + size) {
      continue;
    }
    back_next_ = std::min(back_next_, index);
    const Spot spot{index, begin};
    mark_used(spot, size);
    free_blocks_ -= size;
    region.backed_zones = static_cast<uint8_t>(region.backed_zones & ~bit);
    lock.unlock();
    ignore_error(device_.discard(addr_of(spot), size), "a hint; the space stays allocated");
    lock.lock();
    mark_clear(spot, size);
    free_blocks_ += size;
  }
}

}  // namespace caw
