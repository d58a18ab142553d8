// A device that somebody else owns, for who wants to own one.
#pragma once

#include "dev/block_device.h"

namespace caw {

class BorrowedDevice final : public BlockDevice {
 public:
  explicit BorrowedDevice(BlockDevice& device) : device_(device) {}
  uint64_t block_count() const override { return device_.block_count(); }
  bool read_only() const override { return device_.read_only(); }
  Result<void> read(BlockAddr first, std::span<std::byte> out) override {
    return device_.read(first, out);
  }
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override {
    return device_.write(first, data);
  }
  Result<void> read_batch(std::span<const ReadRequest> requests) override {
    return device_.read_batch(requests);
  }
  Result<void> write_batch(std::span<const WriteRequest> requests) override {
    return device_.write_batch(requests);
  }
  Result<void> flush() override { return device_.flush(); }
  Result<void> ensure_backed(BlockAddr first, uint64_t blocks) override {
    return device_.ensure_backed(first, blocks);
  }
  Result<void> discard(BlockAddr first, uint64_t blocks) override {
    return device_.discard(first, blocks);
  }

 private:
  BlockDevice& device_;
};

}  // namespace caw
