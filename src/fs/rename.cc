// FileSystemImpl: rename.
//
// Within a directory only dirents and the names in records change.  Into another directory the
// records move to a new entry number; contents follow as moves.cc has it.
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
  InodeFields from_fields, to_fields;  ///< of the parents, afterwards
  InodeFields source_fields, target_fields;
  uint64_t source_entry = 0, target_entry = 0;  ///< afterwards, if they move
  uint64_t orphan_entry = 0;
  uint64_t whiteout_entry = 0, whiteout_number = 0;
  bool changed = false;  ///< the names lead elsewhere now: look again

  bool crosses() const { return &from_parent != &to_parent; }
};

Result<void> FileSystemImpl::rename(Inode& from_parent, std::string_view from, Inode& to_parent,
                                    std::string_view to, RenameFlags flags) {
  CAW_TRY(begin_change());
  const bool contradicts = flags.exchange && (flags.no_replace || flags.whiteout);
  if (contradicts) return fail(Code::invalid_argument, 0, "rename");
  if (to.size() > kMaxNameBytes) return fail(Code::name_too_long, to.size(), "rename");
  if (!is_valid_name(from) || !is_valid_name(to)) return fail(Code::invalid_argument, 0, "rename");
  if (!to_parent.is_directory()) return fail(Code::not_a_directory, 0, "rename");
  while (true) {
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
    Rename rename{
        from_parent, from, to_parent, to, flags, source.get(), target.get(), false, {}, {},
        {},          {},   0,         0,  0,     0,            0,            false};
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
    const Result<void> done =
        topology_.mutate({contents_of(from_parent), contents_of(to_parent)},
                         {.exclusive = rename.crosses() || rename.target_open},
                         [&](Batch& batch) { return try_rename(rename, batch); });
    if (rename.changed) continue;
    return done;
  }
}

Result<void> FileSystemImpl::try_rename(Rename& rename, Batch& batch) {
  const Place from = CAW_TRY(topology_.body(rename.from_parent));
  const Place to = CAW_TRY(topology_.body(rename.to_parent));
  if (rename.to_parent.is_orphan()) {
    return fail(Code::not_found, 0, "rename");
  }
  CAW_TRY(check_still(from, rename.from, rename.source, rename.changed));
  CAW_TRY(check_still(to, rename.to, rename.target, rename.changed));
  if (rename.crosses() && topology_.is_within(rename.to_parent, *rename.source)) {
    return fail(Code::rename_into_self, 0, "rename");
  }
  if (rename.crosses() && rename.flags.exchange &&
      topology_.is_within(rename.from_parent, *rename.target)) {
    return fail(Code::rename_into_self, 0, "rename");
  }
  if (rename.target != nullptr && !rename.flags.exchange) {
    CAW_TRY(remove_replaced(rename, batch));
  }
  return rename.crosses() ? rename_across(rename, batch) : rename_within(rename, batch);
}

Result<void> FileSystemImpl::remove_replaced(Rename& rename, Batch& batch) {
  if (rename.target->is_directory()) CAW_TRY(check_empty(*rename.target));
  if (rename.target_open) return move_to_orphans(batch, *rename.target, rename.orphan_entry);
  return erase_records(batch, *rename.target);
}

Result<void> FileSystemImpl::put_new_name(Batch& batch, const Inode& inode,
                                          const InodeFields& fields, std::string_view name) {
  const Spot spot = CAW_TRY(topology_.record(inode));
  std::string target;
  if (S_ISLNK(inode.type())) target = CAW_TRY(read_inode_record(spot)).target;
  batch.patch(spot.tree, spot.key, rename_patch(fields, name, target));
  return {};
}

Result<void> FileSystemImpl::rename_within(Rename& rename, Batch& batch) {
  const Place place = CAW_TRY(topology_.body(rename.to_parent));
  const auto put_dirent = [&](std::string_view name, const Inode& inode) {
    batch.put(place.tree, dirent_key(place.path, name),
              inline_value(encode_dirent({inode.entry, inode.type()})));
  };
  put_dirent(rename.to, *rename.source);
  CAW_TRY(put_new_name(batch, *rename.source, rename.source_fields, rename.to));
  if (rename.flags.exchange) {
    put_dirent(rename.from, *rename.target);
    CAW_TRY(put_new_name(batch, *rename.target, rename.target_fields, rename.from));
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

Result<void> FileSystemImpl::add_aliases(Rename& rename) {
  const auto in_use = [](uint64_t entry) {
    return fail(Code::record_malformed, entry, "entry number in use");
  };
  if (!table_.add_alias(*rename.source, rename.to_parent, rename.source_entry)) {
    return in_use(rename.source_entry);
  }
  if (!rename.flags.exchange ||
      table_.add_alias(*rename.target, rename.from_parent, rename.target_entry)) {
    return {};
  }
  table_.drop_alias(*rename.source, rename.to_parent, rename.source_entry);
  return in_use(rename.target_entry);
}

Result<void> FileSystemImpl::rename_across(Rename& rename, Batch& batch) {
  const Place from = CAW_TRY(topology_.body(rename.from_parent));
  const Place to = CAW_TRY(topology_.body(rename.to_parent));
  CAW_TRY(make_movable(*rename.source, to, false));
  if (rename.flags.exchange) CAW_TRY(make_movable(*rename.target, from, false));
  CAW_TRY(move_records(batch, *rename.source, rename.source_fields,
                       {to, rename.to_parent.domain, rename.source_entry, rename.to}));
  batch.put(to.tree, dirent_key(to.path, rename.to),
            inline_value(encode_dirent({rename.source_entry, rename.source->type()})));
  if (rename.flags.exchange) {
    CAW_TRY(move_records(batch, *rename.target, rename.target_fields,
                         {from, rename.from_parent.domain, rename.target_entry, rename.from}));
    batch.put(from.tree, dirent_key(from.path, rename.from),
              inline_value(encode_dirent({rename.target_entry, rename.target->type()})));
  } else {
    batch.erase(from.tree, dirent_key(from.path, rename.from), 0);
    put_whiteout(batch, from, rename);
  }
  CAW_TRY(put_content(batch, rename.from_parent, rename.from_fields));
  CAW_TRY(put_content(batch, rename.to_parent, rename.to_fields));
  // Who sees the new dirents before the places change here finds the same inodes.
  CAW_TRY(add_aliases(rename));
  const Result<void> applied = forest_.apply(batch);
  if (!applied) {
    table_.drop_alias(*rename.source, rename.to_parent, rename.source_entry);
    if (rename.flags.exchange) {
      table_.drop_alias(*rename.target, rename.from_parent, rename.target_entry);
    }
    return applied;
  }
  finish_rename(rename);
  return {};
}

void FileSystemImpl::finish_rename(Rename& rename) {
  if (rename.target != nullptr && !rename.flags.exchange) {
    if (rename.target_open) {
      mark_orphan(*rename.target, rename.orphan_entry);
    } else {
      mark_removed(*rename.target);
    }
  }
  rename.source->store_fields(rename.source_fields);
  rename.to_parent.store_fields(rename.to_fields);
  if (rename.flags.exchange) rename.target->store_fields(rename.target_fields);
  if (!rename.crosses()) return;
  rename.from_parent.store_fields(rename.from_fields);
  table_.rekey(*rename.source, rename.to_parent, rename.source_entry, true);
  if (rename.flags.exchange) {
    table_.rekey(*rename.target, rename.from_parent, rename.target_entry, true);
  }
  topology_.moved();
}

}  // namespace caw
