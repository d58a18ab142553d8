#include "dag/restrict.h"

#include <algorithm>
#include <tuple>

#include "dag/lookup.h"

namespace caw {
namespace {

constexpr size_t kManyEdges = 16;  // beyond it a clone refers to the covering node itself

/// The part of one node that [lo, hi) (outer coordinates) selects.
struct Selection {
  std::vector<Edge> edges;   ///< outer coordinates; original applied_pos
  std::vector<RunRef> runs;  ///< outer coordinates; original pos; live for some edge
};

bool live_for(const RunRef& run, const std::vector<Edge>& edges, std::string_view hi) {
  for (size_t i = 0; i < edges.size(); ++i) {
    const std::string_view end = i + 1 < edges.size() ? std::string_view(edges[i + 1].lo) : hi;
    if (edges[i].applied_pos < run.pos && run.lo < end && edges[i].lo < run.hi) return true;
  }
  return false;
}

Selection select(const Interior& node, const Translation& down, std::string_view lo,
                 std::string_view hi) {
  Selection out;
  // Only keys with the stripped prefix exist on the other side.
  const std::string first(max_bound(lo, down.strip));
  const std::string end(min_bound(hi, key_after_prefix(down.strip)));
  for (size_t i = 0; i < node.edges.size(); ++i) {
    const Edge& edge = node.edges[i];
    std::string a = i == 0 ? first : std::max(first, up_bound(down, edge.lo));
    std::string b = i + 1 < node.edges.size() ? up_bound(down, node.edges[i + 1].lo) : end;
    b = std::min(b, end);
    if (!(a < b)) continue;
    Edge mine = edge;
    mine.lo = std::move(a);
    auto t = compose(down, edge.translation);
    if (t && edge.child != kNoNode) {
      mine.translation = *std::move(t);
    } else {
      mine.child = kNoNode;
      mine.translation = {};
      mine.child_bytes = 0;
      mine.child_height = 0;
    }
    out.edges.push_back(std::move(mine));
  }
  if (out.edges.empty()) out.edges.emplace_back();
  out.edges.front().lo = std::string(lo);
  for (const RunRef& run : node.runs) {
    auto t = compose(down, run.translation);
    if (!t) continue;
    RunRef mine = run;
    mine.lo = std::string(max_bound(first, up_bound(down, run.lo)));
    mine.hi = std::string(min_bound(end, up_bound(down, run.hi)));
    if (!(mine.lo < mine.hi)) continue;
    mine.translation = *std::move(t);
    if (live_for(mine, out.edges, hi)) out.runs.push_back(std::move(mine));
  }
  return out;
}

/// A run, or a slice of the root's embedded run, on its way into the new root.
struct Pending {
  size_t depth = 0;  ///< 0 = the source's root: newest
  uint64_t old_pos = 0;
  size_t prefix = 0;
  bool embedded = false;
  RunRef run;
  uint64_t new_pos = 0;
};

class Restrictor {
 public:
  Restrictor(NodeStore& store, std::span<const PrefixMap> prefixes)
      : store_(store), prefixes_(prefixes) {}

  Result<Restriction> run(const Ref<const InteriorImage>& root);

 private:
  Result<void> restrict_prefix(const Ref<const InteriorImage>& root, size_t prefix);
  void take_runs(Selection& selection, size_t depth, size_t prefix);
  void take_inline(const InteriorImage& root, const Selection& selection, const Translation& down,
                   std::string_view lo, std::string_view hi);
  void number_and_assemble();

  /// Edges of one prefix and the depth of the node they came from.
  struct Part {
    size_t depth = 0;
    std::vector<Edge> edges;
  };
  NodeStore& store_;
  std::span<const PrefixMap> prefixes_;
  Restriction out_;
  std::vector<Part> parts_;
  std::vector<Pending> pending_;
  std::vector<RangeErase> inline_ranges_;
  std::vector<std::tuple<std::string, MessageKind, std::string>> inline_points_;
  uint64_t inline_old_pos_ = 0;
  bool has_inline_ = false;
};

/// True if the run is known, without reading it, to hold nothing of its range.
bool known_empty(NodeStore& store, const RunRef& run) {
  const ImageRef image = store.get_cached(run.run);
  if (!image || image->kind() != NodeKind::run) return false;
  const SortedBlock& block = static_cast<const BlockImage&>(*image).block();
  const std::string lo = down_bound(run.translation, run.lo);
  const std::string hi = down_bound(run.translation, run.hi);
  for (const RangeErase& range : block.range_erases()) {
    if (range.lo < hi && lo < range.hi) return false;
  }
  SortedBlock::Iterator it(block);
  it.seek(lo);
  return !it.valid() || it.key() >= hi;
}

void Restrictor::take_runs(Selection& selection, size_t depth, size_t prefix) {
  for (RunRef& run : selection.runs) {
    if (known_empty(store_, run)) continue;
    Pending pending;
    pending.depth = depth;
    pending.old_pos = run.pos;
    pending.prefix = prefix;
    pending.run = std::move(run);
    pending_.push_back(std::move(pending));
  }
}

void Restrictor::take_inline(const InteriorImage& root, const Selection& selection,
                             const Translation& down, std::string_view lo, std::string_view hi) {
  const Interior& node = root.node();
  if (node.inline_block.empty()) return;
  uint64_t least = ~uint64_t{0};
  for (const Edge& edge : selection.edges) least = std::min(least, edge.applied_pos);
  if (node.inline_pos <= least) return;
  Layer layer(ImageRef(&root), root.inline_block(), down, lo, hi);
  for (const RangeErase& range : layer.ranges()) inline_ranges_.push_back(range);
  for (; layer.valid(); layer.next()) {
    inline_points_.emplace_back(std::string(layer.key()), layer.kind(), std::string(*layer.body()));
  }
  inline_old_pos_ = node.inline_pos;
  has_inline_ = !inline_points_.empty() || !inline_ranges_.empty();
}

Result<void> Restrictor::restrict_prefix(const Ref<const InteriorImage>& root, size_t prefix) {
  Translation down{prefixes_[prefix].to, prefixes_[prefix].from};
  std::string lo = prefix == 0 ? std::string() : prefixes_[prefix].to;
  std::string hi = prefix + 1 < prefixes_.size() ? prefixes_[prefix + 1].to : std::string(kKeyEnd);
  ImageRef at = root;
  NodeId at_id = kNoNode;
  Part part;
  for (size_t depth = 0;; ++depth) {
    const auto& image = static_cast<const InteriorImage&>(*at);
    const Interior& node = image.node();
    out_.seen.push_back(at);
    Selection selection = select(node, down, lo, hi);
    if (depth > 0 && !node.inline_block.empty()) {
      return fail(Code::interior_malformed, raw(at_id), "embedded run below a root");
    }
    part.depth = depth;
    if (depth > 0 && selection.edges.size() > kManyEdges) {
      Edge whole;
      whole.lo = lo;
      whole.child = at_id;
      whole.translation = down;
      whole.child_height = node.height;
      whole.max_seq = node.max_seq;
      part.edges.assign(1, std::move(whole));
      out_.node.height = std::max<Height>(out_.node.height, static_cast<Height>(node.height + 1));
      break;
    }
    take_runs(selection, depth, prefix);
    if (depth == 0) take_inline(image, selection, down, lo, hi);
    out_.node.height = std::max(out_.node.height, node.height);
    const Edge* only = selection.edges.size() == 1 ? &selection.edges.front() : nullptr;
    if (only == nullptr || only->child == kNoNode || only->child_height == 0) {
      if (only != nullptr) out_.node.height = std::max<Height>(out_.node.height, 1);
      part.edges = std::move(selection.edges);
      break;
    }
    ImageRef child = CAW_TRY(store_.get(only->child));
    if (at->superseded()) return fail(Code::node_superseded, raw(only->child));
    if (child->kind() != NodeKind::interior ||
        static_cast<const InteriorImage&>(*child).node().height >= node.height) {
      return fail(Code::node_height, raw(only->child), "restrict_tree");
    }
    at_id = only->child;
    Translation inner = only->translation;
    down = std::move(inner);
    at = std::move(child);
  }
  parts_.push_back(std::move(part));
  return {};
}

void Restrictor::number_and_assemble() {
  Interior& node = out_.node;
  if (has_inline_) {
    Pending pending;
    pending.old_pos = inline_old_pos_;
    pending.embedded = true;
    pending_.push_back(std::move(pending));
  }
  // Oldest first: deeper is older; in the source's root by position, so that the embedded run has
  // one place for all prefixes; elsewhere prefixes do not overlap and their order is free.
  std::stable_sort(pending_.begin(), pending_.end(), [](const Pending& a, const Pending& b) {
    if (a.depth != b.depth) return a.depth > b.depth;
    if (a.depth == 0) return std::tie(a.old_pos, a.prefix) < std::tie(b.old_pos, b.prefix);
    return std::tie(a.prefix, a.old_pos) < std::tie(b.prefix, b.old_pos);
  });
  for (Pending& pending : pending_) pending.new_pos = node.next_pos++;
  for (size_t p = 0; p < parts_.size(); ++p) {
    for (Edge& edge : parts_[p].edges) {
      uint64_t applied = 0;
      for (const Pending& pending : pending_) {
        const bool mine = pending.embedded || pending.prefix == p;
        if (mine && pending.depth == parts_[p].depth && pending.old_pos <= edge.applied_pos) {
          applied = std::max(applied, pending.new_pos);
        }
      }
      edge.applied_pos = applied;
      node.max_seq = std::max(node.max_seq, edge.max_seq);
      node.edges.push_back(std::move(edge));
    }
  }
  for (auto it = pending_.rbegin(); it != pending_.rend(); ++it) {
    if (it->embedded) {
      SortedBlockBuilder builder;
      for (const RangeErase& range : inline_ranges_) builder.add_range_erase(range);
      for (const auto& [key, kind, body] : inline_points_) builder.add(key, kind, body);
      node.inline_block = builder.finish();
      node.inline_pos = it->new_pos;
    } else {
      it->run.pos = it->new_pos;
      node.max_seq = std::max(node.max_seq, it->run.max_seq);
      node.runs.push_back(std::move(it->run));
    }
  }
}

Result<Restriction> Restrictor::run(const Ref<const InteriorImage>& root) {
  out_.node.height = 1;
  for (size_t p = 0; p < prefixes_.size(); ++p) CAW_TRY(restrict_prefix(root, p));
  out_.node.max_seq = root->node().max_seq;
  number_and_assemble();
  return std::move(out_);
}

}  // namespace

Result<Restriction> restrict_tree(NodeStore& store, const Ref<const InteriorImage>& root,
                                  std::span<const PrefixMap> prefixes) {
  return Restrictor(store, prefixes).run(root);
}

Interior rebase_child(const Interior& child, const Translation& translation, std::string_view lo,
                      std::string_view hi) {
  Selection selection = select(child, translation, lo, hi);
  Interior out;
  out.height = child.height;
  out.hi = std::string(hi);
  out.next_pos = child.next_pos;
  out.max_seq = child.max_seq;
  out.edges = std::move(selection.edges);
  out.runs = std::move(selection.runs);
  return out;
}

Interior empty_root() {
  Interior node;
  node.edges.emplace_back();
  return node;
}

}  // namespace caw
