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
  return has_links_of(forest_, CAW_TRY(topology_.body(source)), LinkScope::global);
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
  FileSystemImpl& fs;
  const Inode& source;
  const InodeRecord& record;
  const Destination& to;
  uint64_t aside = 0;  ///< entry of the clone among the orphans
  std::map<Route, std::vector<LinkedName>> names_in{};  ///< by directory
  size_t names = 0;
  std::map<uint64_t, Group> groups{};
  std::map<Route, std::unique_ptr<Inode>> directories{};  ///< of the clone, nobody else's
  bool changed = false;

  Result<void> find();
  Result<void> clone_aside();
  Result<void> clone_file_aside(Group& copy);
  Result<void> open_directories();
  Result<void> lead_names(const Route& route, const Inode& directory, Batch& batch);
  Result<void> hang(const InodeFields& parent_fields, Batch& batch);
  void drop_aside();
};

Result<NodeId> FileSystemImpl::clone_with_globals(const Inode& source, const InodeRecord& record,
                                                  const Destination& to,
                                                  const InodeFields& parent_fields) {
  constexpr int kMostTries = 100;
  for (int tries = 0; tries < kMostTries; ++tries) {
    GlobalClone work{*this, source, record, to, entries_.next()};
    {
      Gate::Shared shared(topology_.gate());
      CAW_TRY(work.find());
    }
    for (auto& [group, copy] : work.groups) copy.source = CAW_TRY(load(*globals_, group));
    Result<void> done = topology_.mutate(
        {}, {.exclusive = true}, [&](Batch&) -> Result<void> { return work.clone_aside(); });
    if (done) done = work.open_directories();
    for (auto at = work.directories.begin(); done && at != work.directories.end(); ++at) {
      done = topology_.mutate({contents_of(*at->second)}, {.exclusive = true}, [&](Batch& batch) {
        return work.lead_names(at->first, *at->second, batch);
      });
    }
    if (done) {
      done = topology_.mutate(
          {contents_of(*to.parent)}, {},
          [&](Batch& batch) { return work.hang(parent_fields, batch); });
    }
    if (done) return work.directories.at({})->tree()->root();
    work.drop_aside();
    if (!work.changed) return std::unexpected<Error>(done.error());
  }
  return fail(Code::stale_inode, source.number, "clone");
}

Result<void> FileSystemImpl::GlobalClone::find() {
  names_in.clear();
  names = 0;
  for (auto& [group, copy] : groups) copy.names = 0;
  const Place place = CAW_TRY(fs.topology_.body(source));
  return scan_links(fs.forest_, place, true, [&](const LinkedName& name) -> Result<void> {
    if (name.link.scope != LinkScope::global) return {};
    names_in[name.route].push_back(name);
    ++groups[name.link.group].names;
    if (++names <= kMaxNamesAtOnce) return {};
    return fail(Code::too_many_links, names, "clone");
  });
}

/// One instant for the clone and for the files linked into it.
Result<void> FileSystemImpl::GlobalClone::clone_aside() {
  CAW_TRY(fs.topology_.record(source));  // fails if it was removed
  CAW_TRY(find());
  for (const auto& [group, copy] : groups) {
    if (copy.names == 0 || (copy.source && copy.source->parent == fs.globals_.get())) continue;
    changed = true;
    return fail(Code::not_found, group, "clone");
  }
  Destination at = to;
  at.place = CAW_TRY(fs.topology_.body(*fs.orphans_));
  at.entry = aside;
  Batch batch;
  batch.generation = fs.forest_.share_generation();
  const NodeId tree = CAW_TRY(fs.clone_contents(batch, source, record, at));
  directories[{}] = fs.make_fixed_inode(fs.orphans_.get(), aside, fs.forest_.open_tree(tree));
  for (auto& [group, copy] : groups) {
    if (copy.names != 0) CAW_TRY(clone_file_aside(copy));
  }
  return {};
}

Result<void> FileSystemImpl::GlobalClone::clone_file_aside(Group& copy) {
  const Inode& file = *copy.source;
  InodeRecord made = CAW_TRY(fs.read_inode_record(CAW_TRY(fs.topology_.record(file))));
  made.fields.nlink = copy.names;
  made.number = fs.files_.next();
  made.home = made.domain = 0;
  copy.aside = fs.entries_.next();
  copy.number = fs.entries_.next();
  Destination at;
  at.place = CAW_TRY(fs.topology_.body(*fs.orphans_));
  at.entry = copy.aside;
  Batch batch;
  batch.generation = fs.forest_.share_generation();
  if (file.is_regular()) {
    CAW_TRY(fs.clone_contents(batch, file, made, at));
    return {};
  }
  batch.put(at.place.tree, record_key(at.place.path, at.entry),
            inline_value(encode_inode(made)));
  CAW_TRY(fs.copy_xattrs(batch, file, {at.place.tree, xattr_prefix(at.place.path, at.entry)},
                         false));
  return fs.forest_.apply(batch);
}

/// Inodes for those directories of the clone whose names change, and for those above them.
Result<void> FileSystemImpl::GlobalClone::open_directories() {
  Gate::Shared shared(fs.topology_.gate());
  for (const auto& [below, there_named] : names_in) {
    Route route;
    Inode* at = directories.at({}).get();
    for (const uint64_t entry : below) {
      route.push_back(entry);
      std::unique_ptr<Inode>& there = directories[route];
      if (!there) {
        const Place place = CAW_TRY(fs.topology_.body(*at));
        const std::optional<Value> value =
            CAW_TRY(fs.forest_.get(place.tree, record_key(place.path, entry)));
        if (!value) return fail(Code::record_malformed, entry, "links index");
        there = fs.make_fixed_inode(
            at, entry, value->tree == kNoNode ? TreeRef() : fs.forest_.open_tree(value->tree));
      }
      at = there.get();
    }
  }
  return {};
}

/// Leads the names in the clone, which nobody sees yet, to the new files.
Result<void> FileSystemImpl::GlobalClone::lead_names(const Route& route,
                                                     const Inode& directory, Batch& batch) {
  const Place place = CAW_TRY(fs.topology_.body(directory));
  const auto found = names_in.find(route);
  if (found == names_in.end()) return {};
  for (const LinkedName& name : found->second) {
    const std::optional<Value> value =
        CAW_TRY(fs.forest_.get(place.tree, record_key(place.path, name.entry)));
    if (!value) return fail(Code::record_malformed, name.entry, "link name is missing");
    const LinkName old = CAW_TRY(decode_link_name(CAW_TRY(read_record(fs.forest_, *value))));
    put_linked_name(
        batch, place, old.name,
        {name.entry, old.type, LinkScope::global, groups.at(name.link.group).number});
  }
  return fs.forest_.apply(batch);
}

/// The clone gets its name, and the files linked into it the places that its names lead to.
Result<void> FileSystemImpl::GlobalClone::hang(const InodeFields& parent_fields,
                                               Batch& batch) {
  const Place place = CAW_TRY(fs.topology_.body(*to.parent));
  if (to.parent->is_orphan()) return fail(Code::not_found, 0, "clone");
  if (CAW_TRY(fs.find_dirent(place, to.name))) return fail(Code::exists, 0, "clone");
  const Place orphans = CAW_TRY(fs.topology_.body(*fs.orphans_));
  const Place globals = CAW_TRY(fs.topology_.body(*fs.globals_));
  const NodeId tree = directories.at({})->tree()->root();
  batch.put(place.tree, dirent_key(place.path, to.name),
            inline_value(encode_dirent({to.entry, S_IFDIR})));
  batch.put(place.tree, record_key(place.path, to.entry),
            inline_value(encode_inode(record), tree));
  batch.erase(orphans.tree, record_key(orphans.path, aside), 0);
  const auto move_xattrs = [&](uint64_t from, const Place& there, uint64_t entry) {
    return fs.copy_range(batch, {orphans.tree, xattr_prefix(orphans.path, from)},
                         {there.tree, xattr_prefix(there.path, entry)}, true);
  };
  CAW_TRY(move_xattrs(aside, place, to.entry));
  batch.put(place.tree, link_key(place.path, to.entry), inline_value(encode_link_entry({})));
  CAW_TRY(fs.put_marks(batch, *to.parent));
  for (const auto& [group, copy] : groups) {
    if (copy.names == 0) continue;
    const std::string key = record_key(orphans.path, copy.aside);
    const std::optional<Value> value = CAW_TRY(fs.forest_.get(orphans.tree, key));
    if (!value) return fail(Code::record_malformed, group, "clone of a linked file");
    batch.put(globals.tree, record_key(globals.path, copy.number), *value);
    batch.erase(orphans.tree, key, 0);
    CAW_TRY(move_xattrs(copy.aside, globals, copy.number));
    CAW_TRY(fs.copy_range(batch, {orphans.tree, chunk_prefix(orphans.path, copy.aside)},
                          {globals.tree, chunk_prefix(globals.path, copy.number)}, true));
  }
  CAW_TRY(fs.put_content(batch, *to.parent, parent_fields));
  return fs.forest_.apply(batch);
}

/// What was made aside goes, if it is there.
void FileSystemImpl::GlobalClone::drop_aside() {
  const auto attempt = [&](Batch& batch) -> Result<void> {
    const Place place = CAW_TRY(fs.topology_.body(*fs.orphans_));
    const auto erase_xattrs = [&](uint64_t entry) {
      const std::string xattrs = xattr_prefix(place.path, entry);
      batch.erase_range(place.tree, xattrs, after_prefix(xattrs), 0);
    };
    batch.erase(place.tree, record_key(place.path, aside), kManyDeadBytes);
    erase_xattrs(aside);
    for (const auto& [group, copy] : groups) {
      if (copy.aside == 0) continue;
      batch.erase(place.tree, record_key(place.path, copy.aside), kInodeFixedBytes);
      erase_xattrs(copy.aside);
      const std::string data = chunk_prefix(place.path, copy.aside);
      batch.erase_range(place.tree, data, after_prefix(data), kManyDeadBytes);
    }
    return fs.forest_.apply(batch);
  };
  ignore_error(fs.topology_.mutate({}, {.essential = true}, attempt),
               "the orphans are dropped when the volume is opened again");
}

}  // namespace caw
