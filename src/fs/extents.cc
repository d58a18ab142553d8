// FileSystemImpl: holes: truncation, fallocate, SEEK_DATA and SEEK_HOLE, st_blocks.
#include <linux/falloc.h>

#include <algorithm>

#include "fs/file_system_impl.h"

namespace caw {

namespace {

/// A scan for st_blocks looks at so many chunks and takes the rest for data.
constexpr uint64_t kMaxCountedChunks = 4096;
constexpr uint64_t kMaxSingleErases = 4;

std::string key_of(const Spot& data, uint64_t chunk) {
  std::string key = data.key;
  put_ordered(key, chunk);
  return key;
}

}  // namespace

void FileSystemImpl::cut_data(Batch& batch, const Spot& data, uint64_t size, uint64_t old_size) {
  const uint64_t inside = size & (kChunkBytes - 1);
  uint64_t first = size >> kChunkShift;
  if (inside != 0) {
    Patch cut;
    cut.cut = static_cast<uint32_t>(inside);
    batch.patch(data.tree, key_of(data, first), std::move(cut));
    ++first;
  }
  erase_chunks(batch, data, first, old_size);
}

/// Makes [from, to) read as zeros.
Result<void> FileSystemImpl::zero_range(Batch& batch, const Spot& data, uint64_t from,
                                        uint64_t to) {
  const auto zero_part = [&](uint64_t start, uint64_t end) -> Result<void> {
    std::string key = key_of(data, start >> kChunkShift);
    const std::optional<Value> value = CAW_TRY(forest_.get(data.tree, key));
    const uint64_t inside = start & (kChunkBytes - 1);
    if (!value || value->length <= inside) return {};
    const uint64_t length = std::min(end - start, value->length - inside);
    batch.patch(data.tree, std::move(key),
                write_patch(static_cast<uint32_t>(inside), std::string(length, '\0')));
    return {};
  };
  const uint64_t first_whole = (from + kChunkBytes - 1) >> kChunkShift;
  const uint64_t end_whole = to >> kChunkShift;
  if (first_whole > end_whole) return zero_part(from, to);
  if (from < first_whole << kChunkShift) CAW_TRY(zero_part(from, first_whole << kChunkShift));
  if (end_whole - first_whole > kMaxSingleErases) {
    batch.erase_range(data.tree, key_of(data, first_whole), key_of(data, end_whole),
                      (end_whole - first_whole) << kChunkShift);
  } else {
    for (uint64_t chunk = first_whole; chunk < end_whole; ++chunk) {
      batch.erase(data.tree, key_of(data, chunk), kChunkBytes);
    }
  }
  if (end_whole << kChunkShift < to) CAW_TRY(zero_part(end_whole << kChunkShift, to));
  return {};
}

Result<void> FileSystemImpl::fallocate(Inode& inode, uint32_t mode, uint64_t offset,
                                       uint64_t length) {
  CAW_TRY(begin_change());
  if (!inode.is_regular()) return fail(Code::invalid_argument, inode.number, "fallocate");
  const bool punch = (mode & FALLOC_FL_PUNCH_HOLE) != 0;
  const bool zero = (mode & FALLOC_FL_ZERO_RANGE) != 0;
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  constexpr uint32_t kKnown = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
  if ((mode & ~kKnown) != 0 || (punch && (zero || !keep_size))) {
    return fail(Code::not_supported, mode, "fallocate");
  }
  if (length == 0) return fail(Code::invalid_argument, 0, "fallocate");
  if (offset > kMaxFileBytes || length > kMaxFileBytes - offset) {
    return fail(Code::file_too_large, offset, "fallocate");
  }
  InodeLocks::Held held(locks_, {&inode});
  InodeFields fields = inode.load_fields();
  const uint64_t old_size = fields.size;
  if (!keep_size) fields.size = std::max(fields.size, offset + length);
  if (!punch && !zero) {
    const StatFs space = CAW_TRY(statfs());
    if (length > space.available_bytes) return fail(Code::no_space, length, "fallocate");
    if (fields.size == old_size) return {};
  }
  fields.flags |= kInodeSparse;
  fields.mtime = fields.ctime = now();
  fields.content_seq = next_stamp();
  const uint64_t end = std::min(offset + length, old_size);
  CAW_TRY(topology_.mutate(
      {contents_of(inode)}, {.essential = punch}, [&](Batch& batch) -> Result<void> {
        if ((punch || zero) && offset < end) {
          CAW_TRY(zero_range(batch, CAW_TRY(topology_.data(inode)), offset, end));
        }
        Spot record = CAW_TRY(topology_.record(inode));
        batch.patch(record.tree, std::move(record.key), attributes_patch(fields));
        return forest_.apply(batch);
      }));
  inode.store_fields(fields);
  return {};
}

Result<uint64_t> FileSystemImpl::seek_data(Inode& inode, uint64_t offset, bool hole) {
  if (!inode.is_regular()) return fail(Code::invalid_argument, inode.number, "lseek");
  const InodeFields fields = inode.load_fields();
  if (offset >= fields.size) return fail(Code::invalid_argument, offset, "lseek", ENXIO);
  if ((fields.flags & kInodeSparse) == 0) return hole ? fields.size : offset;
  return topology_.read(
      [&] { return topology_.data(inode); },
      [&](const Spot& spot) -> Result<uint64_t> {
        uint64_t at = offset;
        const auto cursor =
            forest_.scan(spot.tree, key_of(spot, offset >> kChunkShift), after_prefix(spot.key));
        while (CAW_TRY(cursor->next())) {
          const uint64_t chunk = CAW_TRY(chunk_of_key(cursor->key(), spot.key.size()));
          const uint64_t start = chunk << kChunkShift;
          const uint64_t end = std::min(start + cursor->value().length, fields.size);
          if (end <= at) continue;
          if (!hole) return std::max(at, start);
          if (start > at) return at;
          at = end;
        }
        if (!hole) return fail(Code::invalid_argument, offset, "lseek", ENXIO);
        return std::min(at, fields.size);
      });
}

Result<uint64_t> FileSystemImpl::allocated_blocks(Inode& inode, uint64_t size) {
  constexpr uint64_t kSector = 512;
  const auto count = topology_.read(
      [&] { return topology_.data(inode); },
      [&](const Spot& spot) -> Result<uint64_t> {
        uint64_t sectors = 0;
        uint64_t chunks = 0;
        const auto cursor = forest_.scan(spot.tree, spot.key, after_prefix(spot.key));
        while (CAW_TRY(cursor->next())) {
          const Value& value = cursor->value();
          const uint64_t bytes = value.blob ? value.length : piece_bytes(value.pieces);
          sectors += blocks_for(bytes) * (kBlockSize / kSector);
          if (++chunks < kMaxCountedChunks) continue;
          const uint64_t chunk = CAW_TRY(chunk_of_key(cursor->key(), spot.key.size()));
          const uint64_t counted = std::min(size, (chunk + 1) << kChunkShift);
          return sectors + (size - counted) / kSector;
        }
        return sectors;
      });
  if (!count && count.error().code == Code::stale_inode) return 0;  // fstat of a removed file
  return count;
}

}  // namespace caw
