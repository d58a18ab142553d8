// The real engine as a ForestBed, on a device in memory, with trees so small that a hundred ops
// meet every case.
#pragma once

#include <functional>
#include <memory>

#include "dev/memory_device.h"
#include "support/forest_runner.h"
#include "volume/volume.h"

namespace caw {

/// Leaves of a few records, fan-out 4: some numbers vary with the seed, F·α·s <= B holds.
TreeShape tiny_shape(uint64_t seed);

struct VolumeBedOptions {
  TreeShape shape = tiny_shape(1);
  uint64_t blocks = 16384;               ///< 64 MiB
  uint64_t cache_bytes = 1U << 20;
  Compression compression = Compression::lz4;
  bool background = false;
  bool read_only = false;
  bool check_structure = true;           ///< check() lets the checker count everything
  /// Stands between the engine and the memory; for recording and counting.
  std::function<std::unique_ptr<BlockDevice>(std::unique_ptr<BlockDevice>)> wrap;
  /// Stands between the store and its allocator.
  std::function<std::unique_ptr<Allocator>(std::unique_ptr<Allocator>)> wrap_allocator;
};

class VolumeBed final : public ForestBed {
 public:
  /// A new volume; aborts if it cannot be made.
  explicit VolumeBed(const VolumeBedOptions& options);
  /// The volume that is on `image`; open() must follow.
  VolumeBed(const VolumeBedOptions& options, Ref<MemoryImage> image);
  ~VolumeBed() override;

  Forest& forest() override { return *volume_; }
  Volume& volume() { return *volume_; }
  const Ref<MemoryImage>& image() const { return image_; }

  Result<void> open();
  Result<void> close();
  Result<void> maintain() override;
  Result<void> reopen() override;
  Result<void> crash() override;
  /// What the checker finds wrong with the last checkpoint, and with one made now.
  std::string check() override;
  /// Lets all removals come to their end; empty if nothing dead is left and check() finds nothing.
  std::string drain_and_check();

 private:
  std::string check_image() const;
  std::unique_ptr<BlockDevice> device();

  VolumeBedOptions options_;
  Ref<MemoryImage> image_;
  std::unique_ptr<Volume> volume_;
};

}  // namespace caw
