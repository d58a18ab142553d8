#include "dev/faulty_device.h"

#include <string>

#include "base/bytes.h"

namespace caw {
namespace {

std::unexpected<Error> injected(const Fault& fault, uint64_t detail) {
  if (fault.error) return std::unexpected<Error>(*fault.error);
  switch (fault.on) {
    case DeviceOp::read:
      return fail(Code::device_read, detail, "injected", EIO);
    case DeviceOp::flush:
      return fail(Code::device_flush, detail, "injected", EIO);
    case DeviceOp::ensure_backed:
      return fail(Code::device_full, detail, "injected", ENOSPC);
    case DeviceOp::write:
    case DeviceOp::discard:
      break;
  }
  return fail(Code::device_write, detail, "injected", EIO);
}

}  // namespace

void FaultPlan::arm(const Fault& fault) {
  std::lock_guard lock(mutex_);
  fault_ = fault;
  counts_ = {};
  hits_ = 0;
}

void FaultPlan::disarm() {
  std::lock_guard lock(mutex_);
  fault_.reset();
}

uint64_t FaultPlan::count(DeviceOp op) const {
  std::lock_guard lock(mutex_);
  return counts_[static_cast<size_t>(op)];
}

uint64_t FaultPlan::hits() const {
  std::lock_guard lock(mutex_);
  return hits_;
}

std::optional<Fault> FaultPlan::next(DeviceOp op) {
  std::lock_guard lock(mutex_);
  const uint64_t number = ++counts_[static_cast<size_t>(op)];
  if (!fault_ || fault_->on != op) return std::nullopt;
  if (fault_->for_ever ? number < fault_->at : number != fault_->at) return std::nullopt;
  ++hits_;
  return fault_;
}

Result<void> FaultyDevice::read(BlockAddr first, std::span<std::byte> out) {
  const std::optional<Fault> fault = plan_.next(DeviceOp::read);
  if (fault && fault->kind == FaultKind::error) return injected(*fault, raw(first));
  CAW_TRY(inner_->read(first, out));
  if (fault && fault->kind == FaultKind::flip && !out.empty()) out[out.size() / 2] ^= std::byte{1};
  return {};
}

Result<void> FaultyDevice::write(BlockAddr first, std::span<const std::byte> data) {
  const std::optional<Fault> fault = plan_.next(DeviceOp::write);
  if (!fault) return inner_->write(first, data);
  switch (fault->kind) {
    case FaultKind::error:
      return injected(*fault, raw(first));
    case FaultKind::lost:
      return {};
    case FaultKind::misplaced:
      return inner_->write(first + 1, data);
    case FaultKind::flip:
      break;
  }
  std::string flipped(as_chars(data));
  if (!flipped.empty()) flipped[flipped.size() / 2] ^= 1;
  return inner_->write(first, as_bytes(flipped));
}

// One by one, and all of them even when one fails, as requests in flight together do not stop
// each other.
Result<void> FaultyDevice::read_batch(std::span<const ReadRequest> requests) {
  Result<void> first_error;
  for (const ReadRequest& request : requests) {
    Result<void> result = read(request.first, request.out);
    if (!result && first_error) first_error = std::move(result);
  }
  return first_error;
}

Result<void> FaultyDevice::write_batch(std::span<const WriteRequest> requests) {
  Result<void> first_error;
  for (const WriteRequest& request : requests) {
    Result<void> result = write(request.first, request.data);
    if (!result && first_error) first_error = std::move(result);
  }
  return first_error;
}

Result<void> FaultyDevice::flush() {
  const std::optional<Fault> fault = plan_.next(DeviceOp::flush);
  if (!fault) return inner_->flush();
  if (fault->kind == FaultKind::error) return injected(*fault, 0);
  return {};
}

Result<void> FaultyDevice::ensure_backed(BlockAddr first, uint64_t blocks) {
  const std::optional<Fault> fault = plan_.next(DeviceOp::ensure_backed);
  if (fault) return injected(*fault, raw(first));
  return inner_->ensure_backed(first, blocks);
}

Result<void> FaultyDevice::discard(BlockAddr first, uint64_t blocks) {
  const std::optional<Fault> fault = plan_.next(DeviceOp::discard);
  if (fault) return injected(*fault, raw(first));
  return inner_->discard(first, blocks);
}

}  // namespace caw
