// The allocator on disk: making and opening it, loading bitmaps, writing checkpoints.
#include <algorithm>

#include "base/bytes.h"
#include "format/compression.h"
#include "space/bitmap_allocator.h"

namespace caw {
namespace {

constexpr const char* kWhere = "allocator";
constexpr uint64_t kMiBBlocks = (1U << 20) / kBlockSize;
/// Changes applied and extents released under one hold of the lock.
constexpr size_t kLockBatch = 256;
/// Bitmaps written together.
constexpr size_t kWriteBatch = 256;

uint64_t reserve_for(uint64_t total_blocks) {
  return std::clamp<uint64_t>(total_blocks / 32, 4 * kMiBBlocks, 256 * kMiBBlocks);
}

Result<void> check_size(const BlockDevice& device, uint64_t block_count) {
  if (block_count < kMinVolumeBlocks || block_count > kMaxVolumeBlocks) {
    return fail(Code::device_size, block_count, kWhere);
  }
  if (block_count > device.block_count()) return fail(Code::volume_truncated, block_count, kWhere);
  return {};
}

bool slot_bit(const Superblock& superblock, uint32_t table_block) {
  return (superblock.region_table_slots[table_block / 64] >> (table_block % 64) & 1U) != 0;
}

}  // namespace

Result<void> Allocator::format(BlockDevice& device, Superblock& superblock) {
  CAW_TRY(check_size(device, superblock.block_count));
  const RegionGeometry geometry(superblock.block_count);
  CAW_TRY(device.ensure_backed(BlockAddr{0}, geometry.fixed_blocks(0)));
  std::vector<uint64_t> checksums;
  AlignedBuffer buffer(kBlockSize);
  superblock.used_blocks = 0;
  for (uint32_t t = 0; t < geometry.table_blocks; ++t) {
    RegionTableBlock block{t, superblock.epoch, {}};
    for (uint32_t i = 0; i < geometry.regions_in(t); ++i) {
      const uint32_t usable = geometry.usable_blocks(t * kRegionsPerTableBlock + i);
      block.entries.push_back({0, static_cast<uint16_t>(usable), 0, false});
    }
    checksums.push_back(encode_region_table_block(block, buffer.chars()));
    CAW_TRY(device.write(geometry.table_slot(t, 0), buffer.span()));
  }
  superblock.region_table_slots = {};
  superblock.region_table_hash = region_table_hash(checksums);
  return {};
}

Result<std::unique_ptr<Allocator>> Allocator::open(BlockDevice& device,
                                                   const Superblock& superblock) {
  return CAW_TRY(BitmapAllocator::open(device, superblock));
}

Result<std::unique_ptr<BitmapAllocator>> BitmapAllocator::open(BlockDevice& device,
                                                               const Superblock& superblock,
                                                               size_t max_loaded) {
  CAW_TRY(check_size(device, superblock.block_count));
  std::unique_ptr<BitmapAllocator> allocator(
      new BitmapAllocator(device, RegionGeometry(superblock.block_count), max_loaded));
  CAW_TRY(allocator->read_tables(superblock));
  return allocator;
}

BitmapAllocator::BitmapAllocator(BlockDevice& device, const RegionGeometry& geometry,
                                 size_t max_loaded)
    : device_(device), geometry_(geometry), max_loaded_(max_loaded) {
  for (uint32_t r = 0; r < geometry_.regions; ++r) total_blocks_ += geometry_.usable_blocks(r);
  reserve_blocks_ = reserve_for(total_blocks_);
}

Result<void> BitmapAllocator::read_tables(const Superblock& superblock) {
  regions_.resize(geometry_.regions);
  groups_.resize((geometry_.regions + kGroupRegions - 1) / kGroupRegions);
  AlignedBuffer buffer(size_t{geometry_.table_blocks} * kBlockSize);
  std::vector<ReadRequest> reads;
  for (uint32_t t = 0; t < geometry_.table_blocks; ++t) {
    table_slots_.push_back(slot_bit(superblock, t) ? 1 : 0);
    reads.push_back({geometry_.table_slot(t, table_slots_[t]),
                     buffer.span().subspan(size_t{t} * kBlockSize, kBlockSize)});
  }
  CAW_TRY(device_.read_batch(reads));
  for (uint32_t t = 0; t < geometry_.table_blocks; ++t) {
    const std::string_view bytes = buffer.view().substr(size_t{t} * kBlockSize, kBlockSize);
    const RegionTableBlock block = CAW_TRY(decode_region_table_block(bytes, t, geometry_));
    if (block.epoch > superblock.epoch) return fail(Code::region_table, t, kWhere);
    table_checksums_.push_back(load_fixed<uint64_t>(bytes.data()));
    adopt_table(block);
  }
  if (caw::region_table_hash(table_checksums_) != superblock.region_table_hash) {
    return fail(Code::region_table, geometry_.table_blocks, kWhere);
  }
  return {};
}

void BitmapAllocator::adopt_table(const RegionTableBlock& block) {
  for (uint32_t i = 0; i < block.entries.size(); ++i) {
    const RegionEntry& entry = block.entries[i];
    const uint32_t index = block.index * kRegionsPerTableBlock + i;
    Region& region = regions_[index];
    region.checksum = entry.checksum;
    region.free_blocks = region.durable_free = entry.free_blocks;
    raise_longest(index, entry.free_blocks);
    region.slot = entry.slot;
    region.written = entry.written;
    free_blocks_ += entry.free_blocks;
    unbacked_free_ += entry.free_blocks;
    durable_used_ += geometry_.usable_blocks(index) - entry.free_blocks;
    if (entry.written) raise_high_water(index + 1);
  }
}

/// Brings a region's bitmaps into memory, dropping the lock for the read.  On success they may
/// already be gone again unless the region is pinned.  Fails: bitmap_damaged, device_read.
Result<void> BitmapAllocator::load(Lock& lock, uint32_t index) {
  Region& region = regions_[index];
  evict_some();
  const uint8_t slot = region.slot;
  const uint64_t checksum = region.checksum;
  std::unique_ptr<Bitmaps> bits;
  if (region.written) {
    const uint32_t free_blocks = region.durable_free;
    lock.unlock();
    auto read = read_bitmaps(index, slot, checksum, free_blocks);
    lock.lock();
    // A checkpoint may have loaded, changed, written and dropped it meanwhile.
    if (region.bits != nullptr || region.slot != slot || region.checksum != checksum) return {};
    bits = CAW_TRY(std::move(read));
  } else {
    bits = std::make_unique<Bitmaps>();
    init_fresh(index, *bits);
  }
  region.bits = std::move(bits);
  ++loaded_;
  return {};
}

Result<std::unique_ptr<BitmapAllocator::Bitmaps>> BitmapAllocator::read_bitmaps(
    uint32_t index, uint32_t slot, uint64_t checksum, uint32_t free_blocks) {
  auto bits = std::make_unique<Bitmaps>();
  const BlockAddr addr = geometry_.bitmap_slot(index, slot);
  CAW_TRY(device_.read(addr, bits->durable_bytes()));
  const uint32_t fixed = geometry_.fixed_blocks(index);
  const uint32_t size = geometry_.size_blocks(index);
  const auto tail = static_cast<uint32_t>(kRegionBlocks - size);
  const RegionBits& durable = bits->durable();
  if (checksum64(as_chars(bits->durable_bytes())) != checksum ||
      count_set(durable, 0, fixed) != fixed || count_set(durable, size, tail) != tail ||
      count_set(durable, 0, kRegionBlocks) != kRegionBlocks - free_blocks) {
    return fail(Code::bitmap_damaged, raw(addr), kWhere);
  }
  bits->used() = durable;
  return bits;
}

void BitmapAllocator::init_fresh(uint32_t index, Bitmaps& bits) const {
  const uint32_t size = geometry_.size_blocks(index);
  set_bits(bits.used(), 0, geometry_.fixed_blocks(index));
  set_bits(bits.used(), size, static_cast<uint32_t>(kRegionBlocks - size));
  bits.durable() = bits.used();
}

/// Drops a few regions that are as on disk, if more are in memory than should be.
void BitmapAllocator::evict_some() {
  constexpr uint32_t kSteps = 256;
  for (uint32_t i = 0; i < kSteps && loaded_ >= max_loaded_; ++i, ++evict_next_) {
    if (evict_next_ >= geometry_.regions) evict_next_ = 0;
    Region& region = regions_[evict_next_];
    const bool in_use = region.outstanding != 0 || region.dirty ||
                        evict_next_ == small_.region || evict_next_ == large_.region;
    if (region.bits == nullptr || in_use) continue;
    region.bits.reset();
    --loaded_;
  }
}

Result<void> BitmapAllocator::write_checkpoint(Epoch epoch, Superblock& superblock) {
  std::vector<uint32_t> dirty;
  {
    Lock lock(mutex_);
    if (unreleased_) return fail(Code::checkpoint_order, epoch, kWhere);
    CAW_TRY(apply_changes(lock, epoch));
    dirty = dirty_;
  }
  std::sort(dirty.begin(), dirty.end());
  CAW_TRY(write_bitmaps(dirty));
  CAW_TRY(write_tables(dirty, epoch));
  superblock.region_table_slots = {};
  for (uint32_t t = 0; t < geometry_.table_blocks; ++t) {
    superblock.region_table_slots[t / 64] |= uint64_t{table_slots_[t]} << (t % 64);
  }
  superblock.region_table_hash = caw::region_table_hash(table_checksums_);
  const std::lock_guard<std::mutex> lock(mutex_);
  superblock.used_blocks = durable_used_;
  unreleased_ = !dirty.empty();
  return {};
}

/// Applies all changes up to `epoch` to `durable`, in the order they were made.
Result<void> BitmapAllocator::apply_changes(Lock& lock, Epoch epoch) {
  while (!pending_.empty() && pending_.begin()->first <= epoch) {
    // No one adds to a closed epoch; the lists of a map stay where they are.
    const std::vector<Change>& changes = pending_.begin()->second;
    for (size_t i = 0; i < changes.size(); ++i) {
      const Change change = changes[i];
      if (!in_bounds({BlockAddr{change.first}, change.blocks})) {
        return fail(Code::bitmap_damaged, change.first, kWhere);
      }
      const uint32_t index = spot_of(change.first).region;
      while (regions_[index].bits == nullptr) CAW_TRY(load(lock, index));
      CAW_TRY(apply_change(change));
      if (i % kLockBatch == kLockBatch - 1) give_way(lock);
    }
    std::vector<Change> frees = std::move(pending_.begin()->second);
    std::erase_if(frees, [](const Change& change) { return !change.is_free; });
    if (!frees.empty()) deferred_.emplace(pending_.begin()->first, std::move(frees));
    pending_.erase(pending_.begin());
  }
  return {};
}

/// Fails (bitmap_damaged) on a free of what is not in use or a commit of what is: then references
/// and bitmaps disagree and nothing more may be written.
Result<void> BitmapAllocator::apply_change(const Change& change) {
  const Spot spot = spot_of(change.first);
  Region& region = regions_[spot.region];
  RegionBits& durable = region.bits->durable();
  const uint32_t set = count_set(durable, spot.first, change.blocks);
  const uint32_t reserved = count_set(region.bits->used(), spot.first, change.blocks);
  if (set != (change.is_free ? change.blocks : 0) || reserved != change.blocks) {
    return fail(Code::bitmap_damaged, change.first, kWhere);
  }
  if (change.is_free) {
    clear_bits(durable, spot.first, change.blocks);
    region.durable_free = static_cast<uint16_t>(region.durable_free + change.blocks);
    durable_used_ -= change.blocks;
  } else {
    set_bits(durable, spot.first, change.blocks);
    region.durable_free = static_cast<uint16_t>(region.durable_free - change.blocks);
    durable_used_ += change.blocks;
    region.outstanding -= change.blocks;
  }
  if (!region.dirty) {
    region.dirty = true;
    dirty_.push_back(spot.region);
  }
  return {};
}

/// Into the other slots.  The bitmaps stay in memory (dirty) and no one else changes `durable`.
Result<void> BitmapAllocator::write_bitmaps(const std::vector<uint32_t>& dirty) {
  std::vector<WriteRequest> writes;
  for (size_t i = 0; i < dirty.size(); ++i) {
    const Region& region = regions_[dirty[i]];
    writes.push_back({geometry_.bitmap_slot(dirty[i], region.slot ^ 1U),
                      region.bits->durable_bytes()});
    if (writes.size() == kWriteBatch || i + 1 == dirty.size()) {
      CAW_TRY(device_.write_batch(writes));
      writes.clear();
    }
  }
  return {};
}

/// Writes the table blocks of the regions just written; when all are out, makes the new slots
/// current in memory.
Result<void> BitmapAllocator::write_tables(const std::vector<uint32_t>& dirty, Epoch epoch) {
  std::vector<RegionTableBlock> blocks;
  for (const uint32_t index : dirty) {
    const uint32_t t = index / kRegionsPerTableBlock;
    if (blocks.empty() || blocks.back().index != t) blocks.push_back(table_block(t, epoch));
    const Region& region = regions_[index];
    blocks.back().entries[index % kRegionsPerTableBlock] = RegionEntry{
        checksum64(as_chars(region.bits->durable_bytes())), region.durable_free,
        static_cast<uint8_t>(region.slot ^ 1U), true};
  }
  AlignedBuffer buffer(blocks.size() * kBlockSize);
  std::vector<WriteRequest> writes;
  std::vector<uint64_t> checksums;
  for (size_t i = 0; i < blocks.size(); ++i) {
    checksums.push_back(encode_region_table_block(blocks[i], buffer.chars() + i * kBlockSize));
    writes.push_back({geometry_.table_slot(blocks[i].index, table_slots_[blocks[i].index] ^ 1U),
                      buffer.span().subspan(i * kBlockSize, kBlockSize)});
  }
  CAW_TRY(device_.write_batch(writes));

  for (size_t i = 0; i < blocks.size(); ++i) {
    table_slots_[blocks[i].index] ^= 1U;
    table_checksums_[blocks[i].index] = checksums[i];
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  size_t at = 0;   // both are in ascending order
  for (const uint32_t index : dirty) {
    Region& region = regions_[index];
    while (blocks[at].index != index / kRegionsPerTableBlock) ++at;
    const RegionTableBlock& block = blocks[at];
    region.checksum = block.entries[index % kRegionsPerTableBlock].checksum;
    region.slot ^= 1U;
    region.written = true;
    region.dirty = false;
  }
  dirty_.clear();
  return {};
}

/// What is on disk now, for regions that were not written this time.
RegionTableBlock BitmapAllocator::table_block(uint32_t index, Epoch epoch) const {
  RegionTableBlock block{index, epoch, {}};
  for (uint32_t i = 0; i < geometry_.regions_in(index); ++i) {
    const Region& region = regions_[index * kRegionsPerTableBlock + i];
    block.entries.push_back({region.checksum, region.durable_free, region.slot, region.written});
  }
  return block;
}

void BitmapAllocator::release_through(Epoch epoch) {
  Lock lock(mutex_);
  unreleased_ = false;
  std::vector<uint32_t> zones;
  while (!deferred_.empty() && deferred_.begin()->first <= epoch) {
    std::vector<Change> frees = std::move(deferred_.begin()->second);
    deferred_.erase(deferred_.begin());
    for (size_t i = 0; i < frees.size(); ++i) {
      const Spot spot = spot_of(frees[i].first);
      const uint32_t blocks = frees[i].blocks;
      mark_clear(spot, blocks);
      free_blocks_ += blocks;
      reclaiming_blocks_ -= blocks;
      const uint32_t last_zone = (spot.first + blocks - 1) / kZoneBlocks;
      for (uint32_t z = spot.first / kZoneBlocks; z <= last_zone; ++z) {
        const uint32_t id = spot.region * kZones + z;
        if (zones.empty() || zones.back() != id) zones.push_back(id);
      }
      if (i % kLockBatch == kLockBatch - 1) give_way(lock);
    }
  }
  discard_free_zones(lock, zones);
}

}  // namespace caw
