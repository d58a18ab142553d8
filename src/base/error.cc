#include "base/error.h"

#include <cstring>

#include <fmt/format.h>

namespace caw {

int errno_of(Code code) {
  switch (code) {
#define CAW_CASE(name, number, sys_errno, text) \
  case Code::name:                              \
    return sys_errno;
    CAW_ERROR_CODES(CAW_CASE)
#undef CAW_CASE
  }
  return EIO;
}

std::string_view text_of(Code code) {
  switch (code) {
#define CAW_CASE(name, number, sys_errno, text) \
  case Code::name:                              \
    return text;
    CAW_ERROR_CODES(CAW_CASE)
#undef CAW_CASE
  }
  return "unknown error";
}

std::string_view name_of(Code code) {
  switch (code) {
#define CAW_CASE(name, number, sys_errno, text) \
  case Code::name:                              \
    return #name;
    CAW_ERROR_CODES(CAW_CASE)
#undef CAW_CASE
  }
  return "unknown";
}

std::string Error::to_string() const {
  std::string out(text_of(code));
  if (sys_errno != 0) out += fmt::format(" ({})", std::strerror(sys_errno));
  if (detail != 0 || *where != '\0') {
    out += fmt::format(" [{} {}{}{}]", name_of(code), detail, *where != '\0' ? " " : "", where);
  }
  return out;
}

}  // namespace caw
