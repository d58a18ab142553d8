#include "dag/restrict.h"

#include <algorithm>
#include <tuple>

#include "dag/lookup.h"

namespace caw {
namespace {

constexpr size_t kManyEdges = 16;  // beyond it a clone refers to the covering node itself

bool live_for(const RunRef& run, const std::vector<Edge>& edges, std::string_view hi) {
  for (size_t i = 0; i < edges.size(); ++i) {
    if (edges[i].applied_pos >= run.pos) continue;
    const std::string_view end = i + 1 < edges.size() ? std::string_view(edges[i + 1].lo) : hi;
    if (run.lo < end && edges[i].lo < run.hi) return true;
  }
  return false;
}

/// [lo, hi) in outer coordinates and, as far as `down` leads there, in the node's own.  Clipping is
/// done in the latter, which needs no new strings; most edges and runs of a large node go no
/// further.
struct Window {
  Window(Translation to_node, std::string_view outer_lo, std::string_view outer_hi)
      : down(std::move(to_node)),
        lo(outer_lo),
        hi(outer_hi),
        first(down_bound(down, max_bound(lo, down.strip))),
        end(down_bound(down, min_bound(hi, key_after_prefix(down.strip)))) {}

  Translation down;
  std::string_view lo;
  std::string_view hi;
  std::string first;
  std::string end;
};

std::vector<Edge> select_edges(const Interior& node, const Window& window) {
  std::vector<Edge> out;
  out.reserve(node.edges.size());
  for (size_t i = 0; i < node.edges.size(); ++i) {
    const Edge& edge = node.edges[i];
    const std::string_view a = i == 0 ? std::string_view(window.first)
                                      : max_bound(window.first, edge.lo);
    const std::string_view b = i + 1 < node.edges.size()
                                   ? min_bound(node.edges[i + 1].lo, window.end)
                                   : std::string_view(window.end);
    if (!(a < b)) continue;
    Edge& mine = out.emplace_back();
    mine.lo = up_bound(window.down, a);
    mine.applied_pos = edge.applied_pos;
    mine.max_seq = edge.max_seq;
    if (edge.child == kNoNode) continue;
    auto t = compose(window.down, edge.translation);
    if (!t) continue;
    mine.translation = *std::move(t);
    mine.child = edge.child;
    mine.child_bytes = edge.child_bytes;
    mine.child_height = edge.child_height;
  }
  if (out.empty()) out.emplace_back();
  out.front().lo = std::string(window.lo);
  return out;
}

/// Appends to `out` the runs that are live for one of `edges`.  `keep` is asked with [a, b), what
/// the window leaves of a run.
template <typename Keep>
void select_runs(const Interior& node, const Window& window, const std::vector<Edge>& edges,
                 const Keep& keep, std::vector<RunRef>& out) {
  out.reserve(out.size() + node.runs.size());
  for (const RunRef& run : node.runs) {
    const std::string_view a = max_bound(window.first, run.lo);
    const std::string_view b = min_bound(window.end, run.hi);
    if (!(a < b) || !keep(run, a, b)) continue;
    auto t = compose(window.down, run.translation);
    if (!t) continue;
    RunRef& mine = out.emplace_back();
    mine.run = run.run;
    mine.lo = up_bound(window.down, a);
    mine.hi = up_bound(window.down, b);
    mine.translation = *std::move(t);
    mine.pos = run.pos;
    mine.bytes = run.bytes;
    mine.weight = run.weight;
    mine.max_seq = run.max_seq;
    if (!live_for(mine, edges, window.hi)) out.pop_back();
  }
}

/// A run, or a slice of the root's embedded run, on its way into the new root.
struct Pending {
  static constexpr size_t kEmbedded = SIZE_MAX;
  size_t depth = 0;  ///< 0 = the source's root: newest
  uint64_t old_pos = 0;
  size_t prefix = 0;
  size_t run = kEmbedded;  ///< which of the runs taken
  uint64_t new_pos = 0;

  bool embedded() const { return run == kEmbedded; }
};

class Restrictor {
 public:
  Restrictor(NodeStore& store, std::span<const PrefixMap> prefixes)
      : store_(store), prefixes_(prefixes) {}

  Result<Restriction> run(const Ref<const InteriorImage>& root);

 private:
  /// Edges of one prefix and the depth of the node they came from.
  struct Part {
    size_t depth = 0;
    std::vector<Edge> edges;
  };

  Result<void> restrict_prefix(const Ref<const InteriorImage>& root, size_t prefix);
  void take_runs(const Interior& node, const Window& window, const Part& part, size_t prefix);
  Result<void> take_inline(const InteriorImage& root, const Window& window, const Part& part);
  void number_and_assemble();

  NodeStore& store_;
  std::span<const PrefixMap> prefixes_;
  Restriction out_;
  std::vector<Part> parts_;
  std::vector<Pending> pending_;
  std::vector<RunRef> runs_;
  std::vector<RangeErase> inline_ranges_;
  std::vector<std::tuple<std::string, MessageKind, std::string>> inline_points_;
  uint64_t inline_old_pos_ = 0;
  bool has_inline_ = false;
};

/// True if there is nothing in [lo, hi).
bool holds_nothing(const SortedBlock& block, std::string_view lo, std::string_view hi) {
  for (const RangeErase& range : block.range_erases()) {
    if (range.lo < hi && lo < range.hi) return false;
  }
  SortedBlock::Iterator it(block);
  it.seek(lo);
  return !it.valid() || it.key() >= hi;
}

/// True if the run is known, without reading it, to hold nothing in [a, b) of the node's
/// coordinates.
bool known_empty(NodeStore& store, const RunRef& run, std::string_view a, std::string_view b) {
  const ImageRef image = store.get_cached(run.run);
  if (!image || image->kind() != NodeKind::run) return false;
  const SortedBlock& block = static_cast<const BlockImage&>(*image).block();
  if (run.translation.is_identity()) return holds_nothing(block, a, b);
  return holds_nothing(block, down_bound(run.translation, a), down_bound(run.translation, b));
}

void Restrictor::take_runs(const Interior& node, const Window& window, const Part& part,
                           size_t prefix) {
  const auto not_known_empty = [this](const RunRef& run, std::string_view a, std::string_view b) {
    return !known_empty(store_, run, a, b);
  };
  size_t taken = runs_.size();
  select_runs(node, window, part.edges, not_known_empty, runs_);
  for (; taken < runs_.size(); ++taken) {
    pending_.push_back({part.depth, runs_[taken].pos, prefix, taken});
  }
}

Result<void> Restrictor::take_inline(const InteriorImage& root, const Window& window,
                                     const Part& part) {
  const Interior& node = root.node();
  if (node.inline_block.empty()) return {};
  uint64_t least = ~uint64_t{0};
  for (const Edge& edge : part.edges) least = std::min(least, edge.applied_pos);
  if (node.inline_pos <= least) return {};
  Layer layer(ImageRef(&root), root.inline_block(), window.down, window.lo, window.hi);
  CAW_TRY(check_ranges(layer.ranges()));
  for (const RangeErase& range : layer.ranges()) inline_ranges_.push_back(range);
  for (; layer.valid(); layer.next()) {
    CAW_TRY(check_key(layer.key()));
    inline_points_.emplace_back(std::string(layer.key()), layer.kind(), std::string(*layer.body()));
  }
  inline_old_pos_ = node.inline_pos;
  has_inline_ = !inline_points_.empty() || !inline_ranges_.empty();
  return {};
}

Result<void> Restrictor::restrict_prefix(const Ref<const InteriorImage>& root, size_t prefix) {
  Translation down{prefixes_[prefix].to, prefixes_[prefix].from};
  std::string lo = prefix == 0 ? std::string() : prefixes_[prefix].to;
  std::string hi = prefix + 1 < prefixes_.size() ? prefixes_[prefix + 1].to : std::string(kKeyEnd);
  ImageRef at = root;
  NodeId at_id = kNoNode;
  Part part;
  for (;; ++part.depth) {
    const auto& image = static_cast<const InteriorImage&>(*at);
    const Interior& node = image.node();
    out_.seen.push_back(at);
    if (part.depth > 0 && !node.inline_block.empty()) {
      return fail(Code::interior_malformed, raw(at_id), "embedded run below a root");
    }
    const Window window(down, lo, hi);
    part.edges = select_edges(node, window);
    if (part.depth > 0 && part.edges.size() > kManyEdges) {
      Edge whole;
      whole.lo = lo;
      whole.child = at_id;
      whole.translation = down;
      whole.child_height = node.height;
      whole.max_seq = node.max_seq;
      part.edges.assign(1, std::move(whole));
      break;
    }
    take_runs(node, window, part, prefix);
    if (part.depth == 0) CAW_TRY(take_inline(image, window, part));
    const Edge* only = part.edges.size() == 1 ? &part.edges.front() : nullptr;
    if (only == nullptr || only->child == kNoNode || only->child_height == 0) break;
    auto loaded = store_.get(only->child);
    if (at->superseded()) return fail(Code::node_superseded, raw(only->child));
    ImageRef child = CAW_TRY(std::move(loaded));
    if (child->kind() != NodeKind::interior ||
        static_cast<const InteriorImage&>(*child).node().height >= node.height) {
      return fail(Code::node_height, raw(only->child), "restrict_tree");
    }
    at_id = only->child;
    down = only->translation;
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
    pending_.push_back(pending);
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
        const bool mine = pending.embedded() || pending.prefix == p;
        if (mine && pending.depth == parts_[p].depth && pending.old_pos <= edge.applied_pos) {
          applied = std::max(applied, pending.new_pos);
        }
      }
      edge.applied_pos = applied;
      node.height = std::max(node.height, static_cast<Height>(edge.child_height + 1));
      node.max_seq = std::max(node.max_seq, edge.max_seq);
      node.edges.push_back(std::move(edge));
    }
  }
  node.runs.reserve(pending_.size());
  for (auto it = pending_.rbegin(); it != pending_.rend(); ++it) {
    if (it->embedded()) {
      SortedBlockBuilder builder;
      for (const RangeErase& range : inline_ranges_) builder.add_range_erase(range);
      for (const auto& [key, kind, body] : inline_points_) builder.add(key, kind, body);
      node.inline_block = builder.finish();
      node.inline_pos = it->new_pos;
    } else {
      RunRef& run = runs_[it->run];
      run.pos = it->new_pos;
      node.max_seq = std::max(node.max_seq, run.max_seq);
      node.runs.push_back(std::move(run));
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

Ref<const RestrictionCache::Entry> RestrictionCache::find(const Ref<const InteriorImage>& root,
                                                          const std::vector<PrefixMap>& prefixes) {
  const std::lock_guard lock(mutex_);
  for (const Ref<const Entry>& entry : entries_) {
    if (entry && entry->root == root && entry->prefixes == prefixes) {
      return entry->restriction.current() ? entry : nullptr;
    }
  }
  return nullptr;
}

void RestrictionCache::keep(Ref<const Entry> entry) {
  const std::lock_guard lock(mutex_);
  std::move_backward(entries_.begin(), entries_.end() - 1, entries_.end());
  entries_.front() = std::move(entry);
}

Interior rebase_child(const Interior& child, const Translation& translation, std::string_view lo,
                      std::string_view hi) {
  const Window window(translation, lo, hi);
  Interior out;
  out.height = child.height;
  out.hi = std::string(hi);
  out.next_pos = child.next_pos;
  out.max_seq = child.max_seq;
  out.edges = select_edges(child, window);
  select_runs(child, window, out.edges, [](const auto&...) { return true; }, out.runs);
  return out;
}

Interior empty_root() {
  Interior node;
  node.edges.emplace_back();
  return node;
}

}  // namespace caw
