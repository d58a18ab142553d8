// Allocator: which blocks are in use.  Extents come contiguous; frees wait for the checkpoint that
// records them.
//
// Two phases.  reserve() takes blocks that no checkpoint counts yet; commit() says in which epoch
// they came to be referred to; cancel() gives them back.  free() in epoch e makes blocks reusable
// once checkpoint e is durable (release_through(e)).  The bitmap that checkpoint e writes holds
// exactly what was committed in epochs <= e and not freed in epochs <= e: so that after a crash
// nothing is leaked and nothing in use is free.
//
// On disk (docs/format.md): region-table blocks in two slots each from block 2, then regions of
// kRegionBlocks blocks, each beginning with two slots of its bitmap block.  Only regions touched
// since the last checkpoint are written.  Bitmaps are loaded when first needed and checked.
//
// All methods may be called from any thread; write_checkpoint() by one at a time.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "base/error.h"
#include "base/ids.h"
#include "dev/block_device.h"
#include "format/superblock.h"

namespace caw {

struct Extent {
  BlockAddr first = kNoBlock;
  uint64_t blocks = 0;
};

/// Who asks: ordinary work may not touch the reserve, removals and checkpoints may.
enum class SpaceClass : uint8_t { ordinary, essential };

struct SpaceFigures {
  uint64_t total_blocks = 0;      ///< usable by data and nodes
  uint64_t used_blocks = 0;       ///< reserved, committed, and freed but not yet reusable
  uint64_t reclaiming_blocks = 0; ///< of used: freed, waiting for a checkpoint
  uint64_t reserve_blocks = 0;    ///< kept back for removals and checkpoints
};

class Allocator {
 public:
  /// Lays out empty tables and bitmaps for a volume of `block_count` blocks; fills in
  /// superblock.region_table_*.  Writes them; the caller flushes.
  static Result<void> format(BlockDevice& device, Superblock& superblock);
  /// Reads and checks the region table (not the bitmaps).  Fails: region_table, device_read.
  static Result<std::unique_ptr<Allocator>> open(BlockDevice& device, const Superblock& superblock);

  virtual ~Allocator() = default;
  Allocator() = default;
  Allocator(const Allocator&) = delete;
  Allocator& operator=(const Allocator&) = delete;

  /// `blocks` contiguous blocks, near the last ones given out where possible; never spans a
  /// region; backed by the host before it returns.  Requires: 1 <= blocks <= 4096.
  /// Fails: no_space, device_full.
  virtual Result<BlockAddr> reserve(uint64_t blocks, SpaceClass space_class) = 0;
  /// Reserves exactly these blocks, which a log names; false if any of them is in use.  For
  /// recovery, before anything else is reserved.  Fails: bitmap_damaged, device_read.
  virtual Result<bool> claim(Extent extent) = 0;
  virtual void commit(Extent extent, Epoch epoch) = 0;
  virtual void cancel(Extent extent) = 0;
  /// Requires: committed.
  virtual void free(Extent extent, Epoch epoch) = 0;

  /// Writes bitmaps and region-table blocks that changed up to and including `epoch` into their
  /// other slots and fills in superblock.region_table_* and used_blocks.  Neither flushes nor
  /// reuses what the last durable checkpoint needs.
  virtual Result<void> write_checkpoint(Epoch epoch, Superblock& superblock) = 0;
  /// Checkpoint `epoch` is durable: what was freed up to it may be given out (and discarded).
  virtual void release_through(Epoch epoch) = 0;

  virtual SpaceFigures figures() const = 0;
};

}  // namespace caw
