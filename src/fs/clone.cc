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
    if (mappable && (topology_.is_within(open, source) || may_have_name_in(open, source))) {
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

/// A linked file in whose links directory names at or below `source` are.
bool FileSystemImpl::may_have_name_in(const Inode& file, const Inode& source) const {
  if (file.parent == nullptr || !is_linked(file)) return false;
  return file.parent == globals_.get() || file.parent->parent == top_of(source);
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
  // Without linked names nobody waits here.
  std::unique_lock<std::shared_mutex> no_names_added;
  if (source.is_directory() && topology_.has_links()) {
    no_names_added = std::unique_lock(links_mutex_);
  }
  const InodeFields parent_fields = touched(parent);
  Destination to;
  to.entry = entries_.next();
  to.name = name;
  to.parent = &parent;
  const InodeRecord record = record_of_clone(source, parent, name);
  NodeId tree = kNoNode;
  uint64_t detour = 0;
  bool links_appeared = false;
  bool has_globals = false;
  const uint32_t evictions = parent.evictions();
  const auto attempt = [&](Batch& batch) -> Result<void> {
    to.place = CAW_TRY(topology_.body(parent));
    CAW_TRY(topology_.record(source));  // fails if it was removed
    if (parent.is_orphan()) return fail(Code::not_found, 0, "clone");
    if (CAW_TRY(find_dirent(to.place, name))) return fail(Code::exists, 0, "clone");
    links_appeared =
        source.is_directory() && topology_.has_links() && !no_names_added.owns_lock();
    if (links_appeared) return fail(Code::not_found, 0, "clone");
    has_globals = source.is_directory() && has_globals_ && CAW_TRY(holds_globals(source));
    if (has_globals) return {};
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
  };
  Result<void> done = topology_.mutate({contents_of(parent)}, {}, attempt);
  if (links_appeared) {
    no_names_added = std::unique_lock(links_mutex_);
    done = topology_.mutate({contents_of(parent)}, {}, attempt);
  }
  CAW_TRY(Result<void>(done));
  if (has_globals) {
    tree = CAW_TRY(clone_with_globals(source, record, to, parent_fields));
  } else if (detour != 0) {
    CAW_TRY(hang_clone(parent, parent_fields, to,
                       {detour, tree, source.type(), encode_inode(record),
                        (record.fields.flags & kInodeXattrs) != 0}));
  }
  parent.store_fields(parent_fields);
  return adopt_new(parent, to.entry, record, tree, evictions);
}

InodeRecord FileSystemImpl::record_of_clone(const Inode& source, const Inode& parent,
                                            std::string_view name) {
  InodeRecord record;
  record.name = name;
  record.fields = source.load_fields();
  if (source.is_directory()) {
    record.fields.flags |= kInodeClone;
    record.number = source.number;
    record.home = parent.domain;
    record.domain = numbers_.new_domain();
  } else {
    record.fields.nlink = 1;
    record.number = files_.next();
  }
  return record;
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
    if (topology_.has_links()) prefixes.push_back({links_prefix(body.path), links_prefix({})});
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
  if (source.is_directory() && topology_.has_links()) {
    CAW_TRY(share_links(batch, source, record.domain, id));
  }
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
    const auto cursor = forest_.scan(place.tree, record_key(place.path, kFirstEntry), end);
    while (CAW_TRY(cursor->next())) {
      if (left-- == 0) return false;
      const std::string bytes = CAW_TRY(read_record(forest_, cursor->value()));
      if (is_link_name(bytes)) continue;  // a name is the directory's; the file may have others
      const InodeRecord record = CAW_TRY(decode_inode(bytes));
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

Result<std::vector<uint64_t>> FileSystemImpl::remove_tree(Inode& parent, std::string_view name,
                                                          const Caller& caller) {
  CAW_TRY(check_writable());
  while (true) {
    const Hold child = CAW_TRY(find_child(parent, name));
    CAW_TRY(check_removal_permission(parent, *child, caller));
    if (!child->is_directory()) {
      CAW_TRY(unlink(parent, name));
      return std::vector<uint64_t>{reinterpret_cast<uint64_t>(child.get())};
    }
    TreeRemoval removal;
    removal.links = CAW_TRY(links_around(parent));
    InodeLocks::Held held(locks_, {&parent, child.get()});
    const InodeFields parent_fields = touched(parent);
    removal.ctime = parent_fields.ctime;
    removal.orphan_entry = entries_.next();
    std::vector<Written> writes{contents_of(parent)};
    if (removal.links) writes.push_back(contents_of(*removal.links));
    const Result<void> done = topology_.mutate(
        writes, {.exclusive = true, .essential = true}, [&](Batch& batch) -> Result<void> {
          CAW_TRY(check_still(parent, name, child.get(), removal.changed));
          const Place place = CAW_TRY(topology_.body(parent));
          batch.erase(place.tree, dirent_key(place.path, name), 0);
          CAW_TRY(put_content(batch, parent, parent_fields));
          CAW_TRY(drop_names_below(batch, *child, removal));
          CAW_TRY(remove_contents(batch, *child, removal.orphan_entry));
          finish_removal(removal);
          return {};
        });
    if (removal.changed) continue;
    CAW_TRY(Result<void>(done));
    parent.store_fields(parent_fields);
    return std::move(removal.stale);
  }
}

/// The links directory of the domain that `directory` is in, if there is one.
Result<FileSystemImpl::Hold> FileSystemImpl::links_around(const Inode& directory) {
  if (!topology_.has_links()) return Hold();
  Hold top;
  {
    Gate::Shared shared(topology_.gate());
    top = hold_top(directory);
  }
  return top ? links_directory(*top) : Hold();
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
    std::vector<std::string> prefixes{metadata_prefix(body.path), data_prefix(body.path)};
    if (topology_.has_links()) prefixes.push_back(links_prefix(body.path));
    for (const std::string& prefix : prefixes) {
      batch.erase_range(body.tree, prefix, after_prefix(prefix), kManyDeadBytes);
    }
  }
  CAW_TRY(forest_.apply(batch));
  mark_removed(directory);
  return {};
}

// ---- sameness

/// What `directory` is compared as.  Under the gate.
Result<Comparison::Side> FileSystemImpl::compared(const Inode& directory) {
  Comparison::Side out{CAW_TRY(topology_.body(directory)), {}};
  const Inode* const top = top_of(directory);
  if (topology_.has_links() && top != nullptr) {
    const Place place = CAW_TRY(topology_.body(*top));
    out.links = CAW_TRY(Comparison(forest_, true).links_of(place));
  }
  return out;
}

Result<bool> FileSystemImpl::same(Inode& a, Inode& b) {
  if (&a == &b) return true;
  if (a.type() != b.type()) return false;
  const InodeFields fields_a = a.load_fields();
  const InodeFields fields_b = b.load_fields();
  if (fields_a.content_seq != fields_b.content_seq) return false;
  if (a.is_regular()) return fields_a.content_seq != 0 && fields_a.size == fields_b.size;
  if (!a.is_directory()) return false;
  using Sides = std::pair<Comparison::Side, Comparison::Side>;
  const auto both = [&]() -> Result<Sides> {
    return Sides{CAW_TRY(compared(a)), CAW_TRY(compared(b))};
  };
  return topology_.read(both, [&](const Sides& sides) {
    return Comparison(forest_, topology_.has_links()).same(sides.first, sides.second);
  });
}

}  // namespace caw
