// FileSystemImpl: what a clone does about linked files.
//
// Those local to a top go along with it.  A clone of another directory shares the links directory
// of its domain, and counts its names when they are first looked at (link_names.cc).  Of files
// linked globally it gets new ones, here, one by one: it is made among the orphans, its names are
// led to the new files there, and then both come to their places at once.
#include <utility>

#include "fs/file_system_impl.h"
#include "fs/links.h"
#include "fs/values.h"

namespace caw {

namespace {

constexpr size_t kMaxNamesAtOnce = 20'000;

}  // namespace

Result<void> FileSystemImpl::share_links(Batch& batch, const Inode& source, uint64_t domain,
                                         NodeId id) {
  if (is_top(source)) return {};
  const Inode* const top = top_of(source);
  if (top == nullptr || !CAW_TRY(has_links(forest_, CAW_TRY(topology_.body(source))))) return {};
  const Place place = CAW_TRY(topology_.body(*top));
  const std::optional<Value> value =
      CAW_TRY(forest_.get(place.tree, record_key(place.path, kLinksEntry)));
  if (!value) return {};  // linked globally
  InodeRecord record = CAW_TRY(decode_inode(CAW_TRY(read_record(forest_, *value))));
  record.fields.flags |= kInodeUncounted;
  // Numbers that differed in the source by their domains still have to.
  const uint64_t links_domain =
      CAW_TRY(numbers_.domain_of(top->domain, record.home, record.domain));
  const bool inherits = links_domain == source.domain;
  record.home = inherits ? 0 : domain;
  record.domain = inherits ? 0 : numbers_.new_domain();
  batch.put(forest_.open_tree(id), record_key({}, kLinksEntry),
            inline_value(encode_inode(record), value->tree));
  return {};
}

Result<bool> FileSystemImpl::holds_globals(const Inode& source) {
  bool any = false;
  const Place place = CAW_TRY(topology_.body(source));
  CAW_TRY(scan_links(forest_, place, true, [&](const LinkedName& name) -> Result<void> {
    any = any || name.link.scope == LinkScope::global;
    return {};
  }));
  return any;
}

/// A clone with names of global files in it, on its way.
struct FileSystemImpl::GlobalClone {
  using Route = std::vector<uint64_t>;
  /// A new file for one in the source.
  struct Group {
    Hold source;
    uint32_t names = 0;
    uint64_t aside = 0;   ///< entry among the orphans
    uint64_t number = 0;  ///< entry of the new one
  };
  const Inode& source;
  const InodeRecord& record;
  const Destination& to;
  uint64_t aside = 0;  ///< entry of the clone among the orphans
  std::map<Route, std::vector<LinkedName>> names_in{};  ///< by directory
  size_t names = 0;
  std::map<uint64_t, Group> groups{};
  std::map<Route, std::unique_ptr<Inode>> directories{};  ///< of the clone, nobody else's
  bool changed = false;
};

Result<NodeId> FileSystemImpl::clone_with_globals(const Inode& source, const InodeRecord& record,
                                                  const Destination& to,
                                                  const InodeFields& parent_fields) {
  constexpr int kMostTries = 100;
  for (int tries = 0; tries < kMostTries; ++tries) {
    GlobalClone work{source, record, to, entries_.next()};
    {
      Gate::Shared shared(topology_.gate());
      CAW_TRY(find_globals(work));
    }
    for (auto& [group, copy] : work.groups) copy.source = CAW_TRY(load(*globals_, group));
    Result<void> done = topology_.mutate(
        {}, {.exclusive = true}, [&](Batch&) -> Result<void> { return clone_aside(work); });
    if (done) done = open_directories(work);
    for (auto at = work.directories.begin(); done && at != work.directories.end(); ++at) {
      done = topology_.mutate({contents_of(*at->second)}, {.exclusive = true}, [&](Batch& batch) {
        return name_globals(work, at->first, *at->second, batch);
      });
    }
    if (done) {
      done = topology_.mutate(
          {contents_of(*to.parent)}, {},
          [&](Batch& batch) { return hang_globals(work, parent_fields, batch); });
    }
    if (done) return work.directories.at({})->tree()->root();
    drop_aside(work);
    if (!work.changed) return std::unexpected<Error>(done.error());
  }
  return fail(Code::stale_inode, source.number, "clone");
}

Result<void> FileSystemImpl::find_globals(GlobalClone& work) {
  work.names_in.clear();
  work.names = 0;
  for (auto& [group, copy] : work.groups) copy.names = 0;
  const Place place = CAW_TRY(topology_.body(work.source));
  return scan_links(forest_, place, true, [&](const LinkedName& name) -> Result<void> {
    if (name.link.scope != LinkScope::global) return {};
    work.names_in[name.route].push_back(name);
    ++work.groups[name.link.group].names;
    if (++work.names <= kMaxNamesAtOnce) return {};
    return fail(Code::too_many_linked, work.names, "clone");
  });
}

/// One instant for the clone and for the files linked into it.
Result<void> FileSystemImpl::clone_aside(GlobalClone& work) {
  CAW_TRY(topology_.record(work.source));  // fails if it was removed
  CAW_TRY(find_globals(work));
  for (const auto& [group, copy] : work.groups) {
    if (copy.names == 0 || (copy.source && copy.source->parent == globals_.get())) continue;
    work.changed = true;
    return fail(Code::not_found, group, "clone");
  }
  Destination aside = work.to;
  aside.place = CAW_TRY(topology_.body(*orphans_));
  aside.entry = work.aside;
  Batch batch;
  batch.generation = forest_.share_generation();
  const NodeId tree = CAW_TRY(clone_contents(batch, work.source, work.record, aside));
  work.directories[{}] = make_fixed_inode(orphans_.get(), work.aside, forest_.open_tree(tree));
  for (const auto& [group, copy] : work.groups) {
    if (copy.names != 0) CAW_TRY(clone_group_aside(work, group, *copy.source));
  }
  return {};
}

Result<void> FileSystemImpl::clone_group_aside(GlobalClone& work, uint64_t group,
                                               const Inode& file) {
  InodeRecord record = CAW_TRY(read_inode_record(CAW_TRY(topology_.record(file))));
  GlobalClone::Group& copy = work.groups.at(group);
  record.fields.nlink = copy.names;
  record.number = files_.next();
  record.home = record.domain = 0;
  copy.aside = entries_.next();
  copy.number = entries_.next();
  Destination aside;
  aside.place = CAW_TRY(topology_.body(*orphans_));
  aside.entry = copy.aside;
  Batch batch;
  batch.generation = forest_.share_generation();
  if (file.is_regular()) {
    CAW_TRY(clone_contents(batch, file, record, aside));
    return {};
  }
  batch.put(aside.place.tree, record_key(aside.place.path, aside.entry),
            inline_value(encode_inode(record)));
  return forest_.apply(batch);
}

/// Inodes for those directories of the clone whose names change, and for those above them.
Result<void> FileSystemImpl::open_directories(GlobalClone& work) {
  Gate::Shared shared(topology_.gate());
  for (const auto& [below, names] : work.names_in) {
    GlobalClone::Route route;
    Inode* at = work.directories.at({}).get();
    for (const uint64_t entry : below) {
      route.push_back(entry);
      std::unique_ptr<Inode>& there = work.directories[route];
      if (!there) {
        const Place place = CAW_TRY(topology_.body(*at));
        const std::optional<Value> value =
            CAW_TRY(forest_.get(place.tree, record_key(place.path, entry)));
        if (!value) return fail(Code::record_malformed, entry, "links index");
        there = make_fixed_inode(
            at, entry, value->tree == kNoNode ? TreeRef() : forest_.open_tree(value->tree));
      }
      at = there.get();
    }
  }
  return {};
}

/// Leads the names in the clone, which nobody sees yet, to the new files.
Result<void> FileSystemImpl::name_globals(const GlobalClone& work,
                                          const std::vector<uint64_t>& route,
                                          const Inode& directory, Batch& batch) {
  const Place place = CAW_TRY(topology_.body(directory));
  const auto names = work.names_in.find(route);
  if (names == work.names_in.end()) return {};
  for (const LinkedName& name : names->second) {
    const std::optional<Value> value =
        CAW_TRY(forest_.get(place.tree, record_key(place.path, name.entry)));
    if (!value) return fail(Code::record_malformed, name.entry, "link name is missing");
    const LinkName old = CAW_TRY(decode_link_name(CAW_TRY(read_record(forest_, *value))));
    put_linked_name(
        batch, place, old.name,
        {name.entry, old.type, LinkScope::global, work.groups.at(name.link.group).number});
  }
  return forest_.apply(batch);
}

/// The clone gets its name, and the files linked into it the places that its names lead to.
Result<void> FileSystemImpl::hang_globals(GlobalClone& work, const InodeFields& parent_fields,
                                          Batch& batch) {
  const Destination& to = work.to;
  const Place place = CAW_TRY(topology_.body(*to.parent));
  if (to.parent->is_orphan()) return fail(Code::not_found, 0, "clone");
  if (CAW_TRY(find_dirent(place, to.name))) return fail(Code::exists, 0, "clone");
  const Place orphans = CAW_TRY(topology_.body(*orphans_));
  const Place globals = CAW_TRY(topology_.body(*globals_));
  const NodeId tree = work.directories.at({})->tree()->root();
  batch.put(place.tree, dirent_key(place.path, to.name),
            inline_value(encode_dirent({to.entry, S_IFDIR})));
  batch.put(place.tree, record_key(place.path, to.entry),
            inline_value(encode_inode(work.record), tree));
  batch.erase(orphans.tree, record_key(orphans.path, work.aside), 0);
  batch.put(place.tree, link_key(place.path, to.entry), inline_value(encode_link_entry({})));
  CAW_TRY(put_marks(batch, *to.parent));
  for (const auto& [group, copy] : work.groups) {
    if (copy.names == 0) continue;
    const std::string key = record_key(orphans.path, copy.aside);
    const std::optional<Value> value = CAW_TRY(forest_.get(orphans.tree, key));
    if (!value) return fail(Code::record_malformed, group, "clone of a linked file");
    batch.put(globals.tree, record_key(globals.path, copy.number), *value);
    batch.erase(orphans.tree, key, 0);
    CAW_TRY(copy_range(batch, {orphans.tree, chunk_prefix(orphans.path, copy.aside)},
                       {globals.tree, chunk_prefix(globals.path, copy.number)}, true));
  }
  CAW_TRY(put_content(batch, *to.parent, parent_fields));
  return forest_.apply(batch);
}

/// What was made aside goes, if it is there.
void FileSystemImpl::drop_aside(const GlobalClone& work) {
  const auto attempt = [&](Batch& batch) -> Result<void> {
    const Place place = CAW_TRY(topology_.body(*orphans_));
    batch.erase(place.tree, record_key(place.path, work.aside), kManyDeadBytes);
    for (const auto& [group, copy] : work.groups) {
      if (copy.aside == 0) continue;
      batch.erase(place.tree, record_key(place.path, copy.aside), kInodeFixedBytes);
      const std::string data = chunk_prefix(place.path, copy.aside);
      batch.erase_range(place.tree, data, after_prefix(data), kManyDeadBytes);
    }
    return forest_.apply(batch);
  };
  ignore_error(topology_.mutate({}, {.essential = true}, attempt),
               "the orphans are dropped when the volume is opened again");
}

}  // namespace caw
