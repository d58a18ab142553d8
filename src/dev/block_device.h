// BlockDevice: an array of 4 KiB blocks that survives, once flushed.
//
// All methods may be called from any thread at once.  Reads and writes are whole blocks; memory
// that is block-aligned (AlignedBuffer) goes straight to direct I/O, other memory through a bounce
// buffer.  A write is durable only after a later flush() has returned; without one, any subset of
// it may reach the medium.
#pragma once

#include <cstddef>
#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "base/error.h"
#include "base/ids.h"

namespace caw {

struct ReadRequest {
  BlockAddr first;
  std::span<std::byte> out;
};
struct WriteRequest {
  BlockAddr first;
  std::span<const std::byte> data;
};

class BlockDevice {
 public:
  BlockDevice() = default;
  virtual ~BlockDevice() = default;
  BlockDevice(const BlockDevice&) = delete;
  BlockDevice& operator=(const BlockDevice&) = delete;

  virtual uint64_t block_count() const = 0;
  virtual bool read_only() const = 0;

  /// Fails: device_read, device_bounds.
  virtual Result<void> read(BlockAddr first, std::span<std::byte> out) = 0;
  /// Fails: device_write, device_bounds, device_full, read_only.
  virtual Result<void> write(BlockAddr first, std::span<const std::byte> data) = 0;

  /// All requests in flight together (asynchronous where the device can); returns when all are
  /// done, with the first error.
  virtual Result<void> read_batch(std::span<const ReadRequest> requests) = 0;
  virtual Result<void> write_batch(std::span<const WriteRequest> requests) = 0;

  /// Everything written before is on the medium.  Fails: device_flush; never retried.
  virtual Result<void> flush() = 0;

  /// Makes the host really hold these blocks, so that writing them cannot fail for want of space.
  /// Fails: device_full (nothing changed).
  virtual Result<void> ensure_backed(BlockAddr first, uint64_t blocks) = 0;
  /// These blocks' contents are no longer needed; a hint.
  virtual Result<void> discard(BlockAddr first, uint64_t blocks) = 0;
};

struct FileDeviceOptions {
  bool read_only = false;
  bool exclusive = true;   ///< lock the image against a second mount; fails with device_in_use
  bool direct = true;      ///< O_DIRECT where the host allows it
  /// How long to wait for an image in use: the kernel closes the files of a process that was killed
  /// a moment after it has ended, when its io_uring is taken down.
  std::chrono::milliseconds patience{0};
};

/// For commands: the patience that a killed server needs.
inline constexpr std::chrono::milliseconds kOpenPatience{2000};

/// A regular file or a block device.  Its size is what it is at the time of opening.
/// Fails: device_open (with the system's errno), device_kind, device_size, device_in_use.
Result<std::unique_ptr<BlockDevice>> open_file_device(const std::string& path,
                                                      const FileDeviceOptions& options);

/// Memory only; for tests.
std::unique_ptr<BlockDevice> make_memory_device(uint64_t blocks);

}  // namespace caw
