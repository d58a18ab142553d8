#include "space/bitmap_allocator.h"

#include <algorithm>
#include <thread>

#include "base/assert.h"

namespace caw {
namespace {
constexpr const char* kWhere = "allocator";
/// Runs of at least this are taken as they come, so that what is written together lies together.
constexpr uint32_t kLongRunBlocks = 256;
}  // namespace

Result<BlockAddr> BitmapAllocator::reserve(uint64_t blocks, SpaceClass space_class) {
  CAW_ASSERT(blocks >= 1 && blocks <= kMaxRequestBlocks);
  const auto count = static_cast<uint32_t>(blocks);
  const bool essential = space_class == SpaceClass::essential;
  Lock lock = enter();
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

Result<bool> BitmapAllocator::claim(Extent extent) {
  if (!in_bounds(extent)) return fail(Code::bitmap_damaged, raw(extent.first), "claim");
  const Spot spot = spot_of(raw(extent.first));
  const auto blocks = static_cast<uint32_t>(extent.blocks);
  Lock lock = enter();
  while (regions_[spot.region].bits == nullptr) CAW_TRY(load(lock, spot.region));
  if (count_set(regions_[spot.region].bits->used(), spot.first, blocks) != 0) return false;
  raise_high_water(spot.region + 1);
  mark_used(spot, blocks);
  free_blocks_ -= extent.blocks;
  return true;
}

BitmapAllocator::Lock BitmapAllocator::enter() const {
  waiting_.fetch_add(1, std::memory_order_relaxed);
  Lock lock(mutex_);
  waiting_.fetch_sub(1, std::memory_order_relaxed);
  return lock;
}

/// Lets those in that wait now: a mutex alone would go to whoever unlocks and locks at once.
void BitmapAllocator::give_way(Lock& lock) const {
  constexpr int kPatience = 1000;
  lock.unlock();
  for (int i = 0; i < kPatience && waiting_.load(std::memory_order_relaxed) > 0; ++i) {
    std::this_thread::yield();
  }
  lock.lock();
}

void BitmapAllocator::commit(Extent extent, Epoch epoch) {
  CAW_ASSERT(in_bounds(extent));
  const Lock lock = enter();
  pending_[epoch].push_back({raw(extent.first), static_cast<uint32_t>(extent.blocks), false});
}

void BitmapAllocator::cancel(Extent extent) {
  CAW_ASSERT(in_bounds(extent));
  const Lock lock = enter();
  const Spot spot = spot_of(raw(extent.first));
  const auto blocks = static_cast<uint32_t>(extent.blocks);
  CAW_ASSERT(regions_[spot.region].bits != nullptr);
  CAW_ASSERT(count_set(regions_[spot.region].bits->used(), spot.first, blocks) == blocks);
  mark_clear(spot, blocks);
  free_blocks_ += extent.blocks;
}

void BitmapAllocator::free(Extent extent, Epoch epoch) {
  const Lock lock = enter();
  // Addresses come from disk: what is wrong with one shows when the checkpoint applies it.
  const bool sane = in_bounds(extent);
  const uint32_t blocks = sane ? static_cast<uint32_t>(extent.blocks) : 0;
  pending_[epoch].push_back({raw(extent.first), blocks, true});
  if (!sane) return;
  reclaiming_blocks_ += extent.blocks;
  regions_[spot_of(raw(extent.first)).region].outstanding += blocks;
}

SpaceFigures BitmapAllocator::figures() const {
  const Lock lock = enter();
  return {total_blocks_, total_blocks_ - free_blocks_, reclaiming_blocks_, reserve_blocks_};
}

size_t BitmapAllocator::loaded_regions() const {
  const Lock lock = enter();
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
    const uint32_t index = pick_region(blocks, other.region);
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
    own = {index, geometry_.fixed_blocks(index), 0};
  }
}

/// Takes the run that fits best among the next few in the cursor's region; leaves the region if
/// there is none at all.
bool BitmapAllocator::advance(Cursor& cursor, uint32_t blocks, Spot* found) {
  const RegionBits& used = regions_[cursor.region].bits->used();
  const uint32_t limit = geometry_.size_blocks(cursor.region);
  const ClearRun run = find_clear_run(used, cursor.at, limit, blocks);
  cursor.longest_skipped = std::max(cursor.longest_skipped, run.longest_skipped);
  cursor.at = run.first;
  if (run.first == limit) {
    leave(cursor);
    return false;
  }
  uint32_t best = run.first;
  uint32_t best_blocks = kLongRunBlocks;
  uint32_t at = run.first;
  for (uint32_t tries = lookahead(); tries > 0 && at < limit; --tries) {
    const uint32_t end = find_set(used, at, std::min(limit, at + kLongRunBlocks));
    const uint32_t size = end - at;
    if (size >= blocks && size < best_blocks) {
      best = at;
      best_blocks = size;
    }
    if (size == blocks || size == kLongRunBlocks) break;
    at = find_clear(used, end, limit);
  }
  *found = {cursor.region, best};
  mark_used(*found, blocks);
  if (best == cursor.at) cursor.at += blocks;
  return true;
}

/// How many runs to compare: the fuller the volume, the more it pays to keep long runs whole.
uint32_t BitmapAllocator::lookahead() const {
  if (free_blocks_ >= total_blocks_ / 4) return 8;
  if (free_blocks_ >= total_blocks_ / 10) return 64;
  return 256;
}

void BitmapAllocator::leave(Cursor& cursor) {
  raise_longest(cursor.region, cursor.longest_skipped);
  cursor.region = kNone;
}

void BitmapAllocator::raise_longest(uint32_t index, uint32_t run) {
  const auto longest = static_cast<uint16_t>(run);
  regions_[index].longest = std::max(regions_[index].longest, longest);
  Group& group = groups_[index / kGroupRegions];
  group.longest = std::max(group.longest, longest);
}

/// A region other than `exclude` that may hold `blocks`, or kNone.  The lowest is best: that leaves
/// fewer and longer free runs than going round.
uint32_t BitmapAllocator::pick_region(uint32_t blocks, uint32_t exclude) {
  if (roomy_ > 0) {
    const uint32_t index = find_region(blocks, exclude, true);
    if (index != kNone) return index;
  }
  if (high_water_ < geometry_.regions && regions_[high_water_].longest >= blocks) {
    return high_water_;
  }
  return find_region(blocks, exclude, false);
}

/// `roomy_only`: among those touched before and at least a quarter free.
uint32_t BitmapAllocator::find_region(uint32_t blocks, uint32_t exclude, bool roomy_only) {
  for (uint32_t g = 0; g < groups_.size(); ++g) {
    Group& group = groups_[g];
    if (group.longest < blocks || (roomy_only && group.roomy == 0)) continue;
    const uint32_t end = std::min(geometry_.regions, (g + 1) * kGroupRegions);
    uint16_t longest = 0;
    for (uint32_t index = g * kGroupRegions; index < end; ++index) {
      longest = std::max(longest, regions_[index].longest);
      if (index == exclude || regions_[index].longest < blocks) continue;
      if (roomy_only && (index >= high_water_ || !is_roomy(index))) continue;
      return index;
    }
    group.longest = longest;
  }
  return kNone;
}

bool BitmapAllocator::is_roomy(uint32_t index) const {
  return regions_[index].free_blocks * 4U >= geometry_.usable_blocks(index);
}

void BitmapAllocator::count_roomy(uint32_t index, int change) {
  if (index >= high_water_ || !is_roomy(index)) return;
  roomy_ += static_cast<uint32_t>(change);
  groups_[index / kGroupRegions].roomy += static_cast<uint32_t>(change);
}

void BitmapAllocator::raise_high_water(uint32_t regions) {
  while (high_water_ < regions) {
    ++high_water_;
    count_roomy(high_water_ - 1, +1);
  }
}

void BitmapAllocator::set_free_blocks(uint32_t index, uint32_t free_blocks) {
  count_roomy(index, -1);
  regions_[index].free_blocks = static_cast<uint16_t>(free_blocks);
  count_roomy(index, +1);
}

void BitmapAllocator::mark_used(Spot spot, uint32_t blocks) {
  Region& region = regions_[spot.region];
  set_bits(region.bits->used(), spot.first, blocks);
  set_free_blocks(spot.region, region.free_blocks - blocks);
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
  set_free_blocks(spot.region, region.free_blocks + blocks);
  region.outstanding -= blocks;
  for (uint32_t at = spot.first; at < spot.first + blocks;) {
    const uint32_t end = std::min(spot.first + blocks, (at / kZoneBlocks + 1) * kZoneBlocks);
    const bool backed = (region.backed_zones >> (at / kZoneBlocks) & 1U) != 0;
    (backed ? backed_free_ : unbacked_free_) += end - at;
    at = end;
  }
  const uint32_t run = find_set(used, spot.first, geometry_.size_blocks(spot.region)) -
                       clear_run_begin(used, spot.first);
  raise_longest(spot.region, run);
}

}  // namespace caw
