// The Allocator that keeps a bitmap per region.
//
// For each region that is in memory there are two bitmaps:
//   used     what may not be given out now: reserved, committed, or freed but not yet reusable
//   durable  what the next checkpoint will say: committed and not freed in its epochs
// Changes of epoch e wait in a list until write_checkpoint(e) applies them to `durable`; frees then
// wait in another until release_through(e) clears them in `used`.  A region without such changes
// has used == durable == its block on disk and may be dropped from memory.
//
// Where blocks are taken.  Two cursors, one for requests of at most kSmallBlocks, go forward
// through one region each.  Of the next few free runs a request gets the one that fits best; the
// fuller the volume, the more are compared (without that a volume that is 90% full and churned has
// no run of 32 blocks left).  A region left behind remembers its longest clear run, so it is not
// scanned again for what it cannot hold.  The next region is the lowest that was touched before and
// is at least a quarter free, else a fresh one, else the lowest that has room: the image grows on
// the host only when what it has is well used.
//
// Host backing.  Space is made sure of on the host in zones of kZoneBlocks before anything in them
// is given out, and for ordinary requests always `reserve` blocks ahead, so that essential ones
// succeed also when the host is full.  Zones that become wholly free are discarded.
//
// Locking: one mutex, held for bit operations only; dropped for reads of bitmaps and host backing
// (a pin, Region::outstanding, keeps the region in memory meanwhile).  The exception is the search
// of an essential request on a full host.  Long work (applying and releasing the changes of a
// checkpoint) gives way to waiting requests every few hundred changes.  `durable` and what is on
// disk are changed by write_checkpoint() alone.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "base/aligned_buffer.h"
#include "space/allocator.h"
#include "space/bitmap.h"
#include "space/region_table.h"

namespace caw {

class BitmapAllocator final : public Allocator {
 public:
  static constexpr uint32_t kZoneBlocks = 4096;        ///< 16 MiB
  static constexpr uint32_t kMaxRequestBlocks = 4096;
  static constexpr uint64_t kSmallBlocks = 8;
  static constexpr size_t kMaxLoaded = 4096;           ///< regions kept in memory if clean: 32 MiB

  /// Reads the table; `max_loaded` as kMaxLoaded.
  static Result<std::unique_ptr<BitmapAllocator>> open(BlockDevice& device,
                                                       const Superblock& superblock,
                                                       size_t max_loaded = kMaxLoaded);

  Result<BlockAddr> reserve(uint64_t blocks, SpaceClass space_class) override;
  Result<bool> claim(Extent extent) override;
  void commit(Extent extent, Epoch epoch) override;
  void cancel(Extent extent) override;
  void free(Extent extent, Epoch epoch) override;
  Result<void> write_checkpoint(Epoch epoch, Superblock& superblock) override;
  void release_through(Epoch epoch) override;
  SpaceFigures figures() const override;

  size_t loaded_regions() const;

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr uint32_t kGroupRegions = 256;
  static constexpr uint32_t kZones = kRegionBlocks / kZoneBlocks;
  using Lock = std::unique_lock<std::mutex>;

  /// Both bitmaps of a region, block-aligned because `durable` goes to the device as it is.
  class Bitmaps {
   public:
    RegionBits& used() { return *reinterpret_cast<RegionBits*>(memory_.data()); }
    RegionBits& durable() { return *reinterpret_cast<RegionBits*>(memory_.data() + kBlockSize); }
    std::span<std::byte> durable_bytes() { return memory_.span().subspan(kBlockSize); }

   private:
    AlignedBuffer memory_{size_t{2} * kBlockSize};
  };

  struct Region {
    std::unique_ptr<Bitmaps> bits;   ///< null: not in memory
    uint64_t checksum = 0;           ///< of the bitmap on disk
    uint32_t outstanding = 0;        ///< blocks whose state differs from the disk; pins
    uint16_t free_blocks = 0;        ///< clear bits of `used`
    uint16_t durable_free = 0;       ///< clear bits of `durable`
    uint16_t longest = 0;            ///< no clear run outside a cursor's way is longer
    uint8_t slot = 0;
    uint8_t backed_zones = 0;        ///< bit z: zone z is backed by the host
    bool written = false;
    bool dirty = false;              ///< `durable` differs from the disk
  };

  struct Cursor {
    uint32_t region = kNone;
    uint32_t at = 0;
    uint32_t longest_skipped = 0;
  };

  /// What to know of kGroupRegions regions without looking at them.
  struct Group {
    uint16_t longest = 0;            ///< none of them has a higher `longest`
    uint32_t roomy = 0;              ///< how many below high_water_ are at least a quarter free
  };

  /// A place inside a region.
  struct Spot {
    uint32_t region;
    uint32_t first;
  };

  struct Change {
    uint64_t first;
    uint32_t blocks;
    bool is_free;
  };

  BitmapAllocator(BlockDevice& device, const RegionGeometry& geometry, size_t max_loaded);
  Result<void> read_tables(const Superblock& superblock);
  void adopt_table(const RegionTableBlock& block);

  Lock enter() const;
  void give_way(Lock& lock) const;

  // ---- taking blocks (bitmap_allocator.cc)
  Result<Spot> take(Lock& lock, uint32_t blocks);
  bool advance(Cursor& cursor, uint32_t blocks, Spot* found);
  void leave(Cursor& cursor);
  uint32_t lookahead() const;
  void raise_longest(uint32_t index, uint32_t run);
  uint32_t pick_region(uint32_t blocks, uint32_t exclude);
  uint32_t find_region(uint32_t blocks, uint32_t exclude, bool roomy_only);
  void count_roomy(uint32_t index, int change);
  void mark_used(Spot spot, uint32_t blocks);
  void mark_clear(Spot spot, uint32_t blocks);
  void set_free_blocks(uint32_t index, uint32_t free_blocks);
  void raise_high_water(uint32_t regions);
  bool is_roomy(uint32_t index) const;
  static Spot spot_of(uint64_t first) {
    return {static_cast<uint32_t>(first / kRegionBlocks),
            static_cast<uint32_t>(first % kRegionBlocks)};
  }
  static BlockAddr addr_of(Spot spot) {
    return BlockAddr{spot.region * kRegionBlocks + spot.first};
  }
  bool in_bounds(const Extent& extent) const;

  // ---- host backing (host_backing.cc)
  Result<void> back_ahead(Lock& lock, uint32_t blocks);
  Result<void> back_spot(Lock& lock, Spot spot, uint32_t blocks);
  Result<void> back_zone(Lock& lock, uint32_t region, uint32_t zone);
  Result<void> ensure_zone_backed(uint32_t region, uint32_t zone);
  bool next_zone_to_back(Spot* zone);
  Result<Spot> take_on_full_host(Lock& lock, uint32_t blocks);
  bool take_in_zone(uint32_t region, uint32_t zone, uint32_t blocks, Spot* found);
  void discard_free_zones(Lock& lock, std::vector<uint32_t>& zones);
  uint32_t zone_begin(uint32_t region, uint32_t zone) const;
  uint32_t zone_end(uint32_t region, uint32_t zone) const;
  uint32_t zone_free(uint32_t region, uint32_t zone);

  // ---- loading and checkpoints (allocator_checkpoint.cc)
  Result<void> load(Lock& lock, uint32_t index);
  Result<std::unique_ptr<Bitmaps>> read_bitmaps(uint32_t index, uint32_t slot, uint64_t checksum,
                                                uint32_t free_blocks);
  void init_fresh(uint32_t index, Bitmaps& bits) const;
  void evict_some();
  Result<void> apply_changes(Lock& lock, Epoch epoch);
  Result<void> apply_change(const Change& change);
  Result<void> write_bitmaps(const std::vector<uint32_t>& dirty);
  Result<void> write_tables(const std::vector<uint32_t>& dirty, Epoch epoch);
  RegionTableBlock table_block(uint32_t index, Epoch epoch) const;

  BlockDevice& device_;
  const RegionGeometry geometry_;
  const size_t max_loaded_;
  uint64_t total_blocks_ = 0;
  uint64_t reserve_blocks_ = 0;

  mutable std::mutex mutex_;
  mutable std::atomic<uint32_t> waiting_{0};   ///< threads in enter()
  std::vector<Region> regions_;
  std::vector<Group> groups_;
  uint32_t high_water_ = 0;          ///< regions from here on were never touched
  uint32_t roomy_ = 0;               ///< sum over groups_
  uint64_t free_blocks_ = 0;         ///< not claimed by any request
  uint64_t backed_free_ = 0;         ///< clear bits of `used` in backed zones
  uint64_t unbacked_free_ = 0;       ///< clear bits of `used` elsewhere
  uint64_t reclaiming_blocks_ = 0;
  uint64_t durable_used_ = 0;
  Cursor small_;
  Cursor large_;
  uint32_t back_next_ = 0;           ///< region where back_ahead() goes on
  uint32_t backing_ = 0;             ///< calls of back_zone() that have dropped the lock
  size_t loaded_ = 0;
  uint32_t evict_next_ = 0;
  std::map<Epoch, std::vector<Change>> pending_;    ///< not yet in `durable`
  std::map<Epoch, std::vector<Change>> deferred_;   ///< frees in `durable`, not yet in `used`
  std::vector<uint32_t> dirty_;                     ///< regions with dirty set

  // Of write_checkpoint() alone.
  std::vector<uint64_t> table_checksums_;
  std::vector<uint8_t> table_slots_;
  bool unreleased_ = false;          ///< a checkpoint was written and is not known to be durable
};

}  // namespace caw
