// FileSystemImpl: erasing records, and moving them to another directory or to the orphans.
//
// Contents follow a record in one of two ways: few records are copied in the same batch; else they
// first come to lie in a tree that the record owns, at its old place (Topology::own_tree), and from
// then on moving the record is all.
#include "base/assert.h"
#include "fs/file_system_impl.h"
#include "fs/links.h"
#include "fs/values.h"

namespace caw {

namespace {

constexpr uint64_t kMaxCopiedRecords = 64;
constexpr uint64_t kMaxCopiedDirectoryBytes = 16 * 1024;
constexpr uint64_t kMaxSingleErases = 4;

}  // namespace

void FileSystemImpl::erase_chunks(Batch& batch, const Spot& data, uint64_t first,
                                  uint64_t old_size) {
  const uint64_t end = (old_size + kChunkBytes - 1) >> kChunkShift;
  if (end <= first) return;
  const auto key_of = [&](uint64_t chunk) {
    std::string key = data.key;
    put_ordered(key, chunk);
    return key;
  };
  if (end - first > kMaxSingleErases) {
    batch.erase_range(data.tree, key_of(first), after_prefix(data.key),
                      old_size - (first << kChunkShift));
    return;
  }
  for (uint64_t chunk = first; chunk < end; ++chunk) {
    const uint64_t left = old_size - (chunk << kChunkShift);
    batch.erase(data.tree, key_of(chunk), std::min<uint64_t>(left, kChunkBytes));
  }
}

Result<void> FileSystemImpl::erase_records(Batch& batch, const Inode& inode) {
  const Spot spot = CAW_TRY(topology_.record(inode));
  batch.erase(spot.tree, spot.key, inode.tree() ? kManyDeadBytes : kInodeFixedBytes);
  if (may_have_xattrs(inode)) {
    const Spot xattrs = CAW_TRY(topology_.xattrs(inode));
    batch.erase_range(xattrs.tree, xattrs.key, after_prefix(xattrs.key), kInodeFixedBytes);
  }
  if (inode.is_directory() && inode.tree() && topology_.has_links()) {
    const Place outer = CAW_TRY(topology_.body(*inode.parent));
    batch.erase(outer.tree, link_key(outer.path, inode.entry), 0);
  }
  if (inode.is_regular() && !inode.tree()) {
    erase_chunks(batch, CAW_TRY(topology_.data(inode)), 0, inode.load_size());
  }
  return {};
}

/// The links index, or the mark, of a directory that moves.
Result<void> FileSystemImpl::move_links(Batch& batch, const Inode& directory,
                                        const Destination& to) {
  const Place body = CAW_TRY(topology_.body(directory));
  if (directory.tree()) {
    const Place outer = CAW_TRY(topology_.body(*directory.parent));
    const std::string mark = link_key(outer.path, directory.entry);
    if (!CAW_TRY(forest_.get(outer.tree, mark))) return {};
    batch.erase(outer.tree, mark, 0);
    if (to.parent == nullptr) return {};
    batch.put(to.place.tree, link_key(to.place.path, to.entry),
              inline_value(encode_link_entry({})));
  } else {
    if (!CAW_TRY(has_links(forest_, body))) return {};
    CAW_TRY(copy_range(batch, {body.tree, links_prefix(body.path)},
                       {to.place.tree, links_prefix(body_path(to.place.path, to.entry))}, true));
  }
  return to.parent == nullptr ? Result<void>{} : put_marks(batch, *to.parent);
}

/// Counts down what is left for copying; false when it would fall below zero.
Result<bool> FileSystemImpl::is_small(const Spot& range, uint64_t& records_left,
                                      uint64_t& bytes_left) {
  const auto cursor = forest_.scan(range.tree, range.key, after_prefix(range.key));
  while (CAW_TRY(cursor->next())) {
    const uint64_t bytes = cursor->key().size() + piece_bytes(cursor->value().pieces);
    if (records_left == 0 || bytes > bytes_left) return false;
    --records_left;
    bytes_left -= bytes;
  }
  return true;
}

Result<void> FileSystemImpl::make_movable(Inode& inode, const Place& to, bool essential) {
  if (inode.tree() || (!inode.is_directory() && !inode.is_regular())) return {};
  bool small = true;
  if (inode.is_directory()) {
    const Place place = CAW_TRY(topology_.body(inode));
    uint64_t records_left = kMaxCopiedRecords;
    uint64_t bytes_left = kMaxCopiedDirectoryBytes;
    small =
        body_path(to.path, UINT64_MAX).size() <= kMaxPathBytes &&
        CAW_TRY(is_small({place.tree, metadata_prefix(place.path)}, records_left, bytes_left)) &&
        CAW_TRY(is_small({place.tree, data_prefix(place.path)}, records_left, bytes_left)) &&
        (!topology_.has_links() ||
         CAW_TRY(is_small({place.tree, links_prefix(place.path)}, records_left, bytes_left)));
  } else {
    uint64_t records_left = kMaxCopiedChunks;
    uint64_t bytes_left = kMaxCopiedFileBytes;
    small = CAW_TRY(is_small(CAW_TRY(topology_.data(inode)), records_left, bytes_left));
  }
  if (small) return {};
  CAW_TRY(topology_.own_tree(inode, essential));
  return fail(Code::tree_not_private, 0, "make_movable");
}

Result<void> FileSystemImpl::copy_range(Batch& batch, const Spot& from, const Spot& to,
                                        bool erase) {
  const auto cursor = forest_.scan(from.tree, from.key, after_prefix(from.key));
  bool any = false;
  while (CAW_TRY(cursor->next())) {
    any = true;
    batch.put(to.tree, to.key + std::string(cursor->key().substr(from.key.size())),
              cursor->value());
  }
  if (any && erase) {
    batch.erase_range(from.tree, from.key, after_prefix(from.key), kMaxCopiedDirectoryBytes);
  }
  return {};
}

Result<void> FileSystemImpl::move_records(Batch& batch, const Inode& inode,
                                          const InodeFields& fields, const Destination& to) {
  const Spot old = CAW_TRY(topology_.record(inode));
  Value value;
  InodeRecord record = CAW_TRY(read_inode_record(old, &value));
  const uint32_t nlink = record.fields.nlink;
  record.fields = fields;
  record.fields.nlink = nlink;
  record.name = to.name;
  const bool inherits = inode.domain == to.domain;
  record.home = inherits ? 0 : to.domain;
  record.domain = inherits ? 0 : inode.domain;
  const Place& place = to.place;
  batch.erase(old.tree, old.key, 0);
  batch.put(place.tree, record_key(place.path, to.entry),
            inline_value(encode_inode(record), value.tree));
  CAW_TRY(copy_xattrs(batch, inode, {place.tree, xattr_prefix(place.path, to.entry)}, true));
  if (inode.is_directory() && topology_.has_links()) CAW_TRY(move_links(batch, inode, to));
  if (inode.tree()) return {};
  if (inode.is_regular()) {
    return copy_range(batch, CAW_TRY(topology_.data(inode)),
                      {place.tree, chunk_prefix(place.path, to.entry)}, true);
  }
  if (!inode.is_directory()) return {};
  const Place body = CAW_TRY(topology_.body(inode));
  const std::string new_path = body_path(place.path, to.entry);
  CAW_TRY(copy_range(batch, {body.tree, metadata_prefix(body.path)},
                     {place.tree, metadata_prefix(new_path)}, true));
  return copy_range(batch, {body.tree, data_prefix(body.path)}, {place.tree, data_prefix(new_path)},
                    true);
}

Result<void> FileSystemImpl::move_to_orphans(Batch& batch, Inode& inode, uint64_t entry) {
  Destination to;
  to.place = CAW_TRY(topology_.body(*orphans_));
  to.domain = orphans_->domain;
  to.entry = entry;
  CAW_TRY(make_movable(inode, to.place, true));
  // Not what is in core: who writes the file may not have said so there yet.
  const InodeRecord record = CAW_TRY(read_inode_record(CAW_TRY(topology_.record(inode))));
  CAW_TRY(move_records(batch, inode, record.fields, to));
  if (record.fields.nlink != 1) {  // several names went at once
    batch.patch(to.place.tree, record_key(to.place.path, to.entry), link_count_patch(1));
  }
  return {};
}

void FileSystemImpl::mark_orphan(Inode& inode, uint64_t entry) {
  inode.set_orphan();
  table_.rekey(inode, *orphans_, entry, false);
  topology_.moved();
}

void FileSystemImpl::mark_removed(Inode& inode) {
  inode.set_removed();
  if (!inode.is_orphan()) table_.detach(inode);
  if (inode.tree() || inode.is_directory()) topology_.moved();
}

bool FileSystemImpl::any_open_within(const Inode& inode) const {
  bool any = false;
  open_files_.for_each([&](const Inode& open, bool) {
    any = topology_.is_within(open, inode);
    return !any;
  });
  return any;
}

/// After the last close of `inode`: erases the orphan at or above it if nothing else is open there.
void FileSystemImpl::reap_orphan(Inode& inode) {
  const auto orphan_above = [&]() -> Inode* {
    for (Inode* at = &inode; at != nullptr; at = at->parent) {
      if (at->is_orphan()) return at;
    }
    return nullptr;
  };
  {
    Gate::Shared shared(topology_.gate());
    if (orphan_above() == nullptr) return;
  }
  const Result<void> done = topology_.mutate(
      {}, {.exclusive = true, .essential = true}, [&](Batch& batch) -> Result<void> {
        Inode* const orphan = orphan_above();
        if (orphan->is_removed() || any_open_within(*orphan)) return {};
        CAW_TRY(erase_records(batch, *orphan));
        if (orphan->is_directory() && !orphan->tree()) {
          const Place place = CAW_TRY(topology_.body(*orphan));
          for (const std::string& prefix : {metadata_prefix(place.path), data_prefix(place.path)}) {
            batch.erase_range(place.tree, prefix, after_prefix(prefix), kManyDeadBytes);
          }
        }
        CAW_TRY(forest_.apply(batch));
        mark_removed(*orphan);
        return {};
      });
  ignore_error(done, "the orphan stays and is dropped when the volume is opened again");
}

}  // namespace caw
