// The file systems on a volume: every name has its record and every record its name, no two files
// of a tree have one number, data belong to files, are complete and end where the files do, and
// linked files have as many names as they say.
// (What the trees are made of is check.h's.)
#pragma once

#include <cstdint>

#include "check/findings.h"
#include "check/tables.h"
#include "dev/block_device.h"

namespace caw {

struct FileFigures {
  uint64_t directories = 0;  ///< records; those in trees seen through several clones once
  uint64_t files = 0;
  uint64_t symlinks = 0;
  uint64_t others = 0;
  uint64_t orphans = 0;
  uint64_t trees = 0;
  uint64_t file_bytes = 0;  ///< sum of the files' sizes
};

/// Reads every tree once.  Memory: the entries of the directories on one path, and for one tree 16
/// bytes a record and 32 a regular file; for the volume, 16 bytes a linked name and 24 a directory
/// that owns a tree.
FileFigures check_files(BlockDevice& device, const Superblock& superblock, const NodeTable& table,
                        Findings& findings);

}  // namespace caw
