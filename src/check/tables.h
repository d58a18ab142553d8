// The tables of a volume, read by code of the checker's own: superblocks, region tables, bitmaps
// and the node table (docs/format.md).  Read-only; by one thread; the volume must not change
// meanwhile.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/ids.h"
#include "check/findings.h"
#include "dev/block_device.h"
#include "format/node.h"
#include "format/superblock.h"

namespace caw {

/// The newest valid superblock.
struct FoundSuperblock {
  Superblock superblock;
  unsigned slot = 0;
  std::array<std::optional<Code>, 2> damage;  ///< of each slot; none: valid
};
/// Fails: not_a_volume, superblock_damaged, format_version, volume_truncated, device_read.
Result<FoundSuperblock> find_superblock(BlockDevice& device);

/// Where the allocator's blocks are.
struct VolumeLayout {
  explicit VolumeLayout(uint64_t block_count);

  uint64_t block_count = 0;
  uint64_t regions = 0;
  uint64_t table_blocks = 0;

  /// Blocks at the start of `region` that hold no data.
  uint64_t fixed_blocks(uint64_t region) const { return region == 0 ? 4 + 2 * table_blocks : 2; }
  uint64_t region_blocks(uint64_t region) const;
  BlockAddr bitmap(uint64_t region, unsigned slot) const {
    return BlockAddr{region * kRegionBlocks + fixed_blocks(region) - 2 + slot};
  }
};

struct RegionRow {
  uint64_t bitmap_checksum = 0;
  uint32_t free_blocks = 0;
  uint8_t slot = 0;
  bool written = false;
};
/// All regions, or what could be read of them (the others: `readable` false).
struct RegionTable {
  std::vector<RegionRow> rows;
  std::vector<bool> readable;
};
RegionTable read_region_table(BlockDevice& device, const Superblock& superblock,
                              Findings& findings);
/// The current bitmap block; checksum verified.  Requires: row.written.
Result<AlignedBuffer> read_bitmap(BlockDevice& device, const VolumeLayout& layout, uint64_t region,
                                  const RegionRow& row);

/// One entry of the node table.
struct NodeRow {
  NodeId id = kNoNode;
  BlockAddr addr = kNoBlock;
  uint64_t checksum = 0;
  Epoch birth = 0;
  Seq max_seq = 0;
  uint64_t owner = 0;
  uint32_t stored_bytes = 0;
  NodeKind kind = NodeKind::leaf;
  Height height = 0;
  bool owns_refs = false;
  Compression compression = Compression::none;
};
struct CountRow {
  uint64_t id = 0;
  uint64_t count = 0;
};
/// Everything in the node table, each list sorted by id.
struct NodeTable {
  std::vector<NodeRow> nodes;
  std::vector<CountRow> node_counts;
  std::vector<CountRow> blob_counts;
  std::vector<uint64_t> dead;
  std::vector<BlockAddr> pages;
  bool complete = true;  ///< false: some page could not be read

  /// Index into `nodes`, or nothing.
  std::optional<size_t> find(NodeId id) const;
};
NodeTable read_node_table(BlockDevice& device, const Superblock& superblock, Findings& findings);

/// The node as stored, verified against its row.  Fails: as open_node, device_read, node_header.
Result<OpenedNode> read_node(BlockDevice& device, const NodeRow& row);
/// The raw bytes.  Fails: as open_blob, device_read, device_bounds.
Result<std::string> read_blob(BlockDevice& device, const BlobRef& blob);
/// The bytes of a record's value.  Fails: as read_blob does.
Result<std::string> value_bytes(BlockDevice& device, const Value& value);
/// What an earlier repair left in place of damaged data is there, whole.
bool reads_as_lost_blob(BlockDevice& device, const BlobRef& blob);

}  // namespace caw
