#include "format/compression.h"

#include <lz4.h>
#include <xxhash.h>
#include <zstd.h>

#include <algorithm>
#include <cstddef>
#include <memory>

#include "base/assert.h"
#include "base/ids.h"
#include "format/node.h"

namespace caw {
namespace {

constexpr int kZstdLevel = 1;

struct FreeZstd {
  void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

// One context per thread: making one costs more than compressing a leaf.
ZSTD_CCtx* zstd_compressor() {
  thread_local const std::unique_ptr<ZSTD_CCtx, FreeZstd> context(ZSTD_createCCtx());
  CAW_ASSERT(context != nullptr);
  return context.get();
}
ZSTD_DCtx* zstd_decompressor() {
  thread_local const std::unique_ptr<ZSTD_DCtx, FreeZstd> context(ZSTD_createDCtx());
  CAW_ASSERT(context != nullptr);
  return context.get();
}
void* lz4_state() {
  thread_local const std::unique_ptr<std::max_align_t[]> state(
      new std::max_align_t[(static_cast<size_t>(LZ4_sizeofState()) / sizeof(std::max_align_t)) +
                           1]);
  return state.get();
}

/// Bytes written to `at`, or 0 where the result does not fit into `room`.
size_t compress_into(Compression method, std::string_view raw, char* at, size_t room) {
  if (method == Compression::lz4) {
    const int size = LZ4_compress_fast_extState(
        lz4_state(), raw.data(), at, static_cast<int>(raw.size()), static_cast<int>(room), 1);
    return size > 0 ? static_cast<size_t>(size) : 0;
  }
  const size_t size =
      ZSTD_compressCCtx(zstd_compressor(), at, room, raw.data(), raw.size(), kZstdLevel);
  return ZSTD_isError(size) != 0 ? 0 : size;
}

}  // namespace

Compression compress(Compression wanted, std::string_view raw, std::string* out) {
  CAW_ASSERT(raw.size() <= kMaxNodePayload);
  const uint64_t blocks = blocks_for(raw.size());
  if (wanted != Compression::none && blocks > 1) {
    const size_t room = (blocks - 1) * kBlockSize;
    size_t size = 0;
    out->resize_and_overwrite(
        room, [&](char* at, size_t) { return size = compress_into(wanted, raw, at, room); });
    if (size > 0) return wanted;
  }
  out->assign(raw);
  return Compression::none;
}

Result<std::string> decompress(Compression method, std::string_view stored, uint32_t raw_bytes) {
  if (raw_bytes > kMaxNodePayload || stored.size() > kMaxNodePayload) {
    return fail(Code::decompress, raw_bytes, "size");
  }
  if (method == Compression::none) {
    if (stored.size() != raw_bytes) return fail(Code::decompress, raw_bytes, "stored size");
    return std::string(stored);
  }
  std::string out;
  bool ok = false;
  out.resize_and_overwrite(raw_bytes, [&](char* at, size_t room) {
    if (method == Compression::lz4) {
      const int size = LZ4_decompress_safe(stored.data(), at, static_cast<int>(stored.size()),
                                           static_cast<int>(room));
      ok = size >= 0 && static_cast<size_t>(size) == room;
    } else if (method == Compression::zstd) {
      ok = ZSTD_decompressDCtx(zstd_decompressor(), at, room, stored.data(), stored.size()) == room;
    }
    return ok ? room : 0;
  });
  if (!ok) return fail(Code::decompress, raw_bytes, "contents");
  return out;
}

uint64_t checksum64(std::string_view bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

}  // namespace caw
