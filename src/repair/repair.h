// Repair of a volume that is not mounted (docs/adr/0020-repair.md).
//
// First the structure: nodes, counts, space, from the best superblock there is.  Then what the log
// holds is done again, by the engine.  Then the file systems; what has lost its place is put into
// /lost+found.  Each of these ends in a checkpoint; whatever interrupts a repair leaves a volume as
// it was or as one of these steps left it, and it can be run again.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/error.h"
#include "dev/block_device.h"

namespace caw {

struct RepairOptions {
  size_t max_notes = 1000;  ///< kept; all are counted
  Clock* clock = &Clock::system();
};

struct RepairReport {
  std::vector<std::string> notes;  ///< a sentence for each thing that was changed or is lost
  uint64_t note_count = 0;
};

/// Fails: not_a_volume, superblock_damaged, format_version, volume_truncated (nothing was changed);
/// no_space, device_full, device_write, device_flush, device_read (the step left nothing);
/// check_found (damage of a kind that is not understood).
Result<RepairReport> repair_volume(BlockDevice& device, const RepairOptions& options);

}  // namespace caw
