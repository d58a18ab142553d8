// Counts what reaches a device: requests, bytes, seeks.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "dev/block_device.h"

namespace caw {

struct DeviceCounts {
  uint64_t reads = 0, read_bytes = 0;
  uint64_t read_seeks = 0;               ///< reads that do not go on where one shortly before ended
  uint64_t writes = 0, write_bytes = 0;
  uint64_t flushes = 0;

  DeviceCounts operator-(const DeviceCounts& other) const {
    return {reads - other.reads,   read_bytes - other.read_bytes,   read_seeks - other.read_seeks,
            writes - other.writes, write_bytes - other.write_bytes, flushes - other.flushes};
  }
};

/// Outlives its devices.  Any thread.
class DeviceCounter {
 public:
  DeviceCounts counts() const {
    std::lock_guard lock(mutex_);
    return counts_;
  }
  void on_read(BlockAddr first, size_t bytes) {
    std::lock_guard lock(mutex_);
    ++counts_.reads;
    counts_.read_bytes += bytes;
    // A drive that is read at several places in turn streams each: remember a few ends.
    const uint64_t from = raw(first);
    const auto near = std::find_if(ends_.begin(), ends_.end(), [&](uint64_t end) {
      return from >= end && from - end <= kNearBlocks;
    });
    if (near == ends_.end()) {
      ++counts_.read_seeks;
      if (ends_.size() >= kStreams) ends_.erase(ends_.begin());
    } else {
      ends_.erase(near);
    }
    ends_.push_back(from + bytes / kBlockSize);
  }
  void on_write(size_t bytes) {
    std::lock_guard lock(mutex_);
    ++counts_.writes;
    counts_.write_bytes += bytes;
  }
  void on_flush() {
    std::lock_guard lock(mutex_);
    ++counts_.flushes;
  }

 private:
  static constexpr size_t kStreams = 8;
  static constexpr uint64_t kNearBlocks = 16;   ///< read-ahead covers such gaps

  mutable std::mutex mutex_;
  DeviceCounts counts_;                  // guarded by mutex_
  std::vector<uint64_t> ends_;           // guarded by mutex_
};

class CountingDevice final : public BlockDevice {
 public:
  CountingDevice(std::unique_ptr<BlockDevice> inner, DeviceCounter& counter)
      : inner_(std::move(inner)), counter_(counter) {}

  uint64_t block_count() const override { return inner_->block_count(); }
  bool read_only() const override { return inner_->read_only(); }
  Result<void> read(BlockAddr first, std::span<std::byte> out) override {
    counter_.on_read(first, out.size());
    return inner_->read(first, out);
  }
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override {
    counter_.on_write(data.size());
    return inner_->write(first, data);
  }
  Result<void> read_batch(std::span<const ReadRequest> requests) override {
    // The device may serve a batch in any order.
    std::vector<std::pair<uint64_t, size_t>> order;
    for (const ReadRequest& request : requests) {
      order.emplace_back(raw(request.first), request.out.size());
    }
    std::sort(order.begin(), order.end());
    for (const auto& [first, bytes] : order) counter_.on_read(BlockAddr{first}, bytes);
    return inner_->read_batch(requests);
  }
  Result<void> write_batch(std::span<const WriteRequest> requests) override {
    for (const WriteRequest& request : requests) counter_.on_write(request.data.size());
    return inner_->write_batch(requests);
  }
  Result<void> flush() override {
    counter_.on_flush();
    return inner_->flush();
  }
  Result<void> ensure_backed(BlockAddr first, uint64_t blocks) override {
    return inner_->ensure_backed(first, blocks);
  }
  Result<void> discard(BlockAddr first, uint64_t blocks) override {
    return inner_->discard(first, blocks);
  }

 private:
  std::unique_ptr<BlockDevice> inner_;
  DeviceCounter& counter_;
};

}  // namespace caw
