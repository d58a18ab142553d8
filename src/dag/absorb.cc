// Maintainer: sealed runs into the root.
#include <algorithm>

#include "dag/maintainer.h"

namespace caw {
namespace {

bool inline_is_newest(const Interior& node) {
  return node.inline_block.empty() || node.runs.empty() || node.inline_pos > node.runs.front().pos;
}

ImageRef as_run_image(std::string bytes, Seq max_seq) {
  return make_ref<const BlockImage>(NodeKind::run, std::move(bytes), /*owns_refs=*/true, max_seq);
}

std::vector<Layer> live_inline(const InteriorImage& image) {
  std::vector<LoadedRun> runs(1);
  runs[0].ref.hi = std::string(kKeyEnd);
  runs[0].ref.pos = image.node().inline_pos;
  runs[0].holder = ImageRef(&image);
  runs[0].block = &image.inline_block();
  return live_layers(image.node(), runs);
}

/// The oldest sealed runs that go into the root together: of one epoch, no more than make one run,
/// and nobody else's.
std::span<const FrozenRef> oldest_of(const TreeView& view, uint64_t run_bytes) {
  const std::vector<FrozenRef>& frozen = view.frozen;
  size_t first = frozen.size() - 1;
  uint64_t sum = frozen[first].run->table().bytes();
  while (first > 0 && !frozen[first].run->shared() && !frozen[first - 1].run->shared() &&
         frozen[first - 1].epoch == frozen.back().epoch &&
         sum + frozen[first - 1].run->table().bytes() <= run_bytes) {
    sum += frozen[--first].run->table().bytes();
  }
  return std::span(frozen).subspan(first);
}

}  // namespace

Result<void> Maintainer::absorb(Epoch through) {
  while (true) {
    const Ref<TreeView> view = core_.current_view();
    if (view->frozen.empty() || view->frozen.back().epoch > through) return {};
    CAW_TRY(load_root(store_, core_));
    CAW_TRY(absorb_oldest(oldest_of(*view, shape_.run_bytes)));
  }
}

/// As a run of the root, which clones may refer to as well.
void Maintainer::absorb_whole(Interior root, const FrozenRef& frozen, const BlockImage& block) {
  RunRef run = run_ref(frozen.run->id(), root.next_pos++, block);
  if (frozen.translation.is_identity()) {
    run.lo = std::max(run.lo, frozen.lo);
    run.hi = std::min(run.hi, frozen.hi);
  } else {
    run.lo = frozen.lo;
    run.hi = frozen.hi;
    run.translation = frozen.translation;
  }
  CAW_ASSERT(run.lo < run.hi);
  insert_run(root, std::move(run));
  publish_absorbed(std::move(root), {}, std::span(&frozen, 1));
}

/// `oldest` is newest first, as in the view.
Result<void> Maintainer::absorb_oldest(std::span<const FrozenRef> oldest) {
  const Ref<const InteriorImage> root = CAW_TRY(load_root(store_, core_));
  Interior node = root->node();
  Change change;
  std::vector<Layer> layers;
  uint64_t size = 0;
  Ref<const BlockImage> block;
  for (const FrozenRef& frozen : oldest) {
    block = CAW_TRY(frozen.run->encode(store_, shape_));
    node.max_seq = std::max(node.max_seq, frozen.run->max_seq());
    size += block->bytes().size();
    layers.emplace_back(block, block->block(), frozen.translation, frozen.lo, frozen.hi);
    change.counts.emplace_back(frozen.run->id(), -1);
  }
  const bool newest = inline_is_newest(node);
  const bool fits = size <= shape_.inline_bytes;
  const bool joined_fits = size + node.inline_block.size() <= shape_.inline_bytes;
  if (oldest.size() == 1 &&
      (!fits || (newest && !joined_fits && oldest.front().run->shared()))) {
    absorb_whole(std::move(node), oldest.front(), *block);
    return {};
  }
  const ImageRef old_inline = fits && !node.inline_block.empty()
                                  ? as_run_image(node.inline_block, root->max_seq())
                                  : nullptr;
  if (old_inline) change.released.push_back(old_inline);
  if (newest && old_inline) {
    // Only what is still pending: a message that was flushed must not come alive again.
    for (Layer& layer : live_inline(*root)) layers.push_back(std::move(layer));
  } else if (old_inline) {
    // Runs have come above it: it becomes one of them, in its place.
    const NodeId id = store_.new_id();
    const auto& image = static_cast<const BlockImage&>(*old_inline);
    insert_run(node, run_ref(id, node.inline_pos, image));
    change.nodes.emplace_back(id, old_inline);
    change.retained.push_back(old_inline);
  }
  std::string merged = CAW_TRY(merge_to_block(std::move(layers)));
  if (old_inline) {
    node.inline_block.clear();
    node.inline_pos = 0;
  }
  if (!merged.empty()) {
    ImageRef image = as_run_image(std::move(merged), node.max_seq);
    const auto& built = static_cast<const BlockImage&>(*image);
    change.retained.push_back(image);
    const uint64_t pos = node.next_pos++;
    if (fits && built.bytes().size() <= shape_.inline_bytes) {
      node.inline_block = built.bytes();
      node.inline_pos = pos;
    } else {
      const NodeId id = store_.new_id();
      insert_run(node, run_ref(id, pos, built));
      change.nodes.emplace_back(id, image);
    }
  }
  publish_absorbed(std::move(node), change, oldest);
  return {};
}

/// Publishes the root that has taken in `absorbed`, in the epoch those runs were attached in.
void Maintainer::publish_absorbed(Interior root, const Change& change,
                                  std::span<const FrozenRef> absorbed) {
  auto image = make_ref<const InteriorImage>(std::move(root));
  Gate::Shared gate(store_.gate());
  const Epoch epoch = store_.live_epoch(absorbed.front().epoch);
  for (const FrozenRef& frozen : absorbed) frozen.run->publish(store_);
  apply_change(change, epoch);
  store_.publish(core_.id, image, epoch);
  set_root(image, absorbed.size());  // last: from then on nothing keeps a dead root
  for (const FrozenRef& frozen : absorbed) absorbed_bytes_ += frozen.run->table().bytes();
}

/// Shows `root` to readers, without the `absorbed` oldest sealed runs.
void Maintainer::set_root(const Ref<const InteriorImage>& root, size_t absorbed) {
  std::unique_lock lock(core_.mutex);
  auto view = make_ref<TreeView>();
  view->frozen = core_.view->frozen;
  CAW_ASSERT(absorbed <= view->frozen.size());
  view->frozen.resize(view->frozen.size() - absorbed);
  view->root = root;
  core_.show(view);
  core_.torn = false;
}

}  // namespace caw
