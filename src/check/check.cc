#include "check/check.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <optional>
#include <tuple>
#include <utility>

#include "base/bytes.h"
#include "check/block_map.h"
#include "check/describe.h"
#include "check/log_frames.h"
#include "check/tables.h"
#include "format/compression.h"
#include "format/interior.h"
#include "format/sorted_block.h"
#include "format/value.h"

namespace caw {
namespace {

enum class RefKind : uint8_t { edge, run, record, superblock };

class Checker {
 public:
  Checker(BlockDevice& device, const CheckOptions& options, const FoundSuperblock& found)
      : device_(device),
        options_(options),
        superblock_(found.superblock),
        damage_(found.damage),
        layout_(found.superblock.block_count),
        findings_(options.max_findings),
        used_(found.superblock.block_count) {}

  CheckReport run();

 private:
  /// What the walk knows of a node.
  enum class Walk : uint8_t { unseen, open, done };
  struct NodeState {
    uint32_t refs = 0;
    Walk walk = Walk::unseen;
    bool is_tree = false;   ///< a record or the superblock owns it
    bool is_child = false;  ///< an edge leads to it
    bool has_inline = false;
    bool is_unreached = false;
  };
  struct Step {
    size_t node = 0;
    bool leave = false;
  };
  struct BlobUse {
    BlobRef ref;
    uint64_t count = 1;
  };

  // ---- the walk
  void walk();
  void walk_unreached();
  void walk_from(size_t root);
  void enter(size_t node);
  void refer(size_t from, NodeId to, RefKind kind, unsigned height);
  void check_target(size_t from, size_t to, RefKind kind, unsigned height);
  void check_interior(size_t node, std::string_view payload);
  void check_block(size_t node, const SortedBlock& block, bool owns_refs);
  void check_sorted(size_t node, std::string_view payload);
  void damaged(const Error& error, NodeId id);

  // ---- afterwards
  void check_log();
  void check_rows();
  void check_node_counts();
  void check_dead();
  void check_blobs();
  void check_blob(const BlobUse& use);
  void check_stray_blob_counts();
  void use_blocks(BlockAddr addr, uint64_t blocks, std::string_view who, uint64_t id);
  void check_bitmaps();
  void check_region(uint64_t region);
  uint64_t compare_bits(uint64_t region, std::string_view bitmap);
  void report_ranges(uint64_t region, const BlockMap::Bits& bits, Code code);

  BlockDevice& device_;
  const CheckOptions& options_;
  const Superblock& superblock_;
  const std::array<std::optional<Code>, 2> damage_;
  VolumeLayout layout_;
  Findings findings_;
  CheckFigures figures_;
  RegionTable regions_;
  NodeTable table_;
  BlockMap used_;
  std::vector<NodeState> states_;  ///< beside table_.nodes
  std::vector<Step> stack_;
  std::vector<BlobUse> blobs_;
  /// Everything was read: what was not reached is not in use.
  bool complete_ = true;
};

CheckReport Checker::run() {
  figures_.epoch = superblock_.epoch;
  figures_.clean = superblock_.clean;
  for (const std::optional<Code>& damage : damage_) {
    if (damage) ++figures_.damaged_superblocks;
  }
  regions_ = read_region_table(device_, superblock_, findings_);
  table_ = read_node_table(device_, superblock_, findings_);
  complete_ = table_.complete;
  figures_.table_pages = table_.pages.size();
  states_.resize(table_.nodes.size());
  check_rows();
  walk();
  check_node_counts();
  check_dead();
  check_blobs();
  check_bitmaps();
  check_log();
  if (options_.files && findings_.count() == 0) {
    figures_.files = check_files(device_, superblock_, table_, findings_);
  }
  CheckReport report;
  report.figures = figures_;
  report.finding_count = findings_.count();
  report.findings = findings_.take();
  return report;
}

// ---- the walk

void Checker::walk() {
  const std::optional<size_t> system = table_.find(superblock_.system_tree);
  if (system) {
    refer(*system, superblock_.system_tree, RefKind::superblock, 0);
    walk_from(*system);
  } else if (superblock_.system_tree != kNoNode) {
    findings_.add(Code::node_absent, raw(superblock_.system_tree), "the system tree's root");
    complete_ = false;
  }
  for (const uint64_t id : table_.dead) {
    if (const std::optional<size_t> node = table_.find(NodeId{id})) walk_from(*node);
  }
  if (complete_) walk_unreached();
}

/// Reports what nothing leads to, and follows it all the same, so that what it holds is not
/// reported once more as wrong counts and leaked blocks.
void Checker::walk_unreached() {
  for (const bool referred : {false, true}) {
    for (size_t i = 0; i < states_.size(); ++i) {
      const uint64_t id = raw(table_.nodes[i].id);
      if (states_[i].walk != Walk::unseen || (states_[i].refs != 0) != referred) continue;
      findings_.add(Code::check_unreachable, id, fmt::format("nothing leads to node {}", id));
      states_[i].is_unreached = true;
      walk_from(i);
    }
  }
}

/// Depth first.  All ancestors of the node at hand are open and no others, so a reference to an
/// open node closes a cycle.  That is no damage by itself: the record that closes it may be one
/// that nobody sees, outside the bounds of the edge that leads to its leaf or run.
void Checker::walk_from(size_t root) {
  stack_.push_back({root, false});
  while (!stack_.empty()) {
    const Step step = stack_.back();
    stack_.pop_back();
    NodeState& state = states_[step.node];
    if (step.leave) {
      state.walk = Walk::done;
    } else if (state.walk == Walk::unseen) {
      state.walk = Walk::open;
      stack_.push_back({step.node, true});
      enter(step.node);
    }
  }
}

void Checker::damaged(const Error& error, NodeId id) {
  findings_.add(error, raw(id), fmt::format("node {}", raw(id)));
  complete_ = false;
}

void Checker::enter(size_t node) {
  const NodeRow& row = table_.nodes[node];
  const Result<OpenedNode> opened = read_node(device_, row);
  if (!opened) return damaged(opened.error(), row.id);
  figures_.node_blocks += blocks_for(row.stored_bytes);
  figures_.max_height = std::max<uint64_t>(figures_.max_height, row.height);
  switch (row.kind) {
    case NodeKind::interior:
      ++figures_.interiors;
      return check_interior(node, opened->payload);
    case NodeKind::leaf:
      ++figures_.leaves;
      return check_sorted(node, opened->payload);
    case NodeKind::run:
      ++figures_.runs;
      return check_sorted(node, opened->payload);
  }
}

void Checker::check_sorted(size_t node, std::string_view payload) {
  const NodeRow& row = table_.nodes[node];
  const Result<SortedBlock> block = SortedBlock::open(payload);
  if (!block) return damaged(block.error(), row.id);
  const bool is_leaf = row.kind == NodeKind::leaf;
  (is_leaf ? figures_.records : figures_.messages) += block->count();
  if (is_leaf) {
    SortedBlock::Iterator it(*block);
    bool only_puts = block->range_erases().empty();
    for (it.seek_to_first(); it.valid(); it.next()) only_puts &= it.kind() == MessageKind::put;
    if (!only_puts) {
      findings_.add(Code::node_payload, raw(row.id),
                    fmt::format("leaf {} holds more than puts", raw(row.id)));
    }
  }
  check_block(node, *block, row.owns_refs);
}

/// The references in a block's messages.
void Checker::check_block(size_t node, const SortedBlock& block, bool owns_refs) {
  SortedBlock::Iterator it(block);
  bool found = false;
  for (it.seek_to_first(); it.valid(); it.next()) {
    const OwnedRefs refs = peek_refs(it.kind(), it.body());
    found = found || refs.any();
    if (refs.tree != kNoNode) refer(node, refs.tree, RefKind::record, 0);
    if (refs.blob) blobs_.push_back({refs.blob});
  }
  if (found && !owns_refs) {
    const uint64_t id = raw(table_.nodes[node].id);
    findings_.add(Code::node_header, id,
                  fmt::format("node {} owns references, its header denies it", id));
  }
}

void Checker::check_interior(size_t node, std::string_view payload) {
  const NodeRow& row = table_.nodes[node];
  const Result<Interior> decoded = decode_interior(payload);
  if (!decoded) return damaged(decoded.error(), row.id);
  if (decoded->height != row.height) {
    findings_.add(Code::node_height, raw(row.id),
                  fmt::format("node {}: height {} inside, {} in its header", raw(row.id),
                              decoded->height, row.height));
  }
  for (const Edge& edge : decoded->edges) {
    if (edge.child != kNoNode) refer(node, edge.child, RefKind::edge, edge.child_height);
  }
  for (const RunRef& run : decoded->runs) refer(node, run.run, RefKind::run, 0);
  if (decoded->inline_block.empty()) return;
  states_[node].has_inline = true;
  const Result<SortedBlock> block = SortedBlock::open(decoded->inline_block);
  if (!block) return damaged(block.error(), row.id);
  figures_.messages += block->count();
  check_block(node, *block, row.owns_refs);
}

/// One reference from `from`.  `height`: of an edge's child, as the edge says.
void Checker::refer(size_t from, NodeId to, RefKind kind, unsigned height) {
  const std::optional<size_t> target = table_.find(to);
  if (!target) {
    findings_.add(Code::node_absent, raw(to),
                  fmt::format("node {} refers to node {}, which does not exist",
                              raw(table_.nodes[from].id), raw(to)));
    return;
  }
  ++states_[*target].refs;
  check_target(from, *target, kind, height);
  if (kind == RefKind::superblock) return;
  if (states_[*target].walk == Walk::open) {
    ++figures_.reference_cycles;
  } else if (states_[*target].walk == Walk::unseen) {
    stack_.push_back({*target, false});
  }
}

void Checker::check_target(size_t from, size_t to, RefKind kind, unsigned height) {
  const NodeRow& parent = table_.nodes[from];
  const NodeRow& row = table_.nodes[to];
  NodeState& state = states_[to];
  const auto wrong = [&](Code code, std::string_view what) {
    findings_.add(code, raw(row.id),
                  fmt::format("node {} refers to {} {} {}", raw(parent.id), kind_text(row.kind),
                              raw(row.id), what));
  };
  switch (kind) {
    case RefKind::edge:
      state.is_child = true;
      if (row.kind == NodeKind::run) return wrong(Code::check_reference, "as a child");
      if (row.height >= parent.height) return wrong(Code::node_height, "which is not below it");
      if (row.height != height) return wrong(Code::node_height, "of another height");
      return;
    case RefKind::run:
      if (row.kind != NodeKind::run) wrong(Code::check_reference, "as a run");
      return;
    case RefKind::record:
    case RefKind::superblock:
      state.is_tree = true;
      if (row.kind != NodeKind::interior) wrong(Code::check_reference, "as a tree");
      return;
  }
}

void Checker::check_log() {
  const Result<LogFrames> log = read_log_frames(device_, superblock_);
  if (!log) return findings_.add(log.error(), superblock_.log_position, "the log");
  if (log->cut_off == 0) return;
  findings_.add(Code::log_frame, log->end,
                fmt::format("the log is damaged at position {}; {} frames behind it are of no use",
                            log->end, log->cut_off));
}

// ---- nodes

/// What can be said of the table's entries without reading the nodes.
void Checker::check_rows() {
  for (uint64_t region = 0; region < layout_.regions; ++region) {
    used_.mark(region * kRegionBlocks, layout_.fixed_blocks(region));
  }
  for (size_t i = 0; i < kLogSegments; ++i) {
    const LogSegment& segment = superblock_.log_segments[i];
    if (segment.blocks != 0) use_blocks(segment.first, segment.blocks, "log segment", i);
  }
  for (const BlockAddr page : table_.pages) use_blocks(page, 1, "node-table page", raw(page));
  const uint64_t next_id = superblock_.counters[static_cast<size_t>(Counter::node_id)];
  for (const NodeRow& row : table_.nodes) {
    use_blocks(row.addr, blocks_for(row.stored_bytes), "node", raw(row.id));
    if (raw(row.id) >= next_id) {
      findings_.add(Code::check_figures, raw(row.id),
                    fmt::format("node {} has a number that was never drawn", raw(row.id)));
    }
    if (row.birth > superblock_.epoch) {
      findings_.add(Code::check_figures, raw(row.id),
                    fmt::format("node {} is younger than the checkpoint", raw(row.id)));
    }
  }
}

void Checker::check_node_counts() {
  auto stored = table_.node_counts.begin();
  const auto end = table_.node_counts.end();
  const auto stray = [&](const CountRow& row) {
    findings_.add(Code::check_count, row.id,
                  fmt::format("count of node {}, which does not exist", row.id));
  };
  for (size_t i = 0; i < table_.nodes.size(); ++i) {
    const uint64_t id = raw(table_.nodes[i].id);
    const NodeState& state = states_[i];
    for (; stored != end && stored->id < id; ++stored) stray(*stored);
    uint64_t count = 1;
    if (stored != end && stored->id == id) count = (stored++)->count;
    if (state.is_tree) ++figures_.trees;
    if (state.refs > 1) ++figures_.shared_nodes;
    if (state.is_child && state.has_inline) {
      findings_.add(Code::interior_malformed, id,
                    fmt::format("node {} has an embedded run and is below another", id));
    }
    if (!complete_) continue;
    const bool dead = std::ranges::binary_search(table_.dead, id);
    if (!dead && !state.is_unreached && state.refs != count) {
      findings_.add(Code::check_count, id,
                    fmt::format("node {}: {} references, stored {}", id, state.refs, count));
    }
  }
  for (; stored != end; ++stored) stray(*stored);
}

void Checker::check_dead() {
  figures_.dead_nodes = table_.dead.size();
  for (const uint64_t id : table_.dead) {
    const std::optional<size_t> node = table_.find(NodeId{id});
    if (!node) {
      findings_.add(Code::check_dead, id, fmt::format("dead node {} does not exist", id));
    } else if (states_[*node].refs != 0) {
      findings_.add(Code::check_dead, id,
                    fmt::format("dead node {} has {} references", id, states_[*node].refs));
    }
  }
}

// ---- blobs

void Checker::check_blobs() {
  // Equal references together, so that each blob is read once.
  std::ranges::sort(blobs_, {}, [](const BlobUse& use) {
    return std::tuple(raw(use.ref.addr), use.ref.stored_bytes, use.ref.raw_bytes, use.ref.checksum,
                      use.ref.compression);
  });
  size_t kept = 0;
  for (size_t i = 0; i < blobs_.size(); ++i) {
    if (kept > 0 && blobs_[kept - 1].ref == blobs_[i].ref) {
      ++blobs_[kept - 1].count;
    } else {
      blobs_[kept++] = blobs_[i];
    }
  }
  blobs_.resize(kept);
  for (const BlobUse& use : blobs_) check_blob(use);
  check_stray_blob_counts();
}

void Checker::check_blob(const BlobUse& use) {
  const uint64_t addr = raw(use.ref.addr);
  ++figures_.blobs;
  if (use.count > 1) ++figures_.shared_blobs;
  figures_.blob_blocks += use.ref.blocks();
  figures_.blob_raw_bytes += use.ref.raw_bytes;
  use_blocks(use.ref.addr, use.ref.blocks(), "blob", addr);
  const auto stored = std::ranges::lower_bound(table_.blob_counts, addr, {}, &CountRow::id);
  const bool found = stored != table_.blob_counts.end() && stored->id == addr;
  const uint64_t count = found ? stored->count : 1;
  if (complete_ && count != use.count) {
    findings_.add(Code::check_count, addr,
                  fmt::format("blob at {}: {} references, stored {}", addr, use.count, count));
  }
  if (!options_.read_blobs) return;
  const Result<std::string> bytes = read_blob(device_, use.ref);
  if (bytes) return;
  if (reads_as_lost_blob(device_, use.ref)) {
    ++figures_.lost_blobs;
  } else {
    findings_.add(bytes.error(), addr, fmt::format("blob at {}", addr));
  }
}

void Checker::check_stray_blob_counts() {
  if (!complete_) return;
  for (const CountRow& row : table_.blob_counts) {
    const auto found = std::ranges::lower_bound(
        blobs_, row.id, {}, [](const BlobUse& use) { return raw(use.ref.addr); });
    if (found == blobs_.end() || raw(found->ref.addr) != row.id) {
      findings_.add(Code::check_count, row.id,
                    fmt::format("count of a blob at {}, which nothing refers to", row.id));
    }
  }
}

// ---- blocks

void Checker::use_blocks(BlockAddr addr, uint64_t blocks, std::string_view who, uint64_t id) {
  const uint64_t first = raw(addr);
  const uint64_t region = first / kRegionBlocks;
  if (region >= layout_.regions || first % kRegionBlocks < layout_.fixed_blocks(region) ||
      first % kRegionBlocks + blocks > layout_.region_blocks(region)) {
    findings_.add(
        Code::check_double_use, first,
        fmt::format("{} {} at blocks {}+{}, where no data can be", who, id, first, blocks));
    return;
  }
  if (const std::optional<uint64_t> twice = used_.mark(first, blocks)) {
    findings_.add(Code::check_double_use, *twice,
                  fmt::format("{} {} uses block {}, which is in use", who, id, *twice));
  }
}

void Checker::check_bitmaps() {
  for (uint64_t region = 0; region < layout_.regions; ++region) {
    if (regions_.readable[region]) check_region(region);
  }
  const bool all_readable = std::ranges::all_of(regions_.readable, [](bool it) { return it; });
  uint64_t fixed = 0;
  for (uint64_t region = 0; region < layout_.regions; ++region) {
    fixed += layout_.fixed_blocks(region);
  }
  if (all_readable && figures_.used_blocks != superblock_.used_blocks + fixed) {
    findings_.add(Code::check_figures, superblock_.used_blocks,
                  fmt::format("superblock: {} blocks in use, bitmaps: {}", superblock_.used_blocks,
                              figures_.used_blocks - fixed));
  }
}

void Checker::check_region(uint64_t region) {
  const RegionRow& row = regions_.rows[region];
  const uint64_t blocks = layout_.region_blocks(region);
  figures_.free_blocks += row.free_blocks;
  figures_.used_blocks += blocks - row.free_blocks;
  if (!row.written) {
    // All free: only the blocks that hold no data may be in use.
    std::string bits(kBlockSize, '\0');
    for (uint64_t i = 0; i < kRegionBlocks; ++i) {
      if (i >= layout_.fixed_blocks(region) && i < blocks) continue;
      bits[i / 8] = static_cast<char>(bits[i / 8] | (1 << (i % 8)));
    }
    compare_bits(region, bits);
    return;
  }
  const Result<AlignedBuffer> bitmap = read_bitmap(device_, layout_, region, row);
  if (!bitmap) {
    findings_.add(bitmap.error(), region, fmt::format("bitmap of region {}", region));
    return;
  }
  const uint64_t free_blocks = compare_bits(region, bitmap->view());
  if (free_blocks != row.free_blocks) {
    findings_.add(Code::check_figures, region,
                  fmt::format("region {}: {} blocks free, its table says {}", region, free_blocks,
                              row.free_blocks));
  }
}

/// Compares with what was reached; returns the number of clear bits.
uint64_t Checker::compare_bits(uint64_t region, std::string_view bitmap) {
  const BlockMap::Bits none{};
  const BlockMap::Bits* reached = used_.region(region);
  if (reached == nullptr) reached = &none;
  const uint64_t blocks = layout_.region_blocks(region);
  BlockMap::Bits leaked{};
  BlockMap::Bits unmarked{};
  uint64_t clear = 0;
  for (size_t word = 0; word < BlockMap::kWords; ++word) {
    const auto marked = load_fixed<uint64_t>(bitmap.data() + word * sizeof(uint64_t));
    uint64_t exists = 0;
    if (word * 64 < blocks) {
      const uint64_t rest = blocks - word * 64;
      exists = rest >= 64 ? ~uint64_t{0} : (uint64_t{1} << rest) - 1;
    }
    clear += static_cast<uint64_t>(std::popcount(~marked));
    unmarked[word] = ((*reached)[word] | ~exists) & ~marked;
    leaked[word] = marked & ~(*reached)[word] & exists;
  }
  report_ranges(region, unmarked, Code::check_unmarked);
  if (complete_) report_ranges(region, leaked, Code::check_leaked);
  return clear;
}

void Checker::report_ranges(uint64_t region, const BlockMap::Bits& bits, Code code) {
  const auto is_set = [&](uint64_t i) { return (bits[i / 64] >> (i % 64) & 1U) != 0; };
  for (uint64_t i = 0; i < kRegionBlocks; ++i) {
    if (bits[i / 64] == 0) {
      i |= 63U;
      continue;
    }
    if (!is_set(i)) continue;
    const uint64_t first = i;
    while (i + 1 < kRegionBlocks && is_set(i + 1)) ++i;
    const uint64_t addr = region * kRegionBlocks + first;
    findings_.add(code, addr, fmt::format("blocks {}+{}: {}", addr, i - first + 1, text_of(code)));
  }
}

}  // namespace

Result<CheckReport> check_volume(BlockDevice& device, const CheckOptions& options) {
  const FoundSuperblock found = CAW_TRY(find_superblock(device));
  return Checker(device, options, found).run();
}

}  // namespace caw
