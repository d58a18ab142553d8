// FileSystemImpl: clone, removal of whole trees, sameness.
#include <sys/stat.h>

#include <utility>

#include "fs/acl.h"
#include "fs/file_system_impl.h"
#include "fs/values.h"

namespace caw {

namespace {

/// What may be looked at to answer "cheaply" (ownership below a directory, sameness).
constexpr uint64_t kMaxLookedAt = 4096;

constexpr uint32_t kWriteAndSearch = 3;

}  // namespace

std::vector<uint64_t> FileSystemImpl::writers_below(Inode& source) {
  std::vector<uint64_t> out;
  Gate::Shared shared(topology_.gate());
  open_files_.for_each([&](const Inode& open, bool mappable) {
    if (mappable && topology_.is_within(open, source)) {
      out.push_back(reinterpret_cast<uint64_t>(&open));
    }
    return true;
  });
  return out;
}

/// As the kernel has it, without supplementary groups.
Result<bool> FileSystemImpl::may(const Inode& inode, const Caller& caller, uint32_t wanted) {
  if (caller.privileged) return true;
  const InodeFields fields = inode.load_fields();
  const Acl acl = CAW_TRY(access_acl(inode));
  if (!acl.empty()) {
    return acl_allows(acl, caller.uid, caller.gid, fields.uid, fields.gid, wanted);
  }
  uint32_t bits = fields.mode & 7U;
  if (caller.uid == fields.uid) {
    bits = (fields.mode >> 6) & 7U;
  } else if (caller.gid == fields.gid) {
    bits = (fields.mode >> 3) & 7U;
  }
  return (bits & wanted) == wanted;
}

Result<void> FileSystemImpl::check_clone_permission(const Inode& source, const Inode& parent,
                                                    const Caller& caller) {
  if (!caller.privileged && caller.uid != source.load_fields().uid) {
    return fail(Code::permission, source.number, "clone");
  }
  if (!CAW_TRY(may(parent, caller, kWriteAndSearch))) {
    return fail(Code::access_denied, parent.number, "clone");
  }
  return {};
}

/// A clone among the orphans.
struct FileSystemImpl::Aside {
  uint64_t entry = 0;
  NodeId tree = kNoNode;
  uint32_t type = 0;
  std::string record;
  bool has_xattrs = false;
};

Result<Entry> FileSystemImpl::clone(Inode& source, Inode& parent, std::string_view name,
                                    const Caller& caller) {
  CAW_TRY(check_writable());
  CAW_TRY(check_new_name(name));
  if (!parent.is_directory()) return fail(Code::not_a_directory, parent.number, "clone");
  if (!source.is_directory() && !source.is_regular()) {
    return fail(Code::invalid_argument, source.number, "clone");
  }
  CAW_TRY(check_clone_permission(source, parent, caller));
  InodeLocks::Held held(locks_, {&source, &parent});
  const InodeFields parent_fields = touched(parent);
  Destination to;
  to.entry = entries_.next();
  to.name = name;
  InodeRecord record;
  record.name = name;
  record.fields = source.load_fields();
  if (source.is_directory()) {
    record.fields.flags |= kInodeClone;
    record.number = source.number;
    record.home = parent.domain;
    record.domain = numbers_.new_domain();
  } else {
    record.number = files_.next();
  }
  NodeId tree = kNoNode;
  uint64_t detour = 0;
  const uint32_t evictions = parent.evictions();
  CAW_TRY(topology_.mutate({contents_of(parent)}, {}, [&](Batch& batch) -> Result<void> {
    to.place = CAW_TRY(topology_.body(parent));
    CAW_TRY(topology_.record(source));  // fails if it was removed
    if (parent.is_orphan()) return fail(Code::not_found, 0, "clone");
    if (CAW_TRY(find_dirent(to.place, name))) return fail(Code::exists, 0, "clone");
    if (needs_detour(source, parent) && !CAW_TRY(is_copied_whole(source))) {
      detour = entries_.next();
      Destination aside = to;
      aside.place = CAW_TRY(topology_.body(*orphans_));
      aside.entry = detour;
      tree = CAW_TRY(clone_contents(batch, source, record, aside));
      return {};
    }
    detour = 0;
    CAW_TRY(put_content(batch, parent, parent_fields));
    batch.put(to.place.tree, dirent_key(to.place.path, name),
              inline_value(encode_dirent({to.entry, source.type()})));
    tree = CAW_TRY(clone_contents(batch, source, record, to));
    return {};
  }));
  if (detour != 0) {
    CAW_TRY(hang_clone(parent, parent_fields, to,
                       {detour, tree, source.type(), encode_inode(record),
                        (record.fields.flags & kInodeXattrs) != 0}));
  }
  parent.store_fields(parent_fields);
  return adopt_new(parent, to.entry, record, tree, evictions);
}

/// A destination in a tree that hangs, however far down, from the tree which the source is a part
/// of.  The clone comes to share nodes of that tree, and a record in one of them, perhaps out of
/// the clone's sight, may own the destination's: it is not private any more, and a reference from
/// it to the clone would close a cycle (docs/adr/0018-no-cycles.md).  So the clone is made among
/// the orphans first.
bool FileSystemImpl::needs_detour(const Inode& source, const Inode& parent) const {
  const Inode& shared = Topology::tree_owner(source);
  const Inode& receiving = Topology::tree_owner(parent);
  return &shared != &receiving && topology_.is_within(receiving, shared);
}

/// True if a clone of `source` is made by copying its records, so that it shares no node.
Result<bool> FileSystemImpl::is_copied_whole(const Inode& source) {
  if (!source.is_regular()) return false;
  uint64_t records_left = kMaxCopiedChunks;
  uint64_t bytes_left = kMaxCopiedFileBytes;
  return is_small(CAW_TRY(topology_.data(source)), records_left, bytes_left);
}

/// Moves a clone from among the orphans to its name.
Result<void> FileSystemImpl::hang_clone(Inode& parent, const InodeFields& parent_fields,
                                        const Destination& to, const Aside& aside) {
  const auto drop = [&](Batch& batch) -> Result<void> {
    const Place place = CAW_TRY(topology_.body(*orphans_));
    batch.erase(place.tree, record_key(place.path, aside.entry), 0);
    const std::string xattrs = xattr_prefix(place.path, aside.entry);
    if (aside.has_xattrs) batch.erase_range(place.tree, xattrs, after_prefix(xattrs), 0);
    return {};
  };
  const Result<void> hung =
      topology_.mutate({contents_of(parent)}, {}, [&](Batch& batch) -> Result<void> {
        const Place place = CAW_TRY(topology_.body(parent));
        if (CAW_TRY(find_dirent(place, to.name))) return fail(Code::exists, 0, "clone");
        batch.put(place.tree, dirent_key(place.path, to.name),
                  inline_value(encode_dirent({to.entry, aside.type})));
        batch.put(place.tree, record_key(place.path, to.entry),
                  inline_value(aside.record, aside.tree));
        if (aside.has_xattrs) {
          const Place from = CAW_TRY(topology_.body(*orphans_));
          CAW_TRY(copy_range(batch, {from.tree, xattr_prefix(from.path, aside.entry)},
                             {place.tree, xattr_prefix(place.path, to.entry)}, false));
        }
        CAW_TRY(put_content(batch, parent, parent_fields));
        CAW_TRY(drop(batch));
        return forest_.apply(batch);
      });
  if (hung) return {};
  ignore_error(topology_.mutate({}, {.essential = true},
                                [&](Batch& batch) -> Result<void> {
                                  CAW_TRY(drop(batch));
                                  return forest_.apply(batch);
                                }),
               "the orphan is dropped when the volume is opened again");
  return hung;
}

/// Puts `record` at `to` with the contents of `source` and applies the batch.  Returns the new
/// tree.
Result<NodeId> FileSystemImpl::clone_contents(Batch& batch, const Inode& source,
                                              const InodeRecord& record, const Destination& to) {
  const Place& place = to.place;
  CAW_TRY(copy_xattrs(batch, source, {place.tree, xattr_prefix(place.path, to.entry)}, false));
  TreeRef tree = source.tree();
  std::vector<ClonePrefix> prefixes;
  if (source.tree()) {
    prefixes.push_back({});
  } else if (source.is_directory()) {
    const Place body = CAW_TRY(topology_.body(source));
    tree = body.tree;
    prefixes.push_back({metadata_prefix(body.path), metadata_prefix({})});
    prefixes.push_back({data_prefix(body.path), data_prefix({})});
  } else {
    const Spot data = CAW_TRY(topology_.data(source));
    if (CAW_TRY(is_copied_whole(source))) {
      batch.put(place.tree, record_key(place.path, to.entry), inline_value(encode_inode(record)));
      CAW_TRY(copy_range(batch, data, {place.tree, chunk_prefix(place.path, to.entry)}, false));
      CAW_TRY(forest_.apply(batch));
      return kNoNode;
    }
    tree = data.tree;
    prefixes.push_back({data.key, owned_chunk_prefix()});
  }
  const NodeId id = forest_.new_tree_id();
  batch.put(place.tree, record_key(place.path, to.entry), inline_value(encode_inode(record), id));
  CAW_TRY(forest_.clone(tree, prefixes, id, batch));
  return id;
}

// ---- removal

/// True if all below belongs to `uid`, as far as a bounded look can tell.
Result<bool> FileSystemImpl::owns_all_below(Inode& directory, uint32_t uid) {
  return topology_.read([&] { return topology_.body(directory); },
                        [&](const Place& place) { return owns_all_in(place, uid); });
}

Result<bool> FileSystemImpl::owns_all_in(const Place& directory, uint32_t uid) {
  uint64_t left = kMaxLookedAt;
  std::vector<Place> places{directory};
  while (!places.empty()) {
    const Place place = std::move(places.back());
    places.pop_back();
    const std::string end = records_end(place.path);
    const auto cursor = forest_.scan(place.tree, record_key(place.path, 0), end);
    while (CAW_TRY(cursor->next())) {
      if (left-- == 0) return false;
      const InodeRecord record =
          CAW_TRY(decode_inode(CAW_TRY(read_record(forest_, cursor->value()))));
      if (record.fields.uid != uid) return false;
      if (!record.fields.is_directory()) continue;
      const NodeId tree = cursor->value().tree;
      const uint64_t entry = CAW_TRY(chunk_of_key(cursor->key(), end.size()));
      places.push_back(tree == kNoNode ? Place{place.tree, body_path(place.path, entry)}
                                       : Place{forest_.open_tree(tree), {}});
    }
  }
  return true;
}

Result<void> FileSystemImpl::check_removal_permission(const Inode& parent, Inode& child,
                                                      const Caller& caller) {
  if (caller.privileged) return {};
  const InodeFields above = parent.load_fields();
  const InodeFields fields = child.load_fields();
  if (!CAW_TRY(may(parent, caller, kWriteAndSearch))) {
    return fail(Code::access_denied, 0, "remove_tree");
  }
  if ((above.mode & S_ISVTX) != 0 && caller.uid != above.uid && caller.uid != fields.uid) {
    return fail(Code::permission, 0, "remove_tree");
  }
  if (!child.is_directory()) return {};
  if (fields.uid != caller.uid) return fail(Code::permission, 0, "remove_tree");
  if ((fields.flags & kInodeClone) != 0) return {};  // who owns a clone has made it
  if (CAW_TRY(owns_all_below(child, caller.uid))) return {};
  return fail(Code::permission, 0, "remove_tree");
}

Result<void> FileSystemImpl::remove_tree(Inode& parent, std::string_view name,
                                         const Caller& caller) {
  CAW_TRY(check_writable());
  while (true) {
    const Hold child = CAW_TRY(find_child(parent, name));
    CAW_TRY(check_removal_permission(parent, *child, caller));
    if (!child->is_directory()) return unlink(parent, name);
    InodeLocks::Held held(locks_, {&parent, child.get()});
    const InodeFields parent_fields = touched(parent);
    const uint64_t orphan_entry = entries_.next();
    bool changed = false;
    const Result<void> done =
        topology_.mutate({contents_of(parent)}, {.exclusive = true, .essential = true},
                         [&](Batch& batch) -> Result<void> {
                           const Place place = CAW_TRY(topology_.body(parent));
                           CAW_TRY(check_still(place, name, child.get(), changed));
                           batch.erase(place.tree, dirent_key(place.path, name), 0);
                           CAW_TRY(put_content(batch, parent, parent_fields));
                           return remove_contents(batch, *child, orphan_entry);
                         });
    if (changed) continue;
    if (done) parent.store_fields(parent_fields);
    return done;
  }
}

/// Erases a directory whole, or hangs it among the orphans if a file in it is open; applies the
/// batch.
Result<void> FileSystemImpl::remove_contents(Batch& batch, Inode& directory,
                                             uint64_t orphan_entry) {
  if (any_open_within(directory)) {
    if (!directory.tree()) {
      CAW_TRY(topology_.own_tree(directory, true));
      return fail(Code::tree_not_private, 0, "remove_tree");
    }
    CAW_TRY(move_to_orphans(batch, directory, orphan_entry));
    CAW_TRY(forest_.apply(batch));
    mark_orphan(directory, orphan_entry);
    return {};
  }
  CAW_TRY(erase_records(batch, directory));
  if (!directory.tree()) {
    const Place body = CAW_TRY(topology_.body(directory));
    for (const std::string& prefix : {metadata_prefix(body.path), data_prefix(body.path)}) {
      batch.erase_range(body.tree, prefix, after_prefix(prefix), kManyDeadBytes);
    }
  }
  CAW_TRY(forest_.apply(batch));
  mark_removed(directory);
  return {};
}

// ---- sameness

/// Two directories, compared record by record; content stamps stand for the data of files.
struct FileSystemImpl::Comparison {
  uint64_t left = kMaxLookedAt;
  std::vector<std::pair<Place, Place>> pending;
};

Result<bool> FileSystemImpl::same_contents(Comparison& comparison, const Place& a, const Place& b) {
  const std::string end_a = records_end(a.path);
  const std::string end_b = records_end(b.path);
  const auto cursor_a = forest_.scan(a.tree, record_key(a.path, 0), end_a);
  const auto cursor_b = forest_.scan(b.tree, record_key(b.path, 0), end_b);
  while (true) {
    const bool more_a = CAW_TRY(cursor_a->next());
    const bool more_b = CAW_TRY(cursor_b->next());
    if (more_a != more_b) return false;
    if (!more_a) return true;
    if (comparison.left-- == 0) return false;
    const Value& value_a = cursor_a->value();
    const Value& value_b = cursor_b->value();
    const uint64_t entry_a = CAW_TRY(chunk_of_key(cursor_a->key(), end_a.size()));
    const uint64_t entry_b = CAW_TRY(chunk_of_key(cursor_b->key(), end_b.size()));
    const InodeRecord record_a = CAW_TRY(decode_inode(CAW_TRY(read_record(forest_, value_a))));
    const InodeRecord record_b = CAW_TRY(decode_inode(CAW_TRY(read_record(forest_, value_b))));
    if (record_a.name != record_b.name || record_a.target != record_b.target ||
        record_a.fields.content_seq != record_b.fields.content_seq ||
        (record_a.fields.mode & S_IFMT) != (record_b.fields.mode & S_IFMT)) {
      return false;
    }
    if (!record_a.fields.is_directory()) continue;
    if (value_a.tree != kNoNode && value_a.tree == value_b.tree) continue;
    const auto place_of = [&](const Place& at, NodeId tree, uint64_t entry) {
      return tree == kNoNode ? Place{at.tree, body_path(at.path, entry)}
                             : Place{forest_.open_tree(tree), {}};
    };
    comparison.pending.emplace_back(place_of(a, value_a.tree, entry_a),
                                    place_of(b, value_b.tree, entry_b));
  }
}

Result<bool> FileSystemImpl::same(Inode& a, Inode& b) {
  if (&a == &b) return true;
  if (a.type() != b.type()) return false;
  const InodeFields fields_a = a.load_fields();
  const InodeFields fields_b = b.load_fields();
  if (fields_a.content_seq != fields_b.content_seq) return false;
  if (a.is_regular()) return fields_a.content_seq != 0 && fields_a.size == fields_b.size;
  if (!a.is_directory()) return false;
  const auto both = [&]() -> Result<std::pair<Place, Place>> {
    return std::pair{CAW_TRY(topology_.body(a)), CAW_TRY(topology_.body(b))};
  };
  return topology_.read(both, [&](const std::pair<Place, Place>& places) -> Result<bool> {
    Comparison comparison;
    comparison.pending.push_back(places);
    while (!comparison.pending.empty()) {
      const auto next = std::move(comparison.pending.back());
      comparison.pending.pop_back();
      if (!CAW_TRY(same_contents(comparison, next.first, next.second))) return false;
    }
    return true;
  });
}

}  // namespace caw
