// caw rm: whole trees at once; file by file where the volume refuses that to the caller.
#include <fcntl.h>
#include <fts.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <limits>
#include <string>

#include "cli/client_options.h"
#include "cli/commands.h"
#include "cli/report.h"
#include "cli/volume_client.h"

namespace caw {
namespace {

constexpr ClientCommand kRemove = {
    "rm",
    "Usage: caw rm [--sync] PATH...\n"
    "\n"
    "Removes files and whole directory trees of a cawfs volume, each at once and whatever its "
    "size.\n"
    "The names are gone when the command returns; the space comes back in the background.  What "
    "you\n"
    "may not remove at once (not yours), is removed file by file as rm -rf would.\n"
    "\n"
    "  --sync   the removal is durable when the command returns\n"
    "\n"
    "Exit code: 0 all removed, 1 some not, 2 wrong usage.\n",
    {"--sync"},
    1,
    std::numeric_limits<size_t>::max()};

int say(const char* path, int sys_errno, const std::string& directory) {
  switch (sys_errno) {
    case ENOENT:
      return complain("rm", path, "no such file or directory", "check the name");
    case ENOTTY:
      return complain("rm", path, "not on a mounted cawfs volume", "use rm -rf");
    case EACCES:
    case EPERM:
      return complain("rm", path, "permission denied", "you must be able to write to " + directory);
    case EROFS:
      return complain("rm", path, "the volume is read-only", "mount it without -o ro");
    case EBUSY:
      return complain("rm", path, "something is mounted there", "unmount it first");
    default:
      return complain("rm", path, errno_text(sys_errno));
  }
}

/// Like rm -rf: everything that the caller may.  Returns 0 or the first errno.
int remove_file_by_file(const char* path) {
  std::string root(path);
  char* roots[] = {root.data(), nullptr};
  FTS* walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_XDEV, nullptr);
  if (walk == nullptr) return errno;
  int first_error = 0;
  const auto keep = [&first_error](int error) {
    if (first_error == 0) first_error = error;
  };
  while (const FTSENT* entry = fts_read(walk)) {
    switch (entry->fts_info) {
      case FTS_D:
        break;
      case FTS_DP:
        if (rmdir(entry->fts_accpath) != 0) keep(errno);
        break;
      case FTS_DNR:
      case FTS_ERR:
      case FTS_NS:
        keep(entry->fts_errno);
        break;
      default:
        if (unlink(entry->fts_accpath) != 0) keep(errno);
    }
  }
  fts_close(walk);
  return first_error;
}

bool is_mount_point(const Descriptor& parent, const std::string& name) {
  struct stat above {};
  struct stat at {};
  return fstat(parent.get(), &above) == 0 &&
         fstatat(parent.get(), name.c_str(), &at, AT_SYMLINK_NOFOLLOW) == 0 &&
         above.st_dev != at.st_dev;
}

int remove_one(const char* path, bool sync) {
  const DirectoryAndName at = split_path(path);
  if (at.name.empty() || at.name == "." || at.name == "..") {
    return complain("rm", path, "cannot be removed under this name", "name it from its parent");
  }
  caw_remove remove{};
  if (at.name.size() >= sizeof remove.name) return say(path, ENAMETOOLONG, at.directory);
  std::memcpy(remove.name, at.name.data(), at.name.size());
  if (sync) remove.flags |= CAW_SYNC;
  const Descriptor parent = open_for_control(at.directory, O_DIRECTORY);
  if (!parent) return say(path, errno, at.directory);
  if (is_mount_point(parent, at.name)) return say(path, EBUSY, at.directory);

  const int error = request(parent.get(), CAW_IOC_REMOVE_TREE, &remove);
  if (error == 0) return kExitDone;
  if (error != EACCES && error != EPERM && error != EMLINK) {
    return say(path, error, at.directory);
  }

  struct stat status {};
  if (lstat(path, &status) != 0) return say(path, errno, at.directory);
  if (!S_ISDIR(status.st_mode)) return say(path, error, at.directory);
  const char* const why =
      error == EMLINK ? "too many hard links to remove at once" : "not yours to remove at once";
  complain("rm", path, why, "removing it file by file");
  const int slow_error = remove_file_by_file(path);
  return slow_error == 0 ? kExitDone : say(path, slow_error, at.directory);
}

}  // namespace

int run_remove(Arguments arguments) {
  int exit_code = kExitDone;
  const auto parsed = parse_client(kRemove, arguments, exit_code);
  if (!parsed) return exit_code;
  for (const char* path : parsed->operands) {
    if (remove_one(path, parsed->has("--sync")) != kExitDone) exit_code = kExitFailed;
  }
  return exit_code;
}

}  // namespace caw
