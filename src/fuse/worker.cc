#include "fuse/worker.h"

#include <utility>

namespace caw {

Worker::Worker() : thread_([this] { run(); }) {}

Worker::~Worker() {
  {
    const std::scoped_lock lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_one();
  thread_.join();
}

void Worker::post_after(std::chrono::milliseconds delay, std::function<void()> task) {
  {
    const std::scoped_lock lock(mutex_);
    tasks_.emplace(Clock::now() + delay, std::move(task));
  }
  changed_.notify_one();
}

void Worker::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    if (!tasks_.empty() && tasks_.begin()->first <= Clock::now()) {
      const std::function<void()> task = std::move(tasks_.begin()->second);
      tasks_.erase(tasks_.begin());
      lock.unlock();
      task();
      lock.lock();
    } else if (stopping_) {
      return;
    } else if (tasks_.empty()) {
      changed_.wait(lock);
    } else {
      const Clock::time_point due = tasks_.begin()->first;
      changed_.wait_until(lock, due);
    }
  }
}

}  // namespace caw
