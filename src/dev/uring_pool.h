// UringPool: many transfers of one file in flight together, by io_uring.
//
// Any thread may call run(); each call has a ring of its own while it lasts, and idle rings are
// kept for the next.  Rings are made at first use: a process that daemonises does so before it
// opens its devices, as a ring does not survive fork().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

namespace caw {

/// One contiguous piece of a file and of memory.
struct Transfer {
  uint64_t offset_bytes = 0;
  char* at = nullptr;
  size_t size_bytes = 0;
  /// After run(): bytes moved, which may be fewer than asked, or -errno.
  int64_t result = 0;
};

enum class Direction : uint8_t { read, write };

class UringPool {
 public:
  UringPool();
  ~UringPool();
  UringPool(const UringPool&) = delete;
  UringPool& operator=(const UringPool&) = delete;

  /// Starts all `transfers` on `fd` and waits for them.  False when the kernel gives no ring: then
  /// nothing was done.  A transfer that could not be started has the result -EAGAIN.
  bool run(int fd, Direction direction, std::span<Transfer> transfers);

 private:
  class Ring;
  std::unique_ptr<Ring> take_ring();
  void keep_ring(std::unique_ptr<Ring> ring);

  std::mutex mutex_;
  std::vector<std::unique_ptr<Ring>> idle_;  // guarded by mutex_
  bool unavailable_ = false;                 // guarded by mutex_: the kernel forbids io_uring
};

}  // namespace caw
