#include "format/key_filter.h"

#include <xxhash.h>

namespace caw {
namespace {

constexpr int kBitsPerKey = 6;

/// Six bits of the line, nine bits of hash each; the high half of the hash has chosen the line.
template <typename Visit>
bool all_bits(uint64_t hash, const Visit& visit) {
  uint64_t bits = (hash & 0xffffffffU) * 0x9e3779b97f4a7c15U;
  for (int i = 0; i < kBitsPerKey; ++i) {
    const auto bit = static_cast<unsigned>(bits >> 55);
    if (!visit(bit >> 6, uint64_t{1} << (bit & 63))) return false;
    bits <<= 9;
  }
  return true;
}

}  // namespace

uint64_t KeyFilter::hash(std::string_view key) { return XXH3_64bits(key.data(), key.size()); }

KeyFilter::KeyFilter(size_t keys) : lines_(lines_for(keys)) {}

void KeyFilter::add(uint64_t hash) {
  Line& line = lines_[line_of(hash)];
  all_bits(hash, [&](unsigned word, uint64_t mask) {
    line.words[word] |= mask;
    return true;
  });
}

bool KeyFilter::may_contain(uint64_t hash) const {
  const Line& line = lines_[line_of(hash)];
  return all_bits(hash,
                  [&](unsigned word, uint64_t mask) { return (line.words[word] & mask) != 0; });
}

}  // namespace caw
