// A device for tests of the allocator: sparse (a volume of many TiB costs nothing) and with a model
// of the host, which has room for `host_blocks` blocks and fails like a full file system.
#pragma once

#include <array>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "dev/block_device.h"

namespace caw {

class HostModelDevice final : public BlockDevice {
 public:
  explicit HostModelDevice(uint64_t blocks, uint64_t host_blocks = UINT64_MAX)
      : blocks_(blocks), host_blocks_(host_blocks) {}

  uint64_t block_count() const override { return blocks_; }
  bool read_only() const override { return false; }
  Result<void> read(BlockAddr first, std::span<std::byte> out) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < out.size() / kBlockSize; ++i) {
      const auto at = contents_.find(raw(first) + i);
      std::byte* to = out.data() + i * kBlockSize;
      if (at == contents_.end()) {
        std::memset(to, 0, kBlockSize);
      } else {
        std::memcpy(to, at->second.data(), kBlockSize);
      }
    }
    reads_ += out.size() / kBlockSize;
    return {};
  }
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < data.size() / kBlockSize; ++i) {
      const uint64_t block = raw(first) + i;
      if (block >= blocks_) return fail(Code::device_bounds, block);
      if (!is_backed(block)) ++unbacked_writes_;
      if (!back(block)) return fail(Code::device_full, block);
      std::memcpy(contents_[block].data(), data.data() + i * kBlockSize, kBlockSize);
    }
    return {};
  }
  Result<void> read_batch(std::span<const ReadRequest> requests) override {
    for (const ReadRequest& request : requests) CAW_TRY(read(request.first, request.out));
    return {};
  }
  Result<void> write_batch(std::span<const WriteRequest> requests) override {
    for (const WriteRequest& request : requests) CAW_TRY(write(request.first, request.data));
    return {};
  }
  Result<void> flush() override { return {}; }
  Result<void> ensure_backed(BlockAddr first, uint64_t blocks) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (raw(first) + blocks > blocks_) return fail(Code::device_bounds, raw(first));
    uint64_t missing = 0;
    for (uint64_t i = 0; i < blocks; ++i) missing += is_backed(raw(first) + i) ? 0U : 1U;
    if (missing > host_blocks_ - used_) return fail(Code::device_full, raw(first));
    for (uint64_t i = 0; i < blocks; ++i) back(raw(first) + i);
    return {};
  }
  Result<void> discard(BlockAddr first, uint64_t blocks) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (uint64_t i = 0; i < blocks; ++i) {
      contents_.erase(raw(first) + i);
      uint64_t& word = backed_[(raw(first) + i) / 64];
      const uint64_t bit = uint64_t{1} << (raw(first) + i) % 64;
      if ((word & bit) != 0) --used_;
      word &= ~bit;
    }
    return {};
  }

  void set_host_blocks(uint64_t blocks) { host_blocks_ = blocks; }
  uint64_t host_used() const { return used_; }
  /// Writes of blocks that nothing had backed: where a host could fail.
  uint64_t unbacked_writes() const { return unbacked_writes_; }
  uint64_t reads() const { return reads_; }

 private:
  bool is_backed(uint64_t block) const {
    const auto at = backed_.find(block / 64);
    return at != backed_.end() && (at->second >> block % 64 & 1) != 0;
  }
  bool back(uint64_t block) {
    if (is_backed(block)) return true;
    if (used_ >= host_blocks_) return false;
    backed_[block / 64] |= uint64_t{1} << block % 64;
    ++used_;
    return true;
  }

  const uint64_t blocks_;
  std::mutex mutex_;
  uint64_t host_blocks_;
  uint64_t used_ = 0;
  uint64_t unbacked_writes_ = 0;
  uint64_t reads_ = 0;
  std::unordered_map<uint64_t, std::array<std::byte, kBlockSize>> contents_;
  std::unordered_map<uint64_t, uint64_t> backed_;
};

}  // namespace caw
