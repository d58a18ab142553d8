// A device that shows another one as it would be after writes that are kept in memory: nothing ever
// reaches the device below.  One thread at a time.
#pragma once

#include <cstdint>
#include <unordered_map>

#include "base/aligned_buffer.h"
#include "dev/block_device.h"

namespace caw {

class OverlayDevice final : public BlockDevice {
 public:
  /// `below` outlives it.
  explicit OverlayDevice(BlockDevice& below) : below_(below) {}

  uint64_t block_count() const override { return below_.block_count(); }
  bool read_only() const override { return false; }
  Result<void> read(BlockAddr first, std::span<std::byte> out) override;
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override;
  Result<void> read_batch(std::span<const ReadRequest> requests) override;
  Result<void> write_batch(std::span<const WriteRequest> requests) override;
  Result<void> flush() override { return {}; }
  Result<void> ensure_backed(BlockAddr /*first*/, uint64_t /*blocks*/) override { return {}; }
  Result<void> discard(BlockAddr /*first*/, uint64_t /*blocks*/) override { return {}; }

 private:
  BlockDevice& below_;
  std::unordered_map<uint64_t, AlignedBuffer> written_;
};

}  // namespace caw
