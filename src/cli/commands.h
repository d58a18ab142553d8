// The commands of `caw`.  Each takes what follows its name on the command line and returns the exit
// code of the program.
#pragma once

#include <span>

namespace caw {

using Arguments = std::span<char* const>;

// These only talk to a mounted volume, and start in a few milliseconds: no parser, no engine.
int run_clone(Arguments arguments);
int run_remove(Arguments arguments);
int run_sync(Arguments arguments);
int run_same(Arguments arguments);
int run_umount(Arguments arguments);
/// Exit code: 0 sound, 1 failed or stopped, 2 wrong usage, 4 damage found.
int run_scrub(Arguments arguments);

int run_mkfs(Arguments arguments);
int run_mount(Arguments arguments);
/// As mount(8) calls it: IMAGE DIR [-sfnv] [-o OPTIONS].
int run_mount_helper(Arguments arguments);
int run_info(Arguments arguments);
int run_dump(Arguments arguments);
/// Exit codes as fsck(8).
int run_fsck(Arguments arguments);

}  // namespace caw
