#include "support/damage.h"

#include <algorithm>

#include "base/assert.h"
#include "format/sorted_block.h"

namespace caw {
namespace {

template <typename T>
T must(Result<T> result) {
  CAW_ASSERT(result.has_value());
  if constexpr (!std::is_void_v<T>) return std::move(*result);
}

std::string block_of(const DamageTool::Messages& messages, bool* owns_refs) {
  SortedBlockBuilder builder;
  for (const auto& [key, message] : messages) builder.add(key, message);
  *owns_refs = builder.owns_refs();
  return builder.finish();
}

}  // namespace

DamageTool::DamageTool(BlockDevice& device)
    : draft_(must(Draft::open(device, must(find_superblock(device))))) {
  for (const CountRow& row : draft_.table().node_counts) node_counts[row.id] = row.count;
  for (const CountRow& row : draft_.table().blob_counts) blob_counts[row.id] = row.count;
  for (const NodeKind kind : {NodeKind::leaf, NodeKind::run, NodeKind::interior}) {
    for (const NodeId id : nodes(kind)) {
      for (const auto& [key, message] : messages(id)) {
        if (const BlobRef blob = refs_of(message).blob) blobs.push_back(blob);
      }
    }
  }
}

std::vector<NodeId> DamageTool::nodes(NodeKind kind) {
  std::vector<NodeId> out;
  for (const NodeRow& row : draft_.table().nodes) {
    if (row.kind == kind) out.push_back(row.id);
  }
  return out;
}

std::string DamageTool::payload(NodeId id) {
  return must(read_node(draft_.device(), row(id))).payload;
}

Interior DamageTool::interior(NodeId id) { return must(decode_interior(payload(id))); }

void DamageTool::put_interior(NodeId id, const Interior& node) {
  put_payload(id, encode_interior(node), row(id).owns_refs);
}

DamageTool::Messages DamageTool::messages(NodeId id) {
  std::string bytes = payload(id);
  if (row(id).kind == NodeKind::interior) bytes = interior(id).inline_block;
  Messages out;
  if (bytes.empty()) return out;
  const SortedBlock block = must(SortedBlock::open(bytes));
  SortedBlock::Iterator it(block);
  for (it.seek_to_first(); it.valid(); it.next()) {
    out.emplace_back(it.key(), must(decode_message(it.kind(), it.body())));
  }
  return out;
}

void DamageTool::put_messages(NodeId id, const Messages& messages) {
  bool owns_refs = false;
  const std::string block = block_of(messages, &owns_refs);
  if (row(id).kind != NodeKind::interior) return put_payload(id, block, owns_refs);
  Interior node = interior(id);
  node.inline_block = block;
  put_payload(id, encode_interior(node), owns_refs);
}

void DamageTool::put_payload(NodeId id, std::string_view payload, bool owns_refs) {
  const NodeRow old = row(id);
  must(draft_.write_node({id, old.kind, old.height, owns_refs, 0, old.max_seq}, payload));
}

void DamageTool::close() {
  Draft::Counts counts;
  for (const auto& [id, count] : node_counts) counts.nodes.push_back({id, count});
  for (const auto& [addr, count] : blob_counts) counts.blobs.push_back({addr, count});
  BlockMap used(draft_.layout().block_count);
  const auto mark = [&](BlockAddr addr, uint64_t blocks) {
    for (uint64_t i = 0; i < blocks; ++i) {
      const uint64_t block = raw(addr) + i;
      if (block < draft_.layout().block_count && !std::ranges::count(unmarked, block)) {
        used.mark(block, 1);
      }
    }
  };
  for (const NodeRow& row : draft_.table().nodes) mark(row.addr, blocks_for(row.stored_bytes));
  for (const BlobRef& blob : blobs) mark(blob.addr, blob.blocks());
  for (const uint64_t block : leaked) used.mark(block, 1);
  counts.used = &used;
  must(draft_.commit(counts));
}

void flip_bit(BlockDevice& device, uint64_t block, size_t offset, unsigned bit) {
  AlignedBuffer bytes(kBlockSize);
  must(device.read(BlockAddr{block}, bytes.span()));
  bytes.chars()[offset] = static_cast<char>(bytes.chars()[offset] ^ (1 << bit));
  must(device.write(BlockAddr{block}, bytes.span()));
}

}  // namespace caw
