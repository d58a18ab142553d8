// FileSystemImpl: names of files that have several, and how many there are.
//
// The record of a linked file stands in a links directory, an inode in core like any other; its
// names are found by way of the top whose links directory that is (docs/adr/0013-hard-links.md).
#include <utility>

#include "base/assert.h"
#include "fs/file_system_impl.h"
#include "fs/links.h"
#include "fs/values.h"

namespace caw {

namespace {

/// Of one batch; more go into further ones.
constexpr size_t kMaxCorrections = 10'000;

}  // namespace

// ---- places

bool FileSystemImpl::is_top(const Inode& directory) const {
  return &directory == root_ || (directory.load_fields().flags & kInodeClone) != 0;
}

Inode* FileSystemImpl::top_of(const Inode& directory) const {
  for (const Inode* at = &directory; at->parent != nullptr; at = at->parent) {
    if (is_top(*at)) return const_cast<Inode*>(at);
  }
  return nullptr;
}

bool FileSystemImpl::is_in_orphan(const Inode& inode) {
  for (const Inode* at = &inode; at != nullptr; at = at->parent) {
    if (at->is_orphan()) return true;
  }
  return false;
}

bool FileSystemImpl::leads_to(const Inode& parent, const Dirent& dirent,
                              const Inode& child) const {
  switch (dirent.scope) {
    case LinkScope::none:
      return child.parent == &parent && child.entry == dirent.entry;
    case LinkScope::local:
      return child.entry == dirent.group && child.parent->entry == kLinksEntry &&
             child.parent != globals_.get() && child.parent->parent == top_of(parent);
    case LinkScope::global:
      return child.entry == dirent.group && child.parent == globals_.get() &&
             !is_in_orphan(parent);
  }
  return false;
}

FileSystemImpl::Hold FileSystemImpl::hold_top(const Inode& directory) {
  Inode* const top = top_of(directory);
  if (top != nullptr) table_.ref(*top);
  return Hold(table_, top);
}

// ---- links directories

Result<FileSystemImpl::Hold> FileSystemImpl::links_directory(Inode& top) {
  Hold links = CAW_TRY(load(top, kLinksEntry));
  if (!links) return links;
  if ((links->load_fields().flags & kInodeUncounted) != 0) CAW_TRY(take_counts(*links));
  return links;
}

Result<FileSystemImpl::Hold> FileSystemImpl::make_links_directory(Inode& top) {
  Hold links = CAW_TRY(links_directory(top));
  if (links && topology_.has_links()) return links;
  InodeRecord record;
  record.fields.mode = S_IFDIR | 0700;
  record.fields.mtime = record.fields.ctime = record.fields.atime = record.fields.btime = now();
  record.fields.content_seq = record.fields.attribute_seq = next_stamp();
  record.number = files_.next();
  InodeRecord of_all = record;
  of_all.number = files_.next();
  NodeId tree_of_all = kNoNode;
  CAW_TRY(topology_.mutate(
      {contents_of(top)}, {.exclusive = true}, [&](Batch& batch) -> Result<void> {
        const Place place = CAW_TRY(topology_.body(top));
        const std::string key = record_key(place.path, kLinksEntry);
        const bool is_there = CAW_TRY(forest_.get(place.tree, key)).has_value();
        if (is_there && topology_.has_links()) return {};
        if (!is_there) {
          const NodeId tree = forest_.new_tree_id();
          batch.create_tree(tree);
          batch.put(place.tree, key, inline_value(encode_inode(record), tree));
        }
        if (!topology_.has_links()) {
          // Not in the system tree itself: clones of files share the nodes of the tree they are in,
          // and those of the system tree lead to everything.
          tree_of_all = forest_.new_tree_id();
          batch.create_tree(tree_of_all);
          batch.put(system_->tree(), record_key({}, kLinksEntry),
                    inline_value(encode_inode(of_all), tree_of_all));
        }
        CAW_TRY(forest_.apply(batch));
        if (!topology_.has_links()) globals_->set_tree(forest_.open_tree(tree_of_all));
        topology_.set_has_links();
        return {};
      }));
  links = CAW_TRY(links_directory(top));
  if (!links) return fail(Code::record_malformed, kLinksEntry, "links directory");
  return links;
}

Result<FileSystemImpl::Hold> FileSystemImpl::load_linked(Inode& parent, std::string_view name) {
  Hold top;
  bool removed = false;
  const auto place_now = [&]() -> Result<Place> {
    top = hold_top(parent);
    removed = is_in_orphan(parent);
    return topology_.body(parent);
  };
  const std::optional<Dirent> dirent = CAW_TRY(
      topology_.read(place_now, [&](const Place& place) { return find_dirent(place, name); }));
  if (!dirent || !dirent->is_linked()) return Hold();
  // Names in a tree that was removed do not count any more.
  if (dirent->scope == LinkScope::global) {
    return removed ? fail(Code::not_found, 0, "lookup") : load(*globals_, dirent->group);
  }
  if (!top) return fail(Code::not_found, 0, "lookup");
  const Hold links = CAW_TRY(links_directory(*top));
  return links ? load(*links, dirent->group) : Hold();
}

// ---- names

Result<void> FileSystemImpl::put_marks(Batch& batch, const Inode& directory) {
  const Inode* at = &Topology::tree_owner(directory);
  while (at->parent != nullptr && at->parent != system_.get() && at->parent != orphans_.get()) {
    const Place outer = CAW_TRY(topology_.body(*at->parent));
    const std::string key = link_key(outer.path, at->entry);
    if (!CAW_TRY(forest_.get(outer.tree, key))) {
      batch.put(outer.tree, key, inline_value(encode_link_entry({})));
    }
    at = &Topology::tree_owner(*at->parent);
  }
  return {};
}

Result<void> FileSystemImpl::put_links(Batch& batch, const Inode& linked, uint32_t nlink,
                                       const Timestamp& ctime) {
  Spot spot = CAW_TRY(topology_.record(linked));
  batch.patch(spot.tree, std::move(spot.key), links_patch(nlink, ctime));
  return {};
}

// ---- counts

/// The clone that `links` is of has names of some of the files in it, the others are erased.  What
/// is written is absolute, so a crash in between does no harm.
Result<void> FileSystemImpl::take_counts(Inode& links) {
  if (!check_writable()) return count_in_memory(links);
  InodeLocks::Held held(locks_, {&links});
  InodeFields fields = links.load_fields();
  if ((fields.flags & kInodeUncounted) == 0) return {};
  fields.flags &= ~kInodeUncounted;
  CAW_TRY(topology_.mutate(
      {contents_of(links)}, {.exclusive = true, .essential = true},
      [&](Batch& batch) -> Result<void> {
        const Place top = CAW_TRY(topology_.body(*links.parent));
        const LinkCounts counts = CAW_TRY(count_local_links(forest_, top));
        CAW_TRY(correct_counts(batch, CAW_TRY(topology_.body(links)), counts));
        Spot spot = CAW_TRY(topology_.record(links));
        batch.patch(spot.tree, std::move(spot.key), all_fields_patch(fields));
        return forest_.apply(batch);
      }));
  links.store_fields(fields);
  return {};
}

Result<void> FileSystemImpl::correct_counts(Batch& batch, const Place& place,
                                            const LinkCounts& counts) {
  std::optional<uint64_t> first_nameless;
  uint64_t last_nameless = 0;
  const auto erase_nameless = [&] {
    if (!first_nameless) return;
    batch.erase_range(place.tree, record_key(place.path, *first_nameless),
                      after_prefix(record_key(place.path, last_nameless)), kManyDeadBytes);
    batch.erase_range(place.tree, xattr_prefix(place.path, *first_nameless),
                      after_prefix(xattr_prefix(place.path, last_nameless)), 0);
    batch.erase_range(place.tree, chunk_prefix(place.path, *first_nameless),
                      after_prefix(chunk_prefix(place.path, last_nameless)), kManyDeadBytes);
    first_nameless.reset();
  };
  const std::string end = records_end(place.path);
  const auto cursor = forest_.scan(place.tree, record_key(place.path, 0), end);
  while (CAW_TRY(cursor->next())) {
    const uint64_t group = CAW_TRY(chunk_of_key(cursor->key(), end.size()));
    const auto counted = counts.find(group);
    if (counted == counts.end()) {
      if (!first_nameless) first_nameless = group;
      last_nameless = group;
      continue;
    }
    erase_nameless();
    const InodeRecord record =
        CAW_TRY(decode_inode(CAW_TRY(read_record(forest_, cursor->value()))));
    if (record.fields.nlink != counted->second) {
      batch.patch(place.tree, std::string(cursor->key()), link_count_patch(counted->second));
    }
    if (batch.ops.size() < kMaxCorrections) continue;
    CAW_TRY(forest_.apply(batch));
    Batch next;
    next.generation = batch.generation;
    next.essential = batch.essential;
    batch = std::move(next);
  }
  erase_nameless();
  return {};
}

Result<void> FileSystemImpl::count_in_memory(Inode& links) {
  {
    const std::lock_guard lock(counts_mutex_);
    if (counts_.contains(&links)) return {};
  }
  LinkCounts counts = CAW_TRY(topology_.read(
      [&] { return topology_.body(*links.parent); },
      [&](const Place& place) { return count_local_links(forest_, place); }));
  const std::lock_guard lock(counts_mutex_);
  if (counts_.emplace(&links, std::move(counts)).second) table_.ref(links);
  return {};
}

uint32_t FileSystemImpl::counted_links(const Inode& links, uint64_t entry, uint32_t recorded) {
  if ((links.load_fields().flags & kInodeUncounted) == 0) return recorded;
  const std::lock_guard lock(counts_mutex_);
  const auto counts = counts_.find(&links);
  if (counts == counts_.end()) return recorded;
  const auto counted = counts->second.find(entry);
  return counted == counts->second.end() ? recorded : counted->second;
}

bool FileSystemImpl::is_linked(const Inode& inode) const {
  return inode.parent == globals_.get() || inode.parent->entry == kLinksEntry;
}

LinkScope FileSystemImpl::scope_of(const Inode& linked) const {
  return linked.parent == globals_.get() ? LinkScope::global : LinkScope::local;
}

}  // namespace caw
