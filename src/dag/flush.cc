// Maintainer: flushing one child.
#include <algorithm>

#include "dag/lookup.h"
#include "dag/maintainer.h"
#include "dag/restrict.h"

namespace caw {

/// Flushes edge `index` of path.back(), which was number `measured` when `load` was taken.
Result<bool> Maintainer::flush_edge(std::vector<PathNode>& path, const std::vector<LoadedRun>& runs,
                                    NodeLoad& load, size_t measured, size_t index) {
  const Interior& node = path.back().image->node();
  const Edge edge = node.edges[index];
  const bool emptied =
      covers_wholly(pending_layers(node, runs, index), edge.lo, edge_end(node, index));
  if (edge.child == kNoNode || emptied) {
    return flush_to_leaf(path, runs, load, measured, index, nullptr);
  }
  ImageRef child = CAW_TRY(store_.get(edge.child));
  if (child->kind() == NodeKind::leaf) {
    return flush_to_leaf(path, runs, load, measured, index, std::move(child));
  }
  if (child->kind() != NodeKind::interior) {
    return fail(Code::interior_malformed, raw(edge.child), "flush_edge");
  }
  Ref<const InteriorImage> interior(static_cast<const InteriorImage*>(child.get()));
  if (interior->node().height >= node.height) {
    return fail(Code::node_height, raw(edge.child), "flush_edge");
  }
  return flush_to_interior(path, runs, load, measured, index, interior);
}

/// All messages of `layers` in key order, folded; their range erases into `ranges`.
Result<std::vector<Maintainer::Record>> Maintainer::collect(std::vector<Layer> layers,
                                                            bool complete, ValueFolder& folder,
                                                            std::vector<RangeErase>* ranges) {
  MergeCursor cursor(std::move(layers), complete);
  if (ranges != nullptr) {
    *ranges = cursor.ranges();
    CAW_TRY(check_ranges(*ranges));
  }
  std::vector<Record> records;
  Merged merged;
  while (cursor.next(merged)) {
    CAW_TRY(check_key(merged.key));
    CAW_TRY(folder.fold(merged));
    Record record{std::move(merged.key), merged.kind, {}};
    if (merged.is_raw) {
      record.body.assign(merged.raw_body);
    } else {
      record.kind = merged.message.kind;
      encode_message(record.body, merged.message);
    }
    records.push_back(std::move(record));
  }
  return records;
}

/// Blocks of about `target_bytes`, filled evenly.  The first begins at `lo`, each later one at its
/// first key; none if there is nothing.
std::vector<Maintainer::Built> Maintainer::build_blocks(NodeKind kind,
                                                        const std::vector<Record>& records,
                                                        const std::vector<RangeErase>& ranges,
                                                        std::string_view lo, uint32_t target_bytes,
                                                        Seq max_seq) {
  uint64_t total = 0;
  for (const Record& record : records) total += record.key.size() + record.body.size() + 6;
  const uint64_t parts = std::max<uint64_t>(1, (total + target_bytes - 1) / target_bytes);
  const uint64_t part_bytes = (total + parts - 1) / parts;
  std::vector<Built> out;
  if (records.empty() && ranges.empty()) return out;
  size_t next = 0;
  while (next < records.size() || out.empty()) {
    const size_t first = next;
    uint64_t bytes = 0;
    while (next < records.size() && (bytes < part_bytes || next == first)) {
      bytes += records[next].key.size() + records[next].body.size() + 6;
      ++next;
    }
    Built built;
    built.lo = out.empty() ? std::string(lo) : records[first].key;
    const std::string end = next < records.size() ? records[next].key : std::string(kKeyEnd);
    SortedBlockBuilder builder;
    for (const RangeErase& range : clip_ranges(ranges, built.lo, end))
      builder.add_range_erase(range);
    for (size_t i = first; i < next; ++i) {
      builder.add(records[i].key, records[i].kind, records[i].body);
    }
    const bool owns = builder.owns_refs();
    built.image = make_ref<const BlockImage>(kind, builder.finish(), owns, max_seq);
    built.id = store_.new_id();
    out.push_back(std::move(built));
  }
  return out;
}

Result<bool> Maintainer::flush_to_leaf(std::vector<PathNode>& path,
                                       const std::vector<LoadedRun>& runs, NodeLoad& load,
                                       size_t measured, size_t index, ImageRef leaf) {
  Interior node = path.back().image->node();
  const Edge edge = node.edges[index];
  const std::string end(edge_end(node, index));
  std::vector<Layer> layers = pending_layers(node, runs, index);
  Seq max_seq = edge.max_seq;
  for (const LoadedRun& run : runs) max_seq = std::max(max_seq, run.ref.max_seq);
  if (leaf) {
    const auto& block = static_cast<const BlockImage&>(*leaf).block();
    layers.emplace_back(leaf, block, edge.translation, edge.lo, end);
  }
  ValueFolder folder(store_, shape_);
  Change change;
  change.folder = &folder;
  std::vector<Record> records =
      CAW_TRY(collect(std::move(layers), /*complete=*/true, folder, nullptr));
  std::vector<Built> leaves =
      build_blocks(NodeKind::leaf, records, {}, edge.lo, shape_.leaf_bytes, max_seq);
  records.clear();
  std::vector<Edge> edges;
  for (Built& built : leaves) {
    Edge mine;
    mine.lo = built.lo;
    mine.child = built.id;
    mine.child_bytes = static_cast<uint32_t>(built.image->bytes().size());
    mine.max_seq = max_seq;
    edges.push_back(std::move(mine));
    change.nodes.emplace_back(built.id, built.image);
    change.retained.push_back(built.image);
  }
  if (edges.empty()) {
    edges.emplace_back();
    edges.back().lo = edge.lo;
  }
  for (Edge& mine : edges) mine.applied_pos = node.next_pos - 1;
  if (edge.child != kNoNode) change.counts.emplace_back(edge.child, -1);
  auto at = node.edges.begin() + static_cast<std::ptrdiff_t>(index);
  at = node.edges.erase(at);
  node.edges.insert(at, std::make_move_iterator(edges.begin()),
                    std::make_move_iterator(edges.end()));
  CAW_TRY(finish_flush(node, runs, load, measured, change));
  if (!CAW_TRY(publish(path, std::move(node), change))) return false;
  return true;
}

Result<bool> Maintainer::flush_to_interior(std::vector<PathNode>& path,
                                           const std::vector<LoadedRun>& runs, NodeLoad& load,
                                           size_t measured, size_t index,
                                           const Ref<const InteriorImage>& child) {
  Interior node = path.back().image->node();
  Edge& edge = node.edges[index];
  const std::string end(edge_end(node, index));
  ValueFolder folder(store_, shape_);
  Change change;
  change.folder = &folder;
  const bool in_place = edge.translation.is_identity() &&
                        child->node().edges.front().lo == edge.lo && child->node().hi == end &&
                        CAW_TRY(store_.node_count(edge.child)) == 1;
  Interior next;
  if (in_place) {
    next = child->node();
    change.in_place = edge.child;
  } else {
    next = rebase_child(child->node(), edge.translation, edge.lo, end);
    change.retained.push_back(make_ref<const InteriorImage>(next));
    change.counts.emplace_back(edge.child, -1);
    edge.child = store_.new_id();
    edge.translation = {};
  }
  Seq max_seq = edge.max_seq;
  for (const LoadedRun& run : runs) max_seq = std::max(max_seq, run.ref.max_seq);
  std::vector<RangeErase> ranges;
  std::vector<Record> records =
      CAW_TRY(collect(pending_layers(node, runs, index), /*complete=*/false, folder, &ranges));
  std::vector<Built> built =
      build_blocks(NodeKind::run, records, ranges, edge.lo, shape_.run_bytes, max_seq);
  for (size_t i = 0; i < built.size(); ++i) {
    RunRef run;
    run.run = built[i].id;
    run.lo = built[i].lo;
    run.hi = i + 1 < built.size() ? built[i + 1].lo : end;
    run.pos = next.next_pos++;
    run.bytes = static_cast<uint32_t>(built[i].image->bytes().size());
    run.weight = block_weight(built[i].image->block());
    run.max_seq = max_seq;
    next.runs.insert(next.runs.begin(), std::move(run));
    change.nodes.emplace_back(built[i].id, built[i].image);
    change.retained.push_back(built[i].image);
  }
  next.max_seq = std::max(next.max_seq, max_seq);
  auto child_image = make_ref<const InteriorImage>(std::move(next));
  change.nodes.emplace_back(edge.child, child_image);
  edge.applied_pos = node.next_pos - 1;
  edge.child_height = child_image->node().height;
  edge.max_seq = max_seq;
  const NodeId child_id = edge.child;
  CAW_TRY(finish_flush(node, runs, load, measured, change));
  if (!CAW_TRY(publish(path, std::move(node), change))) return false;
  path.push_back({child_id, child_image});
  auto settled = settle_node(path);
  path.pop_back();
  CAW_TRY(std::move(settled));
  CAW_TRY(tidy_child(path, child_id));
  return true;
}

namespace {

/// True if whatever run lies over both is pending for both or for none.
bool same_runs_pending(const Interior& node, const Edge& a, const Edge& b) {
  const auto [low, high] = std::minmax(a.applied_pos, b.applied_pos);
  const auto between = [low, high](uint64_t pos) { return low < pos && pos <= high; };
  if (!node.inline_block.empty() && between(node.inline_pos)) return false;
  return std::ranges::none_of(node.runs, [&](const RunRef& run) { return between(run.pos); });
}

}  // namespace

/// Takes what was flushed off the runs' weights and drops runs that are dead for all.
Result<void> Maintainer::finish_flush(Interior& node, const std::vector<LoadedRun>& runs,
                                      NodeLoad& load, size_t measured, Change& change) {
  load.weight -= load.edges[measured].weight;
  load.edges[measured] = {};
  for (size_t r = 0; r < runs.size(); ++r) {
    load.per_run[r][measured] = 0;
    // What is exactly known replaces the estimate; a run with nothing pending goes.
    uint64_t left = 0;
    for (uint64_t weight : load.per_run[r]) left += weight;
    std::erase_if(node.runs, [&](RunRef& run) {
      if (run.run != runs[r].ref.run || run.pos != runs[r].ref.pos) return false;
      run.weight = left;
      if (left == 0) change.counts.emplace_back(run.run, -1);
      return left == 0;
    });
  }
  for (const LoadedRun& run : runs) {
    if (run.ref.run == kNoNode) CAW_TRY(trim_inline(node, run, change));
  }
  drop_dead_runs(node, change);
  return {};
}

/// Rewrites the embedded run without what has been flushed.
Result<void> Maintainer::trim_inline(Interior& node, const LoadedRun& run, Change& change) {
  if (node.inline_block.empty() || node.inline_pos != run.ref.pos) return {};
  std::string left = CAW_TRY(merge_to_block(live_layers(node, {run})));
  change.released.push_back(make_ref<const BlockImage>(NodeKind::run, std::move(node.inline_block),
                                                       /*owns_refs=*/true, node.max_seq));
  node.inline_block = std::move(left);
  if (node.inline_block.empty()) {
    node.inline_pos = 0;
    return {};
  }
  change.retained.push_back(make_ref<const BlockImage>(NodeKind::run, node.inline_block,
                                                       /*owns_refs=*/true, node.max_seq));
  return {};
}

void Maintainer::drop_dead_runs(Interior& node, Change& change) {
  // Neighbouring empty edges with nothing pending become one.
  for (size_t i = 0; i + 1 < node.edges.size();) {
    const Edge& a = node.edges[i];
    const Edge& b = node.edges[i + 1];
    if (a.child == kNoNode && b.child == kNoNode && same_runs_pending(node, a, b)) {
      node.edges[i].applied_pos = std::max(a.applied_pos, b.applied_pos);
      node.edges.erase(node.edges.begin() + static_cast<std::ptrdiff_t>(i) + 1);
    } else {
      ++i;
    }
  }
  std::erase_if(node.runs, [&](const RunRef& run) {
    if (run_is_live(node, run)) return false;
    change.counts.emplace_back(run.run, -1);
    return true;
  });
  if (!node.inline_block.empty()) {
    RunRef whole;
    whole.hi = std::string(kKeyEnd);
    whole.pos = node.inline_pos;
    if (!run_is_live(node, whole)) {
      change.released.push_back(make_ref<const BlockImage>(NodeKind::run, node.inline_block,
                                                           /*owns_refs=*/true, node.max_seq));
      node.inline_block.clear();
      node.inline_pos = 0;
    }
  }
}

}  // namespace caw
