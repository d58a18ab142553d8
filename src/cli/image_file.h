// The file or device that is to become a volume: what is in it now, and how large it is to be.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/error.h"
#include "format/superblock.h"

namespace caw {

enum class ImageContents : uint8_t { absent, empty, foreign, volume };

struct ImageState {
  ImageContents contents = ImageContents::absent;
  bool is_regular = true;
  uint64_t size_bytes = 0;
};

/// Looks, changes nothing.  A file is empty if it holds no data (it may be long and sparse); a
/// device, if its first MiB is zeros.  Fails: device_open, device_kind, device_read.
Result<ImageState> inspect_image(const std::string& path);

/// Creates the file if it is absent and sets its length; new bytes are a hole.
/// Fails: device_open, device_write (with the system's errno).
Result<void> size_image(const std::string& path, uint64_t size_bytes);

/// The newer of the superblocks of an image, read without locking it: also while it is mounted.
/// Fails: device_open, device_kind, device_read, not_a_volume, superblock_damaged, format_version,
/// volume_truncated.
Result<Superblock> read_superblock(const std::string& path);

}  // namespace caw
