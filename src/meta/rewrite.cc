#include "meta/rewrite.h"

#include <algorithm>

#include "base/assert.h"

namespace caw {
namespace {

constexpr const char* kWhere = "meta tree";
/// Pages written together.
constexpr size_t kWritePages = 64;
/// A page with less is joined with a neighbour.
constexpr size_t kSmallBytes = kMetaCapacityBytes / 4;

}  // namespace

class MetaRewrite::Packer {
 public:
  /// `total_bytes` of entries will come.  `fill`: fill pages up (more will be appended), else
  /// share the bytes evenly among as few pages as possible.
  Packer(uint8_t level, size_t total_bytes, bool fill)
      : fill_(fill), level_(level) {
    const size_t pages = std::max<size_t>(1, (total_bytes + kMetaCapacityBytes - 1) /
                                                 kMetaCapacityBytes);
    target_bytes_ = fill ? kMetaCapacityBytes : (total_bytes + pages - 1) / pages;
  }

  /// `append` adds the entry of `bytes` bytes to the string it is given.
  template <typename Append>
  void add(MetaKey key, size_t bytes, Append append) {
    const size_t now = drafts_.empty() ? 0 : drafts_.back().content.entries.size();
    if (drafts_.empty() || now >= target_bytes_ || now + bytes > kMetaCapacityBytes) {
      drafts_.push_back({key, {}, {level_, 0, {}}, false});
      drafts_.back().content.entries.reserve(kMetaCapacityBytes);
    }
    append(drafts_.back().content.entries);
    ++drafts_.back().content.count;
  }
  Drafts take() {
    if (fill_ && !drafts_.empty()) drafts_.back().grows = true;
    return std::move(drafts_);
  }

 private:
  const bool fill_;
  const uint8_t level_;
  size_t target_bytes_;
  Drafts drafts_;
};

MetaRewrite::MetaRewrite(BlockDevice& device, Allocator& allocator, PageCache& cache, Epoch epoch)
    : device_(device),
      allocator_(allocator),
      cache_(cache),
      epoch_(epoch),
      buffer_(kWritePages * kBlockSize) {}

MetaRewrite::~MetaRewrite() {
  if (settled_) return;
  for (const BlockAddr addr : new_pages_) allocator_.cancel({addr, 1});
}

void MetaRewrite::settle() {
  settled_ = true;
  for (const BlockAddr addr : new_pages_) allocator_.commit({addr, 1}, epoch_);
  for (const BlockAddr addr : old_pages_) allocator_.free({addr, 1}, epoch_);
}

Result<MetaRoot> MetaRewrite::run(const MetaRoot& root, Changes changes) {
  for (size_t i = 1; i < changes.size(); ++i) CAW_ASSERT(changes[i - 1].key < changes[i].key);
  if (changes.empty()) return root;
  if (!root.ref) return make_root(CAW_TRY(rewrite_leaf({}, changes)), 0);
  if (root.height == 0 || root.height > kMaxMetaHeight) {
    return fail(Code::meta_depth, root.height, kWhere);
  }
  const auto level = static_cast<uint8_t>(root.height - 1);
  const MetaPageHandle page = CAW_TRY(cache_.get(root.ref, level));
  return make_root(CAW_TRY(rewrite_page(page, {}, changes)), level);
}

/// The pages that take the place of `page` (a single existing one if nothing changes).
Result<MetaRewrite::Drafts> MetaRewrite::rewrite_page(const MetaPageHandle& page,
                                                      const MetaBounds& bounds, Changes changes) {
  if (!bounds.hold(*page)) return fail(Code::meta_page, raw(page->page_ref().addr), kWhere);
  return page->level() == 0 ? rewrite_leaf(page, changes) : rewrite_interior(page, bounds, changes);
}

/// `leaf` may be null: an empty tree.
Result<MetaRewrite::Drafts> MetaRewrite::rewrite_leaf(const MetaPageHandle& leaf, Changes changes) {
  struct Entry {
    MetaKey key;
    std::string_view value;
  };
  std::vector<Entry> entries;
  const size_t count = leaf ? leaf->count() : 0;
  size_t total_bytes = 0;
  bool differs = false;
  bool inserts = false;
  bool appends = true;   // no new key is below an old one of the same space
  const auto keep = [&](const Entry& entry) {
    entries.push_back(entry);
    total_bytes += kLeafEntryBytes + entry.value.size();
  };
  size_t old = 0;
  for (const MetaChange& change : changes) {
    for (; old < count && leaf->key(old) < change.key; ++old) {
      keep({leaf->key(old), leaf->value(old)});
    }
    const bool found = old < count && leaf->key(old) == change.key;
    if (change.value) {
      differs = differs || !found || leaf->value(old) != *change.value;
      inserts = inserts || !found;
      if (!found && old < count && leaf->key(old).space == change.key.space) appends = false;
      keep({change.key, *change.value});
    } else {
      differs = differs || found;
    }
    if (found) ++old;
  }
  if (leaf && !differs) return Drafts{{leaf->key(0), leaf->page_ref(), {}, false}};
  for (; old < count; ++old) keep({leaf->key(old), leaf->value(old)});
  if (leaf) old_pages_.push_back(leaf->page_ref().addr);

  Packer packer(0, total_bytes, inserts && appends);
  for (const Entry& entry : entries) {
    packer.add(entry.key, kLeafEntryBytes + entry.value.size(), [&](std::string& out) {
      append_leaf_entry(out, entry.key, entry.value);
    });
  }
  return packer.take();
}

Result<MetaRewrite::Drafts> MetaRewrite::rewrite_interior(const MetaPageHandle& page,
                                                          const MetaBounds& bounds,
                                                          Changes changes) {
  const auto child_level = static_cast<uint8_t>(page->level() - 1);
  // Which changes go to which child; those children in one batch of reads.
  std::vector<Changes> parts(page->count());
  std::vector<PageRef> touched;
  for (size_t i = 0; i < page->count(); ++i) {
    size_t end = changes.size();
    if (i + 1 < page->count()) {
      const MetaKey next = page->key(i + 1);
      end = static_cast<size_t>(
          std::ranges::lower_bound(changes, next, {}, &MetaChange::key) - changes.begin());
    }
    parts[i] = changes.first(end);
    changes = changes.subspan(end);
    if (!parts[i].empty()) touched.push_back(page->child(i));
  }
  const std::vector<MetaPageHandle> pages = CAW_TRY(cache_.get_all(touched, child_level));

  Drafts drafts;
  bool differs = false;
  size_t next_page = 0;
  for (size_t i = 0; i < page->count(); ++i) {
    if (parts[i].empty()) {
      drafts.push_back({page->key(i), page->child(i), {}, false});
      continue;
    }
    Drafts made = CAW_TRY(rewrite_page(pages[next_page++], bounds.child(*page, i), parts[i]));
    const bool same = made.size() == 1 && made[0].existing;
    differs = differs || !same;
    if (same) made[0].first = page->key(i);
    std::move(made.begin(), made.end(), std::back_inserter(drafts));
  }
  if (!differs) return Drafts{{page->key(0), page->page_ref(), {}, false}};
  old_pages_.push_back(page->page_ref().addr);
  CAW_TRY(join_small(drafts, child_level, bounds.hi));
  return make_parents(drafts, page->level());
}

/// Joins drafts with too little in them with a neighbour, which is replaced too if it exists.
/// `hi` bounds the last one.
Result<void> MetaRewrite::join_small(Drafts& drafts, uint8_t level, std::optional<MetaKey> hi) {
  Drafts joined;
  for (size_t i = 0; i < drafts.size(); ++i) {
    const std::optional<MetaKey> end = i + 1 < drafts.size() ? drafts[i + 1].first : hi;
    Draft draft = std::move(drafts[i]);
    const auto is_small = [](const Draft& d) {
      return !d.existing && !d.grows && d.content.entries.size() < kSmallBytes;
    };
    if (!joined.empty() && (is_small(draft) || is_small(joined.back()))) {
      CAW_TRY(open_draft(joined.back(), level, draft.first));
      CAW_TRY(open_draft(draft, level, end));
      Drafts both = join(joined.back(), draft);
      joined.pop_back();
      std::move(both.begin(), both.end(), std::back_inserter(joined));
    } else {
      joined.push_back(std::move(draft));
    }
  }
  drafts = std::move(joined);
  return {};
}

/// Makes a draft that may be changed of a page that exists, whose keys must be below `hi`.
Result<void> MetaRewrite::open_draft(Draft& draft, uint8_t level, std::optional<MetaKey> hi) {
  if (!draft.existing) return {};
  const MetaPageHandle page = CAW_TRY(cache_.get(draft.existing, level));
  if (!MetaBounds{draft.first, hi}.hold(*page)) {
    return fail(Code::meta_page, raw(draft.existing.addr), kWhere);
  }
  draft.content = {level, static_cast<uint16_t>(page->count()), {}};
  for (size_t i = 0; i < page->count(); ++i) {
    if (level == 0) {
      append_leaf_entry(draft.content.entries, page->key(i), page->value(i));
    } else {
      append_interior_entry(draft.content.entries, page->key(i), page->child(i));
    }
  }
  old_pages_.push_back(draft.existing.addr);
  draft.existing = {};
  return {};
}

/// One draft, or two of about the same size.
MetaRewrite::Drafts MetaRewrite::join(const Draft& left, const Draft& right) const {
  const uint8_t level = left.content.level;
  Packer packer(level, left.content.entries.size() + right.content.entries.size(), false);
  for (const Draft* draft : {&left, &right}) {
    const MetaPageHandle page = MetaPage::make(draft->content, {});
    for (size_t i = 0; i < page->count(); ++i) {
      const MetaKey key = page->key(i);
      if (level == 0) {
        packer.add(key, kLeafEntryBytes + page->value(i).size(),
                   [&](std::string& out) { append_leaf_entry(out, key, page->value(i)); });
      } else {
        packer.add(key, kInteriorEntryBytes,
                   [&](std::string& out) { append_interior_entry(out, key, page->child(i)); });
      }
    }
  }
  return packer.take();
}

/// Gives the drafts their places; returns the pages above them, of level `level`.
Result<MetaRewrite::Drafts> MetaRewrite::make_parents(Drafts& drafts, uint8_t level) {
  Packer packer(level, drafts.size() * kInteriorEntryBytes, false);
  for (Draft& draft : drafts) {
    const PageRef ref = CAW_TRY(place(draft));
    packer.add(draft.first, kInteriorEntryBytes,
               [&](std::string& out) { append_interior_entry(out, draft.first, ref); });
  }
  return packer.take();
}

Result<PageRef> MetaRewrite::place(Draft& draft) {
  if (draft.existing) return draft.existing;
  const BlockAddr addr = CAW_TRY(allocator_.reserve(1, SpaceClass::essential));
  new_pages_.push_back(addr);
  char* out = buffer_.chars() + unwritten_.size() * kBlockSize;
  const PageRef ref{addr, encode_meta_page(draft.content, addr, epoch_, out)};
  unwritten_.push_back(addr);
  if (unwritten_.size() == kWritePages) CAW_TRY(write_out());
  cache_.put(MetaPage::make(draft.content, ref));
  return ref;
}

Result<MetaRoot> MetaRewrite::make_root(Drafts drafts, uint8_t level) {
  while (drafts.size() > 1) {
    if (++level >= kMaxMetaHeight) return fail(Code::meta_depth, level, kWhere);
    drafts = CAW_TRY(make_parents(drafts, level));
  }
  if (drafts.empty()) return MetaRoot{};
  Draft& top = drafts.front();
  PageRef ref = top.existing;
  if (!ref && (level == 0 || top.content.count > 1)) {
    ref = CAW_TRY(place(top));
  } else if (!ref) {
    ref = MetaPage::make(top.content, {})->child(0);
    --level;
  }
  CAW_TRY(write_out());
  // A root with a single child is of no use.
  while (level > 0) {
    const MetaPageHandle page = CAW_TRY(cache_.get(ref, level));
    if (page->count() > 1) break;
    old_pages_.push_back(ref.addr);
    ref = page->child(0);
    --level;
  }
  return MetaRoot{ref, static_cast<uint8_t>(level + 1)};
}

/// Adjacent pages go out as one write.
Result<void> MetaRewrite::write_out() {
  std::vector<WriteRequest> writes;
  for (size_t i = 0; i < unwritten_.size();) {
    size_t end = i + 1;
    while (end < unwritten_.size() && unwritten_[end] == unwritten_[i] + (end - i)) ++end;
    writes.push_back(
        {unwritten_[i], buffer_.span().subspan(i * kBlockSize, (end - i) * kBlockSize)});
    i = end;
  }
  unwritten_.clear();
  if (writes.empty()) return {};
  return device_.write_batch(writes);
}

}  // namespace caw
