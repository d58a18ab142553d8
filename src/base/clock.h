// Time comes in by constructor, so that a test can replay it.
#pragma once

#include <compare>
#include <cstdint>

namespace caw {

/// Seconds and nanoseconds since 1970; seconds may be negative, 0 <= nanoseconds < 10^9.
struct Timestamp {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
  friend bool operator==(const Timestamp&, const Timestamp&) = default;
  friend auto operator<=>(const Timestamp&, const Timestamp&) = default;
};

class Clock {
 public:
  virtual ~Clock() = default;
  virtual Timestamp now() = 0;
  /// The system's real-time clock.
  static Clock& system();
};

}  // namespace caw
