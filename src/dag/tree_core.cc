#include "dag/tree_core.h"

#include "dag/fold.h"

namespace caw {

Result<Ref<const BlockImage>> FrozenRun::encode(NodeStore& store, const TreeShape& shape) {
  std::lock_guard encoding(encode_mutex_);
  {
    std::lock_guard lock(mutex_);
    if (image_) return image_;
  }
  ValueFolder folder(store, shape);
  std::vector<BlobRef> written;
  SortedBlockBuilder builder;
  for (const RangeErase& range : table_.ranges()) builder.add_range_erase(range);
  for (const auto& [key, message] : table_.points()) {
    // A value that has a blob is folded in its leaf: clones that read the table go on needing it.
    if (message.kind != MessageKind::put || message.value.blob ||
        !folder.wants_fold(message.value)) {
      builder.add(key, message);
      continue;
    }
    // Folding is an economy: where it fails (damaged blob, no space) the message stays as it is.
    Message copy = message;
    if (auto folding = folder.fold(copy.value); !folding) copy = message;
    if (copy.value.blob) written.push_back(copy.value.blob);
    builder.add(key, copy);
  }
  const bool owns = builder.owns_refs();
  std::lock_guard lock(mutex_);
  image_ = make_ref<const BlockImage>(NodeKind::run, builder.finish(), owns, max_seq_);
  new_blobs_ = std::move(written);
  folder.release();
  return image_;
}

bool FrozenRun::may_contain(uint64_t key_hash) const {
  const auto build = [this] {
    KeyFilter filter(table_.points().size());
    for (const auto& [key, message] : table_.points()) filter.add(KeyFilter::hash(key));
    return filter;
  };
  return filter_.get(build).may_contain(key_hash);
}

void FrozenRun::publish(NodeStore& store) {
  std::lock_guard lock(mutex_);
  if (published_) return;
  CAW_ASSERT(image_);
  const Epoch born = store.live_epoch(epoch_);
  for (const BlobRef& blob : new_blobs_) store.commit_blob(blob, born);
  store.publish(id_, image_, born);
  for (Epoch epoch : early_references_) store.add_node_ref(id_, +1, store.live_epoch(epoch));
  early_references_.clear();
  published_ = true;
}

void FrozenRun::add_reference(NodeStore& store, Epoch epoch) {
  std::lock_guard lock(mutex_);
  sharers_.fetch_add(1, std::memory_order_relaxed);
  if (published_) {
    store.add_node_ref(id_, +1, epoch);
  } else {
    early_references_.push_back(epoch);
  }
}

Result<Ref<const InteriorImage>> load_root(NodeStore& store, TreeCore& core) {
  {
    std::shared_lock lock(core.mutex);
    if (core.view->root) return core.view->root;
  }
  while (true) {
    ImageRef image = CAW_TRY(store.get(core.id));
    if (image->kind() != NodeKind::interior) {
      return fail(Code::interior_malformed, raw(core.id), "load_root");
    }
    std::unique_lock lock(core.mutex);
    if (core.view->root) return core.view->root;
    if (image->superseded()) continue;
    auto view = make_ref<TreeView>();
    view->frozen = core.view->frozen;
    view->root = Ref<const InteriorImage>(static_cast<const InteriorImage*>(image.get()));
    core.show(view);
    return view->root;
  }
}

Ref<FrozenRun> seal_memtable(TreeCore& core, NodeStore& store, Epoch epoch) {
  std::unique_lock lock(core.mutex);
  if (core.mem.empty()) return nullptr;
  auto run = make_ref<FrozenRun>(store.new_id(), std::move(core.mem), core.mem_seq, epoch);
  core.mem = Memtable();
  auto view = make_ref<TreeView>();
  view->root = core.view->root;
  view->frozen.reserve(core.view->frozen.size() + 1);
  view->frozen.push_back({run, "", std::string(kKeyEnd), {}, epoch});
  view->frozen.insert(view->frozen.end(), core.view->frozen.begin(), core.view->frozen.end());
  core.show(view);
  return run;
}

}  // namespace caw
