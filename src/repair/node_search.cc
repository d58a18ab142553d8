#include "repair/node_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/bytes.h"
#include "check/describe.h"
#include "format/compression.h"
#include "format/interior.h"
#include "format/sorted_block.h"

namespace caw {
namespace {

constexpr std::string_view kNodeMagic = "CAWN";
constexpr size_t kIdOffset = 8;
constexpr size_t kStoredBytesOffset = 36;
constexpr uint64_t kWindowBlocks = 256;

bool is_well_formed(const OpenedNode& node) {
  if (node.info.kind != NodeKind::interior) return SortedBlock::open(node.payload).has_value();
  const Result<Interior> interior = decode_interior(node.payload);
  return interior && interior->height == node.info.height;
}

}  // namespace

Result<void> NodeSearch::run() {
  BlockMap known(draft_.layout().block_count);
  for (const NodeRow& row : draft_.table().nodes) {
    const uint64_t blocks = blocks_for(row.stored_bytes);
    if (draft_.is_place(row.addr, blocks)) known.mark(raw(row.addr), blocks);
  }
  for (const LogSegment& segment : draft_.superblock().log_segments) {
    if (segment.blocks > 0 && draft_.is_place(segment.first, segment.blocks)) {
      known.mark(raw(segment.first), segment.blocks);
    }
  }
  AlignedBuffer window(kWindowBlocks * kBlockSize);
  const uint64_t end = draft_.layout().block_count;
  for (uint64_t first = 0; first < end; first += kWindowBlocks) {
    const uint64_t blocks = std::min(kWindowBlocks, end - first);
    bool is_wanted = !draft_.bitmaps_complete();
    for (uint64_t i = 0; i < blocks && !is_wanted; ++i) is_wanted = draft_.was_in_use(first + i);
    if (!is_wanted) continue;
    if (!draft_.device().read(BlockAddr{first}, window.span().first(blocks * kBlockSize))) continue;
    for (uint64_t i = 0; i < blocks; ++i) {
      const uint64_t block = first + i;
      if (known.is_set(block) || (draft_.bitmaps_complete() && !draft_.was_in_use(block))) continue;
      look_at(block, window.view().substr(i * kBlockSize, kBlockSize));
    }
  }
  return {};
}

void NodeSearch::look_at(uint64_t block, std::string_view bytes) {
  if (!bytes.starts_with(kNodeMagic)) return;
  const NodeId id{load_fixed<uint64_t>(bytes.data() + kIdOffset)};
  const uint64_t stored_bytes =
      kNodeHeaderBytes + uint64_t{load_fixed<uint32_t>(bytes.data() + kStoredBytesOffset)};
  if (stored_bytes > kMaxNodePayload + kBlockSize ||
      !draft_.is_place(BlockAddr{block}, blocks_for(stored_bytes))) {
    return;
  }
  AlignedBuffer stored(stored_bytes);
  if (!draft_.device().read(BlockAddr{block}, stored.span())) return;
  const uint64_t checksum = checksum64(stored.view().substr(0, stored_bytes));
  const Result<OpenedNode> node = open_node(stored.view(), id, checksum);
  if (!node || node->info.birth >= draft_.epoch() || !is_well_formed(*node)) return;
  NodeRow row;
  row.id = id;
  row.addr = BlockAddr{block};
  row.checksum = checksum;
  row.birth = node->info.birth;
  row.max_seq = node->info.max_seq;
  row.stored_bytes = static_cast<uint32_t>(stored_bytes);
  row.kind = node->info.kind;
  row.height = node->info.height;
  row.owns_refs = node->info.owns_refs;
  row.compression = static_cast<Compression>(bytes[7]);
  found_.emplace(id, row);
}

std::vector<NodeRow> NodeSearch::rows() const {
  std::vector<NodeRow> out;
  for (const auto& [id, row] : found_) out.push_back(row);
  return out;
}

bool NodeSearch::add(NodeId id) {
  const auto [first, last] = found_.equal_range(id);
  if (first == last) return false;
  add(std::max_element(first, last, [](const auto& a, const auto& b) {
        return a.second.birth < b.second.birth;
      })->second);
  return true;
}

bool NodeSearch::add_others(const BlockMap& used) {
  if (!draft_.bitmaps_complete()) return false;
  bool any = false;
  for (const auto& [id, row] : found_) {
    if (draft_.find(id) != nullptr || used.is_set(raw(row.addr))) continue;
    any = add(id) || any;
  }
  return any;
}

void NodeSearch::add(const NodeRow& row) {
  notes_.say(fmt::format("{} {}: its entry in the node table was lost; found at block {}",
                         kind_text(row.kind), raw(row.id), raw(row.addr)));
  draft_.add_row(row);
}

}  // namespace caw
