#include "base/assert.h"

#include <cstdio>
#include <cstdlib>

namespace caw {

void assertion_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "caw: internal error: %s (%s:%d)\n", condition, file, line);
  std::abort();
}

}  // namespace caw
