// The clone gate: a striped reader-writer lock, one per volume.
//
// Shared side: every mutating operation, from the check that its trees are private until all its
// messages are in memtables; every publication of maintenance.  Exclusive side: whatever adds an
// edge to an existing node (clone, extraction, private root) and the cut of a checkpoint; pointer
// swaps only.  Neither side waits for I/O while holding it.  A thread takes it once, never twice.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <shared_mutex>

namespace caw {

class Gate {
 public:
  static constexpr size_t kStripes = 8;

  class Shared {
   public:
    explicit Shared(Gate& gate) : lock_(gate.stripes_[stripe_of_thread()].mutex) {}

   private:
    std::shared_lock<std::shared_mutex> lock_;
  };

  class Exclusive {
   public:
    explicit Exclusive(Gate& gate) : gate_(gate) {
      for (Stripe& stripe : gate_.stripes_) stripe.mutex.lock();
    }
    ~Exclusive() {
      for (size_t i = kStripes; i-- > 0;) gate_.stripes_[i].mutex.unlock();
    }
    Exclusive(const Exclusive&) = delete;
    Exclusive& operator=(const Exclusive&) = delete;

   private:
    Gate& gate_;
  };

 private:
  struct alignas(64) Stripe {
    std::shared_mutex mutex;
  };
  static size_t stripe_of_thread() {
    static std::atomic<size_t> next{0};
    thread_local const size_t mine = next.fetch_add(1, std::memory_order_relaxed) % kStripes;
    return mine;
  }
  std::array<Stripe, kStripes> stripes_;
};

}  // namespace caw
