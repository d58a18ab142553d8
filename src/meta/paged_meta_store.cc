#include "meta/paged_meta_store.h"

#include "meta/rewrite.h"

namespace caw {
namespace {
constexpr const char* kWhere = "meta tree";
}  // namespace

std::unique_ptr<MetaStore> MetaStore::open(BlockDevice& device, Allocator& allocator, PageRef root,
                                           uint8_t height, uint64_t cache_bytes) {
  const MetaRoot start = root ? MetaRoot{root, height} : MetaRoot{};
  return std::make_unique<PagedMetaStore>(device, allocator, start, cache_bytes);
}

Result<std::optional<std::string>> PagedMetaStore::get(MetaKey key) {
  MetaRoot root = snapshot();
  const LeafPlace place = CAW_TRY(find_leaf(key, &root));
  if (!place.leaf) return std::nullopt;
  const size_t i = place.leaf->lower_bound(key);
  if (i == place.leaf->count() || place.leaf->key(i) != key) return std::nullopt;
  return std::string(place.leaf->value(i));
}

Result<void> PagedMetaStore::scan(MetaSpace space, uint64_t from,
                                  const std::function<bool(uint64_t, std::string_view)>& visit) {
  MetaRoot root = snapshot();
  MetaKey next{space, from};
  while (true) {
    const LeafPlace place = CAW_TRY(find_leaf(next, &root));
    if (!place.leaf) return {};
    const MetaPage& leaf = *place.leaf;
    for (size_t i = leaf.lower_bound(next); i < leaf.count(); ++i) {
      if (leaf.key(i).space != space || !visit(leaf.key(i).id, leaf.value(i))) return {};
    }
    if (!place.bounds.hi || place.bounds.hi->space > space) return {};
    next = *place.bounds.hi;
  }
}

Result<PagedMetaStore::LeafPlace> PagedMetaStore::find_leaf(MetaKey key, MetaRoot* root) {
  while (true) {
    Result<LeafPlace> place = descend(*root, key);
    if (place) return place;
    const MetaRoot now = snapshot();
    if (now == *root) return place;
    *root = now;
  }
}

Result<PagedMetaStore::LeafPlace> PagedMetaStore::descend(const MetaRoot& root, MetaKey key) {
  LeafPlace place;
  if (!root.ref) return place;
  if (root.height == 0 || root.height > kMaxMetaHeight) {
    return fail(Code::meta_depth, root.height, kWhere);
  }
  PageRef ref = root.ref;
  for (uint8_t level = root.height; level-- > 0;) {
    place.leaf = CAW_TRY(cache_.get(ref, level));
    if (!place.bounds.hold(*place.leaf)) return fail(Code::meta_page, raw(ref.addr), kWhere);
    if (level == 0) break;
    const size_t i = place.leaf->child_index(key);
    ref = place.leaf->child(i);
    place.bounds = place.bounds.child(*place.leaf, i);
  }
  return place;
}

Result<void> PagedMetaStore::apply(std::span<const MetaChange> changes, Epoch epoch) {
  MetaRewrite rewrite(device_, allocator_, cache_, epoch);
  const MetaRoot root = CAW_TRY(rewrite.run(snapshot(), changes));
  rewrite.settle();
  const std::lock_guard<std::mutex> lock(mutex_);
  root_ = root;
  return {};
}

}  // namespace caw
