// For fault tests: a device where chosen operations fail or lie.
//
//   FaultPlan plan;                                    // outlives the device
//   auto device = std::make_unique<FaultyDevice>(std::move(inner), plan);
//   plan.arm({.on = DeviceOp::write, .at = k});        // the k-th write from now on fails
//
// Each request of a batch counts as one operation.  All methods may be called from any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <utility>

#include "dev/block_device.h"

namespace caw {

enum class DeviceOp : uint8_t { read, write, flush, ensure_backed, discard };
inline constexpr size_t kDeviceOpCount = 5;

enum class FaultKind : uint8_t {
  error,      ///< fails; nothing is done
  flip,       ///< one bit of what is read, or written, is wrong; reported as success
  lost,       ///< a write that is not done; reported as success
  misplaced,  ///< a write that goes to the next block; reported as success
};

struct Fault {
  DeviceOp on = DeviceOp::write;
  uint64_t at = 1;        ///< the at-th operation of its kind since arm(), from 1
  bool for_ever = false;  ///< that one and all later ones of its kind; else that one only
  FaultKind kind = FaultKind::error;
  std::optional<Error> error{};  ///< for FaultKind::error; default: EIO, or ENOSPC if backing
};

class FaultPlan {
 public:
  /// Replaces the fault there was; counts start again at 0.
  void arm(const Fault& fault);
  void disarm();
  /// Operations of this kind since the last arm() (or since the start).
  uint64_t count(DeviceOp op) const;
  /// How many operations the armed fault has hit.
  uint64_t hits() const;

  /// Counts one operation; for FaultyDevice.
  std::optional<Fault> next(DeviceOp op);

 private:
  mutable std::mutex mutex_;
  std::optional<Fault> fault_;                     // guarded by mutex_
  std::array<uint64_t, kDeviceOpCount> counts_{};  // guarded by mutex_
  uint64_t hits_ = 0;                              // guarded by mutex_
};

class FaultyDevice final : public BlockDevice {
 public:
  FaultyDevice(std::unique_ptr<BlockDevice> inner, FaultPlan& plan)
      : inner_(std::move(inner)), plan_(plan) {}

  uint64_t block_count() const override { return inner_->block_count(); }
  bool read_only() const override { return inner_->read_only(); }
  Result<void> read(BlockAddr first, std::span<std::byte> out) override;
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override;
  Result<void> read_batch(std::span<const ReadRequest> requests) override;
  Result<void> write_batch(std::span<const WriteRequest> requests) override;
  Result<void> flush() override;
  Result<void> ensure_backed(BlockAddr first, uint64_t blocks) override;
  Result<void> discard(BlockAddr first, uint64_t blocks) override;

 private:
  std::unique_ptr<BlockDevice> inner_;
  FaultPlan& plan_;
};

}  // namespace caw
