// caw clone, caw same, caw sync: one or two requests to a mounted volume.
#include <fcntl.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "cli/client_options.h"
#include "cli/commands.h"
#include "cli/report.h"
#include "cli/volume_client.h"

namespace caw {
namespace {

constexpr std::string_view kNotCawfs = "not on a mounted cawfs volume";

constexpr ClientCommand kClone = {
    "clone",
    "Usage: caw clone [--sync] SRC DST\n"
    "\n"
    "Copies the directory tree or file SRC to the new name DST, on the same cawfs volume, at once\n"
    "and whatever its size.  The copy is writable and independent of SRC.\n"
    "\n"
    "  --sync   the clone is durable when the command returns\n"
    "\n"
    "Exit code: 0 done, 1 failed (nothing was made), 2 wrong usage.\n",
    {"--sync"},
    2,
    2};

constexpr ClientCommand kSame = {
    "same",
    "Usage: caw same A B\n"
    "\n"
    "Do A and B, two files or two trees of one cawfs volume, share all their content?  Answers\n"
    "without reading it.\n"
    "\n"
    "Exit code: 0 they do, 1 they may differ, 2 trouble.\n",
    {},
    2,
    2};

constexpr ClientCommand kSync = {
    "sync",
    "Usage: caw sync [--checkpoint] PATH\n"
    "\n"
    "Returns when everything so far on the volume that holds PATH is durable.\n"
    "\n"
    "  --checkpoint   in a checkpoint, not only in the log: figures of space hold all of it, and\n"
    "                 freed space can be used again\n"
    "\n"
    "Exit code: 0 done, 1 failed, 2 wrong usage.\n",
    {"--checkpoint"},
    1,
    1};

int fail_source(const char* path, int sys_errno) {
  switch (sys_errno) {
    case ENOTTY:
      return complain("clone", path, kNotCawfs, "use cp -a, or copy it onto a cawfs volume first");
    case ENOENT:
      return complain("clone", path, "no such file or directory", "check the name");
    case EACCES:
      return complain("clone", path, "permission denied", "you must be able to read it");
    case EINVAL:
      return complain("clone", path, "neither a directory nor a regular file", "use cp -a for it");
    case ENOTCONN:
      return complain("clone", path, "its file system's server is gone",
                      "unmount it (caw umount) and mount it again");
    default:
      return complain("clone", path, errno_text(sys_errno));
  }
}

int fail_directory(const char* path, const std::string& directory, int sys_errno) {
  switch (sys_errno) {
    case ENOTTY:
      return complain("clone", path, kNotCawfs, "clone to a name on the volume of the source");
    case ENOENT:
      return complain("clone", path, "there is no directory " + directory, "make it first");
    case ENOTDIR:
      return complain("clone", path, directory + " is not a directory", "choose another place");
    case EACCES:
      return complain("clone", path, "permission denied",
                      "you must be able to read, write and search " + directory);
    default:
      return complain("clone", path, errno_text(sys_errno));
  }
}

int fail_clone(const char* source, const char* destination, int sys_errno) {
  const auto say = [destination](std::string_view what, std::string_view advice = {}) {
    return complain("clone", destination, what, advice);
  };
  switch (sys_errno) {
    case EEXIST:
      return say("exists already", "choose another name, or remove it first (caw rm)");
    case EXDEV:
      return say("not on the same volume as the source", "clone within one volume, or use cp -a");
    case EMLINK:
      return say("too many hard links between clones in it", "clone parts of it, or use cp -a");
    case EPERM:
      return complain("clone", source, "you do not own it", "ask its owner, or use cp -a");
    case EACCES:
      return say("permission denied", "you must be able to write to its directory");
    case ENOSPC:
      return say("the volume is full", "remove something (caw rm) and try again");
    case EDQUOT:
      return say("the limit of the tree is reached", "remove something and try again");
    case EROFS:
      return say("the volume is read-only", "mount it without -o ro");
    case ENAMETOOLONG:
      return say("the name is longer than 255 bytes", "choose a shorter one");
    case ENOENT:
    case ESTALE:
      return complain("clone", source, "was removed meanwhile", "check the name");
    case EINVAL:
      return fail_source(source, sys_errno);
    default:
      return say(errno_text(sys_errno));
  }
}

/// The descriptor and token of `path`.  Returns 0 or an errno; EINVAL for what cannot be a source,
/// which is not opened (a device might do something).
int take_token(const char* path, Descriptor& fd, caw_token& token) {
  struct stat status {};
  if (stat(path, &status) != 0) return errno;
  if (!S_ISDIR(status.st_mode) && !S_ISREG(status.st_mode)) return EINVAL;
  fd = open_for_control(path);
  if (!fd) return errno;
  return request(fd.get(), CAW_IOC_TOKEN, &token);
}

bool same_device(int a, int b) {
  struct stat status_a {};
  struct stat status_b {};
  return fstat(a, &status_a) == 0 && fstat(b, &status_b) == 0 && status_a.st_dev == status_b.st_dev;
}

}  // namespace

int run_clone(Arguments arguments) {
  int exit_code = kExitDone;
  const auto parsed = parse_client(kClone, arguments, exit_code);
  if (!parsed) return exit_code;
  const char* source = parsed->operands[0];
  const char* destination = parsed->operands[1];

  caw_clone clone{};
  Descriptor source_fd;
  if (const int error = take_token(source, source_fd, clone.source); error != 0) {
    return fail_source(source, error);
  }

  const DirectoryAndName to = split_path(destination);
  if (to.name.empty() || to.name == "." || to.name == "..") {
    return to.directory == "." && to.name.empty() ? fail_directory(destination, "''", ENOENT)
                                                  : fail_clone(source, destination, EEXIST);
  }
  if (to.name.size() >= sizeof clone.name) return fail_clone(source, destination, ENAMETOOLONG);
  std::memcpy(clone.name, to.name.data(), to.name.size());
  const Descriptor parent = open_for_control(to.directory, O_DIRECTORY);
  if (!parent) return fail_directory(destination, to.directory, errno);
  if (!same_device(source_fd.get(), parent.get())) {
    struct stat there {};
    if (lstat(destination, &there) == 0) return fail_clone(source, destination, EEXIST);
    return may_be_cawfs(parent.get()) ? fail_clone(source, destination, EXDEV)
                                      : fail_directory(destination, to.directory, ENOTTY);
  }

  if (parsed->has("--sync")) clone.flags |= CAW_SYNC;
  const int error = request(parent.get(), CAW_IOC_CLONE, &clone);
  if (error == ENOTTY) return fail_directory(destination, to.directory, error);
  return error == 0 ? kExitDone : fail_clone(source, destination, error);
}

int run_same(Arguments arguments) {
  constexpr int kTrouble = 2;
  int exit_code = kExitDone;
  const auto parsed = parse_client(kSame, arguments, exit_code);
  if (!parsed) return exit_code;
  const auto trouble = [](const char* path, int sys_errno) {
    std::string what = errno_text(sys_errno);
    if (sys_errno == ENOTTY) what = kNotCawfs;
    if (sys_errno == EXDEV) what = "not on the same volume as the other one";
    if (sys_errno == EINVAL) what = "neither a directory nor a regular file";
    complain("same", path, what);
    return kTrouble;
  };

  caw_same same{};
  Descriptor a;
  if (const int error = take_token(parsed->operands[0], a, same.other); error != 0) {
    return trouble(parsed->operands[0], error);
  }
  const Descriptor b = open_for_control(parsed->operands[1]);
  if (!b) return trouble(parsed->operands[1], errno);
  if (!may_be_cawfs(b.get())) return trouble(parsed->operands[1], ENOTTY);
  if (!same_device(a.get(), b.get())) return trouble(parsed->operands[1], EXDEV);
  if (const int error = request(b.get(), CAW_IOC_SAME, &same); error != 0) {
    return trouble(parsed->operands[1], error);
  }
  return same.same != 0 ? 0 : 1;
}

int run_sync(Arguments arguments) {
  int exit_code = kExitDone;
  const auto parsed = parse_client(kSync, arguments, exit_code);
  if (!parsed) return exit_code;
  const char* path = parsed->operands[0];
  const Descriptor fd = open_for_control(path);
  const bool whole = parsed->has("--checkpoint");
  const int error =
      fd ? request(fd.get(), whole ? CAW_IOC_CHECKPOINT : CAW_IOC_SYNC, nullptr) : errno;
  switch (error) {
    case 0:
      return kExitDone;
    case ENOTTY:
      return complain("sync", path, kNotCawfs, "use sync(1) for other file systems");
    case ENOSPC:
      return complain("sync", path, "the file system that holds the image is full",
                      "make room there and try again");
    case EROFS:
    case EIO:
      return complain("sync", path, "the volume could not be written (" + errno_text(error) + ")",
                      "look at the device that holds it");
    default:
      return complain("sync", path, errno_text(error));
  }
}

}  // namespace caw
