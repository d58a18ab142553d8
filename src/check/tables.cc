#include "check/tables.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/bytes.h"
#include "format/compression.h"

namespace caw {
namespace {

constexpr uint64_t kRegionsPerTable = 338;
constexpr size_t kTableHeaderBytes = 32;
constexpr size_t kRegionRowBytes = 12;
constexpr uint32_t kTableMagic = 0x52574143;  // "CAWR"
/// A region shorter than this is not one: it could hold nothing but its bitmaps.
constexpr uint64_t kLeastRegion = 3;

bool is_current_slot(const Superblock& superblock, uint64_t table) {
  return (superblock.region_table_slots[table / 64] >> (table % 64) & 1U) != 0;
}

bool all_zero(std::string_view bytes) {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

/// Parses region-table block `table` into `out`; false if something in it cannot be.
bool parse_table_block(std::string_view bytes, uint64_t table, const VolumeLayout& layout,
                       RegionTable* out) {
  const uint64_t first = table * kRegionsPerTable;
  const uint64_t count = std::min(kRegionsPerTable, layout.regions - first);
  Reader reader(bytes);
  const auto checksum = reader.fixed<uint64_t>();
  if (checksum != checksum64(bytes.substr(8)) || reader.fixed<uint32_t>() != kTableMagic ||
      reader.fixed<uint32_t>() != table) {
    return false;
  }
  reader.fixed<uint64_t>();  // epoch
  if (reader.fixed<uint32_t>() != count || reader.fixed<uint32_t>() != 0) return false;
  for (uint64_t region = first; region < first + count; ++region) {
    RegionRow& row = out->rows[region];
    row.bitmap_checksum = reader.fixed<uint64_t>();
    row.free_blocks = reader.fixed<uint16_t>();
    row.slot = reader.fixed<uint8_t>();
    const auto flags = reader.fixed<uint8_t>();
    row.written = flags == 1;
    const uint64_t usable = layout.region_blocks(region) - layout.fixed_blocks(region);
    if (flags > 1 || row.slot > 1 || row.free_blocks > usable) return false;
    if (!row.written && (row.free_blocks != usable || row.bitmap_checksum != 0)) return false;
    out->readable[region] = true;
  }
  return all_zero(bytes.substr(kTableHeaderBytes + count * kRegionRowBytes));
}

}  // namespace

Result<FoundSuperblock> find_superblock(BlockDevice& device) {
  FoundSuperblock found;
  std::optional<Error> error;
  bool any = false;
  for (unsigned slot = 0; slot < 2; ++slot) {
    AlignedBuffer block(kBlockSize);
    const Result<void> read = device.read(BlockAddr{slot}, block.span());
    const Result<Superblock> decoded =
        read ? decode_superblock(block.view()) : std::unexpected<Error>(read.error());
    if (!decoded) {
      found.damage[slot] = decoded.error().code;
      if (!error || error->code == Code::not_a_volume) error = decoded.error();
    } else if (!any || decoded->epoch > found.superblock.epoch) {
      found.superblock = *decoded;
      found.slot = slot;
      any = true;
    }
  }
  if (!any) return std::unexpected<Error>(*error);
  if (found.superblock.block_count > device.block_count()) {
    return fail(Code::volume_truncated, device.block_count(), "find_superblock");
  }
  return found;
}

VolumeLayout::VolumeLayout(uint64_t blocks) : block_count(blocks) {
  regions = blocks / kRegionBlocks + (blocks % kRegionBlocks >= kLeastRegion ? 1 : 0);
  table_blocks = (regions + kRegionsPerTable - 1) / kRegionsPerTable;
}

uint64_t VolumeLayout::region_blocks(uint64_t region) const {
  return std::min<uint64_t>(kRegionBlocks, block_count - region * kRegionBlocks);
}

RegionTable read_region_table(BlockDevice& device, const Superblock& superblock,
                              Findings& findings) {
  const VolumeLayout layout(superblock.block_count);
  RegionTable out;
  out.rows.resize(layout.regions);
  out.readable.resize(layout.regions);
  std::string checksums;
  AlignedBuffer block(kBlockSize);
  for (uint64_t table = 0; table < layout.table_blocks; ++table) {
    const BlockAddr addr{2 + 2 * table + (is_current_slot(superblock, table) ? 1 : 0)};
    const Result<void> read = device.read(addr, block.span());
    if (!read) {
      findings.add(read.error(), raw(addr), "a region-table block");
    } else if (!parse_table_block(block.view(), table, layout, &out)) {
      findings.add(Code::region_table, raw(addr), fmt::format("region-table block {}", table));
    }
    checksums.append(block.view().substr(0, 8));
  }
  if (checksum64(checksums) != superblock.region_table_hash) {
    findings.add(Code::region_table, 0, "the region tables are not the superblock's");
  }
  return out;
}

Result<AlignedBuffer> read_bitmap(BlockDevice& device, const VolumeLayout& layout, uint64_t region,
                                  const RegionRow& row) {
  AlignedBuffer block(kBlockSize);
  CAW_TRY(device.read(layout.bitmap(region, row.slot), block.span()));
  if (checksum64(block.view()) != row.bitmap_checksum) {
    return fail(Code::bitmap_damaged, region, "checksum");
  }
  return block;
}

std::optional<size_t> NodeTable::find(NodeId id) const {
  const auto found = std::ranges::lower_bound(nodes, id, {}, &NodeRow::id);
  if (found == nodes.end() || found->id != id) return std::nullopt;
  return static_cast<size_t>(found - nodes.begin());
}

Result<OpenedNode> read_node(BlockDevice& device, const NodeRow& row) {
  AlignedBuffer stored(row.stored_bytes);
  CAW_TRY(device.read(row.addr, stored.span()));
  OpenedNode node = CAW_TRY(open_node(stored.view(), row.id, row.checksum));
  const NodeInfo& info = node.info;
  if (info.kind != row.kind || info.height != row.height || info.owns_refs != row.owns_refs ||
      info.birth != row.birth || info.max_seq != row.max_seq) {
    return fail(Code::node_header, raw(row.id), "header and node table differ");
  }
  return node;
}

Result<std::string> read_blob(BlockDevice& device, const BlobRef& blob) {
  AlignedBuffer stored(blob.stored_bytes);
  CAW_TRY(device.read(blob.addr, stored.span()));
  return open_blob(blob, stored.view().substr(0, blob.stored_bytes));
}

Result<std::string> value_bytes(BlockDevice& device, const Value& value) {
  Value whole = value;
  if (whole.blob) {
    const std::string blob = CAW_TRY(read_blob(device, whole.blob));
    Value base = inline_value(std::string_view(blob).substr(0, whole.blob_length));
    Patch rest;
    rest.extend = whole.length;
    rest.pieces = whole.pieces;
    apply_patch(base, rest);
    whole = std::move(base);
  }
  return inline_bytes(whole);
}

bool reads_as_lost_blob(BlockDevice& device, const BlobRef& blob) {
  AlignedBuffer block(kBlockSize);
  if (blob.stored_bytes > kBlockSize || !device.read(blob.addr, block.span())) return false;
  const std::string_view stored = block.view().substr(0, blob.stored_bytes);
  return checksum64(stored) == blob.checksum && is_lost_blob(blob, stored);
}

}  // namespace caw
