// What the parts of FileSystemImpl hand to each other about files that are made, moved or copied.
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string_view>

#include "fs/inode.h"
#include "fs/topology.h"
#include "schema/records.h"

namespace caw {

/// For contents of unknown size: makes the flusher act soon.
inline constexpr uint64_t kManyDeadBytes = uint64_t{1} << 30;
/// Data of up to so many chunks are copied record by record; beyond, the file comes to own a tree.
inline constexpr uint64_t kMaxCopiedChunks = 64;
inline constexpr uint64_t kMaxCopiedFileBytes = 64 * 1024;  ///< of those, without blobs

/// What a file lets others do in the name of its owner ends when others change it.
inline void drop_privileges(InodeFields& fields) {
  fields.mode &= ~uint32_t{S_ISUID};
  if ((fields.mode & S_IXGRP) != 0) fields.mode &= ~uint32_t{S_ISGID};
}

struct NewEntry {
  std::string_view name;
  uint32_t mode = 0;
  uint32_t rdev = 0;
  std::string_view target;
};
/// Where a record goes.
struct Destination {
  Place place;
  uint64_t domain = 0;  ///< of the directory
  uint64_t entry = 0;
  std::string_view name;
  Inode* parent = nullptr;  ///< whose place it is; not set for the system tree's
};

}  // namespace caw
