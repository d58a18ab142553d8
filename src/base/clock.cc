#include "base/clock.h"

#include <ctime>

namespace caw {
namespace {

class SystemClock final : public Clock {
 public:
  Timestamp now() override {
    timespec ts{};
    clock_gettime(CLOCK_REALTIME, &ts);
    return {ts.tv_sec, static_cast<uint32_t>(ts.tv_nsec)};
  }
};

}  // namespace

Clock& Clock::system() {
  static SystemClock clock;
  return clock;
}

}  // namespace caw
