// Prefetcher: one background thread that runs reads nobody waits for, from a bounded queue.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace caw {

class Prefetcher {
 public:
  Prefetcher() : thread_([this] { run(); }) {}
  ~Prefetcher() {
    {
      const std::scoped_lock lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  /// Drops `job` when the queue is full: it is only a hint.
  void submit(std::function<void()> job) {
    {
      const std::scoped_lock lock(mutex_);
      if (jobs_.size() >= kMaxJobs) return;
      jobs_.push_back(std::move(job));
    }
    wake_.notify_one();
  }

 private:
  static constexpr size_t kMaxJobs = 32;

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (stopping_) return;
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      lock.lock();
    }
  }

  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::function<void()>> jobs_;
  bool stopping_ = false;
  std::thread thread_;          ///< last: it uses the members above
};

}  // namespace caw
