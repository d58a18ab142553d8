// FileSystemImpl: lookup, create, unlink, rmdir, readlink, opening files.
#include <utility>

#include "fs/file_system_impl.h"
#include "fs/values.h"

namespace caw {

Result<Entry> FileSystemImpl::lookup(Inode& parent, std::string_view name) {
  return entry_of(CAW_TRY(find_child(parent, name)));
}

Result<Entry> FileSystemImpl::create(Inode& parent, std::string_view name, uint32_t mode,
                                     uint32_t rdev, const Caller& caller) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFIFO:
    case S_IFSOCK:
      return make_entry(parent, {name, mode, 0, {}}, caller);
    case S_IFCHR:
    case S_IFBLK:
      return make_entry(parent, {name, mode, rdev, {}}, caller);
    case 0:
      return make_entry(parent, {name, mode | S_IFREG, 0, {}}, caller);
    default:
      return fail(Code::invalid_argument, mode, "create");
  }
}

Result<Entry> FileSystemImpl::mkdir(Inode& parent, std::string_view name, uint32_t mode,
                                    const Caller& caller) {
  return make_entry(parent, {name, (mode & 07777U) | S_IFDIR, 0, {}}, caller);
}

Result<Entry> FileSystemImpl::symlink(Inode& parent, std::string_view name, std::string_view target,
                                      const Caller& caller) {
  if (target.size() > kMaxTargetBytes) return fail(Code::name_too_long, target.size(), "symlink");
  if (target.empty() || target.find('\0') != target.npos) {
    return fail(Code::not_found, 0, "symlink");
  }
  return make_entry(parent, {name, S_IFLNK | 0777, 0, target}, caller);
}

Result<Entry> FileSystemImpl::make_entry(Inode& parent, const NewEntry& what,
                                         const Caller& caller) {
  CAW_TRY(begin_change());
  CAW_TRY(check_new_name(what.name));
  if (!parent.is_directory()) return fail(Code::not_a_directory, parent.number, "create");
  InodeLocks::Held held(locks_, {&parent});
  const InodeFields parent_fields = touched(parent);
  const uint64_t entry = entries_.next();
  InodeRecord record;
  record.number = files_.next();
  record.name = what.name;
  record.target = what.target;
  InodeFields& fields = record.fields;
  fields.mode = what.mode & (S_IFMT | 07777U);
  inherit_owner(parent_fields, caller, fields);
  const InodeFields asked = fields;
  fields.rdev = what.rdev;
  fields.size = what.target.size();
  fields.mtime = fields.ctime = fields.atime = fields.btime = parent_fields.mtime;
  fields.content_seq = fields.attribute_seq = parent_fields.content_seq;
  NodeId tree = kNoNode;
  const uint32_t evictions = parent.evictions();
  CAW_TRY(topology_.mutate({contents_of(parent)}, {}, [&](Batch& batch) -> Result<void> {
    const Place place = CAW_TRY(topology_.body(parent));
    if (parent.is_orphan()) return fail(Code::not_found, 0, "create");
    if (CAW_TRY(find_dirent(place, what.name))) return fail(Code::exists, 0, "create");
    fields.mode = asked.mode;
    fields.flags = asked.flags;
    CAW_TRY(inherit_attributes(batch, parent, caller,
                               {place.tree, xattr_prefix(place.path, entry)}, fields));
    tree = kNoNode;
    if (fields.is_directory() && body_path(place.path, entry).size() > kMaxPathBytes) {
      tree = forest_.new_tree_id();
      batch.create_tree(tree);
    }
    batch.put(place.tree, dirent_key(place.path, what.name),
              inline_value(encode_dirent({entry, fields.mode & S_IFMT})));
    batch.put(place.tree, record_key(place.path, entry), inline_value(encode_inode(record), tree));
    CAW_TRY(put_content(batch, parent, parent_fields));
    return forest_.apply(batch);
  }));
  parent.store_fields(parent_fields);
  return adopt_new(parent, entry, record, tree, evictions);
}

void FileSystemImpl::inherit_owner(const InodeFields& parent, const Caller& caller,
                                   InodeFields& fields) {
  fields.uid = caller.uid;
  fields.gid = caller.gid;
  if ((parent.mode & S_ISGID) == 0) return;
  fields.gid = parent.gid;
  if (fields.is_directory()) fields.mode |= S_ISGID;
}

/// An orphan from the start.
Result<Entry> FileSystemImpl::create_unnamed(Inode& parent, uint32_t mode, const Caller& caller) {
  CAW_TRY(begin_change());
  if (!parent.is_directory()) return fail(Code::not_a_directory, parent.number, "create_unnamed");
  const uint64_t entry = entries_.next();
  InodeRecord record;
  record.number = files_.next();
  InodeFields& fields = record.fields;
  const uint32_t asked = S_IFREG | (mode & 07777U);
  fields.mode = asked;
  inherit_owner(parent.load_fields(), caller, fields);
  fields.mtime = fields.ctime = fields.atime = fields.btime = now();
  fields.content_seq = fields.attribute_seq = next_stamp();
  const uint32_t evictions = orphans_->evictions();
  CAW_TRY(topology_.mutate({}, {}, [&](Batch& batch) -> Result<void> {
    const Place place = CAW_TRY(topology_.body(*orphans_));
    fields.mode = asked;
    fields.flags = 0;
    CAW_TRY(inherit_attributes(batch, parent, caller,
                               {place.tree, xattr_prefix(place.path, entry)}, fields));
    batch.put(place.tree, record_key(place.path, entry), inline_value(encode_inode(record)));
    return forest_.apply(batch);
  }));
  Hold hold = CAW_TRY(adopt(*orphans_, entry, record, kNoNode, evictions));
  if (!hold) hold = CAW_TRY(load(*orphans_, entry));
  if (!hold) return fail(Code::not_found, entry, "create_unnamed");
  hold->set_orphan();
  return entry_of(std::move(hold));
}

Result<std::string> FileSystemImpl::readlink(Inode& inode) {
  if (!S_ISLNK(inode.type())) return fail(Code::invalid_argument, inode.number, "readlink");
  InodeRecord record =
      CAW_TRY(topology_.read([&] { return topology_.record(inode); },
                             [&](const Spot& spot) -> Result<InodeRecord> {
                               const std::optional<Value> value =
                                   CAW_TRY(forest_.get(spot.tree, spot.key));
                               if (!value) return fail(Code::stale_inode, inode.number, "readlink");
                               return decode_inode(CAW_TRY(read_record(forest_, *value)));
                             }));
  return std::move(record.target);
}

Result<std::optional<Dirent>> FileSystemImpl::check_still(const Inode& parent,
                                                          std::string_view name,
                                                          const Inode* child, bool& changed) {
  const std::optional<Dirent> dirent = CAW_TRY(find_dirent(CAW_TRY(topology_.body(parent)), name));
  if (dirent.has_value() == (child != nullptr) &&
      (!dirent || leads_to(parent, *dirent, *child))) {
    return dirent;
  }
  changed = true;
  return fail(Code::not_found, 0, "changed meanwhile");
}

Result<void> FileSystemImpl::check_empty(const Inode& directory) {
  const Place place = CAW_TRY(topology_.body(directory));
  const auto cursor =
      forest_.scan(place.tree, record_key(place.path, kFirstEntry), records_end(place.path));
  if (CAW_TRY(cursor->next())) return fail(Code::not_empty, directory.number, "rmdir");
  return {};
}

Result<void> FileSystemImpl::drop_name(Batch& batch, const Place& place, std::string_view name,
                                       const NameDrop& drop) {
  if (drop.dirent.is_linked()) {
    erase_linked_name(batch, place, name, drop.dirent.entry);
  } else {
    batch.erase(place.tree, dirent_key(place.path, name), 0);
  }
  if (!drop.is_last()) return put_links(batch, drop.child, drop.child.nlink() - 1, drop.ctime);
  if (drop.open) return move_to_orphans(batch, drop.child, drop.orphan_entry);
  return erase_records(batch, drop.child);
}

void FileSystemImpl::finish_drop(const NameDrop& drop) {
  if (!drop.is_last()) {
    drop.child.set_links(drop.child.nlink() - 1, drop.ctime);
  } else if (drop.open) {
    mark_orphan(drop.child, drop.orphan_entry);
  } else {
    mark_removed(drop.child);
  }
}

Result<void> FileSystemImpl::unlink(Inode& parent, std::string_view name) {
  return remove_entry(parent, name, false);
}

Result<void> FileSystemImpl::rmdir(Inode& parent, std::string_view name) {
  if (name == ".") return fail(Code::invalid_argument, 0, "rmdir");
  if (name == "..") return fail(Code::not_empty, 0, "rmdir");
  return remove_entry(parent, name, true);
}

Result<void> FileSystemImpl::remove_entry(Inode& parent, std::string_view name, bool directory) {
  CAW_TRY(begin_change());
  while (true) {
    const Hold child = CAW_TRY(find_child(parent, name));
    if (child->is_directory() != directory) {
      return fail(directory ? Code::not_a_directory : Code::is_a_directory, 0, "unlink");
    }
    InodeLocks::Held held(locks_, {&parent, child.get()});
    const bool open = open_files_.is_open(*child);
    const InodeFields parent_fields = touched(parent);
    const uint64_t orphan_entry = open ? entries_.next() : 0;
    bool changed = false;
    const Result<void> done =
        topology_.mutate({contents_of(parent), record_of(*child)},
                         {.exclusive = open, .essential = true},
                         [&](Batch& batch) -> Result<void> {
                           const NameDrop drop{
                               *child, *CAW_TRY(check_still(parent, name, child.get(), changed)),
                               open, orphan_entry, parent_fields.ctime};
                           if (directory) CAW_TRY(check_empty(*child));
                           const Place place = CAW_TRY(topology_.body(parent));
                           CAW_TRY(drop_name(batch, place, name, drop));
                           CAW_TRY(put_content(batch, parent, parent_fields));
                           CAW_TRY(forest_.apply(batch));
                           finish_drop(drop);
                           return {};
                         });
    if (changed || is_gone(done, *child)) continue;
    if (done) parent.store_fields(parent_fields);
    return done;
  }
}

Result<void> FileSystemImpl::open_file(Inode& inode, OpenFor what, bool truncate,
                                       bool drop_privileges) {
  if (what != OpenFor::reading || truncate) CAW_TRY(check_writable());
  if (truncate && inode.is_regular()) {
    SetAttributes set;
    set.size = 0;
    set.drop_privileges = drop_privileges;
    CAW_TRY(setattr(inode, set, {}));
  }
  InodeLocks::Held held(locks_, {&inode});
  Gate::Shared shared(topology_.gate());
  CAW_TRY(topology_.data(inode));  // fails if it was removed
  table_.ref(inode);
  open_files_.add(inode, what == OpenFor::mapping);
  return {};
}

void FileSystemImpl::release_file(Inode& inode, OpenFor what) {
  if (open_files_.drop(inode, what == OpenFor::mapping)) reap_orphan(inode);
  table_.unref(inode);
}

bool FileSystemImpl::is_gone(const Result<void>& done, const Inode& child) {
  return !done && done.error().code == Code::stale_inode && child.is_removed();
}

}  // namespace caw
