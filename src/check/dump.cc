#include "check/dump.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "check/describe.h"
#include "check/findings.h"
#include "check/tables.h"
#include "format/sorted_block.h"

namespace caw {
namespace {

constexpr size_t kMaxFindings = 20;

using Out = std::back_insert_iterator<std::string>;

std::string uuid_text(const std::array<uint8_t, 16>& uuid) {
  std::string out;
  for (size_t i = 0; i < uuid.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    out += fmt::format("{:02x}", uuid[i]);
  }
  return out;
}

std::string shape_text(const TreeShape& shape) {
  return fmt::format(
      "leaf {}, fanout {}, buffer {}, alpha {}/{}, floor {}, run {}, max runs {}, inline {}, "
      "inline value {}",
      shape.leaf_bytes, shape.fanout, shape.buffer_bytes, shape.alpha_num, shape.alpha_den,
      shape.floor_bytes, shape.run_bytes, shape.max_runs, shape.inline_bytes,
      shape.inline_value_bytes);
}

std::string superblock_text(const FoundSuperblock& found) {
  std::string out;
  for (unsigned slot = 0; slot < 2; ++slot) {
    const std::string state = slot == found.slot   ? "current"
                              : found.damage[slot] ? std::string(text_of(*found.damage[slot]))
                                                   : "older";
    fmt::format_to(Out(out), "superblock {}: {}\n", slot, state);
  }
  const Superblock& s = found.superblock;
  fmt::format_to(Out(out), "  version        {}\n", s.version);
  fmt::format_to(Out(out), "  uuid           {}\n", uuid_text(s.uuid));
  fmt::format_to(Out(out), "  label          \"{}\"\n", quoted(s.label));
  fmt::format_to(Out(out), "  blocks         {} ({})\n", s.block_count,
                 size_text(s.block_count * kBlockSize));
  fmt::format_to(Out(out), "  used           {} ({})\n", s.used_blocks,
                 size_text(s.used_blocks * kBlockSize));
  fmt::format_to(Out(out), "  epoch          {}{}\n", s.epoch, s.clean ? ", clean" : "");
  fmt::format_to(Out(out), "  next operation {}\n", s.next_seq);
  fmt::format_to(Out(out), "  next numbers   node {}, entry {}, file {}, domain {}, chunk {}\n",
                 s.counters[0], s.counters[1], s.counters[2], s.counters[3], s.counters[4]);
  fmt::format_to(Out(out), "  node table     page {}, {} levels\n", raw(s.meta_root.addr),
                 s.meta_height);
  fmt::format_to(Out(out), "  system tree    node {}\n", raw(s.system_tree));
  fmt::format_to(Out(out), "  compression    {}\n", compression_text(s.compression));
  fmt::format_to(Out(out), "  shape          {}\n", shape_text(s.shape));
  return out;
}

uint64_t stored_count(const std::vector<CountRow>& rows, uint64_t id) {
  const auto found = std::ranges::lower_bound(rows, id, {}, &CountRow::id);
  return found != rows.end() && found->id == id ? found->count : 1;
}

void append_findings(std::string& out, Findings& findings) {
  for (const Finding& finding : findings.take()) out += "damage: " + finding.text + "\n";
}

void append_block(std::string& out, const SortedBlock& block, size_t max_entries) {
  for (const RangeErase& range : block.range_erases()) {
    fmt::format_to(Out(out), "    erase [{}, {}) ({} B dead)\n", key_text(range.lo),
                   key_text(range.hi), range.dead_bytes);
  }
  SortedBlock::Iterator it(block);
  size_t shown = 0;
  for (it.seek_to_first(); it.valid(); it.next()) {
    if (shown++ == max_entries) {
      fmt::format_to(Out(out), "    ... {} more\n", block.count() - max_entries);
      return;
    }
    fmt::format_to(Out(out), "    {}: {}\n", key_text(it.key()),
                   message_text(it.kind(), it.body()));
  }
}

void append_interior(std::string& out, const Interior& node) {
  for (size_t i = 0; i < node.edges.size(); ++i) {
    const Edge& edge = node.edges[i];
    const std::string& hi = i + 1 < node.edges.size() ? node.edges[i + 1].lo : node.hi;
    fmt::format_to(Out(out), "  edge [{}, {}) -> {}", key_text(edge.lo), key_text(hi),
                   edge.child == kNoNode ? "nothing" : fmt::format("node {}", raw(edge.child)));
    fmt::format_to(Out(out), ", height {}, {} B, runs through {} applied, max_seq {}",
                   edge.child_height, edge.child_bytes, edge.applied_pos, edge.max_seq);
    if (!edge.translation.is_identity()) {
      fmt::format_to(Out(out), ", {}", translation_text(edge.translation));
    }
    out += "\n";
  }
  for (const RunRef& run : node.runs) {
    fmt::format_to(Out(out), "  run {} at {}: [{}, {}), {} B, weight {}, max_seq {}", raw(run.run),
                   run.pos, key_text(run.lo), key_text(run.hi), run.bytes, run.weight, run.max_seq);
    if (!run.translation.is_identity()) {
      fmt::format_to(Out(out), ", {}", translation_text(run.translation));
    }
    out += "\n";
  }
}

}  // namespace

Result<std::string> dump_superblocks(BlockDevice& device) {
  return superblock_text(CAW_TRY(find_superblock(device)));
}

Result<std::string> dump_text(BlockDevice& device, const DumpLimits& limits) {
  const FoundSuperblock found = CAW_TRY(find_superblock(device));
  Findings findings(kMaxFindings);
  const NodeTable table = read_node_table(device, found.superblock, findings);
  std::string out = superblock_text(found);
  fmt::format_to(Out(out), "\n{} nodes, {} dead, {} counts of nodes and {} of blobs above one\n",
                 table.nodes.size(), table.dead.size(), table.node_counts.size(),
                 table.blob_counts.size());
  fmt::format_to(Out(out), "{:>12} {:8} {:>3} {:>12} {:>10} {:>10} {:>6}\n", "node", "kind", "h",
                 "block", "bytes", "epoch", "count");
  for (size_t i = 0; i < std::min(limits.max_nodes, table.nodes.size()); ++i) {
    const NodeRow& row = table.nodes[i];
    const bool dead = std::ranges::binary_search(table.dead, raw(row.id));
    fmt::format_to(Out(out), "{:>12} {:8} {:>3} {:>12} {:>10} {:>10} {:>6}{}\n", raw(row.id),
                   kind_text(row.kind), row.height, raw(row.addr), row.stored_bytes, row.birth,
                   dead ? 0 : stored_count(table.node_counts, raw(row.id)), dead ? " dead" : "");
  }
  if (table.nodes.size() > limits.max_nodes) {
    fmt::format_to(Out(out), "... {} more\n", table.nodes.size() - limits.max_nodes);
  }
  append_findings(out, findings);
  return out;
}

Result<std::string> dump_node(BlockDevice& device, NodeId id, const DumpLimits& limits) {
  const FoundSuperblock found = CAW_TRY(find_superblock(device));
  Findings findings(kMaxFindings);
  const NodeTable table = read_node_table(device, found.superblock, findings);
  const std::optional<size_t> index = table.find(id);
  if (!index) return fail(Code::node_absent, raw(id), "dump_node");
  const NodeRow& row = table.nodes[*index];
  const OpenedNode node = CAW_TRY(read_node(device, row));
  std::string out;
  fmt::format_to(Out(out), "{} {}: height {}, count {}, block {}, {} B stored ({}), {} B payload\n",
                 kind_text(row.kind), raw(id), row.height, stored_count(table.node_counts, raw(id)),
                 raw(row.addr), row.stored_bytes, compression_text(row.compression),
                 node.payload.size());
  fmt::format_to(Out(out), "  epoch {}, max_seq {}{}\n", row.birth, row.max_seq,
                 row.owns_refs ? ", owns references" : "");
  if (row.kind != NodeKind::interior) {
    const SortedBlock block = CAW_TRY(SortedBlock::open(node.payload));
    fmt::format_to(Out(out), "  {} entries\n", block.count());
    append_block(out, block, limits.max_entries);
    return out;
  }
  const Interior interior = CAW_TRY(decode_interior(node.payload));
  append_interior(out, interior);
  if (!interior.inline_block.empty()) {
    const SortedBlock block = CAW_TRY(SortedBlock::open(interior.inline_block));
    fmt::format_to(Out(out), "  embedded run at {}: {} entries\n", interior.inline_pos,
                   block.count());
    append_block(out, block, limits.max_entries);
  }
  return out;
}

}  // namespace caw
