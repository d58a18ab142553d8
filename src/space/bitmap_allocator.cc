#include "space/bitmap_allocator.h"

#include <algorithm>

#include "base/assert.h"

namespace caw {
namespace {
constexpr const char* kWhere = "allocator";
}  // namespace

Result<BlockAddr> BitmapAllocator::reserve(uint64_t blocks, SpaceClass space_class) {
  CAW_ASSERT(blocks >= 1 && blocks <= kMaxRequestBlocks);
  const auto count = static_cast<uint32_t>(blocks);
  const bool essential = space_class == SpaceClass::essential;
  Lock lock(mutex_);
  if (free_blocks_ < blocks + (essential ? 0 : reserve_blocks_)) {
    return fail(Code::no_space, blocks, kWhere);
  }
  free_blocks_ -= blocks;   // claimed first: the lock is dropped in between

  Result<Spot> spot = fail(Code::no_space, blocks, kWhere);
  Result<void> ahead = essential ? Result<void>{} : back_ahead(lock, count);
  if (ahead) {
    spot = take(lock, count);
    if (spot) {
      const Result<void> backed = back_spot(lock, *spot, count);
      if (!backed) {
        mark_clear(*spot, count);
        spot = std::unexpected<Error>(backed.error());
      }
    }
  } else {
    spot = std::unexpected<Error>(ahead.error());
  }
  const bool may_use_backed = essential || backed_free_ >= reserve_blocks_ + blocks;
  if (!spot && spot.error().code == Code::device_full && may_use_backed) {
    spot = take_on_full_host(lock, count);
  }
  if (!spot) {
    free_blocks_ += blocks;
    return std::unexpected<Error>(spot.error());
  }
  return addr_of(*spot);
}

void BitmapAllocator::commit(Extent extent, Epoch epoch) {
  CAW_ASSERT(in_bounds(extent));
  const std::lock_guard<std::mutex> lock(mutex_);
  pending_[epoch].push_back({raw(extent.first), static_cast<uint32_t>(extent.blocks), false});
}

void BitmapAllocator::cancel(Extent extent) {
  CAW_ASSERT(in_bounds(extent));
  const std::lock_guard<std::mutex> lock(mutex_);
  const Spot spot = spot_of(raw(extent.first));
  const auto blocks = static_cast<uint32_t>(extent.blocks);
  CAW_ASSERT(regions_[spot.region].bits != nullptr);
  CAW_ASSERT(count_set(regions_[spot.region].bits->used(), spot.first, blocks) == blocks);
  mark_clear(spot, blocks);
  free_blocks_ += extent.blocks;
}

void BitmapAllocator::free(Extent extent, Epoch epoch) {
  const std::lock_guard<std::mutex> lock(mutex_);
  // Addresses come from disk: what is wrong with one shows when the checkpoint applies it.
  const bool sane = in_bounds(extent);
  const uint32_t blocks = sane ? static_cast<uint32_t>(extent.blocks) : 0;
  pending_[epoch].push_back({raw(extent.first), blocks, true});
  if (!sane) return;
  reclaiming_blocks_ += extent.blocks;
  regions_[spot_of(raw(extent.first)).region].outstanding += blocks;
}

SpaceFigures BitmapAllocator::figures() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return {total_blocks_, total_blocks_ - free_blocks_, reclaiming_blocks_, reserve_blocks_};
}

size_t BitmapAllocator::loaded_regions() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return loaded_;
}

bool BitmapAllocator::in_bounds(const Extent& extent) const {
  const uint64_t first = raw(extent.first);
  if (extent.blocks == 0 || extent.blocks > kRegionBlocks || first >= geometry_.block_count) {
    return false;
  }
  const Spot spot = spot_of(first);
  return spot.region < geometry_.regions && spot.first >= geometry_.fixed_blocks(spot.region) &&
         spot.first + extent.blocks <= geometry_.size_blocks(spot.region);
}

/// Takes from the cursor for this size; the other cursor's region is the last resort, when all
/// others are full.
Result<BitmapAllocator::Spot> BitmapAllocator::take(Lock& lock, uint32_t blocks) {
  Cursor& own = blocks <= kSmallBlocks ? small_ : large_;
  Cursor& other = blocks <= kSmallBlocks ? large_ : small_;
  Spot found{};
  while (true) {
    if (own.region != kNone) {
      if (advance(own, blocks, &found)) return found;
      continue;   // the region was left
    }
    const uint32_t index = pick_region(own, blocks, other.region);
    if (index == kNone) {
      if (other.region == kNone) return fail(Code::no_space, blocks, kWhere);
      if (advance(other, blocks, &found)) return found;
      continue;
    }
    if (regions_[index].bits == nullptr) {
      CAW_TRY(load(lock, index));
      continue;   // the lock was dropped: choose anew
    }
    raise_high_water(index + 1);
    regions_[index].longest = 0;
    own.region = index;
    own.next_region = index + 1;
    own.at = geometry_.fixed_blocks(index);
    own.longest_skipped = 0;
  }
}

/// Takes the next run from the cursor's region; leaves the region if there is none.
bool BitmapAllocator::advance(Cursor& cursor, uint32_t blocks, Spot* found) {
  Region& region = regions_[cursor.region];
  const ClearRun run = find_clear_run(region.bits->used(), cursor.at,
                                      geometry_.size_blocks(cursor.region), blocks);
  cursor.longest_skipped = std::max(cursor.longest_skipped, run.longest_skipped);
  cursor.at = run.first;
  if (run.first == geometry_.size_blocks(cursor.region)) {
    leave(cursor);
    return false;
  }
  *found = {cursor.region, run.first};
  mark_used(*found, blocks);
  cursor.at += blocks;
  return true;
}

void BitmapAllocator::leave(Cursor& cursor) {
  Region& region = regions_[cursor.region];
  region.longest =
      static_cast<uint16_t>(std::max<uint32_t>(region.longest, cursor.longest_skipped));
  cursor.region = kNone;
}

/// A region other than `exclude` that may hold `blocks`, or kNone.
uint32_t BitmapAllocator::pick_region(const Cursor& cursor, uint32_t blocks,
                                      uint32_t exclude) const {
  uint32_t any = kNone;
  const bool fresh = high_water_ < geometry_.regions;
  if (roomy_ > 0 || !fresh) {
    for (uint32_t i = 0; i < high_water_; ++i) {
      uint32_t index = cursor.next_region + i;
      if (index >= high_water_) index -= high_water_;
      if (index >= high_water_) index %= high_water_;
      if (index == exclude || regions_[index].longest < blocks) continue;
      if (is_roomy(index)) return index;
      if (any == kNone) any = index;
      if (roomy_ == 0) break;
    }
  }
  if (fresh && regions_[high_water_].longest >= blocks) return high_water_;
  if (any != kNone) return any;
  for (uint32_t index = 0; index < geometry_.regions; ++index) {
    if (index != exclude && regions_[index].longest >= blocks) return index;
  }
  return kNone;
}

bool BitmapAllocator::is_roomy(uint32_t index) const {
  return regions_[index].free_blocks * 4U >= geometry_.usable_blocks(index);
}

void BitmapAllocator::raise_high_water(uint32_t regions) {
  for (; high_water_ < regions; ++high_water_) {
    if (is_roomy(high_water_)) ++roomy_;
  }
}

void BitmapAllocator::set_free_blocks(Region& region, uint32_t index, uint32_t free_blocks) {
  const bool counted = index < high_water_;
  if (counted && is_roomy(index)) --roomy_;
  region.free_blocks = static_cast<uint16_t>(free_blocks);
  if (counted && is_roomy(index)) ++roomy_;
}

void BitmapAllocator::mark_used(Spot spot, uint32_t blocks) {
  Region& region = regions_[spot.region];
  set_bits(region.bits->used(), spot.first, blocks);
  set_free_blocks(region, spot.region, region.free_blocks - blocks);
  region.outstanding += blocks;
  for (uint32_t at = spot.first; at < spot.first + blocks;) {
    const uint32_t end = std::min(spot.first + blocks, (at / kZoneBlocks + 1) * kZoneBlocks);
    const bool backed = (region.backed_zones >> (at / kZoneBlocks) & 1U) != 0;
    (backed ? backed_free_ : unbacked_free_) -= end - at;
    at = end;
  }
}

/// The reverse of mark_used(); free_blocks_ is the caller's.
void BitmapAllocator::mark_clear(Spot spot, uint32_t blocks) {
  Region& region = regions_[spot.region];
  RegionBits& used = region.bits->used();
  clear_bits(used, spot.first, blocks);
  set_free_blocks(region, spot.region, region.free_blocks + blocks);
  region.outstanding -= blocks;
  for (uint32_t at = spot.first; at < spot.first + blocks;) {
    const uint32_t end = std::min(spot.first + blocks, (at / kZoneBlocks + 1) * kZoneBlocks);
    const bool backed = (region.backed_zones >> (at / kZoneBlocks) & 1U) != 0;
    (backed ? backed_free_ : unbacked_free_) += end - at;
    at = end;
  }
  const uint32_t run = find_set(used, spot.first, geometry_.size_blocks(spot.region)) -
                       clear_run_begin(used, spot.first);
  region.longest = static_cast<uint16_t>(std::max<uint32_t>(region.longest, run));
}

}  // namespace caw
