// Maintainer: splitting interior nodes, and dropping emptied ones.
//
// Where a child was emptied, new leaves may grow beside tall children.  A node that has become too
// wide first bundles such low children in a node of their own; were they split off together with
// tall ones, every turn of emptying and filling would make the tree taller.
#include <algorithm>

#include "dag/maintainer.h"

namespace caw {

namespace {

Height height_over(const std::vector<Edge>& edges) {
  Height height = 1;
  for (const Edge& edge : edges) {
    height = std::max(height, static_cast<Height>(edge.child_height + 1));
  }
  return height;
}

/// Edges [first, last) of `node` and the runs that are live for them, as a node of its own.
Interior part_of(const Interior& node, size_t first, size_t last) {
  Interior part;
  part.next_pos = node.next_pos;
  part.max_seq = node.max_seq;
  part.edges.assign(node.edges.begin() + static_cast<std::ptrdiff_t>(first),
                    node.edges.begin() + static_cast<std::ptrdiff_t>(last));
  part.height = height_over(part.edges);
  part.hi = last < node.edges.size() ? node.edges[last].lo : node.hi;
  for (const RunRef& run : node.runs) {
    RunRef mine = run;
    mine.lo = std::string(max_bound(run.lo, part.edges.front().lo));
    mine.hi = std::string(min_bound(run.hi, part.hi));
    if (!(mine.lo < mine.hi) || !run_is_live(part, mine)) continue;
    if (mine.lo != run.lo || mine.hi != run.hi) {
      mine.weight = run.weight * (last - first) / node.edges.size() + 1;
    }
    part.runs.push_back(std::move(mine));
  }
  return part;
}

/// The longest row of neighbours lower than the tallest child, at most `most` of them.
std::pair<size_t, size_t> low_row(const Interior& node, size_t most) {
  const auto tall = static_cast<Height>(height_over(node.edges) - 1);
  std::pair<size_t, size_t> best;
  size_t first = 0;
  for (size_t i = 0; i < node.edges.size(); ++i) {
    const Edge& edge = node.edges[i];
    if (edge.child_height == tall && tall > 0) {
      first = i + 1;
    } else if (tall > 0 && i + 1 - first > best.second - best.first && i + 1 - first <= most) {
      best = {first, i + 1};
    }
  }
  return best;
}

Edge edge_to(NodeId id, const Interior& child, std::string_view lo, uint64_t applied_pos) {
  Edge edge;
  edge.lo = std::string(lo);
  edge.child = id;
  edge.applied_pos = applied_pos;
  edge.child_height = child.height;
  edge.max_seq = child.max_seq;
  return edge;
}

void seal_inline(NodeStore& store, Interior& node,
                 std::vector<std::pair<NodeId, ImageRef>>& nodes) {
  if (node.inline_block.empty()) return;
  auto image = make_ref<const BlockImage>(NodeKind::run, std::move(node.inline_block),
                                          /*owns_refs=*/true, node.max_seq);
  RunRef run = run_ref(store.new_id(), node.inline_pos, *image);
  nodes.emplace_back(run.run, image);
  insert_run(node, std::move(run));
  node.inline_block.clear();
  node.inline_pos = 0;
}

}  // namespace

/// `node` (without an embedded run) in parts of about three quarters of the fan-out.
std::vector<Interior> Maintainer::split_parts(const Interior& node) const {
  const size_t per_part = std::max<size_t>(2, size_t{shape_.fanout} * 3 / 4);
  const size_t count = std::max<size_t>(2, (node.edges.size() + per_part - 1) / per_part);
  std::vector<Interior> parts;
  for (size_t p = 0; p < count; ++p) {
    parts.push_back(part_of(node, node.edges.size() * p / count,
                            node.edges.size() * (p + 1) / count));
  }
  return parts;
}

/// Neighbouring children that are lower than others move into a node of their own, with what is
/// pending for them.  False: there are none.
Result<bool> Maintainer::bundle_low_children(std::vector<PathNode>& path) {
  Interior node = path.back().image->node();
  const auto [first, last] = low_row(node, std::max<size_t>(2, size_t{shape_.fanout} * 3 / 4));
  if (last - first < 2) return false;
  Change change;
  seal_inline(store_, node, change.nodes);
  const auto part = make_ref<const InteriorImage>(part_of(node, first, last));
  for (const RunRef& taken : part->node().runs) {
    for (RunRef& run : node.runs) {
      if (run.run != taken.run || run.pos != taken.pos) continue;
      run.weight -= std::min(run.weight, taken.weight);
    }
  }
  const NodeId id = store_.new_id();
  const auto begin = node.edges.begin();
  change.nodes.emplace_back(id, part);
  change.retained.push_back(part);
  for (size_t i = first; i < last; ++i) {
    if (node.edges[i].child != kNoNode) change.counts.emplace_back(node.edges[i].child, -1);
  }
  node.edges[first] = edge_to(id, part->node(), node.edges[first].lo, node.next_pos - 1);
  node.edges.erase(begin + static_cast<std::ptrdiff_t>(first) + 1,
                   begin + static_cast<std::ptrdiff_t>(last));
  drop_dead_runs(node, change);
  return publish(path, std::move(node), change);
}

/// The root keeps its id; its edges and runs move into new nodes below it.
Result<bool> Maintainer::split_root(std::vector<PathNode>& path) {
  Interior node = path.back().image->node();
  Change change;
  // The embedded run becomes a run of its own; its references go along with it.
  seal_inline(store_, node, change.nodes);
  const ImageRef sealed = change.nodes.empty() ? nullptr : change.nodes.front().second;
  Interior root;
  root.hi = node.hi;
  root.next_pos = node.next_pos;
  root.max_seq = node.max_seq;
  // Count what the parts refer to once more and what the old root referred to once less.
  for (Interior& part : split_parts(node)) {
    const NodeId id = store_.new_id();
    root.edges.push_back(edge_to(id, part, part.edges.front().lo, 0));
    auto image = make_ref<const InteriorImage>(std::move(part));
    change.retained.push_back(image);
    change.nodes.emplace_back(id, image);
  }
  root.height = height_over(root.edges);
  Interior old = path.back().image->node();
  old.inline_block.clear();
  change.released.push_back(make_ref<const InteriorImage>(std::move(old)));
  if (sealed) {
    // Born with a count of one that nobody holds: the parts' references were added above.
    for (const RunRef& run : node.runs) {
      if (change.nodes.front().first == run.run) change.counts.emplace_back(run.run, -1);
    }
  }
  return publish(path, std::move(root), change);
}

/// Replaces a child that is too wide by its parts.
Result<bool> Maintainer::split_child(std::vector<PathNode>& path, size_t index,
                                     const Ref<const InteriorImage>& child) {
  Interior node = path.back().image->node();
  const Edge edge = node.edges[index];
  Change change;
  std::vector<Edge> edges;
  for (Interior& part : split_parts(child->node())) {
    const NodeId id = store_.new_id();
    const std::string lo = edges.empty() ? edge.lo : part.edges.front().lo;
    edges.push_back(edge_to(id, part, lo, edge.applied_pos));
    auto image = make_ref<const InteriorImage>(std::move(part));
    change.retained.push_back(image);
    change.nodes.emplace_back(id, image);
  }
  change.counts.emplace_back(edge.child, -1);
  auto at = node.edges.begin() + static_cast<std::ptrdiff_t>(index);
  at = node.edges.erase(at);
  node.edges.insert(at, std::make_move_iterator(edges.begin()),
                    std::make_move_iterator(edges.end()));
  return publish(path, std::move(node), change);
}

/// After a child was settled: splits it if it is too wide, drops it if nothing is left in it.
Result<bool> Maintainer::tidy_child(std::vector<PathNode>& path, NodeId child_id) {
  const Interior& parent = path.back().image->node();
  size_t index = parent.edges.size();
  for (size_t i = 0; i < parent.edges.size(); ++i) {
    if (parent.edges[i].child == child_id) index = i;
  }
  if (index == parent.edges.size()) return false;
  ImageRef held = CAW_TRY(store_.get(child_id));
  if (held->kind() != NodeKind::interior) {
    return fail(Code::interior_malformed, raw(child_id), "tidy_child");
  }
  Ref<const InteriorImage> child(static_cast<const InteriorImage*>(held.get()));
  const Interior& node = child->node();
  if (node.edges.size() > shape_.fanout && CAW_TRY(store_.node_count(child_id)) == 1 &&
      parent.edges[index].translation.is_identity()) {
    return split_child(path, index, child);
  }
  const bool empty =
      node.runs.empty() && std::all_of(node.edges.begin(), node.edges.end(),
                                       [](const Edge& e) { return e.child == kNoNode; });
  if (!empty) return false;
  Interior next = parent;
  Change change;
  change.counts.emplace_back(child_id, -1);
  Edge nothing;
  nothing.lo = next.edges[index].lo;
  nothing.applied_pos = next.edges[index].applied_pos;
  next.edges[index] = std::move(nothing);
  drop_dead_runs(next, change);
  return publish(path, std::move(next), change);
}

}  // namespace caw
