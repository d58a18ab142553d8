// The MetaStore over pages on the device.
//
// Readers take the published root and go down through the cache without further locks.  A page of
// an older root may be freed and overwritten while a reader is still on its way; the checksum in
// the reference shows that, and the reader starts again from the root published since.  Only if the
// root is still the same is it damage.
#pragma once

#include <memory>
#include <mutex>
#include <optional>

#include "meta/meta_store.h"
#include "meta/page_cache.h"

namespace caw {

/// A version of the tree.
struct MetaRoot {
  PageRef ref;            ///< invalid: empty
  uint8_t height = 0;     ///< levels; the root's level is height - 1
  friend bool operator==(const MetaRoot&, const MetaRoot&) = default;
};

/// Keys that a page may hold: lo <= key, and key < hi if there is one.
struct MetaBounds {
  MetaKey lo{MetaSpace{0}, 0};
  std::optional<MetaKey> hi;

  bool hold(const MetaPage& page) const {
    return page.key(0) >= lo && (!hi || page.key(page.count() - 1) < *hi);
  }
  MetaBounds child(const MetaPage& page, size_t i) const {
    return {page.key(i), i + 1 < page.count() ? page.key(i + 1) : hi};
  }
};

class PagedMetaStore final : public MetaStore {
 public:
  PagedMetaStore(BlockDevice& device, Allocator& allocator, MetaRoot root, uint64_t cache_bytes)
      : device_(device), allocator_(allocator), cache_(device, cache_bytes), root_(root) {}

  Result<std::optional<std::string>> get(MetaKey key) override;
  Result<void> scan(MetaSpace space, uint64_t from,
                    const std::function<bool(uint64_t, std::string_view)>& visit) override;
  Result<void> apply(std::span<const MetaChange> changes, Epoch epoch) override;
  PageRef root() const override { return snapshot().ref; }
  uint8_t height() const override { return snapshot().height; }
  uint64_t cached_bytes() const override { return cache_.cached_bytes(); }

 private:
  struct LeafPlace {
    MetaPageHandle leaf;
    MetaBounds bounds;
  };

  MetaRoot snapshot() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return root_;
  }
  /// The leaf whose bounds include `key`, in the newest root or, if that is still readable, in
  /// *root; updates *root.  A null leaf: the tree is empty.
  Result<LeafPlace> find_leaf(MetaKey key, MetaRoot* root);
  Result<LeafPlace> descend(const MetaRoot& root, MetaKey key);

  BlockDevice& device_;
  Allocator& allocator_;
  PageCache cache_;
  mutable std::mutex mutex_;
  MetaRoot root_;   // guarded by mutex_
};

}  // namespace caw
