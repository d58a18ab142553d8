// Inputs to begin with, made of what the encoders write.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace caw {

/// For tests/fuzz/TARGET_fuzz.cc; empty if there is no such program.
std::vector<std::string> seeds_of(std::string_view target);

}  // namespace caw
