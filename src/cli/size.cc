#include "cli/size.h"

#include <array>
#include <charconv>
#include <cstdio>

namespace caw {

std::optional<uint64_t> parse_size(std::string_view text) {
  uint64_t number = 0;
  const char* end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, number);
  if (error != std::errc{} || rest == text.data()) return std::nullopt;
  unsigned shift = 0;
  if (rest != end) {
    constexpr std::string_view kUnits = "KMGT";
    const char upper = static_cast<char>(*rest & ~0x20);
    const size_t unit = kUnits.find(upper);
    if (unit == kUnits.npos || rest + 1 != end) return std::nullopt;
    shift = static_cast<unsigned>(10 * (unit + 1));
  }
  if (number > (uint64_t{1} << 63 >> shift) - 1) return std::nullopt;
  return number << shift;
}

std::string human_size(uint64_t bytes) {
  constexpr std::array kUnits = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  std::array<char, 32> out{};
  const bool whole = unit == 0 || value == static_cast<double>(static_cast<uint64_t>(value));
  std::snprintf(out.data(), out.size(), whole ? "%.0f %s" : "%.1f %s", value, kUnits[unit]);
  return out.data();
}

}  // namespace caw
