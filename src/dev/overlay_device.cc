#include "dev/overlay_device.h"

#include <cstring>

namespace caw {

Result<void> OverlayDevice::read(BlockAddr first, std::span<std::byte> out) {
  CAW_TRY(below_.read(first, out));
  for (size_t at = 0; at < out.size(); at += kBlockSize) {
    const auto found = written_.find(raw(first) + at / kBlockSize);
    if (found != written_.end()) {
      std::memcpy(out.data() + at, found->second.data(), kBlockSize);
    }
  }
  return {};
}

Result<void> OverlayDevice::write(BlockAddr first, std::span<const std::byte> data) {
  const uint64_t blocks = data.size() / kBlockSize;
  if (raw(first) >= block_count() || blocks > block_count() - raw(first)) {
    return fail(Code::device_bounds, raw(first), "OverlayDevice");
  }
  for (uint64_t i = 0; i < blocks; ++i) {
    AlignedBuffer& block = written_[raw(first) + i];
    if (block.size() == 0) block = AlignedBuffer(kBlockSize);
    std::memcpy(block.data(), data.data() + i * kBlockSize, kBlockSize);
  }
  return {};
}

Result<void> OverlayDevice::read_batch(std::span<const ReadRequest> requests) {
  for (const ReadRequest& request : requests) CAW_TRY(read(request.first, request.out));
  return {};
}

Result<void> OverlayDevice::write_batch(std::span<const WriteRequest> requests) {
  for (const WriteRequest& request : requests) CAW_TRY(write(request.first, request.data));
  return {};
}

}  // namespace caw
