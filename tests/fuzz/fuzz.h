// What every fuzzing program includes.
//
// A program is one function, LLVMFuzzerTestOneInput, that takes any bytes and must not fail.  With
// the preset `fuzz` libFuzzer calls it; elsewhere driver.cc does, on the seeds and on a fixed
// number of mutations of them.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);
/// Only where a program's input has a form of its own (edits.h).
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed);

/// A property that holds for all inputs.
#define FUZZ_CHECK(condition)                                                              \
  do {                                                                                     \
    if (!(condition)) {                                                                    \
      std::fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);  \
      std::abort();                                                                        \
    }                                                                                      \
  } while (false)

namespace caw {

inline std::string_view as_input(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

/// Takes small numbers and strings off the front of an input; zeros and empty ones at its end.
class Input {
 public:
  explicit Input(std::string_view bytes) : rest_(bytes) {}

  bool at_end() const { return rest_.empty(); }
  std::string_view rest() const { return rest_; }

  template <typename T>
  T take() {
    T value{};
    const size_t bytes = std::min(sizeof(T), rest_.size());
    std::memcpy(&value, rest_.data(), bytes);
    rest_.remove_prefix(bytes);
    return value;
  }
  std::string_view bytes(size_t count) {
    const std::string_view out = rest_.substr(0, count);
    rest_.remove_prefix(out.size());
    return out;
  }
  /// One byte of length, then so many bytes.
  std::string_view text() { return bytes(take<uint8_t>()); }

 private:
  std::string_view rest_;
};

}  // namespace caw
