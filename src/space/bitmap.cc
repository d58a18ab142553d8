#include "space/bitmap.h"

#include <algorithm>
#include <bit>

namespace caw {
namespace {

/// Bits [from, to) of one word; from < to <= 64.
constexpr uint64_t mask(uint32_t from, uint32_t to) {
  return (to == 64 ? ~uint64_t{0} : (uint64_t{1} << to) - 1) & (~uint64_t{0} << from);
}

/// Calls `visit(word index, mask)` for each word that [first, first + count) touches.
template <typename Visit>
inline void for_words(uint32_t first, uint32_t count, Visit visit) {
  const uint32_t end = first + count;
  while (first < end) {
    const uint32_t word = first / 64;
    const uint32_t stop = std::min(end, (word + 1) * 64);
    visit(word, mask(first % 64, stop - word * 64));
    first = stop;
  }
}

/// First bit in [from, limit) that is set in `bits` ^ `flip`.
inline uint32_t find_bit(const RegionBits& bits, uint32_t from, uint32_t limit, uint64_t flip) {
  if (from >= limit) return limit;
  uint32_t word = from / 64;
  uint64_t rest = (bits[word] ^ flip) & (~uint64_t{0} << (from % 64));
  const uint32_t words = (limit + 63) / 64;
  while (rest == 0) {
    if (++word >= words) return limit;
    rest = bits[word] ^ flip;
  }
  return std::min(limit, word * 64 + static_cast<uint32_t>(std::countr_zero(rest)));
}

}  // namespace

uint32_t find_clear(const RegionBits& bits, uint32_t from, uint32_t limit) {
  return find_bit(bits, from, limit, ~uint64_t{0});
}

uint32_t find_set(const RegionBits& bits, uint32_t from, uint32_t limit) {
  return find_bit(bits, from, limit, 0);
}

uint32_t clear_run_begin(const RegionBits& bits, uint32_t before) {
  if (before == 0) return 0;
  uint32_t word = (before - 1) / 64;
  uint64_t rest = bits[word] & mask(0, before - word * 64);
  while (rest == 0) {
    if (word == 0) return 0;
    rest = bits[--word];
  }
  return word * 64 + 64 - static_cast<uint32_t>(std::countl_zero(rest));
}

void set_bits(RegionBits& bits, uint32_t first, uint32_t count) {
  for_words(first, count, [&](uint32_t word, uint64_t m) { bits[word] |= m; });
}

void clear_bits(RegionBits& bits, uint32_t first, uint32_t count) {
  for_words(first, count, [&](uint32_t word, uint64_t m) { bits[word] &= ~m; });
}

uint32_t count_set(const RegionBits& bits, uint32_t first, uint32_t count) {
  int sum = 0;
  for_words(first, count, [&](uint32_t word, uint64_t m) { sum += std::popcount(bits[word] & m); });
  return static_cast<uint32_t>(sum);
}

ClearRun find_clear_run(const RegionBits& bits, uint32_t from, uint32_t limit, uint32_t count) {
  ClearRun run;
  uint32_t at = from;
  while (true) {
    at = find_clear(bits, at, limit);
    if (at >= limit) break;
    const uint32_t end = find_set(bits, at, std::min(limit, at + count));
    if (end - at >= count) {
      run.first = at;
      return run;
    }
    run.longest_skipped = std::max(run.longest_skipped, end - at);
    at = end;
  }
  run.first = limit;
  return run;
}

}  // namespace caw
