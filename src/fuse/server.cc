#include "fuse/server.h"

#include <unistd.h>

#include <fstream>
#include <optional>
#include <utility>

#include "fuse/mount_table.h"

namespace caw {

Server::Server(FileSystem& file_system, const SessionOptions& session_options)
    : fs(file_system),
      options(session_options),
      control(file_system, *this, session_options.fill_info),
      owner_uid_(getuid()) {}

void Server::set_session(fuse_session* session) {
  session_ = session;
  stall_guard_ = std::make_unique<StallGuard>(options.directory, [this, session] {
    return stopping_.load() || fuse_session_exited(session) != 0;
  });
}

void Server::stop() {
  stopping_.store(true);  // the loop leaves the session behind as one that was not ended
  worker_.reset();
  stall_guard_.reset();
}

void Server::expire_entry(uint64_t parent, std::string_view name) {
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 15)  // from there on without flags
  const int result =
      fuse_lowlevel_notify_expire_entry(session_, parent, name.data(), name.size());
#else
  const int result = fuse_lowlevel_notify_expire_entry(session_, parent, name.data(), name.size(),
                                                       FUSE_LL_EXPIRE_ONLY);
#endif
  if (result == -ENOSYS) {  // Linux before 6.2
    fuse_lowlevel_notify_inval_entry(session_, parent, name.data(), name.size());
  }
}

void Server::invalidate_node(uint64_t node) {
  fuse_lowlevel_notify_inval_inode(session_, node, 0, 0);
}

void Server::run_waiting_task(std::function<void()> task) {
  if (waiting_slots_.try_acquire()) {
    const StallGuard::Section section(*stall_guard_);
    task();
    waiting_slots_.release();
  } else {
    worker_->post([this, task = std::move(task)] {
      const StallGuard::Section section(*stall_guard_);
      task();
    });
  }
}

Caller Server::caller_of(fuse_req_t req) const {
  const fuse_ctx* context = fuse_req_ctx(req);
  return caller_from(context->uid, context->gid, static_cast<uint32_t>(context->pid),
                     context->umask);
}

Caller Server::caller_from(uint32_t uid, uint32_t gid, uint32_t pid, uint32_t umask) const {
  Caller caller;
  caller.uid = uid;
  caller.gid = gid;
  caller.pid = pid;
  caller.umask = umask;
  // A volume mounted by an ordinary user for himself belongs to that user.
  caller.privileged = uid == 0 || (!options.shared && uid == owner_uid_);
  return caller;
}

void Server::expire_tokens_later() {
  if (expiry_posted_.exchange(true)) return;
  worker_->post_after(std::chrono::seconds(CAW_TOKEN_SECONDS + 1), [this] {
    expiry_posted_.store(false);
    control.expire_tokens();
    if (control.has_tokens()) expire_tokens_later();
  });
}

void Server::widen_read_ahead_soon() {
  // The kernel sets its own small value when it gets the answer to INIT: come after that.
  worker_->post_after(std::chrono::milliseconds(50), [this] {
    // From the mount table: touching the directory itself would be a request to ourselves.
    const std::optional<MountEntry> mounted = find_mount(options.directory);
    if (!mounted) return;
    std::ofstream file("/sys/class/bdi/" + mounted->device_number + "/read_ahead_kb");
    file << 1024;  // not root, or no sysfs: it stays at 128
  });
}

}  // namespace caw
