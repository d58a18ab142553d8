// FileSystemImpl: copying data from file to file (copy_file_range).
//
// Whole chunks at the same place in both are shared: the copy's value is the source's.  Only values
// that maintenance leaves as they are: bytes in place, and blobs of which all shows.
#include <algorithm>

#include "fs/file_system_impl.h"

namespace caw {

namespace {

constexpr uint64_t kMaxCopiedBytes = 256U << 20;      ///< by one call
constexpr uint64_t kMaxSharedBytes = 4U << 20;        ///< by one batch
constexpr uint64_t kMaxInlineBytes = 2 * kChunkBytes;  ///< likewise, of bytes in place
constexpr uint64_t kCopyBytes = 1U << 20;             ///< through memory, at a time

std::string key_of(const Spot& data, uint64_t chunk) {
  std::string key = data.key;
  put_ordered(key, chunk);
  return key;
}

bool is_shareable(const Value& value) {
  if (!value.blob) return true;
  return value.pieces.empty() && value.blob_length == value.blob.raw_bytes &&
         value.length == value.blob_length;
}

}  // namespace

Result<size_t> FileSystemImpl::copy_data(Inode& from, uint64_t from_offset, Inode& to,
                                         uint64_t to_offset, uint64_t length) {
  CAW_TRY(check_writable());
  if (!from.is_regular() || !to.is_regular()) return fail(Code::invalid_argument, 0, "copy_data");
  const uint64_t size = from.load_size();
  if (from_offset >= size) return size_t{0};
  length = std::min({length, size - from_offset, kMaxCopiedBytes});
  if (to_offset > kMaxFileBytes || length > kMaxFileBytes - to_offset) {
    return fail(Code::file_too_large, to_offset, "copy_data");
  }
  const bool overlap = from_offset < to_offset + length && to_offset < from_offset + length;
  if (&from == &to && overlap) return fail(Code::invalid_argument, to_offset, "copy_data");
  const bool is_aligned = ((from_offset | to_offset) & (kChunkBytes - 1)) == 0;
  uint64_t done = 0;
  while (done < length) {
    const uint64_t left = length - done;
    Result<uint64_t> copied = uint64_t{0};
    if (is_aligned && (done & (kChunkBytes - 1)) == 0) {
      copied = share_chunks(from, from_offset + done, to, to_offset + done, left);
    }
    if (copied && *copied == 0) {
      const uint64_t most = is_aligned ? kChunkBytes - (done & (kChunkBytes - 1)) : kCopyBytes;
      copied =
          copy_bytes(from, from_offset + done, to, to_offset + done, std::min(left, most));
    }
    if (!copied && done == 0) return std::unexpected<Error>(copied.error());
    if (!copied || *copied == 0) break;
    done += *copied;
  }
  return done;
}

Result<size_t> FileSystemImpl::copy_bytes(Inode& from, uint64_t from_offset, Inode& to,
                                          uint64_t to_offset, uint64_t length) {
  std::string bytes(length, '\0');
  bytes.resize(CAW_TRY(read(from, from_offset, bytes)));
  return write(to, to_offset, bytes, false);
}

/// Returns how many bytes were shared; 0 if the first chunk cannot be.
Result<uint64_t> FileSystemImpl::share_chunks(Inode& from, uint64_t from_offset, Inode& to,
                                              uint64_t to_offset, uint64_t length) {
  CAW_TRY(begin_change());
  InodeLocks::Held held(locks_, {&from, &to});
  const InodeFields source = from.load_fields();
  const InodeFields before = to.load_fields();
  if (from_offset >= source.size) return uint64_t{0};
  length = std::min({length, source.size - from_offset, kMaxSharedBytes});
  // Less than a chunk only where both files end.
  const bool ends = from_offset + length == source.size && to_offset + length >= before.size;
  if (!ends) length &= ~uint64_t{kChunkBytes - 1};
  if (length == 0) return uint64_t{0};
  const uint64_t first = from_offset >> kChunkShift;
  const uint64_t end = (from_offset + length + kChunkBytes - 1) >> kChunkShift;
  const uint64_t shift = (to_offset >> kChunkShift) - first;
  InodeFields fields = before;
  fields.mtime = fields.ctime = now();
  fields.content_seq = next_stamp();
  if (to_offset > before.size) fields.flags |= kInodeSparse;
  fields.flags |= source.flags & kInodeSparse;
  uint64_t shared = 0;
  CAW_TRY(topology_.mutate({contents_of(to)}, {}, [&](Batch& batch) -> Result<void> {
    const Spot data = CAW_TRY(topology_.data(from));
    const Spot copy = CAW_TRY(topology_.data(to));
    uint64_t at = first;
    uint64_t inline_bytes = 0;
    const auto erase_until = [&](uint64_t chunk) {
      for (; at < chunk; ++at) {
        const bool is_beyond = (at + shift) << kChunkShift >= before.size;
        if (!is_beyond) batch.erase(copy.tree, key_of(copy, at + shift), kChunkBytes);
      }
    };
    const auto cursor = forest_.scan(data.tree, key_of(data, first), key_of(data, end));
    bool is_whole = true;
    while (is_whole && CAW_TRY(cursor->next())) {
      const Value& value = cursor->value();
      const uint64_t chunk = CAW_TRY(chunk_of_key(cursor->key(), data.key.size()));
      erase_until(chunk);
      inline_bytes += piece_bytes(value.pieces);
      is_whole = is_shareable(value) && inline_bytes <= kMaxInlineBytes;
      if (is_whole) batch.put(copy.tree, key_of(copy, at++ + shift), value);
    }
    if (is_whole) erase_until(end);
    shared = std::min(length, (at - first) << kChunkShift);
    if (shared == 0) return {};
    fields.size = std::max(before.size, to_offset + shared);
    Spot record = CAW_TRY(topology_.record(to));
    batch.patch(record.tree, std::move(record.key), attributes_patch(fields));
    return forest_.apply(batch);
  }));
  if (shared != 0) to.store_fields(fields);
  return shared;
}

}  // namespace caw
