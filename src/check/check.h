// The checker: reads a whole volume a second time, by code that shares nothing with the engine but
// the encodings, and counts for itself what the engine claims.
//
// It follows every reference from the superblock and from the dead list; verifies every checksum
// and every payload; recounts the references to each node and blob; and compares the bitmaps, block
// by block, with what is reached.  Only reads.  The volume must not be mounted for writing.
// Memory: about 60 bytes a node, 40 a reference to a blob, 1 bit a block.
#pragma once

#include <cstdint>
#include <vector>

#include "base/error.h"
#include "check/files.h"
#include "check/findings.h"
#include "dev/block_device.h"

namespace caw {

struct CheckOptions {
  bool read_blobs = true;        ///< verify file data as well
  /// Look at the trees as file systems, too (check/files.h).  Only where nothing else was found.
  bool files = false;
  size_t max_findings = 100;     ///< kept; all are counted
};

struct CheckFigures {
  uint64_t epoch = 0;
  bool clean = false;                      ///< unmounted in order
  /// Of the two: no damage by itself, since a power cut may tear the older one.
  uint64_t damaged_superblocks = 0;
  uint64_t interiors = 0, leaves = 0, runs = 0;   ///< reached, dead ones included
  uint64_t trees = 0;                      ///< nodes that a record or the superblock owns
  uint64_t dead_nodes = 0;                 ///< on the dead list
  uint64_t shared_nodes = 0;               ///< with a count above one
  uint64_t reference_cycles = 0;           ///< closed by some record; the engine makes none
  uint64_t node_blocks = 0;
  uint64_t records = 0, messages = 0;      ///< entries of leaves; of runs
  uint64_t blobs = 0, shared_blobs = 0, blob_blocks = 0, blob_raw_bytes = 0;
  uint64_t lost_blobs = 0;                 ///< of them: what an earlier repair could not save
  uint64_t table_pages = 0;
  uint64_t used_blocks = 0, free_blocks = 0;      ///< by the bitmaps
  uint64_t max_height = 0;
  FileFigures files;                       ///< with CheckOptions::files
};

struct CheckReport {
  std::vector<Finding> findings;
  uint64_t finding_count = 0;
  CheckFigures figures;
  bool is_sound() const { return finding_count == 0; }
};

/// Fails where there is nothing to check: not_a_volume, superblock_damaged, format_version,
/// volume_truncated, device_read.  All else is a finding.
Result<CheckReport> check_volume(BlockDevice& device, const CheckOptions& options = {});

}  // namespace caw
