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

}  // namespace

Result<void> Maintainer::absorb(Epoch through) {
  while (true) {
    Ref<TreeView> view = core_.current_view();
    if (view->frozen.empty() || view->frozen.back().epoch > through) return {};
    CAW_TRY(load_root(store_, core_));
    CAW_TRY(absorb_oldest(view->frozen.back()));
  }
}

Result<void> Maintainer::absorb_oldest(const FrozenRef& frozen) {
  Ref<const BlockImage> block = CAW_TRY(frozen.run->encode(store_, shape_));
  Ref<const InteriorImage> root = CAW_TRY(load_root(store_, core_));
  Interior node = root->node();
  node.max_seq = std::max(node.max_seq, frozen.run->max_seq());
  const ImageRef old_inline =
      node.inline_block.empty() ? nullptr : as_run_image(node.inline_block, root->max_seq());
  Change change;
  const uint64_t size = block->bytes().size();
  const bool newest = inline_is_newest(node);
  if (size > shape_.inline_bytes ||
      (newest && size + node.inline_block.size() > shape_.inline_bytes && frozen.run->shared())) {
    RunRef run = run_ref(frozen.run->id(), node.next_pos++, *block);
    if (frozen.translation.is_identity()) {
      run.lo = std::max(run.lo, frozen.lo);
      run.hi = std::min(run.hi, frozen.hi);
    } else {
      run.lo = frozen.lo;
      run.hi = frozen.hi;
      run.translation = frozen.translation;
    }
    CAW_ASSERT(run.lo < run.hi);
    insert_run(node, std::move(run));
    publish_absorbed(std::move(node), change, frozen);
    return {};
  }
  std::vector<Layer> layers;
  layers.emplace_back(block, block->block(), frozen.translation, frozen.lo, frozen.hi);
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
  node.inline_block.clear();
  node.inline_pos = 0;
  if (!merged.empty()) {
    ImageRef image = as_run_image(std::move(merged), node.max_seq);
    const auto& built = static_cast<const BlockImage&>(*image);
    change.retained.push_back(image);
    const uint64_t pos = node.next_pos++;
    if (built.bytes().size() <= shape_.inline_bytes) {
      node.inline_block = built.bytes();
      node.inline_pos = pos;
    } else {
      const NodeId id = store_.new_id();
      insert_run(node, run_ref(id, pos, built));
      change.nodes.emplace_back(id, image);
    }
  }
  change.counts.emplace_back(frozen.run->id(), -1);
  publish_absorbed(std::move(node), change, frozen);
  return {};
}

/// Publishes the root that has taken in `frozen`, in the epoch that run was attached in.
void Maintainer::publish_absorbed(Interior root, const Change& change, const FrozenRef& frozen) {
  auto image = make_ref<const InteriorImage>(std::move(root));
  Gate::Shared gate(store_.gate());
  const Epoch epoch = store_.live_epoch(frozen.epoch);
  frozen.run->publish(store_);
  apply_change(change, epoch);
  store_.publish(core_.id, image, epoch);
  set_root(image, frozen.run.get());  // last: from then on nothing keeps a dead root
  absorbed_bytes_ += frozen.run->table().bytes();
}

/// Shows `root` to readers, without the oldest sealed run if that is what it `absorbed`.
void Maintainer::set_root(const Ref<const InteriorImage>& root, const FrozenRun* absorbed) {
  std::unique_lock lock(core_.mutex);
  auto view = make_ref<TreeView>();
  view->frozen = core_.view->frozen;
  if (absorbed != nullptr) {
    CAW_ASSERT(!view->frozen.empty() && view->frozen.back().run.get() == absorbed);
    view->frozen.pop_back();
  }
  view->root = root;
  core_.view = view;
  core_.torn = false;
}

}  // namespace caw
