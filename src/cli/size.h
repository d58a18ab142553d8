// Sizes as people write them: a number with K, M, G or T, powers of 1024.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace caw {

/// "4096", "64k", "64G".  Nothing if it is not a size, or 2^63 or more.
std::optional<uint64_t> parse_size(std::string_view text);
/// "64 GiB", "1.5 MiB", "812 B".
std::string human_size(uint64_t bytes);

}  // namespace caw
