// Errors: one Code per kind of failure, its number stable, with the errno users see.
//
// Result<T> is std::expected<T, Error>.  CAW_TRY propagates.  Errors are values: no exception
// crosses a module.  Error is small and plain; the sentence a user reads is made in `cli`.
// Our own mistakes are asserted (assert.h); bytes from disk, kernel or user never are.
#pragma once

#include <cerrno>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include "base/error_codes.h"

namespace caw {

enum class Code : uint16_t {
#define CAW_DEFINE_CODE(name, number, sys_errno, text) name = number,
  CAW_ERROR_CODES(CAW_DEFINE_CODE)
#undef CAW_DEFINE_CODE
};

/// The errno that `code` shows as, and one phrase that says what is wrong.
int errno_of(Code code);
std::string_view text_of(Code code);
std::string_view name_of(Code code);

struct [[nodiscard]] Error {
  Code code = Code::unknown;
  int sys_errno = 0;         ///< errno of the failed system call, if there was one
  uint64_t detail = 0;       ///< block address, node id, offset …: what `code` says
  const char* where = "";    ///< static string: function or file that noticed

  /// What a caller sees.  How the host failed to read or write is not its business.
  int as_errno() const {
    const bool is_io = code == Code::device_read || code == Code::device_write ||
                       code == Code::device_flush || code == Code::device_full;
    return sys_errno != 0 && !is_io ? sys_errno : errno_of(code);
  }
  std::string to_string() const;
};

template <typename T = void>
using Result = std::expected<T, Error>;

inline std::unexpected<Error> fail(Code code, uint64_t detail = 0, const char* where = "",
                                   int sys_errno = 0) {
  return std::unexpected<Error>(Error{code, sys_errno, detail, where});
}

/// Says why the error of `result` may be dropped.
template <typename T>
inline void ignore_error(const Result<T>& result, const char* why) {
  static_cast<void>(result);
  static_cast<void>(why);
}

namespace detail {
template <typename T>
inline T take_value(Result<T>&& result) {
  return std::move(*result);
}
inline void take_value(Result<void>&& result) { static_cast<void>(result); }
}  // namespace detail

}  // namespace caw

#define CAW_TRY_CONCAT_(a, b) a##b
#define CAW_TRY_CONCAT(a, b) CAW_TRY_CONCAT_(a, b)
#define CAW_TRY_IMPL(expr, result)                                  \
  __extension__({                                                   \
    auto result = (expr);                                           \
    if (!result) [[unlikely]] {                                     \
      return std::unexpected<::caw::Error>(std::move(result.error())); \
    }                                                               \
    ::caw::detail::take_value(std::move(result));                   \
  })

/// Value of the Result `expr`; on failure returns its Error from the calling function.
#define CAW_TRY(expr) CAW_TRY_IMPL(expr, CAW_TRY_CONCAT(caw_try_, __COUNTER__))
