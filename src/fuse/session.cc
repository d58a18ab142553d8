#include "fuse/session.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <fstream>
#include <memory>
#include <mutex>

#include "fuse/server.h"
#include "fuse/wire.h"

namespace caw {
namespace {

std::mutex message_mutex;
std::string message;  // libfuse's log function has no user data: one per process

void keep_message(fuse_log_level, const char* format, va_list arguments) {
  std::array<char, 512> line{};
  std::vsnprintf(line.data(), line.size(), format, arguments);
  std::string text(line.data());
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
  const std::scoped_lock lock(message_mutex);
  if (!text.empty()) message = text;
}

struct SessionDeleter {
  void operator()(fuse_session* session) const { fuse_session_destroy(session); }
};
using Session = std::unique_ptr<fuse_session, SessionDeleter>;

/// Arguments as libfuse wants them; owns their memory.
class Arguments {
 public:
  Arguments() { add("cawfs"); }
  ~Arguments() { fuse_opt_free_args(&args_); }
  Arguments(const Arguments&) = delete;
  Arguments& operator=(const Arguments&) = delete;
  void add(const std::string& argument) { fuse_opt_add_arg(&args_, argument.c_str()); }
  void add_option(const std::string& option) {
    add("-o");
    add(option);
  }
  fuse_args* get() { return &args_; }

 private:
  fuse_args args_{};
};

/// Commas and backslashes in a value of -o.
std::string escaped(const std::string& value) {
  std::string out;
  for (const char c : value) {
    if (c == ',' || c == '\\') out += '\\';
    out += c;
  }
  return out;
}

/// Whether the system lets ordinary users mount with allow_other.
bool users_may_share() {
  std::ifstream config("/etc/fuse.conf");
  std::string line;
  while (std::getline(config, line)) {
    if (line.starts_with("user_allow_other")) return true;
  }
  return false;
}

/// Lets the signals that end a session through to this thread while it lives.
class SignalWindow {
 public:
  explicit SignalWindow(fuse_session* session) : session_(session) {
    usable_ = fuse_set_signal_handlers(session) == 0;
    sigset_t set;
    sigemptyset(&set);
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&set, signal);
    pthread_sigmask(SIG_UNBLOCK, &set, &before_);
  }
  ~SignalWindow() {
    pthread_sigmask(SIG_SETMASK, &before_, nullptr);
    if (usable_) fuse_remove_signal_handlers(session_);
  }
  SignalWindow(const SignalWindow&) = delete;
  SignalWindow& operator=(const SignalWindow&) = delete;
  bool usable() const { return usable_; }

 private:
  fuse_session* session_;
  sigset_t before_{};
  bool usable_ = false;
};

int run_loop(fuse_session* session) {
  fuse_loop_config* config = fuse_loop_cfg_create();
  // Threads come as requests do and stay: idle threads are unlimited by default, and ending them
  // would cost more than all else (a thread per request).
  fuse_loop_cfg_set_max_threads(config, kMaxLoopThreads);
  fuse_loop_cfg_set_clone_fd(config, 0);
  const int result = fuse_session_loop_mt(session, config);
  fuse_loop_cfg_destroy(config);
  return result;
}

}  // namespace

Result<void> check_mountable(const SessionOptions& options) {
  const int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
  if (fd < 0) return fail(Code::fuse_device, 0, "open", errno);
  close(fd);
  struct stat status {};
  const char* directory = options.directory.c_str();
  if (stat(directory, &status) != 0) return fail(Code::mount_point, 0, "stat", errno);
  if (!S_ISDIR(status.st_mode)) return fail(Code::mount_point);
  if (geteuid() == 0) return {};
  if (access(directory, W_OK) != 0) return fail(Code::mount_point, 0, "access", errno);
  if (options.shared && !users_may_share()) return fail(Code::mount_shared);
  return {};
}

std::string last_fuse_message() {
  const std::scoped_lock lock(message_mutex);
  return message;
}

Result<void> serve(FileSystem& fs, const SessionOptions& options) {
  fuse_set_log_func(keep_message);
  CAW_TRY(check_mountable(options));

  Arguments arguments;
  arguments.add_option("fsname=" + escaped(options.source));
  arguments.add_option("subtype=cawfs");
  for (const std::string& option : options.mount_options) arguments.add_option(option);

  start_watchdog(options.directory);
  Server server(fs, options);
  const Session session(
      fuse_session_new(arguments.get(), &fuse_operations(), sizeof(fuse_lowlevel_ops), &server));
  if (session == nullptr) return fail(Code::fuse_session);
  server.set_session(session.get());
  if (fuse_session_mount(session.get(), options.directory.c_str()) != 0) {
    return fail(Code::fuse_session);
  }
  if (const Result<void> attached = attach_wire(session.get()); !attached) {
    fuse_session_unmount(session.get());
    return attached;
  }
  int result = 0;
  {
    const SignalWindow window(session.get());
    if (window.usable()) {
      if (options.ready) options.ready();
      result = run_loop(session.get());
    } else {
      result = -1;
    }
  }
  server.stop();
  fuse_session_unmount(session.get());
  if (result < 0) return fail(Code::fuse_session, 0, "loop", -result);
  return {};
}

}  // namespace caw
