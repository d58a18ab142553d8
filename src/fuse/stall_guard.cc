#include "fuse/stall_guard.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <optional>
#include <utility>

#include "fuse/mount_table.h"

namespace caw {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPoll{100};
constexpr int kPatience = 10;       ///< polls before what does not end counts as stuck
constexpr int kLongPatience = 600;  ///< polls after which the watchdog gives up

/// Threads of `process` besides its first.  A process that is gone has none.
bool has_other_threads(pid_t process) {
  const std::string folder = "/proc/" + std::to_string(process) + "/task";
  DIR* tasks = opendir(folder.c_str());
  if (tasks == nullptr) return false;
  unsigned count = 0;
  while (const dirent* entry = readdir(tasks)) {
    if (entry->d_name[0] != '.') ++count;
  }
  closedir(tasks);
  return count > 1;
}

[[noreturn]] void watch(pid_t server, const std::string& directory) {
  sigset_t ended;
  sigemptyset(&ended);
  sigaddset(&ended, SIGUSR1);
  sigprocmask(SIG_BLOCK, &ended, nullptr);
  prctl(PR_SET_PDEATHSIG, SIGUSR1);
  prctl(PR_SET_NAME, "caw-watchdog");
  close_range(0, ~0U, 0);
  int signal = 0;
  if (getppid() == server) sigwait(&ended, &signal);
  for (int polls = 0; polls < kLongPatience && has_other_threads(server); ++polls) {
    if (polls == kPatience) abort_connection(directory);
    usleep(static_cast<useconds_t>(std::chrono::microseconds(kPoll).count()));
  }
  _exit(0);
}

}  // namespace

void abort_connection(const std::string& directory) {
  const std::optional<MountEntry> mounted = find_mount(directory);
  if (!mounted || mounted->type != "fuse.cawfs") return;
  const std::string minor = mounted->device_number.substr(mounted->device_number.find(':') + 1);
  const std::string control = "/sys/fs/fuse/connections/" + minor + "/abort";
  const int fd = open(control.c_str(), O_WRONLY | O_CLOEXEC);
  const bool cut = fd >= 0 && write(fd, "1", 1) == 1;
  if (fd >= 0) close(fd);
  if (!cut) umount2(directory.c_str(), MNT_FORCE | UMOUNT_NOFOLLOW);
}

void start_watchdog(const std::string& directory) {
  const pid_t server = getpid();
  if (fork() == 0) watch(server, directory);
}

StallGuard::StallGuard(std::string directory, std::function<bool()> is_over)
    : directory_(std::move(directory)), is_over_(std::move(is_over)), thread_([this] { run(); }) {}

StallGuard::~StallGuard() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void StallGuard::enter() {
  {
    const std::scoped_lock lock(mutex_);
    if (active_++ != 0) return;
  }
  changed_.notify_one();
}

void StallGuard::leave() {
  const std::scoped_lock lock(mutex_);
  --active_;
}

void StallGuard::run() {
  int over_polls = 0;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (active_ == 0) {
      over_polls = 0;
      changed_.wait(lock, [this] { return stopping_ || active_ != 0; });
      continue;
    }
    changed_.wait_for(lock, kPoll, [this] { return stopping_; });
    if (active_ == 0 || !is_over_() || ++over_polls < kPatience) continue;
    over_polls = 0;
    lock.unlock();
    abort_connection(directory_);
    lock.lock();
  }
}

}  // namespace caw
