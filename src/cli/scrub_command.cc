// caw scrub: reads and verifies everything on a mounted volume, slice by slice, while it is in use.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <string>
#include <thread>

#include "base/error.h"
#include "cli/client_options.h"
#include "cli/commands.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/volume_client.h"

namespace caw {
namespace {

constexpr ClientCommand kScrub = {
    "scrub",
    "Usage: caw scrub [--fast] PATH\n"
    "\n"
    "Reads everything on the mounted cawfs volume that holds PATH from its device and verifies\n"
    "it while the volume is in use.  Ctrl-C stops it.  For damage see caw fsck --repair.\n"
    "\n"
    "  --fast   do not leave the device to others half of the time\n"
    "\n"
    "Exit code: 0 all is sound, 1 failed or stopped, 2 wrong usage, 4 damage found.\n",
    {"--fast"},
    1,
    1};

constexpr int kDamaged = 4;

volatile std::sig_atomic_t stop_asked = 0;

void ask_to_stop(int) { stop_asked = 1; }

using SteadyClock = std::chrono::steady_clock;

double seconds_since(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

/// What was read so far, and how that is told.
class Progress {
 public:
  Progress() : is_terminal_(isatty(STDERR_FILENO) != 0) {}

  void add(const caw_scrub& slice) {
    bytes_ += slice.bytes;
    nodes_ += slice.nodes;
    blobs_ += slice.blobs;
    lost_ += slice.lost_blobs;
    total_ = slice.total_bytes;
    for (uint32_t i = 0; i < slice.error_count && i < CAW_SCRUB_ERRORS; ++i) {
      tell_error(slice.errors[i]);
    }
  }
  /// In place on a terminal, else a line now and then.
  void show() {
    const double elapsed = seconds_since(start_);
    if (elapsed < shown_ + (is_terminal_ ? 0.5 : 10)) return;
    shown_ = elapsed;
    const uint64_t part = total_ == 0 ? 100 : std::min<uint64_t>(bytes_ * 100 / total_, 99);
    std::fprintf(stderr, "%s%3llu %%  %s  %s/s%s", is_terminal_ ? "\r" : "",
                 static_cast<unsigned long long>(part), human_size(bytes_).c_str(),
                 human_size(static_cast<uint64_t>(static_cast<double>(bytes_) / elapsed)).c_str(),
                 is_terminal_ ? "   " : "\n");
    in_line_ = is_terminal_;
  }
  void summarize(const char* path, bool is_done) {
    end_line();
    std::printf("%s: %s; %s read, %llu nodes and %llu pieces of file data verified\n", path,
                errors_ > 0 ? ("damaged in " + std::to_string(errors_) + " places").c_str()
                : is_done   ? "sound"
                            : "stopped, no damage so far",
                human_size(bytes_).c_str(), static_cast<unsigned long long>(nodes_),
                static_cast<unsigned long long>(blobs_));
    if (lost_ > 0) {
      std::printf("%s: %llu pieces of file data were given up by an earlier repair\n", path,
                  static_cast<unsigned long long>(lost_));
    }
  }
  bool found_damage() const { return errors_ > 0; }

 private:
  void tell_error(const caw_scrub_error& error) {
    end_line();
    ++errors_;
    const std::string what(text_of(static_cast<Code>(error.code)));
    std::printf("%s %llu: %s\n",
                error.kind == CAW_SCRUB_DATA ? "file data at block" : "node",
                static_cast<unsigned long long>(error.where), what.c_str());
  }
  void end_line() {
    if (in_line_) std::fputc('\n', stderr);
    in_line_ = false;
  }

  const bool is_terminal_;
  const SteadyClock::time_point start_ = SteadyClock::now();
  double shown_ = 0;
  bool in_line_ = false;
  uint64_t bytes_ = 0, nodes_ = 0, blobs_ = 0, lost_ = 0, total_ = 0, errors_ = 0;
};

int say(const char* path, int sys_errno) {
  switch (sys_errno) {
    case ENOTTY:
      return complain("scrub", path, "not on a mounted cawfs volume", "use caw fsck for an image");
    case EPERM:
      return complain("scrub", path, "only root and who mounted it may do that");
    default:
      return complain("scrub", path, errno_text(sys_errno));
  }
}

int scrub(const char* path, bool fast) {
  const Descriptor fd = open_for_control(path);
  if (!fd) return say(path, errno);
  struct sigaction action {};
  action.sa_handler = ask_to_stop;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  Progress progress;
  caw_scrub slice{};
  bool is_done = false;
  while (!is_done && stop_asked == 0) {
    const SteadyClock::time_point start = SteadyClock::now();
    slice.flags = 0;
    const int error = request(fd.get(), CAW_IOC_SCRUB, &slice);
    if (error == EINTR) continue;
    if (error != 0) return say(path, error);
    is_done = (slice.flags & CAW_SCRUB_DONE) != 0;
    progress.add(slice);
    if (is_done) break;
    progress.show();
    if (!fast) std::this_thread::sleep_for(SteadyClock::now() - start);
  }
  progress.summarize(path, is_done);
  if (progress.found_damage()) return kDamaged;
  return is_done ? kExitDone : kExitFailed;
}

}  // namespace

int run_scrub(Arguments arguments) {
  int exit_code = kExitDone;
  const auto parsed = parse_client(kScrub, arguments, exit_code);
  if (!parsed) return exit_code;
  return scrub(parsed->operands[0], parsed->has("--fast"));
}

}  // namespace caw
