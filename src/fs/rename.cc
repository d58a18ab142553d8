// FileSystemImpl: rename.
//
// Within a directory only dirents and the names in records change.  Into another directory the
// records move to a new entry number; contents follow as moves.cc has it.  A file with other names
// stays where it is, and only the name moves.
#include "base/assert.h"
#include "fs/file_system_impl.h"

namespace caw {

struct FileSystemImpl::Rename {
  Inode& from_parent;
  std::string_view from;
  Inode& to_parent;
  std::string_view to;
  RenameFlags flags;
  Inode* source = nullptr;
  Inode* target = nullptr;             ///< what `to` names before; may be null
  bool target_open = false;            ///< and is to be replaced
  InodeFields from_fields{}, to_fields{};  ///< of the parents, afterwards
  InodeFields source_fields{}, target_fields{};
  uint64_t source_entry = 0, target_entry = 0;  ///< afterwards, if they move
  uint64_t orphan_entry = 0;
  uint64_t whiteout_entry = 0, whiteout_number = 0;
  bool changed = false;  ///< the names lead elsewhere now: look again
  /// Directories with, or files that are, local links to be made global first.
  Inode* source_to_globalize = nullptr;
  Inode* target_to_globalize = nullptr;
  Dirent source_dirent{}, target_dirent{};  ///< before

  bool crosses() const { return &from_parent != &to_parent; }
  Moving forth();
  Moving back();
  NameDrop replaced() const {
    return {*target, target_dirent, target_open, orphan_entry, from_fields.ctime};
  }
};

/// One of the names of a rename; with an exchange there are two.
struct FileSystemImpl::Moving {
  Inode& inode;
  const InodeFields& fields;
  const Dirent& dirent;
  Inode& from_parent;
  std::string_view from;
  Inode& to_parent;
  std::string_view to;
  uint64_t entry = 0;  ///< in another directory

  /// The inode record goes with the name: there is no other name, or none any more.
  bool moves_record() const { return !dirent.is_linked() || inode.nlink() <= 1; }
};

FileSystemImpl::Moving FileSystemImpl::Rename::forth() {
  return {*source, source_fields, source_dirent, from_parent, from, to_parent, to, source_entry};
}

FileSystemImpl::Moving FileSystemImpl::Rename::back() {
  return {*target, target_fields, target_dirent, to_parent, to, from_parent, from, target_entry};
}

Result<void> FileSystemImpl::rename(Inode& from_parent, std::string_view from, Inode& to_parent,
                                    std::string_view to, RenameFlags flags) {
  CAW_TRY(begin_change());
  const bool contradicts = flags.exchange && (flags.no_replace || flags.whiteout);
  if (contradicts) return fail(Code::invalid_argument, 0, "rename");
  if (to.size() > kMaxNameBytes) return fail(Code::name_too_long, to.size(), "rename");
  if (!is_valid_name(from) || !is_valid_name(to)) return fail(Code::invalid_argument, 0, "rename");
  if (!to_parent.is_directory()) return fail(Code::not_a_directory, 0, "rename");
  Hold to_globalize;
  while (true) {
    if (to_globalize) {
      const Inode* const file = to_globalize->is_directory() ? nullptr : to_globalize.get();
      CAW_TRY(globalize(*to_globalize, file));
      to_globalize = Hold();
    }
    const Hold source = CAW_TRY(find_child(from_parent, from));
    Result<Hold> found = find_child(to_parent, to);
    if (!found && found.error().code != Code::not_found) {
      return std::unexpected<Error>(found.error());
    }
    const Hold target = found ? std::move(*found) : Hold();
    if (!target && flags.exchange) return fail(Code::not_found, 0, "rename");
    if (target && flags.no_replace) return fail(Code::exists, 0, "rename");
    if (source.get() == target.get()) return {};
    if (target && !flags.exchange && target->is_directory() != source->is_directory()) {
      return fail(target->is_directory() ? Code::is_a_directory : Code::not_a_directory, 0,
                  "rename");
    }
    InodeLocks::Held held(locks_, {&from_parent, &to_parent, source.get(), target.get()});
    Rename rename{from_parent, from, to_parent, to, flags, source.get(), target.get()};
    if (flags.whiteout) {
      rename.whiteout_entry = entries_.next();
      rename.whiteout_number = files_.next();
    }
    rename.target_open = target && !flags.exchange && open_files_.is_open(*target);
    rename.from_fields = touched(from_parent);
    rename.to_fields = touched(to_parent);
    rename.source_fields = source->load_fields();
    rename.source_fields.ctime = rename.from_fields.ctime;
    rename.source_entry = entries_.next();
    if (target) {
      rename.target_fields = target->load_fields();
      rename.target_fields.ctime = rename.from_fields.ctime;
      rename.target_entry = rename.orphan_entry = entries_.next();
    }
    std::vector<Written> writes{contents_of(from_parent), contents_of(to_parent),
                                record_of(*source)};
    if (target) writes.push_back(record_of(*target));
    const Result<void> done =
        topology_.mutate(writes, {.exclusive = rename.crosses() || rename.target_open},
                         [&](Batch& batch) { return try_rename(rename, batch); });
    Inode* const local =
        rename.source_to_globalize ? rename.source_to_globalize : rename.target_to_globalize;
    if (local != nullptr) {
      table_.ref(*local);
      to_globalize = Hold(table_, local);
      continue;
    }
    if (rename.changed || is_gone(done, *source) || (target && is_gone(done, *target))) continue;
    return done;
  }
}

Result<void> FileSystemImpl::try_rename(Rename& rename, Batch& batch) {
  if (is_in_orphan(rename.to_parent)) return fail(Code::not_found, 0, "rename");
  rename.source_dirent =
      *CAW_TRY(check_still(rename.from_parent, rename.from, rename.source, rename.changed));
  rename.target_dirent =
      CAW_TRY(check_still(rename.to_parent, rename.to, rename.target, rename.changed))
          .value_or(Dirent{});
  if (rename.crosses() && topology_.is_within(rename.to_parent, *rename.source)) {
    return fail(Code::rename_into_self, 0, "rename");
  }
  if (rename.crosses() && rename.flags.exchange &&
      topology_.is_within(rename.from_parent, *rename.target)) {
    return fail(Code::rename_into_self, 0, "rename");
  }
  if (rename.crosses()) {
    CAW_TRY(check_domain(rename, rename.forth(), rename.source_to_globalize));
    if (rename.flags.exchange) {
      CAW_TRY(check_domain(rename, rename.back(), rename.target_to_globalize));
    }
  }
  if (rename.target != nullptr && !rename.flags.exchange) {
    CAW_TRY(remove_replaced(rename, batch));
  }
  return rename.crosses() ? rename_across(rename, batch) : rename_within(rename, batch);
}

/// What is linked within a domain cannot leave it; fails and sets `to_globalize` if that is so.
Result<void> FileSystemImpl::check_domain(Rename& rename, const Moving& moving,
                                          Inode*& to_globalize) {
  const Inode& from = moving.from_parent;
  bool leaves = false;
  if (moving.inode.is_directory()) {
    leaves = CAW_TRY(needs_globalize(moving.inode, from, moving.to_parent));
  } else {
    leaves = moving.dirent.scope == LinkScope::local && !moving.moves_record() &&
             top_of(from) != top_of(moving.to_parent);
  }
  if (!leaves) return {};
  if (is_in_orphan(from)) return fail(Code::too_many_linked, 0, "links in a removed tree");
  to_globalize = &moving.inode;
  rename.changed = true;
  return fail(Code::not_found, 0, "local links");
}

Result<void> FileSystemImpl::remove_replaced(Rename& rename, Batch& batch) {
  if (rename.target->is_directory()) CAW_TRY(check_empty(*rename.target));
  const Place place = CAW_TRY(topology_.body(rename.to_parent));
  return drop_name(batch, place, rename.to, rename.replaced());
}

Result<void> FileSystemImpl::put_new_name(Batch& batch, const Inode& inode,
                                          const InodeFields& fields, std::string_view name) {
  const Spot spot = CAW_TRY(topology_.record(inode));
  std::string target;
  if (S_ISLNK(inode.type())) target = CAW_TRY(read_inode_record(spot)).target;
  batch.patch(spot.tree, spot.key, rename_patch(fields, name, target));
  return {};
}

Result<void> FileSystemImpl::put_name_within(Batch& batch, const Moving& moving) {
  const Place place = CAW_TRY(topology_.body(moving.to_parent));
  if (!moving.dirent.is_linked()) {
    batch.put(place.tree, dirent_key(place.path, moving.to),
              inline_value(encode_dirent(moving.dirent)));
    return put_new_name(batch, moving.inode, moving.fields, moving.to);
  }
  put_linked_name(batch, place, moving.to, moving.dirent);
  const Spot spot = CAW_TRY(topology_.record(moving.inode));
  batch.patch(spot.tree, spot.key, attributes_patch(moving.fields));
  return {};
}

Result<void> FileSystemImpl::rename_within(Rename& rename, Batch& batch) {
  const Place place = CAW_TRY(topology_.body(rename.to_parent));
  CAW_TRY(put_name_within(batch, rename.forth()));
  if (rename.flags.exchange) {
    CAW_TRY(put_name_within(batch, rename.back()));
  } else {
    batch.erase(place.tree, dirent_key(place.path, rename.from), 0);
    put_whiteout(batch, place, rename);
  }
  CAW_TRY(put_content(batch, rename.to_parent, rename.to_fields));
  CAW_TRY(forest_.apply(batch));
  finish_rename(rename);
  return {};
}

/// Says to overlayfs that there is nothing of that name; only root may ask for it.
void FileSystemImpl::put_whiteout(Batch& batch, const Place& from, const Rename& rename) {
  if (!rename.flags.whiteout) return;
  InodeRecord record;
  record.number = rename.whiteout_number;
  record.name = rename.from;
  InodeFields& fields = record.fields;
  fields.mode = S_IFCHR;
  fields.mtime = fields.ctime = fields.atime = fields.btime = rename.from_fields.mtime;
  fields.content_seq = fields.attribute_seq = rename.from_fields.content_seq;
  batch.put(from.tree, dirent_key(from.path, rename.from),
            inline_value(encode_dirent({rename.whiteout_entry, S_IFCHR})));
  batch.put(from.tree, record_key(from.path, rename.whiteout_entry),
            inline_value(encode_inode(record)));
}

void FileSystemImpl::erase_old_name(Batch& batch, const Moving& moving) {
  const Result<Place> place = topology_.body(moving.from_parent);
  CAW_ASSERT(place.has_value());  // just looked at
  if (moving.dirent.is_linked()) {
    erase_linked_name(batch, *place, moving.from, moving.dirent.entry);
  } else {
    batch.erase(place->tree, dirent_key(place->path, moving.from), 0);
  }
}

/// Requires: make_movable() if the record moves.
Result<void> FileSystemImpl::put_moved_name(Batch& batch, const Moving& moving) {
  const Place place = CAW_TRY(topology_.body(moving.to_parent));
  Dirent dirent = moving.dirent;
  dirent.entry = moving.entry;
  if (moving.moves_record()) {
    dirent.scope = LinkScope::none;
    batch.put(place.tree, dirent_key(place.path, moving.to), inline_value(encode_dirent(dirent)));
    return move_records(batch, moving.inode, moving.fields,
                        {place, moving.to_parent.domain, moving.entry, moving.to,
                         &moving.to_parent});
  }
  put_linked_name(batch, place, moving.to, dirent);
  CAW_TRY(put_marks(batch, moving.to_parent));
  const Spot spot = CAW_TRY(topology_.record(moving.inode));
  batch.patch(spot.tree, spot.key, attributes_patch(moving.fields));
  return {};
}

Result<void> FileSystemImpl::add_aliases(Rename& rename) {
  const auto add = [&](const Moving& moving) {
    return !moving.moves_record() ||
           table_.add_alias(moving.inode, moving.to_parent, moving.entry);
  };
  const auto in_use = [](uint64_t entry) {
    return fail(Code::record_malformed, entry, "entry number in use");
  };
  if (!add(rename.forth())) return in_use(rename.source_entry);
  if (!rename.flags.exchange || add(rename.back())) return {};
  drop_alias(rename.forth());
  return in_use(rename.target_entry);
}

void FileSystemImpl::drop_alias(const Moving& moving) {
  if (moving.moves_record()) table_.drop_alias(moving.inode, moving.to_parent, moving.entry);
}

Result<void> FileSystemImpl::rename_across(Rename& rename, Batch& batch) {
  const Place from = CAW_TRY(topology_.body(rename.from_parent));
  const Place to = CAW_TRY(topology_.body(rename.to_parent));
  const Moving forth = rename.forth();
  if (forth.moves_record()) CAW_TRY(make_movable(*rename.source, to, false));
  erase_old_name(batch, forth);
  if (rename.flags.exchange) {
    const Moving back = rename.back();
    if (back.moves_record()) CAW_TRY(make_movable(*rename.target, from, false));
    erase_old_name(batch, back);
    CAW_TRY(put_moved_name(batch, back));
  } else {
    put_whiteout(batch, from, rename);
  }
  CAW_TRY(put_moved_name(batch, forth));
  CAW_TRY(put_content(batch, rename.from_parent, rename.from_fields));
  CAW_TRY(put_content(batch, rename.to_parent, rename.to_fields));
  // Who sees the new dirents before the places change here finds the same inodes.
  CAW_TRY(add_aliases(rename));
  const Result<void> applied = forest_.apply(batch);
  if (!applied) {
    drop_alias(forth);
    if (rename.flags.exchange) drop_alias(rename.back());
    return applied;
  }
  finish_rename(rename);
  return {};
}

void FileSystemImpl::finish_rename(Rename& rename) {
  if (rename.target != nullptr && !rename.flags.exchange) finish_drop(rename.replaced());
  rename.source->store_fields(rename.source_fields);
  rename.to_parent.store_fields(rename.to_fields);
  if (rename.flags.exchange) rename.target->store_fields(rename.target_fields);
  if (!rename.crosses()) return;
  rename.from_parent.store_fields(rename.from_fields);
  const auto rekey = [this](const Moving& moving) {
    if (moving.moves_record()) table_.rekey(moving.inode, moving.to_parent, moving.entry, true);
  };
  rekey(rename.forth());
  if (rename.flags.exchange) rekey(rename.back());
  topology_.moved();
}

}  // namespace caw
