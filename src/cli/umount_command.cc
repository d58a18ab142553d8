// caw umount: returns when everything is durable and the server has ended.
//
// The server's process is named by the volume itself (CAW_IOC_INFO); a pidfd taken while it still
// answers cannot come to mean another process.
#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <string>
#include <thread>
#include <utility>

#include "cli/client_options.h"
#include "cli/commands.h"
#include "cli/report.h"
#include "cli/volume_client.h"
#include "fuse/mount_table.h"

extern char** environ;

namespace caw {
namespace {

constexpr ClientCommand kUmount = {"umount",
                                   "Usage: caw umount DIR\n"
                                   "\n"
                                   "Unmounts the cawfs volume mounted on DIR.  Returns when all "
                                   "that was written is durable and the\n"
                                   "image is free to be mounted again.\n"
                                   "\n"
                                   "Exit code: 0 done, 1 failed, 2 wrong usage.\n",
                                   {},
                                   1,
                                   1};

/// realpath(3) that does not ask the last component itself, whose server may be dead.
std::string canonical(const char* path) {
  const DirectoryAndName parts = split_path(path);
  char buffer[PATH_MAX];
  if (parts.name.empty() || parts.name == "." || parts.name == "..") {
    return realpath(path, buffer) != nullptr ? buffer : "";
  }
  char target[PATH_MAX];
  if (readlink(path, target, sizeof target) >= 0) {
    return realpath(path, buffer) != nullptr ? buffer : "";
  }
  if (realpath(parts.directory.c_str(), buffer) == nullptr) return "";
  const std::string directory = buffer;
  return directory == "/" ? "/" + parts.name : directory + "/" + parts.name;
}

/// The server's process, or nothing if it cannot be known (dead, or not visible from here).
Descriptor open_server(int fd) {
  caw_info info{};
  if (request(fd, CAW_IOC_INFO, &info) != 0 || info.pid <= 0) return Descriptor();
  Descriptor process(static_cast<int>(syscall(SYS_pidfd_open, info.pid, 0U)));
  if (!process) return Descriptor();
  // In another pid namespace the number means somebody else, who need not be a caw at all.
  char name[PATH_MAX] = {};
  char self[PATH_MAX] = {};
  const std::string link = "/proc/" + std::to_string(info.pid) + "/exe";
  const bool known = readlink(link.c_str(), name, sizeof name - 1) > 0 &&
                     readlink("/proc/self/exe", self, sizeof self - 1) > 0;
  if (known && std::string_view(name) != self &&
      std::string_view(name).find("caw") == std::string_view::npos) {
    return Descriptor();
  }
  return process;
}

/// Through fusermount3, for an ordinary user.  Returns 0 or an errno.
int unmount_as_user(const std::string& directory) {
  std::string program = "fusermount3";
  std::string unmount = "-u";
  std::string quiet = "-q";
  std::string place = directory;
  char* arguments[] = {program.data(), unmount.data(), quiet.data(), place.data(), nullptr};
  pid_t pid = 0;
  if (const int error = posix_spawnp(&pid, "fusermount3", nullptr, nullptr, arguments, environ);
      error != 0) {
    return error;
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : EBUSY;
}

int unmount(const std::string& directory) {
  if (umount2(directory.c_str(), UMOUNT_NOFOLLOW) == 0) return 0;
  return errno == EPERM ? unmount_as_user(directory) : errno;
}

bool still_mounted(const std::string& device_number) {
  for (const MountEntry& entry : read_mount_table()) {
    if (entry.device_number == device_number) return true;
  }
  return false;
}

/// Says what the command waits for when that takes long; each step of it may, without end.
class Patience {
 public:
  /// `device_number` names the kernel's connection with the server.
  Patience(std::string path, const std::string& device_number)
      : path_(std::move(path)),
        connection_("/sys/fs/fuse/connections/" +
                    device_number.substr(device_number.find(':') + 1)),
        thread_([this] { run(); }) {}
  ~Patience() {
    waits_for("");
    thread_.join();
  }
  Patience(const Patience&) = delete;
  Patience& operator=(const Patience&) = delete;

  /// Empty: nothing any more.
  void waits_for(std::string what) {
    {
      const std::scoped_lock lock(mutex_);
      what_ = std::move(what);
      ++steps_;
    }
    changed_.notify_one();
  }

 private:
  static constexpr std::chrono::seconds kPatience{8};

  void run() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return steps_ != 0; });
    while (!what_.empty()) {
      const unsigned step = steps_;
      const auto is_next = [&] { return steps_ != step; };
      if (!changed_.wait_for(lock, kPatience, is_next)) {
        complain("umount", path_, "still waiting for " + what_, state());
        changed_.wait(lock, is_next);
      }
    }
  }
  /// What the kernel says about it; nothing where it does not tell (no fusectl), or once it has let
  /// go of the volume.
  std::string state() const {
    std::ifstream file(connection_ + "/waiting");
    std::string requests;
    if (!(file >> requests)) return {};
    return "requests not answered yet: " + requests + "; writing to " + connection_ +
           "/abort gives them up";
  }

  const std::string path_;
  const std::string connection_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string what_;
  unsigned steps_ = 0;
  std::thread thread_;  ///< last: it uses the members above
};

void wait_for_end(const Descriptor& process) {
  pollfd wanted{process.get(), POLLIN, 0};
  while (poll(&wanted, 1, -1) < 0 && errno == EINTR) {
  }
}

/// For a server that cannot be asked (another user's): until nobody has the image locked for
/// writing.
void wait_for_lock(const std::string& image) {
  const Descriptor fd = open_for_control(image);
  struct flock range {};
  do {
    range.l_type = F_RDLCK;
    range.l_whence = SEEK_SET;
    range.l_pid = 0;
    if (!fd || fcntl(fd.get(), F_OFD_GETLK, &range) != 0 || range.l_type == F_UNLCK) return;
  } while (poll(nullptr, 0, 20) == 0 || errno == EINTR);
}

}  // namespace

int run_umount(Arguments arguments) {
  int exit_code = kExitDone;
  const auto parsed = parse_client(kUmount, arguments, exit_code);
  if (!parsed) return exit_code;
  const char* path = parsed->operands[0];
  const std::string directory = canonical(path);
  const auto mounted = directory.empty() ? std::nullopt : find_mount(directory);
  if (!mounted || mounted->type != "fuse.cawfs") {
    return complain("umount", path, "no cawfs volume is mounted there", "check the name");
  }

  Patience patience(path, mounted->device_number);
  Descriptor process;
  patience.waits_for("an answer of the server");
  if (Descriptor fd = open_for_control(directory, O_DIRECTORY)) {
    process = open_server(fd.get());
    patience.waits_for("the server to write what it has");
    const int error = request(fd.get(), CAW_IOC_SYNC, nullptr);
    if (error != 0 && error != EROFS) {
      exit_code = complain("umount", path, "not all could be written (" + errno_text(error) + ")",
                           "unmounting it all the same");
    }
  } else if (errno == ENOTCONN) {
    complain("umount", path, "its server had ended", "what was not synced before is lost");
  }

  patience.waits_for("the kernel to unmount it");
  if (const int error = unmount(directory); error != 0) {
    if (error == EBUSY) {
      return complain("umount", path, "in use",
                      "close what is open there (fuser -vm " + directory + ")");
    }
    return complain("umount", path, errno_text(error));
  }
  // Mounted in a second place too (mount --bind): it goes on there.
  if (still_mounted(mounted->device_number)) return exit_code;
  patience.waits_for("the server to end");
  if (process) {
    wait_for_end(process);
  } else {
    wait_for_lock(mounted->source);
  }
  return exit_code;
}

}  // namespace caw
