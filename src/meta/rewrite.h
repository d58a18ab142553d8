// One batch of changes to the meta tree: makes the pages of the next version.
//
// From the leaves up: each page that a change touches is taken apart, changed, and put together
// again as drafts, as many as needed; a draft that is nearly empty is joined with a neighbour.  The
// parent gives its drafts addresses, in key order, once they are final.  Pages no change touches,
// or whose content stays the same, stay as they are.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "dev/block_device.h"
#include "meta/meta_page.h"
#include "meta/paged_meta_store.h"
#include "space/allocator.h"

namespace caw {

class MetaRewrite {
 public:
  MetaRewrite(BlockDevice& device, Allocator& allocator, PageCache& cache, Epoch epoch);
  /// Gives back the new pages, unless settle() was called.
  ~MetaRewrite();
  MetaRewrite(const MetaRewrite&) = delete;
  MetaRewrite& operator=(const MetaRewrite&) = delete;

  /// Writes the pages that differ and returns the new root.  `changes` sorted, distinct.
  Result<MetaRoot> run(const MetaRoot& root, std::span<const MetaChange> changes);
  /// After run() succeeded: commits the new pages and frees those they replace.
  void settle();

 private:
  using Changes = std::span<const MetaChange>;

  /// A page of the next version: one that exists and stays, or content without an address yet.
  struct Draft {
    MetaKey first;             ///< parts it from the draft before
    PageRef existing;
    MetaPageContent content;   ///< if not existing
    bool grows = false;        ///< keys are being appended: not worth joining yet
  };
  using Drafts = std::vector<Draft>;

  /// Cuts a sequence of entries into pages.
  class Packer;

  Result<Drafts> rewrite_page(const MetaPageHandle& page, const MetaBounds& bounds,
                              Changes changes);
  Result<Drafts> rewrite_leaf(const MetaPageHandle& leaf, Changes changes);
  Result<Drafts> rewrite_interior(const MetaPageHandle& page, const MetaBounds& bounds,
                                  Changes changes);
  Result<void> join_small(Drafts& drafts, uint8_t level, std::optional<MetaKey> hi);
  Result<void> open_draft(Draft& draft, uint8_t level, std::optional<MetaKey> hi);
  Drafts join(const Draft& left, const Draft& right) const;
  Result<Drafts> make_parents(Drafts& drafts, uint8_t level);
  Result<PageRef> place(Draft& draft);
  Result<MetaRoot> make_root(Drafts drafts, uint8_t level);
  Result<void> write_out();

  BlockDevice& device_;
  Allocator& allocator_;
  PageCache& cache_;
  const Epoch epoch_;
  std::vector<BlockAddr> new_pages_;
  std::vector<BlockAddr> old_pages_;
  bool settled_ = false;
  AlignedBuffer buffer_;                 ///< pages to write, in the order of unwritten_
  std::vector<BlockAddr> unwritten_;
};

}  // namespace caw
