// Stall guard: sees to it that a server which ends in the middle of a notification does end.
//
// A thread that tells the kernel to write back or drop something may wait there, uninterruptibly,
// for requests that only other threads of this server can answer.  If those are gone (a signal, a
// crash), the thread never returns, the connection stays open because the thread holds it, and all
// its users hang with it.  Cutting the connection frees them all.
#pragma once

#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace caw {

/// Cuts the connection of the cawfs mount on `directory`: every request in it fails from now on.
/// Does nothing if none is mounted there, or if the system does not let us.
void abort_connection(const std::string& directory);

/// Starts a process that waits for the end of this one (of the calling thread) and, should threads
/// be left behind that cannot end, cuts the connection.  It keeps no descriptor.
void start_watchdog(const std::string& directory);

/// The same within the process, for an end in order: while a section is active and the session is
/// over, cuts the connection.  Sleeps while no section is active.
class StallGuard {
 public:
  /// `is_over` may be called from the guard's thread until the guard is destroyed.
  StallGuard(std::string directory, std::function<bool()> is_over);
  ~StallGuard();
  StallGuard(const StallGuard&) = delete;
  StallGuard& operator=(const StallGuard&) = delete;

  /// A stretch of work that may wait for other requests.
  class Section {
   public:
    explicit Section(StallGuard& guard) : guard_(guard) { guard_.enter(); }
    ~Section() { guard_.leave(); }
    Section(const Section&) = delete;
    Section& operator=(const Section&) = delete;

   private:
    StallGuard& guard_;
  };

 private:
  void enter();
  void leave();
  void run();

  const std::string directory_;
  const std::function<bool()> is_over_;
  std::mutex mutex_;
  std::condition_variable changed_;
  unsigned active_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace caw
