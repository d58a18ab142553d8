// Maintainer: splitting interior nodes, and dropping emptied ones.
#include <algorithm>

#include "dag/maintainer.h"

namespace caw {

/// `node` (without an embedded run) in parts of about three quarters of the fan-out.
std::vector<Interior> Maintainer::split_parts(const Interior& node) const {
  const size_t per_part = std::max<size_t>(2, size_t{shape_.fanout} * 3 / 4);
  const size_t count = std::max<size_t>(2, (node.edges.size() + per_part - 1) / per_part);
  std::vector<Interior> parts;
  for (size_t p = 0; p < count; ++p) {
    const size_t first = node.edges.size() * p / count;
    const size_t last = node.edges.size() * (p + 1) / count;
    Interior part;
    part.height = node.height;
    part.next_pos = node.next_pos;
    part.max_seq = node.max_seq;
    part.edges.assign(node.edges.begin() + static_cast<std::ptrdiff_t>(first),
                      node.edges.begin() + static_cast<std::ptrdiff_t>(last));
    part.hi = last < node.edges.size() ? node.edges[last].lo : node.hi;
    for (const RunRef& run : node.runs) {
      RunRef mine = run;
      mine.lo = std::string(max_bound(run.lo, part.edges.front().lo));
      mine.hi = std::string(min_bound(run.hi, part.hi));
      if (!(mine.lo < mine.hi) || !run_is_live(part, mine)) continue;
      if (mine.lo != run.lo || mine.hi != run.hi) mine.weight = run.weight / count + 1;
      part.runs.push_back(std::move(mine));
    }
    parts.push_back(std::move(part));
  }
  return parts;
}

namespace {

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

/// The root keeps its id; its edges and runs move into new nodes below it.
Result<bool> Maintainer::split_root(std::vector<PathNode>& path) {
  Interior node = path.back().image->node();
  Change change;
  // The embedded run becomes a run of its own; its references go along with it.
  seal_inline(store_, node, change.nodes);
  const ImageRef sealed = change.nodes.empty() ? nullptr : change.nodes.front().second;
  Interior root;
  root.height = static_cast<Height>(node.height + 1);
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
