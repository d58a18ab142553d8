// The trees of a volume as a graph.
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <map>
#include <set>

#include "check/describe.h"
#include "check/dump.h"
#include "check/findings.h"
#include "check/tables.h"
#include "format/interior.h"
#include "format/sorted_block.h"

namespace caw {
namespace {

using Out = std::back_insert_iterator<std::string>;

constexpr const char* kHeader =
    "digraph cawfs {\n"
    "  rankdir=TB; nodesep=0.25; ranksep=0.5;\n"
    "  node [fontname=\"Helvetica\", fontsize=10, shape=box, style=filled, fillcolor=white];\n"
    "  edge [fontname=\"Helvetica\", fontsize=8, color=gray40];\n";
constexpr const char* kSharedColour = "orange";
constexpr const char* kTreeColour = "lightblue";

class Drawing {
 public:
  Drawing(BlockDevice& device, const FoundSuperblock& found, const DumpLimits& limits)
      : device_(device), superblock_(found.superblock), limits_(limits) {}

  std::string draw();

 private:
  /// All references from one node to another, drawn as one arrow.
  struct Arrow {
    size_t edges = 0;
    size_t runs = 0;
    size_t records = 0;
    std::string label;
  };
  using Arrows = std::map<NodeId, Arrow>;
  struct BlobSum {
    size_t count = 0;
    size_t shared = 0;
    uint64_t bytes = 0;
  };

  void reach(NodeId id);
  void draw_node(NodeId id);
  std::string draw_contents(const NodeRow& row, Arrows& arrows);
  std::string draw_interior(std::string_view payload, Arrows& arrows);
  std::string draw_block(const SortedBlock& block, Arrows& arrows);
  void draw_arrows(NodeId from, const Arrows& arrows);
  uint64_t count_of(NodeId id) const;
  bool is_shared_blob(BlockAddr addr) const;

  BlockDevice& device_;
  const Superblock& superblock_;
  const DumpLimits& limits_;
  NodeTable table_;
  std::set<NodeId> reached_;
  std::set<NodeId> trees_;
  std::deque<NodeId> queue_;
  size_t left_out_ = 0;
  std::string out_;
};

uint64_t Drawing::count_of(NodeId id) const {
  const auto found = std::ranges::lower_bound(table_.node_counts, raw(id), {}, &CountRow::id);
  return found != table_.node_counts.end() && found->id == raw(id) ? found->count : 1;
}

bool Drawing::is_shared_blob(BlockAddr addr) const {
  const auto found = std::ranges::lower_bound(table_.blob_counts, raw(addr), {}, &CountRow::id);
  return found != table_.blob_counts.end() && found->id == raw(addr);
}

void Drawing::reach(NodeId id) {
  if (reached_.size() >= limits_.max_nodes) {
    if (!reached_.contains(id)) ++left_out_;
    return;
  }
  if (reached_.insert(id).second) queue_.push_back(id);
}

std::string Drawing::draw() {
  Findings findings(1);
  table_ = read_node_table(device_, superblock_, findings);
  out_ = kHeader;
  fmt::format_to(
      Out(out_),
      "  label=\"{} epoch {}: {} nodes, {} of them shared (orange: count above one)\";\n",
      dot_text(superblock_.label), superblock_.epoch, table_.nodes.size(),
      table_.node_counts.size());
  fmt::format_to(Out(out_), "  super [label=\"superblock\", shape=octagon];\n");
  if (superblock_.system_tree != kNoNode) {
    trees_.insert(superblock_.system_tree);
    reach(superblock_.system_tree);
    fmt::format_to(Out(out_), "  super -> n{} [color=blue, penwidth=2];\n",
                   raw(superblock_.system_tree));
  }
  for (const uint64_t id : table_.dead) {
    reach(NodeId{id});
    fmt::format_to(Out(out_), "  dead [label=\"dead list\", shape=octagon];\n  dead -> n{};\n", id);
  }
  while (!queue_.empty()) {
    const NodeId id = queue_.front();
    queue_.pop_front();
    draw_node(id);
  }
  if (left_out_ > 0) {
    fmt::format_to(Out(out_),
                   "  more [label=\"{} references to nodes not drawn\", "
                   "shape=plaintext];\n",
                   left_out_);
  }
  if (findings.count() > 0) out_ += "  damage [label=\"the node table is damaged\", color=red];\n";
  out_ += "}\n";
  return std::move(out_);
}

void Drawing::draw_node(NodeId id) {
  const std::optional<size_t> index = table_.find(id);
  if (!index) {
    fmt::format_to(Out(out_), "  n{} [label=\"node {}\\nabsent\", color=red];\n", raw(id), raw(id));
    return;
  }
  const NodeRow& row = table_.nodes[*index];
  Arrows arrows;
  const std::string contents = draw_contents(row, arrows);
  const uint64_t count = count_of(id);
  std::string label = fmt::format("{} {}", kind_text(row.kind), raw(id));
  if (row.kind == NodeKind::interior) label += fmt::format(", height {}", row.height);
  if (count > 1) label += fmt::format(", count {}", count);
  label += fmt::format("\\n{}\\n{}", contents, size_text(row.stored_bytes));
  const bool is_tree = trees_.contains(id);
  fmt::format_to(Out(out_), "  n{} [label=\"{}\"", raw(id), label);
  if (row.kind == NodeKind::run) out_ += ", shape=ellipse";
  if (row.kind == NodeKind::leaf) out_ += ", style=\"filled,rounded\"";
  if (is_tree) out_ += ", penwidth=2, color=blue";
  if (count > 1) {
    fmt::format_to(Out(out_), ", fillcolor={}", kSharedColour);
  } else if (is_tree) {
    fmt::format_to(Out(out_), ", fillcolor={}", kTreeColour);
  }
  out_ += "];\n";
  draw_arrows(id, arrows);
}

void Drawing::draw_arrows(NodeId from, const Arrows& arrows) {
  for (const auto& [to, arrow] : arrows) {
    if (!reached_.contains(to)) continue;
    std::string label = arrow.label;
    const size_t references = arrow.edges + arrow.runs + arrow.records;
    if (references > 1)
      label += fmt::format("{}{} references", label.empty() ? "" : "\\n", references);
    const char* style = arrow.records > 0 ? "color=blue, penwidth=1.5"
                        : arrow.runs > 0  ? "style=dashed"
                                          : "style=solid";
    fmt::format_to(Out(out_), "  n{} -> n{} [{}, label=\"{}\"];\n", raw(from), raw(to), style,
                   label);
  }
}

/// Two lines about what is in the node; collects its references and reaches their targets.
std::string Drawing::draw_contents(const NodeRow& row, Arrows& arrows) {
  const Result<OpenedNode> node = read_node(device_, row);
  if (!node) return dot_text(node.error().to_string());
  std::string text;
  if (row.kind == NodeKind::interior) {
    text = draw_interior(node->payload, arrows);
  } else {
    const Result<SortedBlock> block = SortedBlock::open(node->payload);
    if (!block) return dot_text(block.error().to_string());
    text =
        fmt::format("{} {}", block->count(), row.kind == NodeKind::leaf ? "records" : "messages") +
        draw_block(*block, arrows);
  }
  for (const auto& [to, arrow] : arrows) {
    if (arrow.records > 0) trees_.insert(to);
    reach(to);
  }
  return text;
}

std::string Drawing::draw_interior(std::string_view payload, Arrows& arrows) {
  const Result<Interior> node = decode_interior(payload);
  if (!node) return dot_text(node.error().to_string());
  for (const Edge& edge : node->edges) {
    if (edge.child == kNoNode) continue;
    Arrow& arrow = arrows[edge.child];
    if (arrow.edges++ == 0) arrow.label = dot_text(translation_text(edge.translation));
  }
  for (const RunRef& run : node->runs) {
    Arrow& arrow = arrows[run.run];
    if (arrow.runs++ == 0) arrow.label = dot_text(translation_text(run.translation));
  }
  std::string text = fmt::format("{} edges, {} runs", node->edges.size(), node->runs.size());
  if (node->inline_block.empty()) return text;
  const Result<SortedBlock> block = SortedBlock::open(node->inline_block);
  if (!block) return dot_text(block.error().to_string());
  text += fmt::format(", {} messages embedded", block->count());
  return text + draw_block(*block, arrows);
}

std::string Drawing::draw_block(const SortedBlock& block, Arrows& arrows) {
  BlobSum blobs;
  SortedBlock::Iterator it(block);
  for (it.seek_to_first(); it.valid(); it.next()) {
    const OwnedRefs refs = peek_refs(it.kind(), it.body());
    if (refs.blob) {
      ++blobs.count;
      blobs.bytes += refs.blob.raw_bytes;
      if (is_shared_blob(refs.blob.addr)) ++blobs.shared;
    }
    if (refs.tree == kNoNode) continue;
    Arrow& arrow = arrows[refs.tree];
    if (arrow.records++ > 0) continue;
    const Result<Message> message = decode_message(it.kind(), it.body());
    const std::string name = message ? record_name(message->value) : std::string();
    arrow.label = dot_text(name.empty() ? key_text(it.key()) : quoted(name));
  }
  if (blobs.count == 0) return {};
  return fmt::format("\\n{} blobs, {}, {} shared", blobs.count, size_text(blobs.bytes),
                     blobs.shared);
}

}  // namespace

Result<std::string> dump_dot(BlockDevice& device, const DumpLimits& limits) {
  const FoundSuperblock found = CAW_TRY(find_superblock(device));
  return Drawing(device, found, limits).draw();
}

}  // namespace caw
