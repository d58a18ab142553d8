// What the operations and the wire tell the kernel of inodes.  Internal to this module.
#pragma once

#include <fuse_lowlevel.h>
#include <sys/stat.h>

#include "fs/file_system.h"

namespace caw {

/// Seconds that the kernel may cache: all changes go through it or are followed by a notification
/// (control.cc).
inline constexpr double kForever = 365.0 * 86400;
inline constexpr uint32_t kIoBytes = 4096;  ///< st_blksize

struct stat to_stat(const Attributes& attributes);
/// Of open flags.
OpenFor purpose_of(int flags);
fuse_entry_param to_entry(FileSystem& fs, const Entry& entry);

}  // namespace caw
