// FileSystemImpl: link; moving the records of linked files to where their names need them; removal
// of trees with linked names.
//
// A file moves outwards only: from its directory to the links directory of its domain, from there
// to the global one.  Each is a step of its own, which nobody sees; rename moves one with a single
// name back.
#include <utility>

#include "base/assert.h"
#include "fs/file_system_impl.h"
#include "fs/links.h"
#include "fs/values.h"

namespace caw {

namespace {

constexpr size_t kMaxNamesAtOnce = 20'000;
constexpr size_t kMaxOpsAtOnce = 64'000;  ///< a record of the log has at most 65,536
constexpr int kMostTries = 100;

std::unexpected<Error> too_many(size_t count) {
  return fail(Code::too_many_linked, count, "linked names");
}

std::unexpected<Error> changed_meanwhile(bool& changed) {
  changed = true;
  return fail(Code::not_found, 0, "changed meanwhile");
}

}  // namespace

// ---- link

FileSystemImpl::Home FileSystemImpl::home_of(const Inode& file, const Inode& parent) const {
  if (file.is_removed() || is_in_orphan(file)) return Home::gone;
  if (!is_linked(file)) return Home::plain;
  const bool reaches = file.parent == globals_.get() || file.parent->parent == top_of(parent);
  return reaches ? Home::same_domain : Home::other_domain;
}

Result<Entry> FileSystemImpl::link(Inode& inode, Inode& parent, std::string_view name) {
  CAW_TRY(begin_change());
  CAW_TRY(check_new_name(name));
  if (inode.is_directory()) return fail(Code::hard_link, inode.number, "link");
  if (!parent.is_directory()) return fail(Code::not_a_directory, parent.number, "link");
  const Result<std::optional<Dirent>> there =
      topology_.read([&] { return topology_.body(parent); },
                     [&](const Place& place) { return find_dirent(place, name); });
  if (!there) {
    const bool removed = there.error().code == Code::stale_inode;
    return removed ? fail(Code::not_found, 0, "link") : std::unexpected<Error>(there.error());
  }
  if (*there) return fail(Code::exists, 0, "link");
  for (int tries = 0; tries < kMostTries; ++tries) {
    Home home = Home::gone;
    {
      Gate::Shared shared(topology_.gate());
      home = home_of(inode, parent);
      if (top_of(parent) == nullptr || is_in_orphan(parent)) home = Home::gone;
    }
    if (home == Home::gone) return fail(Code::not_found, inode.number, "link");
    if (home == Home::plain) {
      CAW_TRY(make_linked(inode));
    } else if (home == Home::other_domain) {
      const Result<void> done = globalize(inode, &inode);
      if (!done && done.error().code == Code::too_many_linked) {
        return fail(Code::too_many_links, done.error().detail, "link");
      }
      CAW_TRY(Result<void>(done));
    } else {
      bool changed = false;
      const Result<void> added = add_name(inode, parent, name, changed);
      if (changed) continue;
      CAW_TRY(Result<void>(added));
      table_.ref(inode);
      return entry_of(Hold(table_, &inode));
    }
  }
  return fail(Code::stale_inode, inode.number, "link");
}

Result<void> FileSystemImpl::add_name(Inode& file, Inode& parent, std::string_view name,
                                      bool& changed) {
  InodeLocks::Held held(locks_, {&file, &parent});
  const std::shared_lock adding(links_mutex_);
  const InodeFields parent_fields = touched(parent);
  const uint64_t entry = entries_.next();
  const auto attempt = [&](Batch& batch) -> Result<void> {
    if (home_of(file, parent) != Home::same_domain) return changed_meanwhile(changed);
    if (is_in_orphan(parent)) return fail(Code::not_found, 0, "link");
    const Place place = CAW_TRY(topology_.body(parent));
    if (CAW_TRY(find_dirent(place, name))) return fail(Code::exists, 0, "link");
    const uint32_t nlink = file.nlink();
    if (nlink >= kMaxLinks) return fail(Code::too_many_links, nlink, "link");
    put_linked_name(batch, place, name, {entry, file.type(), scope_of(file), file.entry});
    CAW_TRY(put_marks(batch, parent));
    CAW_TRY(put_links(batch, file, nlink + 1, parent_fields.ctime));
    CAW_TRY(put_content(batch, parent, parent_fields));
    CAW_TRY(forest_.apply(batch));
    file.set_links(nlink + 1, parent_fields.ctime);
    return {};
  };
  const Result<void> done =
      topology_.mutate({contents_of(parent), record_of(file)}, {}, attempt);
  if (is_gone(done, file)) changed = true;
  if (done) parent.store_fields(parent_fields);
  return done;
}

Result<void> FileSystemImpl::make_linked(Inode& file) {
  Hold parent;
  Hold top;
  {
    Gate::Shared shared(topology_.gate());
    if (file.is_removed() || is_in_orphan(file) || is_linked(file)) return {};  // looked at again
    table_.ref(*file.parent);
    parent = Hold(table_, file.parent);
    top = hold_top(*file.parent);
  }
  if (!top) return fail(Code::not_found, file.number, "link");
  const Hold links = CAW_TRY(make_links_directory(*top));
  InodeLocks::Held held(locks_, {&file, parent.get()});
  const uint64_t group = entries_.next();
  const InodeFields fields = file.load_fields();
  bool changed = false;
  const auto attempt = [&](Batch& batch) -> Result<void> {
    if (file.parent != parent.get() || top_of(*parent) != top.get() || is_in_orphan(file)) {
      return changed_meanwhile(changed);
    }
    const Place place = CAW_TRY(topology_.body(*parent));
    const std::string name = CAW_TRY(read_inode_record(CAW_TRY(topology_.record(file)))).name;
    Destination to;
    to.place = CAW_TRY(topology_.body(*links));
    to.domain = links->domain;
    to.entry = group;
    CAW_TRY(make_movable(file, to.place, false));
    CAW_TRY(move_records(batch, file, fields, to));
    put_linked_name(batch, place, name, {file.entry, file.type(), LinkScope::local, group});
    CAW_TRY(put_marks(batch, *parent));
    // Who sees the new dirent before the place changes here finds the same inode.
    if (!table_.add_alias(file, *links, group)) {
      return fail(Code::record_malformed, group, "entry number in use");
    }
    const Result<void> applied = forest_.apply(batch);
    if (!applied) {
      table_.drop_alias(file, *links, group);
      return applied;
    }
    table_.rekey(file, *links, group, true);
    topology_.moved();
    return {};
  };
  const Result<void> done = topology_.mutate({contents_of(*parent), contents_of(*links)},
                                             {.exclusive = true}, attempt);
  return changed || is_gone(done, file) ? Result<void>{} : done;
}

// ---- from local to global

struct FileSystemImpl::Regrouping {
  using Route = std::vector<uint64_t>;
  const Inode* file = nullptr;  ///< or all in `below`
  Hold top, links;
  Route below;  ///< from the top
  std::map<uint64_t, std::vector<LinkedName>> groups;
  // What an attempt needs in core, since it may not load it.
  std::map<Route, Hold> directories;
  std::map<uint64_t, Hold> files;
  bool changed = false;

  bool is_below(const Route& route) const {
    return route.size() >= below.size() && std::equal(below.begin(), below.end(), route.begin());
  }
};

Result<void> FileSystemImpl::globalize(Inode& within, const Inode* file) {
  for (int tries = 0; tries < kMostTries; ++tries) {
    Regrouping work;
    work.file = file;
    {
      Gate::Shared shared(topology_.gate());
      if (file != nullptr) {
        // Looked at again by the caller.
        if (!is_linked(*file) || file->parent == globals_.get() || is_in_orphan(*file)) return {};
        Inode* const top = file->parent->parent;
        table_.ref(*top);
        work.top = Hold(table_, top);
      } else {
        work.top = hold_top(within);
        if (!work.top) return fail(Code::too_many_linked, 0, "links in a removed tree");
        for (const Inode* at = &within; at != work.top.get(); at = at->parent) {
          work.below.insert(work.below.begin(), at->entry);
        }
      }
    }
    CAW_TRY(prepare(work));
    std::vector<Written> writes;
    if (work.links) writes.push_back(contents_of(*work.links));
    for (auto& [route, directory] : work.directories) writes.push_back(contents_of(*directory));
    const Result<void> done =
        topology_.mutate(writes, {.exclusive = true},
                         [&](Batch& batch) { return try_globalize(work, batch); });
    if (done) return {};
    if (!work.changed && done.error().code != Code::stale_inode) return done;
  }
  return fail(Code::stale_inode, within.number, "globalize");
}

/// The names of the groups that are to move.
Result<void> FileSystemImpl::find_names(Regrouping& work) {
  std::map<uint64_t, std::vector<LinkedName>> all;
  std::vector<uint64_t> wanted;
  if (work.file != nullptr) wanted.push_back(work.file->entry);
  const Place place = CAW_TRY(topology_.body(*work.top));
  CAW_TRY(scan_links(forest_, place, false, [&](const LinkedName& name) -> Result<void> {
    if (name.link.scope != LinkScope::local) return {};
    if (work.file != nullptr && name.link.group != work.file->entry) return {};
    if (work.file == nullptr && work.is_below(name.route)) wanted.push_back(name.link.group);
    all[name.link.group].push_back(name);
    return {};
  }));
  work.groups.clear();
  size_t names = 0;
  for (const uint64_t group : wanted) {
    const auto found = all.find(group);
    if (found == all.end()) continue;
    names += found->second.size();
    work.groups.emplace(group, std::move(found->second));
    all.erase(found);
  }
  return names > kMaxNamesAtOnce ? Result<void>(too_many(names)) : Result<void>{};
}

/// Brings into core what the attempt is about to change.
Result<void> FileSystemImpl::prepare(Regrouping& work) {
  work.links = CAW_TRY(links_directory(*work.top));
  if (!work.links) return {};
  {
    Gate::Shared shared(topology_.gate());
    CAW_TRY(find_names(work));
  }
  for (const auto& [group, names] : work.groups) {
    Hold file = CAW_TRY(load(*work.links, group));
    if (!file) continue;
    work.files.emplace(group, std::move(file));
    for (const LinkedName& name : names) {
      if (work.directories.contains(name.route)) continue;
      table_.ref(*work.top);
      Hold at(table_, work.top.get());
      for (const uint64_t entry : name.route) {
        at = CAW_TRY(load(*at, entry));
        if (!at) break;
      }
      if (at) work.directories.emplace(name.route, std::move(at));
    }
  }
  return {};
}

Result<void> FileSystemImpl::try_globalize(Regrouping& work, Batch& batch) {
  const bool moved = work.file != nullptr && (work.file->parent != work.links.get() ||
                                              work.file->is_removed());
  if (moved) return changed_meanwhile(work.changed);
  CAW_TRY(find_names(work));
  if (work.groups.empty()) return {};
  Destination to;
  to.place = CAW_TRY(topology_.body(*globals_));
  to.domain = globals_->domain;
  bool extracted = false;
  for (const auto& [group, names] : work.groups) {
    const auto file = work.files.find(group);
    if (file == work.files.end()) return changed_meanwhile(work.changed);
    const Result<void> movable = make_movable(*file->second, to.place, false);
    if (!movable && movable.error().code != Code::tree_not_private) return movable;
    extracted = extracted || !movable;
  }
  if (extracted) return fail(Code::tree_not_private, 0, "globalize");
  std::map<uint64_t, uint64_t> numbers;  // old, new
  for (const auto& [group, names] : work.groups) {
    Inode& file = *work.files.at(group);
    to.entry = numbers[group] = entries_.next();
    // Not what is in core: somebody may have written the record and not yet said so there.
    const InodeRecord record = CAW_TRY(read_inode_record(CAW_TRY(topology_.record(file))));
    CAW_TRY(move_records(batch, file, record.fields, to));
    for (const LinkedName& name : names) {
      const auto directory = work.directories.find(name.route);
      if (directory == work.directories.end()) return changed_meanwhile(work.changed);
      const Spot spot{name.place.tree, record_key(name.place.path, name.entry)};
      const std::optional<Value> value = CAW_TRY(forest_.get(spot.tree, spot.key));
      if (!value) return fail(Code::record_malformed, name.entry, "link name is missing");
      const LinkName old = CAW_TRY(decode_link_name(CAW_TRY(read_record(forest_, *value))));
      put_linked_name(batch, CAW_TRY(topology_.body(*directory->second)), old.name,
                      {name.entry, file.type(), LinkScope::global, to.entry});
    }
    if (batch.ops.size() > kMaxOpsAtOnce) return too_many(batch.ops.size());
  }
  // Within the domain there are marks already, above it perhaps not.
  CAW_TRY(put_marks(batch, *work.top));
  has_globals_ = true;
  const auto drop_aliases = [&](size_t count) {
    for (const auto& [group, number] : numbers) {
      if (count-- == 0) return;
      table_.drop_alias(*work.files.at(group), *globals_, number);
    }
  };
  size_t added = 0;
  for (const auto& [group, number] : numbers) {
    if (!table_.add_alias(*work.files.at(group), *globals_, number)) {
      drop_aliases(added);
      return fail(Code::record_malformed, number, "entry number in use");
    }
    ++added;
  }
  const Result<void> applied = forest_.apply(batch);
  if (!applied) {
    drop_aliases(added);
    return applied;
  }
  for (const auto& [group, number] : numbers) {
    table_.rekey(*work.files.at(group), *globals_, number, true);
  }
  topology_.moved();
  return {};
}

Result<bool> FileSystemImpl::needs_globalize(const Inode& directory, const Inode& from,
                                             const Inode& to) {
  if (!topology_.has_links() || is_top(directory) || top_of(from) == top_of(to)) return false;
  return has_links_of(forest_, CAW_TRY(topology_.body(directory)), LinkScope::local);
}

// ---- removal of whole trees

/// Takes the linked names at and below `directory`, which goes, off the link counts.
Result<void> FileSystemImpl::drop_names_below(Batch& batch, Inode& directory,
                                              TreeRemoval& removal) {
  removal.gone.clear();
  if (!topology_.has_links()) return {};
  std::map<uint64_t, uint32_t> local;
  std::map<uint64_t, uint32_t> global;
  size_t names = 0;
  const bool local_too = !is_top(directory);
  const auto count = [&](const LinkedName& name) -> Result<void> {
    if (name.link.scope == LinkScope::local) {
      if (!local_too) return {};
      ++local[name.link.group];
    } else {
      ++global[name.link.group];
    }
    if (++names > kMaxNamesAtOnce) return fail(Code::too_many_links, names, "remove_tree");
    return {};
  };
  if (local_too || has_globals_) {
    const Place place = CAW_TRY(topology_.body(directory));
    CAW_TRY(scan_links(forest_, place, has_globals_, count));
  }
  if (!local.empty() &&
      (!removal.links || removal.links->parent != top_of(*directory.parent))) {
    return changed_meanwhile(removal.changed);
  }
  for (const auto& [group, n] : local) {
    CAW_TRY(drop_group(batch, *removal.links, group, n, removal));
  }
  for (const auto& [group, n] : global) CAW_TRY(drop_group(batch, *globals_, group, n, removal));
  return {};
}

Result<void> FileSystemImpl::drop_group(Batch& batch, Inode& links, uint64_t group, uint32_t names,
                                        TreeRemoval& removal) {
  const Place body = CAW_TRY(topology_.body(links));
  const std::string key = record_key(body.path, group);
  const std::optional<Value> value = CAW_TRY(forest_.get(body.tree, key));
  if (!value) return {};  // damage; what is to go has lost it already
  const InodeRecord record = CAW_TRY(decode_inode(CAW_TRY(read_record(forest_, *value))));
  TreeRemoval::Gone gone;
  gone.inode = Hold(table_, table_.find(links, group));
  if (record.fields.nlink > names) {
    gone.nlink = record.fields.nlink - names;
    batch.patch(body.tree, key, links_patch(gone.nlink, removal.ctime));
  } else if (!gone.inode) {
    batch.erase(body.tree, key, value->tree == kNoNode ? kInodeFixedBytes : kManyDeadBytes);
    if ((record.fields.flags & kInodeXattrs) != 0) {
      const std::string xattrs = xattr_prefix(body.path, group);
      batch.erase_range(body.tree, xattrs, after_prefix(xattrs), kInodeFixedBytes);
    }
    if (record.fields.is_regular() && value->tree == kNoNode) {
      erase_chunks(batch, {body.tree, chunk_prefix(body.path, group)}, 0, record.fields.size);
    }
  } else if (open_files_.is_open(*gone.inode)) {
    gone.orphan_entry = entries_.next();
    CAW_TRY(move_to_orphans(batch, *gone.inode, gone.orphan_entry));
  } else {
    CAW_TRY(erase_records(batch, *gone.inode));
  }
  if (gone.inode) removal.gone.push_back(std::move(gone));
  return {};
}

/// After the batch was applied.
void FileSystemImpl::finish_removal(TreeRemoval& removal) {
  for (const TreeRemoval::Gone& gone : removal.gone) {
    if (gone.nlink != 0) {
      gone.inode->set_links(gone.nlink, removal.ctime);
    } else if (gone.orphan_entry != 0) {
      mark_orphan(*gone.inode, gone.orphan_entry);
    } else {
      mark_removed(*gone.inode);
      continue;
    }
    removal.stale.push_back(reinterpret_cast<uint64_t>(gone.inode.get()));
  }
}

}  // namespace caw
