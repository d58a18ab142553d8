// caw mount: serves a volume on a directory; by default in the background, back when it is usable.
#include <fcntl.h>
#include <malloc.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <array>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <string>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/mount_options.h"
#include "cli/report.h"
#include "cli/volume_client.h"
#include "cli/volume_info.h"
#include "dev/block_device.h"
#include "fs/file_system.h"
#include "fuse/session.h"
#include "volume/volume.h"

namespace caw {
namespace {

struct MountRequest {
  std::string image;
  std::string directory;
  std::vector<std::string> option_texts;
  bool foreground = false;
  MountOptions options;
};

std::string fuse_sentence(const MountRequest& request, const Error& error) {
  if (error.code == Code::fuse_session) {
    const std::string message = last_fuse_message();
    return sentence("mount", request.directory, message.empty() ? "cannot be mounted on" : message,
                    "look whether FUSE works here");
  }
  if (error.code == Code::fuse_device) {
    return sentence("mount", "/dev/fuse", what_of(error), advice_for(error));
  }
  return sentence("mount", request.directory, what_of(error), advice_for(error));
}

/// What one thread allocates another frees.  With an arena for each thread, as glibc has it, memory
/// that is free in one is no use to the others: there came to be as much free as in use.  Fewer
/// arenas would give large pieces back at once and fault them in again for each node and blob.
void share_memory_among_threads() {
#ifdef __GLIBC__
  constexpr int kArenas = 2;
  constexpr int kLargeBytes = 4 * 1024 * 1024;
  constexpr int kKeptBytes = 64 * 1024 * 1024;
  mallopt(M_ARENA_MAX, kArenas);
  mallopt(M_MMAP_THRESHOLD, kLargeBytes);
  mallopt(M_TRIM_THRESHOLD, kKeptBytes);
#endif
}

/// What happens when nobody waits for an answer goes to the system's log (and to stderr, as long
/// as there is one).
void warn(const MountRequest& request, const Error& error) {
  const std::string text =
      sentence("mount", request.image, error.to_string(), advice_for(error));
  syslog(LOG_ERR, "%s", text.c_str());
}

/// Serves until unmounted.  `ready` is called once the directory is usable.  Returns the sentence
/// to tell, empty if all went well.
std::string serve_volume(const MountRequest& request, std::function<void()> ready) {
  const auto say = [&request](const Error& error) {
    return sentence("mount", request.image, what_of(error), advice_for(error));
  };
  const MountOptions& options = request.options;
  SessionOptions session;
  session.directory = request.directory;
  session.source = options.source.empty() ? request.image : options.source;
  session.mount_options = options.kernel_options;
  session.mount_options.emplace_back("default_permissions");
  if (options.read_only) session.mount_options.emplace_back("ro");
  if (options.allow_other) session.mount_options.emplace_back("allow_other");
  session.shared = options.allow_other;
  session.read_only = options.read_only;
  session.acls = options.acls;
  if (const auto mountable = check_mountable(session); !mountable) {
    return fuse_sentence(request, mountable.error());
  }

  openlog("cawfs", LOG_PID | LOG_PERROR, LOG_DAEMON);
  share_memory_among_threads();
  FileDeviceOptions device_options;
  device_options.read_only = options.read_only;
  device_options.patience = kOpenPatience;
  auto device = open_file_device(request.image, device_options);
  if (!device) return say(device.error());

  VolumeOptions volume_options;
  volume_options.cache_bytes =
      options.cache_bytes != 0 ? options.cache_bytes : default_cache_bytes();
  volume_options.commit_interval = options.commit_interval;
  volume_options.read_only = options.read_only;
  volume_options.on_trouble = [&request](const Error& error) { warn(request, error); };
  auto volume = Volume::open(std::move(*device), volume_options);
  if (!volume) return say(volume.error());

  FsOptions fs_options;
  fs_options.read_only = options.read_only;
  fs_options.no_atime = options.no_atime;
  auto fs = FileSystem::open(**volume, fs_options);
  if (!fs) return say(fs.error());

  session.fill_info = [&volume](caw_info& info) { fill_info(**volume, info); };
  session.scrub = [&volume](caw_scrub& slice) { return scrub_slice(**volume, slice); };
  session.ready = std::move(ready);
  const Result<void> served = serve(**fs, session);

  fs->reset();
  const Result<void> closed = (*volume)->close();
  if (!served) return fuse_sentence(request, served.error());
  if (!closed) {
    return sentence("mount", request.image,
                    "what was written last could not be saved: " + what_of(closed.error()),
                    advice_for(closed.error()));
  }
  return {};
}

/// The session lets them through where it waits; everywhere else they must not end us.
void block_ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
  sigprocmask(SIG_BLOCK, &set, nullptr);
}

int serve_in_foreground(const MountRequest& request) {
  block_ending_signals();
  const std::string trouble = serve_volume(request, [] {});
  if (trouble.empty()) return kExitDone;
  std::fprintf(stderr, "%s\n", trouble.c_str());
  return kExitFailed;
}

void write_all(int fd, std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t done = write(fd, bytes.data(), bytes.size());
    if (done < 0 && errno == EINTR) continue;
    if (done <= 0) return;  // nobody listens any more
    bytes.remove_prefix(static_cast<size_t>(done));
  }
}

constexpr std::string_view kReady = "R";

/// The server: tells the one who started it, through `report`, that it is ready or what is wrong;
/// from then on the system's log.
[[noreturn]] void run_server(const MountRequest& request, int report) {
  setsid();
  block_ending_signals();
  bool ready = false;
  const std::string trouble = serve_volume(request, [&ready, report] {
    ready = true;
    const int null = open("/dev/null", O_RDWR);
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) dup2(null, fd);
    if (null > STDERR_FILENO) close(null);
    if (chdir("/") != 0) syslog(LOG_WARNING, "cannot leave the working directory");
    write_all(report, kReady);
    close(report);
  });
  if (!trouble.empty() && ready) {
    syslog(LOG_ERR, "%s", trouble.c_str());
  } else if (!trouble.empty()) {
    write_all(report, trouble);
  }
  _exit(trouble.empty() ? kExitDone : kExitFailed);
}

int wait_until_ready(const MountRequest& request, int report) {
  std::string heard;
  std::array<char, 1024> buffer;
  ssize_t bytes = 0;
  while ((bytes = read(report, buffer.data(), buffer.size())) > 0 ||
         (bytes < 0 && errno == EINTR)) {
    if (bytes > 0) heard.append(buffer.data(), static_cast<size_t>(bytes));
  }
  if (heard == kReady) {
    struct stat status {};
    if (stat(request.directory.c_str(), &status) == 0) return kExitDone;
    return complain("mount", request.directory, "mounted, but not usable: " + errno_text(errno),
                    "unmount it (caw umount)");
  }
  if (heard.empty()) {
    return complain("mount", request.image, "the server ended without a word",
                    "try again with --foreground");
  }
  std::fprintf(stderr, "%s\n", heard.c_str());
  return kExitFailed;
}

int serve_in_background(const MountRequest& request) {
  int report[2];
  if (pipe2(report, O_CLOEXEC) != 0) return complain("mount", {}, errno_text(errno));
  const pid_t child = fork();
  if (child < 0) return complain("mount", {}, errno_text(errno));
  if (child == 0) {
    close(report[0]);
    run_server(request, report[1]);
  }
  close(report[1]);
  return wait_until_ready(request, report[0]);
}

bool make_absolute(std::string& path) {
  char buffer[PATH_MAX];
  if (realpath(path.c_str(), buffer) == nullptr) return false;
  path = buffer;
  return true;
}

int mount_volume(MountRequest& request) {
  for (const std::string& text : request.option_texts) {
    if (const auto added = add_mount_options(text, request.options); !added) {
      return usage_error("mount", added.error());
    }
  }
  if (!make_absolute(request.image)) {
    return complain("mount", request.image, errno_text(errno),
                    "check the name, or make a volume with caw mkfs");
  }
  struct stat status {};
  if (!make_absolute(request.directory) || stat(request.directory.c_str(), &status) != 0) {
    const bool dead = errno == ENOTCONN;
    return complain("mount", request.directory, errno_text(errno),
                    dead ? "unmount what is there (caw umount)" : "make the directory first");
  }
  if (!S_ISDIR(status.st_mode)) {
    return complain("mount", request.directory, "not a directory", "choose a directory");
  }
  return request.foreground ? serve_in_foreground(request) : serve_in_background(request);
}

}  // namespace

int run_mount(Arguments arguments) {
  MountRequest request;
  CLI::App app(
      "Mounts a cawfs volume on a directory.  Returns when the directory is usable.\n"
      "Options: ro, allow_other, noacl, cache=SIZE, commit=SECONDS (5), fsname=NAME, and the\n"
      "usual nodev, nosuid, noexec, noatime ...",
      "caw mount");
  app.add_option("-o", request.option_texts, "mount options, separated by commas")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("OPTIONS");
  app.add_flag("--foreground", request.foreground, "serve in this process, until unmounted");
  app.add_option("IMAGE", request.image, "file or block device")->required();
  app.add_option("DIR", request.directory, "where to mount it")->required();
  if (const std::optional<int> ended = parse_command_line(app, "mount", arguments)) return *ended;
  return mount_volume(request);
}

int run_mount_helper(Arguments arguments) {
  MountRequest request;
  bool fake = false;
  bool ignored = false;
  std::string ignored_type;
  CLI::App app("Mounts a cawfs volume on a directory, as mount(8) asks for it.", "mount.cawfs");
  app.add_option("-o", request.option_texts, "mount options, separated by commas")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->type_name("OPTIONS");
  app.add_flag("-f", fake, "check the arguments, do not mount");
  app.add_flag("-s,-n,-v", ignored, "taken, without meaning here");
  app.add_option("-t", ignored_type, "taken, without meaning here");
  app.add_option("IMAGE", request.image, "file or block device")->required();
  app.add_option("DIR", request.directory, "where to mount it")->required();
  if (const std::optional<int> ended = parse_command_line(app, "mount", arguments)) return *ended;
  return fake ? kExitDone : mount_volume(request);
}

}  // namespace caw
