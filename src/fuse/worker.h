// Worker: one thread that runs tasks in order, now or after a while.
//
// Carries what must not run on a thread of the FUSE loop: notifications that wait for requests to
// be answered, when too many loop threads are busy with them already.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace caw {

class Worker {
 public:
  using Clock = std::chrono::steady_clock;
  Worker();
  /// Runs what is due, drops what is delayed, ends the thread.
  ~Worker();
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;

  void post(std::function<void()> task) { post_after({}, std::move(task)); }
  void post_after(std::chrono::milliseconds delay, std::function<void()> task);

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::multimap<Clock::time_point, std::function<void()>> tasks_;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace caw
