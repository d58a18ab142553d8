// Draft: the next checkpoint of a volume, made by a repair instead of the engine.
//
// Starts from a superblock and what can be read of its tables.  Nodes and blobs are written to
// blocks that nothing needs which is there now; the node table is in memory.  commit() writes a
// whole new table, all bitmaps and, last, the superblock that is not the one it started from:
// until then the volume on the device is what it was.  One thread.
// Memory: about 70 bytes a node, 1 bit a block.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "check/block_map.h"
#include "check/tables.h"
#include "dev/block_device.h"
#include "format/node.h"
#include "format/superblock.h"

namespace caw {

/// A count above one.
using CountRows = std::vector<CountRow>;

class Draft {
 public:
  /// Reads the tables; what is wrong with them is left out, and becomes right with commit().
  /// `device` outlives it.
  static Result<Draft> open(BlockDevice& device, const FoundSuperblock& found);

  BlockDevice& device() { return *device_; }
  const VolumeLayout& layout() const { return layout_; }
  Superblock& superblock() { return superblock_; }
  /// Sorted by id.
  NodeTable& table() { return table_; }
  /// Of what is written now.
  Epoch epoch() const { return epoch_; }

  /// Null: there is no such node.  Good until a node is added or removed.
  NodeRow* find(NodeId id);
  uint64_t draw(Counter counter);
  /// `number` is in use: draw() gives others.
  void note_used(Counter counter, uint64_t number);

  /// Writes the node to a new place, and its row.  Fails: no_space, device_write, ...
  Result<void> write_node(NodeInfo info, std::string_view payload);
  /// A node that was found on the device.  Requires: there is no row of this id.
  void add_row(const NodeRow& row);
  /// How often something was written or removed.
  uint64_t changes() const { return changes_; }
  void remove_nodes(const std::vector<NodeId>& sorted);
  Result<BlobRef> write_blob(std::string_view bytes);
  /// One for each length.
  Result<BlobRef> lost_blob(uint32_t raw_bytes);
  /// True for what lost_blob() made, in this draft or in one before.
  bool is_lost(const BlobRef& blob) const;
  void note_lost(const std::vector<BlobRef>& blobs) { lost_before_ = blobs; }
  std::vector<BlobRef> all_lost() const;

  /// These blocks are not written to.  Out of bounds is allowed.
  void keep(BlockAddr first, uint64_t blocks);
  /// The bitmaps of all regions were whole.
  bool bitmaps_complete() const { return bitmaps_complete_; }
  /// In use by the bitmaps; only where bitmaps_complete().
  bool was_in_use(uint64_t block) const { return in_use_.is_set(block); }
  /// What a node or blob may occupy.
  bool is_place(BlockAddr first, uint64_t blocks) const;

  struct Counts {
    CountRows nodes, blobs;  ///< above one, sorted
    /// Of all nodes and blobs; without tables, log and fixed blocks.
    const BlockMap* used = nullptr;
  };
  /// Makes it the volume.  Nothing may be called after.
  Result<void> commit(const Counts& counts);

 private:
  Draft(BlockDevice& device, const FoundSuperblock& found);
  void read_bitmaps(const RegionTable& regions);
  Result<BlockAddr> take(uint64_t blocks);
  std::optional<uint64_t> find_free(uint64_t region, uint64_t from, uint64_t blocks) const;

  // draft_commit.cc
  class PageWriter;
  Result<void> write_table(const Counts& counts);
  Result<void> write_space(const BlockMap& used);
  Result<void> write_bitmap(uint64_t region, const BlockMap& used, RegionRow& row);

  BlockDevice* device_;
  Superblock superblock_;
  VolumeLayout layout_;
  unsigned slot_;  ///< block of the superblock it started from
  Epoch epoch_;
  NodeTable table_;
  RegionTable regions_;
  BlockMap in_use_;
  BlockMap kept_;  ///< in use before, or taken since
  std::vector<BlockAddr> pages_;
  bool bitmaps_complete_ = true;
  uint64_t changes_ = 0;
  uint64_t next_region_ = 0;
  uint64_t next_block_ = 0;  ///< in it
  std::map<uint32_t, BlobRef> lost_blobs_;
  std::vector<BlobRef> lost_before_;
};

}  // namespace caw
