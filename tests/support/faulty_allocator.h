// For fault tests: an allocator whose reservations find no space when a plan says so.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "space/allocator.h"

namespace caw {

/// Reservations are counted from 1, of all classes.
struct SpacePlan {
  uint64_t first = UINT64_MAX;      ///< the first that fails …
  uint64_t last = UINT64_MAX;       ///< … and the last one
  bool essential_too = true;
  std::atomic<bool> armed{true};
  std::atomic<uint64_t> count{0};
  std::atomic<uint64_t> hits{0};
};

class FaultyAllocator final : public Allocator {
 public:
  /// `plan` outlives it.
  FaultyAllocator(std::unique_ptr<Allocator> inner, SpacePlan& plan)
      : inner_(std::move(inner)), plan_(plan) {}

  Result<BlockAddr> reserve(uint64_t blocks, SpaceClass space_class) override {
    const uint64_t number = ++plan_.count;
    const bool concerned = space_class == SpaceClass::ordinary || plan_.essential_too;
    if (plan_.armed && concerned && number >= plan_.first && number <= plan_.last) {
      ++plan_.hits;
      return fail(Code::no_space, blocks, "FaultyAllocator");
    }
    return inner_->reserve(blocks, space_class);
  }
  Result<bool> claim(Extent extent) override { return inner_->claim(extent); }
  void commit(Extent extent, Epoch epoch) override { inner_->commit(extent, epoch); }
  void cancel(Extent extent) override { inner_->cancel(extent); }
  void free(Extent extent, Epoch epoch) override { inner_->free(extent, epoch); }
  Result<void> write_checkpoint(Epoch epoch, Superblock& superblock) override {
    return inner_->write_checkpoint(epoch, superblock);
  }
  void release_through(Epoch epoch) override { inner_->release_through(epoch); }
  SpaceFigures figures() const override { return inner_->figures(); }

 private:
  std::unique_ptr<Allocator> inner_;
  SpacePlan& plan_;
};

}  // namespace caw
