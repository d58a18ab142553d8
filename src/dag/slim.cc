// Maintainer: slimming what a clone refers to beyond its bounds.
#include "dag/slim.h"

#include <algorithm>
#include <utility>

#include "dag/maintainer.h"
#include "dag/restrict.h"

namespace caw {
namespace {

constexpr int kAttempts = 4;

/// True if edge `index` may clip its child: at either end of the node, and where another part of a
/// clone begins.
bool may_clip(const Interior& node, size_t index) {
  const Translation& mine = node.edges[index].translation;
  return index == 0 || index + 1 == node.edges.size() ||
         !(node.edges[index - 1].translation == mine) ||
         !(node.edges[index + 1].translation == mine);
}

/// True if records outside [lo, hi) own a tree, or blobs of more than `limit_bytes` together.
bool holds_foreign(const BlockImage& image, std::string_view lo, std::string_view hi,
                   uint64_t limit_bytes) {
  if (!image.owns_refs()) return false;
  uint64_t blob_bytes = 0;
  SortedBlock::Iterator it(image.block());
  for (it.seek_to_first(); it.valid(); it.next()) {
    if (it.key() >= lo && it.key() < hi) {
      it.seek(hi);
      if (!it.valid()) break;
    }
    const OwnedRefs refs = peek_refs(it.kind(), it.body());
    if (refs.tree != kNoNode) return true;
    if (refs.blob) blob_bytes += refs.blob.blocks() * kBlockSize;
  }
  return blob_bytes > limit_bytes;
}

/// What of `image` lies in [lo, hi); null if nothing.
Ref<const BlockImage> inside_of(const BlockImage& image, std::string_view lo, std::string_view hi) {
  SortedBlockBuilder builder;
  for (const RangeErase& range : clip_ranges(image.block().range_erases(), lo, hi)) {
    builder.add_range_erase(range);
  }
  SortedBlock::Iterator it(image.block());
  for (it.seek(lo); it.valid() && it.key() < hi; it.next()) {
    builder.add(it.key(), it.kind(), it.body());
  }
  if (builder.empty()) return nullptr;
  const bool owns = builder.owns_refs();
  return make_ref<const BlockImage>(image.kind(), builder.finish(), owns, image.max_seq());
}

/// Leaves and runs never change; interior nodes keep what they show while both numbers stay.
bool is_as_made(const Image& copy, const Slimmed& made) {
  if (copy.kind() != NodeKind::interior) return true;
  const Interior& node = static_cast<const InteriorImage&>(copy).node();
  return node.next_pos == made.next_pos && node.max_seq == made.max_seq;
}

}  // namespace

/// One step: what it adds, and which copies of earlier steps it counts on.
struct Maintainer::Slimming {
  SlimCache& cache;
  Change change;
};

Result<void> Maintainer::slim(SlimCache& cache) {
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    std::vector<PathNode> path;
    path.push_back({core_.id, CAW_TRY(load_root(store_, core_))});
    Slimming slimming{cache, {}};
    Interior node = path.back().image->node();
    if (!CAW_TRY(slim_interior(slimming, node, /*counted=*/true))) return {};
    if (CAW_TRY(publish(path, std::move(node), slimming.change))) return {};
    cache.clear();  // perhaps a copy it names is gone, or was not published
  }
  return {};
}

/// Replaces what `node` clips.  `counted`: its references count already; else they will when it is
/// published.  True if it changed.
Result<bool> Maintainer::slim_interior(Slimming& slimming, Interior& node, bool counted) {
  bool changed = false;
  const auto replace = [&](NodeId old, const Replacement& now) {
    changed = true;
    auto& counts = slimming.change.counts;
    if (counted) counts.emplace_back(old, -1);
    if (now.outcome.id == kNoNode) return;
    // A copy just made is born with a count of one.
    if (counted && !now.is_new) counts.emplace_back(now.outcome.id, +1);
    if (!counted && now.is_new) counts.emplace_back(now.outcome.id, -1);
  };
  for (size_t i = 0; i < node.edges.size(); ++i) {
    Edge& edge = node.edges[i];
    if (edge.child == kNoNode || !may_clip(node, i)) continue;
    const std::string lo = down_bound(edge.translation, edge.lo);
    const std::string hi = down_bound(edge.translation, edge_end(node, i));
    const Replacement now = CAW_TRY(slim_child(slimming, edge.child, lo, hi, node.height));
    if (now.outcome.id == edge.child) continue;
    replace(edge.child, now);
    edge.child = now.outcome.id;
    edge.child_bytes = now.outcome.bytes;
    edge.child_height = now.outcome.height;
    if (edge.child == kNoNode) edge.translation = {};
  }
  for (RunRef& run : node.runs) {
    const std::string lo = down_bound(run.translation, run.lo);
    const std::string hi = down_bound(run.translation, run.hi);
    const Replacement now = CAW_TRY(slim_child(slimming, run.run, lo, hi, /*above=*/1));
    if (now.outcome.id == run.run) continue;
    replace(run.run, now);
    run.run = now.outcome.id;
    run.bytes = now.outcome.bytes;
    run.weight = now.outcome.weight;
  }
  std::erase_if(node.runs, [](const RunRef& run) { return run.run == kNoNode; });
  return changed;
}

/// The part in [lo, hi), in its own coordinates, of a node below height `above`.
Result<Maintainer::Replacement> Maintainer::slim_child(Slimming& slimming, NodeId id,
                                                       const std::string& lo, const std::string& hi,
                                                       Height above) {
  const ImageRef image = CAW_TRY(store_.get(id));
  const bool is_interior = image->kind() == NodeKind::interior;
  SlimCache::Key key{.node = id, .lo = lo, .hi = hi};
  if (is_interior) {
    const Interior& node = static_cast<const InteriorImage&>(*image).node();
    if (node.height >= above) return fail(Code::node_height, raw(id), "slim");
    key.next_pos = node.next_pos;
    key.max_seq = node.max_seq;
  }
  if (const std::optional<Slimmed> known = slimming.cache.find(key)) {
    const bool is_copy = known->id != id && known->id != kNoNode;
    if (!is_copy) return Replacement{*known, false};
    const ImageRef copy = store_.get_cached(known->id);
    if (copy && is_as_made(*copy, *known)) {
      slimming.change.shared.emplace_back(known->id, copy);
      return Replacement{*known, false};
    }
  }
  const Replacement made =
      is_interior
          ? CAW_TRY(slim_interior_child(
                slimming, id, static_cast<const InteriorImage&>(*image).node(), lo, hi))
          : slim_block(slimming, id, static_cast<const BlockImage&>(*image), lo, hi);
  slimming.cache.put(std::move(key), made.outcome);
  return made;
}

Maintainer::Replacement Maintainer::slim_block(Slimming& slimming, NodeId id,
                                               const BlockImage& image, std::string_view lo,
                                               std::string_view hi) {
  // Blobs hold no others: of them a few may stay.
  const uint64_t blob_limit = 4 * uint64_t{shape_.leaf_bytes};
  if (!holds_foreign(image, lo, hi, blob_limit)) return {{.id = id}, false};
  const Ref<const BlockImage> copy = inside_of(image, lo, hi);
  if (!copy) return {{}, false};
  Replacement out{{.id = store_.new_id(),
                   .bytes = static_cast<uint32_t>(copy->bytes().size()),
                   .weight = block_weight(copy->block())},
                  true};
  slimming.change.nodes.emplace_back(out.outcome.id, copy);
  slimming.change.retained.push_back(copy);
  return out;
}

Result<Maintainer::Replacement> Maintainer::slim_interior_child(Slimming& slimming, NodeId id,
                                                                const Interior& node,
                                                                const std::string& lo,
                                                                const std::string& hi) {
  Interior copy = rebase_child(node, {}, lo, hi);
  const bool drops =
      copy.edges.size() < node.edges.size() || copy.runs.size() < node.runs.size();
  const bool changed = CAW_TRY(slim_interior(slimming, copy, /*counted=*/false));
  if (!drops && !changed) {
    return Replacement{{.id = id, .height = node.height}, false};
  }
  Replacement out{{.id = store_.new_id(),
                   .height = copy.height,
                   .next_pos = copy.next_pos,
                   .max_seq = copy.max_seq},
                  true};
  const auto image = make_ref<const InteriorImage>(std::move(copy));
  slimming.change.nodes.emplace_back(out.outcome.id, image);
  slimming.change.retained.push_back(image);
  return out;
}

}  // namespace caw
