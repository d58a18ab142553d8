// FileSystemImpl: reading and writing file data.
//
// A file is chunks of kChunkBytes under their numbers; one that is missing is a hole, and bytes
// past a chunk's length are zero.  No chunk reaches beyond the file's size, so extending needs no
// zeros.
#include <algorithm>
#include <cstring>

#include "fs/file_system_impl.h"

namespace caw {

namespace {

/// From so many bytes on a write that replaces all of a chunk goes to a blob at once.
constexpr uint64_t kMinBlobBytes = 16 * 1024;
constexpr uint64_t kReadAheadChunks = 8;
constexpr int64_t kSecondsPerDay = 24 * 60 * 60;

std::string key_of(const Spot& data, uint64_t chunk) {
  std::string key = data.key;
  put_ordered(key, chunk);
  return key;
}

uint64_t offset_in_chunk(uint64_t offset) { return offset & (kChunkBytes - 1); }

}  // namespace

/// What a write does to one chunk.
struct FileSystemImpl::Extent {
  uint64_t chunk = 0;
  uint32_t offset = 0;  ///< in the chunk
  std::string_view bytes;
  BlobRef blob;  ///< set: replaces the chunk
};

/// Splits a write by chunk and writes the blobs.  On failure no blob is left.
Result<std::vector<FileSystemImpl::Extent>> FileSystemImpl::plan_write(const Inode& inode,
                                                                       uint64_t offset,
                                                                       std::string_view data,
                                                                       uint64_t old_size) {
  static_cast<void>(inode);
  std::vector<Extent> extents;
  while (!data.empty()) {
    Extent extent;
    extent.chunk = offset >> kChunkShift;
    extent.offset = static_cast<uint32_t>(offset_in_chunk(offset));
    extent.bytes = data.substr(0, kChunkBytes - extent.offset);
    const uint64_t end = offset + extent.bytes.size();
    const bool replaces =
        extent.offset == 0 && (extent.bytes.size() == kChunkBytes ||
                               (end >= old_size && extent.bytes.size() >= kMinBlobBytes));
    if (replaces) {
      const Result<BlobRef> blob = forest_.write_blob(extent.bytes);
      if (!blob) {
        cancel(extents);
        return std::unexpected<Error>(blob.error());
      }
      extent.blob = *blob;
    }
    data.remove_prefix(extent.bytes.size());
    offset = end;
    extents.push_back(extent);
  }
  return extents;
}

void FileSystemImpl::cancel(const std::vector<Extent>& extents) {
  for (const Extent& extent : extents) {
    if (extent.blob) forest_.cancel_blob(extent.blob);
  }
}

Result<size_t> FileSystemImpl::write(Inode& inode, uint64_t offset, std::string_view data,
                                     bool drops_privileges) {
  CAW_TRY(begin_change());
  if (!inode.is_regular()) return fail(Code::invalid_argument, inode.number, "write");
  if (data.empty()) return size_t{0};
  if (offset > kMaxFileBytes || data.size() > kMaxFileBytes - offset) {
    return fail(Code::file_too_large, offset, "write");
  }
  InodeLocks::Held held(locks_, {&inode});
  InodeFields fields = inode.load_fields();
  const uint64_t old_size = fields.size;
  const InodeFields old = fields;
  fields.size = std::max(old_size, offset + data.size());
  fields.mtime = fields.ctime = now();
  fields.content_seq = next_stamp();
  if (offset > old_size) fields.flags |= kInodeSparse;
  if (drops_privileges) drop_privileges(fields);
  const std::vector<Extent> extents = CAW_TRY(plan_write(inode, offset, data, old_size));
  const Result<void> done =
      topology_.mutate({contents_of(inode)}, {}, [&](Batch& batch) -> Result<void> {
        const Spot spot = CAW_TRY(topology_.data(inode));
        for (const Extent& extent : extents) {
          std::string key = key_of(spot, extent.chunk);
          if (extent.blob) {
            batch.put(spot.tree, std::move(key), blob_value(extent.blob));
            batch.add_new_blob(extent.blob);
          } else {
            batch.patch(spot.tree, std::move(key), write_patch(extent.offset, extent.bytes));
          }
        }
        Spot record = CAW_TRY(topology_.record(inode));
        const bool content_only = fields.flags == old.flags && fields.mode == old.mode;
        batch.patch(record.tree, std::move(record.key),
                    content_only ? content_patch(fields) : attributes_patch(fields));
        if (drops_privileges) CAW_TRY(drop_capabilities(batch, inode));
        return forest_.apply(batch);
      });
  if (!done) {
    cancel(extents);
    return std::unexpected<Error>(done.error());
  }
  inode.store_fields(fields);
  return data.size();
}

Result<size_t> FileSystemImpl::read(Inode& inode, uint64_t offset, std::span<char> out) {
  if (!inode.is_regular()) return fail(Code::invalid_argument, inode.number, "read");
  const uint64_t size = inode.load_size();
  if (offset >= size || out.empty()) return size_t{0};
  out = out.first(std::min<uint64_t>(out.size(), size - offset));
  const uint64_t end = offset + out.size();
  const bool sequential = inode.note_read(offset, end);
  CAW_TRY(topology_.read([&] { return topology_.data(inode); },
                         [&](const Spot& spot) -> Result<void> {
                           if (sequential && offset != 0) {
                             read_ahead(spot, offset >> kChunkShift, size);
                           }
                           return read_chunks(spot, offset, out);
                         }));
  note_read(inode);
  return out.size();
}

Result<void> FileSystemImpl::read_chunks(const Spot& data, uint64_t offset, std::span<char> out) {
  const uint64_t first = offset >> kChunkShift;
  const uint64_t last = (offset + out.size() - 1) >> kChunkShift;
  const auto read_one = [&](const Value& value, uint64_t chunk) -> Result<void> {
    const uint64_t start = std::max(offset, chunk << kChunkShift);
    const uint64_t end = std::min(offset + out.size(), (chunk + 1) << kChunkShift);
    return forest_.read(value, static_cast<uint32_t>(offset_in_chunk(start)),
                        out.subspan(start - offset, end - start));
  };
  if (first == last) {
    const std::optional<Value> value = CAW_TRY(forest_.get(data.tree, key_of(data, first)));
    if (value) return read_one(*value, first);
    std::memset(out.data(), 0, out.size());
    return {};
  }
  std::memset(out.data(), 0, out.size());
  const auto cursor = forest_.scan(data.tree, key_of(data, first), key_of(data, last + 1));
  while (CAW_TRY(cursor->next())) {
    const uint64_t chunk = CAW_TRY(chunk_of_key(cursor->key(), data.key.size()));
    if (chunk < first || chunk > last) return fail(Code::record_malformed, chunk, "chunk key");
    CAW_TRY(read_one(cursor->value(), chunk));
  }
  return {};
}

/// Asks for the blobs after `chunk`, once per window: at its first chunk.
void FileSystemImpl::read_ahead(const Spot& data, uint64_t chunk, uint64_t size) {
  if (chunk % (kReadAheadChunks / 2) != 0 || (chunk + 1) << kChunkShift >= size) return;
  const auto cursor =
      forest_.scan(data.tree, key_of(data, chunk + 1), key_of(data, chunk + 1 + kReadAheadChunks));
  std::vector<BlobRef> blobs;
  while (true) {
    const Result<bool> more = cursor->next();
    if (!more || !*more) break;  // an error shows when the data are read
    if (cursor->value().blob) blobs.push_back(cursor->value().blob);
  }
  if (!blobs.empty()) forest_.prefetch(blobs);
}

/// relatime, for a few files a second: more, a grep say, would be a write for each file.  What is
/// shown is always what is stored, so that a clone shows it too.
void FileSystemImpl::note_read(Inode& inode) {
  if (options_.no_atime || !check_writable()) return;
  const Timestamp time = now();
  const auto is_due = [&](const InodeFields& fields) {
    return fields.atime <= fields.mtime || fields.atime <= fields.ctime ||
           time.seconds - fields.atime.seconds >= kSecondsPerDay;
  };
  if (!is_due(inode.load_fields()) || inode.is_orphan() || !atime_budget_.take(time.seconds)) {
    return;
  }
  InodeLocks::Held held(locks_, {&inode});
  InodeFields fields = inode.load_fields();
  fields.atime = time;
  const Result<void> done =
      topology_.mutate({record_of(inode)}, {}, [&](Batch& batch) -> Result<void> {
        Spot record = CAW_TRY(topology_.record(inode));
        batch.patch(record.tree, std::move(record.key), all_fields_patch(fields));
        return forest_.apply(batch);
      });
  if (done) inode.store_fields(fields);
}

}  // namespace caw
