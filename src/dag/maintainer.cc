#include "dag/maintainer.h"

#include <algorithm>
#include <tuple>

#include "dag/lookup.h"

namespace caw {
namespace {

constexpr size_t kTier = 4;  // runs of like size that are merged together
constexpr uint32_t kInteriorCopyBytes = 4096;

/// True if some run has been flushed to one of its edges but not to all.
bool has_flushed_parts(const Interior& node) {
  for (const RunRef& run : node.runs) {
    for (size_t i = 0; i < node.edges.size(); ++i) {
      const bool overlaps = run.lo < edge_end(node, i) && node.edges[i].lo < run.hi;
      if (overlaps && node.edges[i].applied_pos >= run.pos) return true;
    }
  }
  return false;
}

uint64_t total_weight(const Interior& node, const InteriorImage& image) {
  uint64_t total = block_weight(image.inline_block());
  for (const RunRef& run : node.runs) total += run.weight;
  return total;
}

}  // namespace

Result<void> Maintainer::settle() {
  std::vector<PathNode> path;
  path.push_back({core_.id, CAW_TRY(load_root(store_, core_))});
  return settle_node(path);
}

Result<void> Maintainer::gather() {
  CAW_TRY(absorb(~Epoch{0}));
  std::vector<PathNode> path;
  path.push_back({core_.id, CAW_TRY(load_root(store_, core_))});
  while (CAW_TRY(merge_runs(path))) {
  }
  return {};
}

/// Requires: path.back() is private.  Leaves path.back().image current.
Result<void> Maintainer::settle_node(std::vector<PathNode>& path) {
  while (true) {
    if (core_.wanted.load(std::memory_order_relaxed) > 0) {
      interrupted_ = true;
      return {};
    }
    const bool is_root = path.size() == 1;
    if (now_too_wide(path)) {
      if (CAW_TRY(bundle_low_children(path))) continue;
      if (is_root) {
        if (!CAW_TRY(split_root(path))) return {};
        continue;
      }
    }
    if (CAW_TRY(merge_runs(path))) continue;
    const Interior& node = path.back().image->node();
    if (total_weight(node, *path.back().image) <= shape_.buffer_bytes) return {};
    if (!CAW_TRY(relieve(path))) return {};
  }
}

/// Over capacity: flushes the best children until at most three quarters of B are pending.
/// Returns false if nothing more can be done here.
Result<bool> Maintainer::relieve(std::vector<PathNode>& path) {
  Ref<const InteriorImage> image = path.back().image;
  std::vector<LoadedRun> runs = CAW_TRY(load_runs(store_, image));
  NodeLoad load = measure_load(image->node(), runs);
  if (load.weight <= shape_.buffer_bytes) return compact_runs(path);
  // Mostly dead bytes: something large was removed, and its space is waited for.
  const bool removing = load.weight / 4 > load.bytes;
  bool flushed = false;
  for (size_t measured : CAW_TRY(eligible_edges(image->node(), load))) {
    if (load.weight <= uint64_t{shape_.buffer_bytes} * 3 / 4) break;
    // Splits move edges; the edge is found again by its lower bound.
    const std::string& lo = image->node().edges[measured].lo;
    const Interior& now = path.back().image->node();
    const size_t index = edge_index(now, lo);
    if (now.edges[index].lo != lo) continue;
    if (!CAW_TRY(flush_edge(path, runs, load, measured, index))) return false;
    flushed = true;
    if (now_too_wide(path) || interrupted_) break;
  }
  if (!flushed) return compact_runs(path);
  // Runs hold on to what their flushed messages refer to until they are written anew.
  if (removing && has_flushed_parts(path.back().image->node())) {
    CAW_TRY(merge_newest(path, 0, path.back().image->node().runs.size()));
  }
  return true;
}

bool Maintainer::now_too_wide(const std::vector<PathNode>& path) const {
  return path.back().image->node().edges.size() > shape_.fanout;
}

/// Edges with something pending that may be flushed, best first.
Result<std::vector<size_t>> Maintainer::eligible_edges(const Interior& node, const NodeLoad& load) {
  struct Candidate {
    double ratio;
    size_t index;
  };
  std::vector<Candidate> candidates;
  for (size_t i = 0; i < node.edges.size(); ++i) {
    const uint64_t weight = load.edges[i].weight;
    if (weight == 0) continue;
    const Edge& edge = node.edges[i];
    uint64_t cost = 0;
    if (edge.child != kNoNode)
      cost = edge.child_height == 0 ? edge.child_bytes : kInteriorCopyBytes;
    const bool abundant = weight * shape_.alpha_den >= cost * shape_.alpha_num &&
                          weight >= std::min<uint64_t>(shape_.floor_bytes, cost);
    if (!abundant && edge.child != kNoNode && CAW_TRY(store_.node_count(edge.child)) != 1) continue;
    candidates.push_back({static_cast<double>(weight) / static_cast<double>(cost + kBlockSize), i});
  }
  std::sort(candidates.begin(), candidates.end(),
            [](const Candidate& a, const Candidate& b) { return a.ratio > b.ratio; });
  std::vector<size_t> out;
  for (const Candidate& candidate : candidates) out.push_back(candidate.index);
  return out;
}

Result<bool> Maintainer::path_is_private(const std::vector<PathNode>& path) {
  // A tree that was removed is on its way out (a count of zero is final), or dropped already.
  if (CAW_TRY(store_.node_count(core_.id)) == 0) return false;
  const Result<ImageRef> root = store_.get(core_.id);
  if (!root && root.error().code == Code::node_absent) return false;
  CAW_TRY(root);
  for (size_t i = 1; i < path.size(); ++i) {
    if (CAW_TRY(store_.node_count(path[i].id)) != 1) return false;
  }
  return true;
}

/// Nodes below the root change here only.  Else, on a damaged volume, one is a root as well, or
/// stands in two trees.
Result<void> Maintainer::check_sole(const std::vector<PathNode>& path) {
  if (path.size() == 1) return {};
  const ImageRef now = store_.get_cached(path.back().id);
  if (!now || now.get() == path.back().image.get()) return {};
  return fail(Code::interior_malformed, raw(path.back().id), "a node in two trees");
}

/// Everything but the node that is changed itself; its children are there before it.  Requires:
/// gate.
void Maintainer::apply_change(const Change& change, Epoch epoch) {
  for (const ImageRef& held : change.retained) store_.add_image_refs(*held, +1, epoch);
  for (const auto& [id, held] : change.nodes) store_.publish(id, held, epoch);
  for (const auto& [id, delta] : change.counts) store_.add_node_ref(id, delta, epoch);
  for (const ImageRef& dropped : change.released) store_.add_image_refs(*dropped, -1, epoch);
}

/// Publishes `node` as the new image of path.back() together with `change`.  False: the path was
/// shared meanwhile; nothing happened.
Result<bool> Maintainer::publish(std::vector<PathNode>& path, Interior node, Change& change) {
  if (path.size() == 1) {
    CAW_TRY(absorb(store_.open_epoch() - 1));  // what a cut sealed goes in first, in its epoch
  }
  auto image = make_ref<const InteriorImage>(std::move(node));
  Gate::Shared gate(store_.gate());
  const Epoch epoch = store_.open_epoch();
  if (!CAW_TRY(path_is_private(path))) return false;
  if (change.in_place != kNoNode && CAW_TRY(store_.node_count(change.in_place)) != 1) return false;
  // What the checkpoint under way drops is not known yet: a copy may be among it.
  if (!change.shared.empty() && store_.is_sealing()) return false;
  for (const auto& [id, seen] : change.shared) {
    if (CAW_TRY(store_.node_count(id)) == 0 || store_.is_dying(id)) return false;
    if (store_.get_cached(id) != seen) return false;
  }
  CAW_TRY(check_sole(path));
  if (path.size() == 1) {
    Ref<TreeView> now = core_.current_view();
    if (!(now->root == path.back().image)) return false;
    if (!now->frozen.empty() && now->frozen.back().epoch < epoch) return false;
  }
  apply_change(change, epoch);
  if (path.size() == 1) set_root(image, /*absorbed=*/0);
  store_.publish(path.back().id, image, epoch);
  if (change.folder != nullptr) {
    change.folder->commit(epoch);
    if (change.folder->replaced()) generation_.fetch_add(1, std::memory_order_release);
  }
  path.back().image = image;
  return true;
}

/// Merges runs of like size, newest first, and whatever is too many.  True if something changed.
Result<bool> Maintainer::merge_runs(std::vector<PathNode>& path) {
  const Interior& node = path.back().image->node();
  const auto& runs = node.runs;
  if (runs.size() < 2) return false;
  const size_t count = tier_from(runs, 0);
  if (count >= kTier) return merge_newest(path, 0, count);
  if (runs.size() <= shape_.max_runs) return false;
  // Far too many, as after a burst of small ones: as many at once as make one run.
  size_t first = 0;
  size_t most = 0;
  for (size_t i = 0; i < runs.size() && runs.size() > shape_.max_runs + kTier; ++i) {
    const size_t here = tier_from(runs, i);
    if (here > most) std::tie(first, most) = std::pair(i, here);
  }
  if (most >= kTier) return merge_newest(path, first, most);
  size_t best = 0;
  for (size_t i = 0; i + 1 < runs.size(); ++i) {
    const uint64_t here = uint64_t{runs[i].bytes} + runs[i + 1].bytes;
    if (here < uint64_t{runs[best].bytes} + runs[best + 1].bytes) best = i;
  }
  return merge_newest(path, best, 2);
}

/// How many runs from `first` on are of like size and together make at most one.
size_t Maintainer::tier_from(const std::vector<RunRef>& runs, size_t first) const {
  uint64_t sum = runs[first].bytes;
  size_t count = 1;
  while (first + count < runs.size() && runs[first + count].bytes <= 2 * sum &&
         sum + runs[first + count].bytes <= shape_.run_bytes) {
    sum += runs[first + count++].bytes;
  }
  return count;
}

/// Merges `count` runs from index `first` into one; the embedded run, if it stands among them,
/// goes along.
Result<bool> Maintainer::merge_newest(std::vector<PathNode>& path, size_t first, size_t count) {
  Ref<const InteriorImage> image = path.back().image;
  uint64_t held = image->node().inline_block.size();
  for (size_t i = first; i < first + count; ++i) held += image->node().runs[i].bytes;
  if (held > kMaxNodePayload / 2) return false;
  Interior node = image->node();
  const uint64_t newest = node.runs[first].pos;
  const uint64_t oldest = node.runs[first + count - 1].pos;
  std::vector<LoadedRun> chosen = CAW_TRY(load_runs(store_, image, oldest, newest));
  Change change;
  RunRef out;
  out.pos = newest;
  out.lo = std::string(kKeyEnd);
  bool takes_inline = false;
  for (const LoadedRun& run : chosen) {
    out.lo = std::min(out.lo, run.ref.lo);
    out.hi = std::max(out.hi, run.ref.hi);
    out.max_seq = std::max(out.max_seq, run.ref.max_seq);
    takes_inline = takes_inline || run.ref.run == kNoNode;
    if (run.ref.run != kNoNode) change.counts.emplace_back(run.ref.run, -1);
  }
  ValueFolder folder(store_, shape_);
  std::vector<RangeErase> ranges;
  std::vector<Record> records =
      CAW_TRY(collect(live_layers(node, chosen), /*complete=*/false, folder, &ranges));
  auto begin = node.runs.begin() + static_cast<std::ptrdiff_t>(first);
  node.runs.erase(begin, begin + static_cast<std::ptrdiff_t>(count));
  if (takes_inline) {
    change.released.push_back(make_ref<const BlockImage>(NodeKind::run, node.inline_block,
                                                         /*owns_refs=*/true, node.max_seq));
    node.inline_block.clear();
    node.inline_pos = 0;
  }
  std::vector<Built> built =
      build_blocks(NodeKind::run, records, ranges, out.lo, kMaxNodePayload, out.max_seq);
  if (built.size() > 1) return false;  // the references lied about the runs' sizes
  if (!built.empty()) {
    out = run_ref(built[0].id, newest, *built[0].image);
    change.nodes.emplace_back(built[0].id, built[0].image);
    change.retained.push_back(built[0].image);
    node.runs.insert(node.runs.begin() + static_cast<std::ptrdiff_t>(first), std::move(out));
  }
  change.folder = &folder;
  return publish(path, std::move(node), change);
}

/// Nothing may be flushed: rewrites all runs without their dead parts, if that pays.
Result<bool> Maintainer::compact_runs(std::vector<PathNode>& path) {
  const Interior& node = path.back().image->node();
  if (node.runs.size() < 2) return false;
  uint64_t held = 0;
  for (const RunRef& run : node.runs) held += run.bytes;
  if (held <= 2 * uint64_t{shape_.buffer_bytes}) return false;
  return merge_newest(path, 0, node.runs.size());
}

}  // namespace caw
