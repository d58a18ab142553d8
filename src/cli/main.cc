// caw: the one program; also under the names mkfs.cawfs, mount.cawfs, fsck.cawfs and cawfs.
#include <cstdio>
#include <span>
#include <string>
#include <string_view>

#include "cli/commands.h"
#include "cli/report.h"

namespace {

constexpr std::string_view kHelp =
    "Usage: caw COMMAND [OPTIONS] ...\n"
    "\n"
    "  mkfs    makes a volume in a file or on a block device\n"
    "  mount   mounts it on a directory\n"
    "  umount  unmounts it\n"
    "  clone   copies a directory tree or file, at once\n"
    "  rm      removes whole trees, at once\n"
    "  same    do two trees or files share all their content?\n"
    "  sync    makes everything so far durable\n"
    "  info    shows what a volume is and does\n"
    "  fsck    checks and repairs a volume that is not mounted\n"
    "  scrub   reads and verifies everything on a mounted volume\n"
    "  dump    shows how a volume looks inside (for developers)\n"
    "\n"
    "caw COMMAND --help says more about each.\n";

struct Command {
  std::string_view name;
  int (*run)(caw::Arguments);
};

constexpr Command kCommands[] = {
    {"clone", caw::run_clone}, {"rm", caw::run_remove},     {"sync", caw::run_sync},
    {"same", caw::run_same},   {"umount", caw::run_umount}, {"mkfs", caw::run_mkfs},
    {"mount", caw::run_mount}, {"info", caw::run_info},     {"fsck", caw::run_fsck},
    {"dump", caw::run_dump},   {"scrub", caw::run_scrub},
};

std::string_view base_name(std::string_view path) { return path.substr(path.rfind('/') + 1); }

}  // namespace

int main(int argc, char** argv) {
  const std::span<char* const> all(argv, static_cast<size_t>(argc));
  if (all.empty()) return caw::kExitUsage;
  const std::string_view self = base_name(all[0]);
  if (self == "mkfs.cawfs") return caw::run_mkfs(all.subspan(1));
  if (self == "fsck.cawfs") return caw::run_fsck(all.subspan(1));
  if (self == "mount.cawfs" || self == "cawfs") return caw::run_mount_helper(all.subspan(1));

  const std::string_view name = all.size() > 1 ? all[1] : "";
  for (const Command& command : kCommands) {
    if (name == command.name) return command.run(all.subspan(2));
  }
  const bool asked = name == "--help" || name == "-h" || name == "help";
  if (name == "--version") {
    std::puts("caw " CAW_VERSION);
    return caw::kExitDone;
  }
  if (!asked && !name.empty()) {
    std::fprintf(stderr, "caw: there is no command '%s'; see caw --help\n", argv[1]);
    return caw::kExitUsage;
  }
  std::fwrite(kHelp.data(), 1, kHelp.size(), asked ? stdout : stderr);
  return asked ? caw::kExitDone : caw::kExitUsage;
}
