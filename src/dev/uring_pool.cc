#include "dev/uring_pool.h"

#include <liburing.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "base/assert.h"

namespace caw {
namespace {

constexpr unsigned kRingDepth = 64;
constexpr size_t kIdleRings = 8;
/// The kernel moves at most about 2 GiB per request; the caller finishes what is left over.
constexpr size_t kTransferMaxBytes = size_t{1} << 30;

bool worth_retrying(int rc) { return rc == -EINTR || rc == -EAGAIN || rc == -EBUSY; }

}  // namespace

class UringPool::Ring {
 public:
  Ring() : status_(io_uring_queue_init(kRingDepth, &ring_, 0)) {}
  ~Ring() {
    if (status_ == 0) io_uring_queue_exit(&ring_);
  }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  /// 0 or -errno of making the ring.
  int status() const { return status_; }
  /// A broken ring still holds requests that were never started; it must not be used again.
  bool broken() const { return broken_; }

  void run(int fd, Direction direction, std::span<Transfer> transfers) {
    for (Transfer& transfer : transfers) transfer.result = -EAGAIN;
    size_t next = 0;
    size_t finished = 0;
    unsigned queued = 0;
    unsigned in_flight = 0;
    while (finished < transfers.size() && !broken_) {
      while (next < transfers.size() && queued + in_flight < kRingDepth) {
        if (!prepare(fd, direction, transfers[next], next)) break;
        ++next;
        ++queued;
      }
      const int rc = io_uring_submit_and_wait(&ring_, 1);
      if (rc >= 0) {
        queued -= static_cast<unsigned>(rc);
        in_flight += static_cast<unsigned>(rc);
      } else if (!worth_retrying(rc)) {
        broken_ = true;
      }
      const unsigned reaped = reap(transfers);
      in_flight -= reaped;
      finished += reaped;
    }
    while (in_flight > 0) {
      wait_for_one();
      in_flight -= reap(transfers);
    }
  }

 private:
  bool prepare(int fd, Direction direction, const Transfer& transfer, size_t index) {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe == nullptr) return false;
    const auto size = static_cast<unsigned>(std::min(transfer.size_bytes, kTransferMaxBytes));
    if (direction == Direction::read) {
      io_uring_prep_read(sqe, fd, transfer.at, size, transfer.offset_bytes);
    } else {
      io_uring_prep_write(sqe, fd, transfer.at, size, transfer.offset_bytes);
    }
    io_uring_sqe_set_data64(sqe, index);
    return true;
  }

  /// Takes the completions that are there; returns their count.
  unsigned reap(std::span<Transfer> transfers) {
    unsigned count = 0;
    io_uring_cqe* cqe = nullptr;
    while (io_uring_peek_cqe(&ring_, &cqe) == 0) {
      transfers[io_uring_cqe_get_data64(cqe)].result = cqe->res;
      io_uring_cqe_seen(&ring_, cqe);
      ++count;
    }
    return count;
  }

  void wait_for_one() {
    io_uring_cqe* cqe = nullptr;
    const int rc = io_uring_wait_cqe(&ring_, &cqe);
    // The kernel may still be moving bytes into the caller's memory: it cannot be handed back.
    CAW_ASSERT(rc == 0 || worth_retrying(rc));
  }

  io_uring ring_{};
  int status_;
  bool broken_ = false;
};

UringPool::UringPool() = default;
UringPool::~UringPool() = default;

std::unique_ptr<UringPool::Ring> UringPool::take_ring() {
  {
    std::lock_guard lock(mutex_);
    if (unavailable_) return nullptr;
    if (!idle_.empty()) {
      std::unique_ptr<Ring> ring = std::move(idle_.back());
      idle_.pop_back();
      return ring;
    }
  }
  auto ring = std::make_unique<Ring>();
  if (ring->status() == 0) return ring;
  // Out of memory or of descriptors passes; a kernel or a container that forbids io_uring stays so.
  if (ring->status() == -ENOSYS || ring->status() == -EPERM || ring->status() == -EACCES) {
    std::lock_guard lock(mutex_);
    unavailable_ = true;
  }
  return nullptr;
}

void UringPool::keep_ring(std::unique_ptr<Ring> ring) {
  if (ring->broken()) return;
  std::lock_guard lock(mutex_);
  if (idle_.size() < kIdleRings) idle_.push_back(std::move(ring));
}

bool UringPool::run(int fd, Direction direction, std::span<Transfer> transfers) {
  std::unique_ptr<Ring> ring = take_ring();
  if (ring == nullptr) return false;
  ring->run(fd, direction, transfers);
  keep_ring(std::move(ring));
  return true;
}

}  // namespace caw
