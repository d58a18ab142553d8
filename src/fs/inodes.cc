// FileSystemImpl: start, inodes in core, attributes.
#include <utility>

#include "fs/file_system_impl.h"
#include "fs/values.h"

namespace caw {

namespace {

constexpr uint64_t kIdRange = 1024;
constexpr uint32_t kDirectoryBytes = 4096;

uint64_t sector_count(uint64_t bytes) { return blocks_for(bytes) * (kBlockSize / 512); }

}  // namespace

Result<void> FileSystem::make(Forest& forest, Clock& clock, uint32_t uid, uint32_t gid) {
  InodeRecord record;
  record.fields.mode = S_IFDIR | 0755;
  record.fields.uid = uid;
  record.fields.gid = gid;
  const Timestamp now = clock.now();
  record.fields.mtime = record.fields.ctime = record.fields.atime = record.fields.btime = now;
  record.number = kRootNumber;
  const NodeId id = forest.new_tree_id();
  while (true) {
    Batch batch;
    batch.generation = forest.share_generation();
    batch.create_tree(id);
    batch.put(forest.system_tree(), record_key({}, kRootEntry),
              inline_value(encode_inode(record), id));
    const Result<void> applied = forest.apply(batch);
    if (applied || applied.error().code != Code::tree_not_private) return applied;
  }
}

Result<std::unique_ptr<FileSystem>> FileSystem::open(Forest& forest, const FsOptions& options) {
  auto file_system = std::make_unique<FileSystemImpl>(forest, options);
  CAW_TRY(file_system->start());
  return file_system;
}

FileSystemImpl::FileSystemImpl(Forest& forest, const FsOptions& options)
    : forest_(forest),
      options_(options),
      numbers_(forest),
      entries_(forest, Counter::entry, kFirstEntry, kIdRange),
      files_(forest, Counter::file, kRootNumber + 1, kIdRange),
      stamps_(forest, Counter::change, 1, kIdRange),
      system_(make_fixed_inode(nullptr, 0, forest.system_tree())),
      orphans_(make_fixed_inode(system_.get(), kOrphansEntry, nullptr)),
      globals_(make_fixed_inode(system_.get(), kLinksEntry, nullptr)),
      topology_(forest, *system_) {}

/// Neither in the table nor seen by anyone; never freed by references.
std::unique_ptr<Inode> FileSystemImpl::make_fixed_inode(Inode* parent, uint64_t entry,
                                                        TreeRef tree) {
  auto inode = std::make_unique<Inode>();
  inode->parent = parent;
  inode->entry = entry;
  if (tree) inode->set_tree(std::move(tree));
  inode->domain = kRootDomain;
  InodeFields fields;
  fields.mode = S_IFDIR;
  inode->start_fields(fields);
  inode->refs = 1;
  return inode;
}

Result<void> FileSystemImpl::start() {
  Hold root = CAW_TRY(load(*system_, kRootEntry));
  if (!root || !root->is_directory() || !root->tree() || root->domain != kRootDomain) {
    return fail(Code::record_malformed, kRootEntry, "root");
  }
  root_ = root.release();
  CAW_TRY(look_for_links());
  return check_writable() ? drop_orphans() : Result<void>{};
}

Result<void> FileSystemImpl::look_for_links() {
  const TreeRef& system = system_->tree();
  const std::optional<Value> record = CAW_TRY(forest_.get(system, record_key({}, kLinksEntry)));
  if (!record) return {};
  if (record->tree == kNoNode) return fail(Code::record_malformed, kLinksEntry, "links directory");
  globals_->set_tree(forest_.open_tree(record->tree));
  topology_.set_has_links();
  const Place place = CAW_TRY(topology_.body(*globals_));
  const auto cursor = forest_.scan(place.tree, record_key(place.path, 0), records_end(place.path));
  has_globals_ = CAW_TRY(cursor->next());
  return {};
}

Result<void> FileSystemImpl::drop_orphans() {
  return topology_.mutate({}, {.essential = true}, [&](Batch& batch) -> Result<void> {
    const Place place = CAW_TRY(topology_.body(*orphans_));
    bool any = false;
    for (const std::string& prefix : {metadata_prefix(place.path), data_prefix(place.path)}) {
      const auto cursor = forest_.scan(place.tree, prefix, after_prefix(prefix));
      if (!CAW_TRY(cursor->next())) continue;
      batch.erase_range(place.tree, prefix, after_prefix(prefix), kManyDeadBytes);
      any = true;
    }
    return any ? forest_.apply(batch) : Result<void>{};
  });
}

Result<void> FileSystemImpl::check_writable() const {
  if (options_.read_only || forest_.read_only()) return fail(Code::read_only, 0, "fs");
  return {};
}

Result<void> FileSystemImpl::begin_change() {
  CAW_TRY(check_writable());
  forest_.pace();
  return {};
}

Result<void> FileSystemImpl::check_new_name(std::string_view name) {
  if (name.size() > kMaxNameBytes) return fail(Code::name_too_long, name.size(), "name");
  if (name == "." || name == "..") return fail(Code::exists, 0, "name");
  if (!is_valid_name(name)) return fail(Code::invalid_argument, 0, "name");
  return {};
}

Result<std::optional<Dirent>> FileSystemImpl::find_dirent(const Place& place,
                                                          std::string_view name) {
  const std::optional<Value> value = CAW_TRY(forest_.get(place.tree, dirent_key(place.path, name)));
  if (!value) return std::nullopt;
  return CAW_TRY(decode_dirent(CAW_TRY(read_record(forest_, *value))));
}

Result<InodeRecord> FileSystemImpl::read_inode_record(const Spot& spot, Value* value) {
  std::optional<Value> found = CAW_TRY(forest_.get(spot.tree, spot.key));
  if (!found) return fail(Code::record_malformed, 0, "inode record is missing");
  InodeRecord record = CAW_TRY(decode_inode(CAW_TRY(read_record(forest_, *found))));
  if (value != nullptr) *value = std::move(*found);
  return record;
}

Result<FileSystemImpl::Hold> FileSystemImpl::load(Inode& parent, uint64_t entry) {
  while (true) {
    if (Inode* const there = table_.find(parent, entry)) return Hold(table_, there);
    const uint32_t evictions = parent.evictions();
    using Found = std::optional<std::pair<InodeRecord, NodeId>>;
    const Found found = CAW_TRY(topology_.read(
        [&] { return topology_.body(parent); },
        [&](const Place& place) -> Result<Found> {
          const std::optional<Value> value =
              CAW_TRY(forest_.get(place.tree, record_key(place.path, entry)));
          if (!value) return Found();
          const std::string bytes = CAW_TRY(read_record(forest_, *value));
          if (is_link_name(bytes)) return Found();  // it came to be linked
          return Found({CAW_TRY(decode_inode(bytes)), value->tree});
        }));
    if (!found) {
      if (parent.evictions() != evictions) continue;
      return Hold();
    }
    Hold hold = CAW_TRY(adopt(parent, entry, found->first, found->second, evictions));
    if (hold) return hold;
  }
}

Result<FileSystemImpl::Hold> FileSystemImpl::adopt(Inode& parent, uint64_t entry,
                                                   const InodeRecord& record, NodeId tree,
                                                   uint32_t evictions) {
  if (entry == kLinksEntry && (tree == kNoNode || !record.fields.is_directory())) {
    return fail(Code::record_malformed, entry, "links directory");
  }
  auto inode = std::make_unique<Inode>();
  inode->parent = &parent;
  inode->entry = entry;
  if (tree != kNoNode) {
    if (!record.fields.is_directory() && !record.fields.is_regular()) {
      return fail(Code::record_malformed, entry, "owned tree");
    }
    inode->set_tree(forest_.open_tree(tree));
  }
  inode->domain = CAW_TRY(numbers_.domain_of(parent.domain, record.home, record.domain));
  inode->number = record.number;
  InodeFields fields = record.fields;
  if (!check_writable()) fields.nlink = counted_links(parent, entry, fields.nlink);
  inode->start_fields(fields);
  return Hold(table_, table_.insert(std::move(inode), evictions));
}

Result<Entry> FileSystemImpl::adopt_new(Inode& parent, uint64_t entry, const InodeRecord& record,
                                        NodeId tree, uint32_t evictions) {
  Hold hold = CAW_TRY(adopt(parent, entry, record, tree, evictions));
  if (!hold) hold = CAW_TRY(load(parent, entry));
  if (!hold) return fail(Code::not_found, entry, "removed at once");
  return entry_of(std::move(hold));
}

Result<FileSystemImpl::Hold> FileSystemImpl::find_child(Inode& parent, std::string_view name) {
  if (!parent.is_directory()) return fail(Code::not_a_directory, parent.number, "lookup");
  if (name.size() > kMaxNameBytes) return fail(Code::name_too_long, name.size(), "lookup");
  if (!is_valid_name(name)) return fail(Code::invalid_argument, 0, "lookup");
  for (int tries = 0; tries < 100; ++tries) {
    const Result<std::optional<Dirent>> dirent =
        topology_.read([&] { return topology_.body(parent); },
                       [&](const Place& place) { return find_dirent(place, name); });
    if (!dirent && dirent.error().code == Code::stale_inode) break;
    if (!dirent) return std::unexpected<Error>(dirent.error());
    if (!*dirent) break;
    Result<Hold> child =
        (*dirent)->is_linked() ? load_linked(parent, name) : load(parent, (*dirent)->entry);
    if (!child && child.error().code == Code::stale_inode) break;
    if (!child) return child;
    if (!*child) continue;  // renamed or removed between the two reads
    if ((*child)->type() != (*dirent)->type) {
      return fail(Code::record_malformed, (*dirent)->entry, "type of dirent");
    }
    return child;
  }
  return fail(Code::not_found, 0, "lookup");
}

Result<uint64_t> FileSystemImpl::ino_of(Inode& inode) {
  uint64_t ino = inode.ino.load(std::memory_order_relaxed);
  if (ino == 0) {
    ino = CAW_TRY(numbers_.shown(inode.domain, inode.number));
    inode.ino.store(ino, std::memory_order_relaxed);
  }
  return ino;
}

Result<Attributes> FileSystemImpl::attributes_of(Inode& inode) {
  const InodeFields fields = inode.load_fields();
  Attributes out;
  out.ino = CAW_TRY(ino_of(inode));
  out.size = fields.size;
  out.blocks = sector_count(fields.size);
  if (inode.is_directory()) {
    out.size = kDirectoryBytes;
    out.blocks = sector_count(kDirectoryBytes);
  } else if (inode.is_regular() && (fields.flags & kInodeSparse) != 0) {
    out.blocks = CAW_TRY(allocated_blocks(inode, fields.size));
  } else if (!inode.is_regular()) {
    out.blocks = 0;
  }
  out.mode = fields.mode;
  const bool nameless = inode.is_removed() || inode.is_orphan();
  out.nlink = nameless ? 0 : fields.nlink;
  out.uid = fields.uid;
  out.gid = fields.gid;
  out.rdev = fields.rdev;
  out.atime = fields.atime;
  out.mtime = fields.mtime;
  out.ctime = fields.ctime;
  out.btime = fields.btime;
  return out;
}

Result<Entry> FileSystemImpl::entry_of(Hold hold) {
  Entry entry;
  entry.attributes = CAW_TRY(attributes_of(*hold));
  entry.inode = hold.release();
  return entry;
}

InodeFields FileSystemImpl::touched(const Inode& directory) {
  InodeFields fields = directory.load_fields();
  fields.mtime = fields.ctime = now();
  fields.content_seq = next_stamp();
  return fields;
}

Result<void> FileSystemImpl::put_content(Batch& batch, const Inode& inode,
                                         const InodeFields& fields) {
  Spot spot = CAW_TRY(topology_.record(inode));
  batch.patch(spot.tree, std::move(spot.key), content_patch(fields));
  return {};
}

void FileSystemImpl::forget(Inode& inode, uint64_t lookups) {
  if (&inode != root_ && lookups != 0) table_.unref(inode, lookups);
}

Result<Attributes> FileSystemImpl::getattr(Inode& inode) { return attributes_of(inode); }

Result<Attributes> FileSystemImpl::setattr(Inode& inode, const SetAttributes& set,
                                           const Caller& caller) {
  static_cast<void>(caller);  // the kernel has checked (default_permissions)
  CAW_TRY(begin_change());
  if (set.size && !inode.is_regular()) {
    return fail(inode.is_directory() ? Code::is_a_directory : Code::invalid_argument, 0, "setattr");
  }
  if (set.size.value_or(0) > kMaxFileBytes) return fail(Code::file_too_large, *set.size, "setattr");
  InodeLocks::Held held(locks_, {&inode});
  InodeFields fields = inode.load_fields();
  const uint64_t old_size = fields.size;
  if (set.mode) fields.mode = inode.type() | (*set.mode & 07777U);
  fields.uid = set.uid.value_or(fields.uid);
  fields.gid = set.gid.value_or(fields.gid);
  const bool drops =
      !inode.is_directory() && (set.drop_privileges || set.uid.has_value() || set.gid.has_value());
  if (drops && !set.mode) drop_privileges(fields);
  fields.ctime = now();
  fields.attribute_seq = next_stamp();
  if (set.size) {
    fields.size = *set.size;
    fields.mtime = fields.ctime;
    fields.content_seq = next_stamp();
    if (fields.size > old_size) fields.flags |= kInodeSparse;
  }
  fields.atime = set.atime.value_or(fields.atime);
  fields.mtime = set.mtime.value_or(fields.mtime);
  fields.ctime = set.ctime.value_or(fields.ctime);
  const Written written = set.size ? contents_of(inode) : record_of(inode);
  const bool shrinks = fields.size < old_size;
  CAW_TRY(topology_.mutate({written}, {.essential = shrinks}, [&](Batch& batch) -> Result<void> {
    const Spot spot = CAW_TRY(topology_.record(inode));
    batch.patch(spot.tree, spot.key, all_fields_patch(fields));
    if (set.mode) CAW_TRY(change_acl_mode(batch, inode, fields));
    if (drops) CAW_TRY(drop_capabilities(batch, inode));
    if (shrinks) cut_data(batch, CAW_TRY(topology_.data(inode)), fields.size, old_size);
    return forest_.apply(batch);
  }));
  inode.store_fields(fields);
  return attributes_of(inode);
}

Result<StatFs> FileSystemImpl::statfs() {
  const ForestSpace space = forest_.space();
  StatFs out;
  out.total_bytes = space.total_bytes;
  out.free_bytes = space.total_bytes - std::min(space.total_bytes, space.used_bytes);
  out.available_bytes = out.free_bytes - std::min(out.free_bytes, space.reserve_bytes);
  return out;
}

void FileSystemImpl::save_numbers() {
  ignore_error(numbers_.save(), "numbers stay in memory and are written when there is space");
}

Result<void> FileSystemImpl::sync() {
  save_numbers();
  return forest_.sync();
}

Result<void> FileSystemImpl::checkpoint() {
  save_numbers();
  return forest_.checkpoint();
}

}  // namespace caw
