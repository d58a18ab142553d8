// Server: what the operations of one mounted volume share.  Internal to this module.
#pragma once

#include <fuse_lowlevel.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <semaphore>
#include <string_view>

#include "base/error.h"
#include "fs/file_system.h"
#include "fuse/control.h"
#include "fuse/session.h"
#include "fuse/stall_guard.h"
#include "fuse/worker.h"

namespace caw {

class Server final : public KernelCaches {
 public:
  Server(FileSystem& fs, const SessionOptions& options);

  /// Before the first request.
  void set_session(fuse_session* session);
  /// After the last request, while the session is there: finishes what the worker still has.
  void stop();

  void expire_entry(uint64_t parent, std::string_view name) override;
  void invalidate_node(uint64_t node) override;

  /// Runs `task`, which may wait for other requests to be answered: on this thread of the loop if
  /// enough others are left for those, else on the worker.
  void run_waiting_task(std::function<void()> task);

  Caller caller_of(fuse_req_t req) const;
  Caller caller_from(uint32_t uid, uint32_t gid, uint32_t pid, uint32_t umask) const;
  Inode& inode(fuse_ino_t node) { return inode_of(fs, node); }
  /// Lets the kernel read ahead further than FUSE may ask for by itself (root only; a hint).
  void widen_read_ahead_soon();
  /// Sees to it that tokens, which keep inodes in core, go when they are too old.
  void expire_tokens_later();

  FileSystem& fs;
  const SessionOptions& options;
  std::atomic<uint64_t> requests{0};
  Control control;

 private:
  /// Loop threads that may wait for other requests at a time; kMaxLoopThreads leaves many more.
  static constexpr std::ptrdiff_t kWaitingThreads = 4;

  const uint32_t owner_uid_;
  fuse_session* session_ = nullptr;
  std::counting_semaphore<kWaitingThreads> waiting_slots_{kWaitingThreads};
  std::atomic<bool> expiry_posted_{false};
  std::atomic<bool> stopping_{false};
  std::unique_ptr<StallGuard> stall_guard_;
  std::unique_ptr<Worker> worker_ = std::make_unique<Worker>();
};

inline constexpr unsigned kMaxLoopThreads = 32;

/// The table of operations; their userdata is a Server.
const fuse_lowlevel_ops& fuse_operations();
/// CAW_IOC_* (operations_ioctl.cc).
void handle_ioctl(fuse_req_t req, fuse_ino_t node, unsigned int command, void* argument,
                  fuse_file_info* file, unsigned flags, const void* in, size_t in_bytes,
                  size_t out_bytes) noexcept;

inline Server& server_of(fuse_req_t req) { return *static_cast<Server*>(fuse_req_userdata(req)); }
inline void reply_error(fuse_req_t req, const Error& error) {
  fuse_reply_err(req, error.as_errno());
}

}  // namespace caw
