#include "cli/volume_info.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <string>

#include "cli/report.h"
#include "volume/volume.h"

namespace caw {

void fill_info(Volume& volume, caw_info& info) {
  const Superblock& superblock = volume.store().superblock();
  const VolumeFigures figures = volume.figures();
  info.format_version = superblock.version;
  std::copy(superblock.uuid.begin(), superblock.uuid.end(), info.uuid);
  const size_t label_bytes = std::min(superblock.label.size(), sizeof info.label - 1);
  std::memcpy(info.label, superblock.label.data(), label_bytes);
  if (const std::optional<Error> failure = volume.store().failure()) {
    info.flags |= CAW_INFO_READ_ONLY;
    const std::string reason = what_of(*failure);
    std::memcpy(info.failure, reason.data(), std::min(reason.size(), sizeof info.failure - 1));
  }

  info.total_bytes = figures.space.total_bytes;
  info.used_bytes = figures.space.used_bytes;
  info.reserve_bytes = figures.space.reserve_bytes;
  info.reclaiming_bytes = figures.space.reclaiming_bytes;

  const StoreCounters& store = figures.store;
  info.node_reads = store.node_reads;
  info.node_read_bytes = store.node_read_bytes;
  info.node_writes = store.node_writes;
  info.node_write_bytes = store.node_write_bytes;
  info.blob_reads = store.blob_reads;
  info.blob_read_bytes = store.blob_read_bytes;
  info.blob_writes = store.blob_writes;
  info.blob_write_bytes = store.blob_write_bytes;
  info.checkpoints = store.checkpoints;
  info.cache_bytes = store.cache_bytes;
  info.dirty_bytes = store.dirty_bytes;
  info.dead_nodes = store.dead_nodes;
}

Result<void> scrub_slice(Volume& volume, caw_scrub& request) {
  constexpr uint32_t kUsualBytes = 4U << 20;
  constexpr uint32_t kMostBytes = 64U << 20;
  if (request.max_bytes > kMostBytes) return fail(Code::invalid_argument, request.max_bytes);
  const ScrubCursor from{request.cursor[0], request.cursor[1], request.cursor[2]};
  const ScrubSlice slice = CAW_TRY(volume.store().scrub(
      from, request.max_bytes != 0 ? request.max_bytes : kUsualBytes, CAW_SCRUB_ERRORS));
  request.cursor[0] = slice.next.node;
  request.cursor[1] = slice.next.blob;
  request.cursor[2] = slice.next.node_checksum;
  request.flags = slice.done ? CAW_SCRUB_DONE : 0;
  request.bytes = slice.bytes;
  request.nodes = slice.nodes;
  request.blobs = slice.blobs;
  request.lost_blobs = slice.lost_blobs;
  request.total_bytes = volume.space().used_bytes;
  request.error_count = static_cast<uint32_t>(slice.errors.size());
  for (size_t i = 0; i < slice.errors.size(); ++i) {
    const ScrubError& error = slice.errors[i];
    const bool is_data = error.blob != kNoBlock;
    request.errors[i] = {is_data ? raw(error.blob) : raw(error.node),
                         is_data ? CAW_SCRUB_DATA : CAW_SCRUB_NODE,
                         static_cast<uint32_t>(error.code)};
  }
  return {};
}

}  // namespace caw
