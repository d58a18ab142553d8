// CAW_ASSERT: our own mistakes abort, always; copy-on-write on disk makes that safe.
#pragma once

namespace caw {
/// Prints one line and aborts.
[[noreturn]] void assertion_failed(const char* condition, const char* file, int line);
}  // namespace caw

#define CAW_ASSERT(condition)                                        \
  do {                                                               \
    if (!(condition)) [[unlikely]] {                                 \
      ::caw::assertion_failed(#condition, __FILE__, __LINE__);       \
    }                                                                \
  } while (false)
