// NodeEntry: what the node table holds for a node: where its bytes are, and how to verify them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/ids.h"
#include "format/compression.h"
#include "format/node.h"
#include "space/allocator.h"

namespace caw {

/// Value of MetaSpace::node, at most 64 bytes:
///   size   field
///      1   shape          bits 0-1 kind, bit 2 owns_refs, bits 3-4 compression, 5-7 zero
///      1   height         0 for leaves and runs
///      8   checksum       XXH3-64 of the stored bytes
///   1-10   addr           varint: first block
///   1- 5   stored_bytes   varint: header and stored payload
///   1-10   birth          varint: epoch of the checkpoint that wrote these bytes
///   1-10   max_seq        varint: newest operation in it
///   1-10   owner          varint: inode domain charged for it; 0 none
struct NodeEntry {
  BlockAddr addr = kNoBlock;
  uint32_t stored_bytes = 0;
  uint64_t checksum = 0;
  NodeKind kind = NodeKind::leaf;
  bool owns_refs = false;
  Height height = 0;
  Compression compression = Compression::none;
  Epoch birth = 0;
  Seq max_seq = 0;
  uint64_t owner = 0;

  Extent extent() const { return Extent{addr, blocks_for(stored_bytes)}; }
  /// Its references can only be found by reading it.
  bool must_read_to_drop() const { return kind == NodeKind::interior || owns_refs; }
  friend bool operator==(const NodeEntry&, const NodeEntry&) = default;
};

std::string encode_node_entry(const NodeEntry& entry);
/// Fails: node_entry.
Result<NodeEntry> decode_node_entry(std::string_view bytes);

}  // namespace caw
