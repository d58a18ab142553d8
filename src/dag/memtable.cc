#include "dag/memtable.h"

#include <algorithm>
#include <utility>

namespace caw {
namespace {

constexpr uint64_t kPointOverhead = 96;  // map slot, key string, Message struct: about
constexpr uint64_t kRangeOverhead = 96;

uint64_t point_bytes(std::string_view key, const Message& m) {
  return key.size() + memory_bytes(m) + kPointOverhead;
}

}  // namespace

void add_range(std::vector<RangeErase>& ranges, RangeErase range) {
  auto first =
      std::lower_bound(ranges.begin(), ranges.end(), range.lo,
                       [](const RangeErase& r, const std::string& lo) { return r.hi < lo; });
  auto last = first;
  while (last != ranges.end() && last->lo <= range.hi) {
    range.lo = std::min(range.lo, last->lo);
    range.hi = std::max(range.hi, last->hi);
    range.dead_bytes += last->dead_bytes;
    ++last;
  }
  if (first == last) {
    ranges.insert(first, std::move(range));
  } else {
    *first = std::move(range);
    ranges.erase(first + 1, last);
  }
}

bool covered(const std::vector<RangeErase>& ranges, std::string_view key) {
  auto after = std::upper_bound(ranges.begin(), ranges.end(), key,
                                [](std::string_view k, const RangeErase& r) { return k < r.lo; });
  return after != ranges.begin() && key < std::prev(after)->hi;
}

void Memtable::insert(std::string_view key, Message message, DroppedRefs& dropped) {
  auto [it, inserted] = points_.try_emplace(std::string(key));
  Message& held = it->second;
  if (inserted) {
    weight_ += key.size() + std::max(memory_bytes(message), message.dead_bytes);
    held = std::move(message);
    bytes_ += point_bytes(key, held);
    return;
  }
  const uint64_t before = memory_bytes(held);
  const OwnedRefs old_refs = refs_of(held);
  const bool keeps = message.kind == MessageKind::patch;
  weight_ += std::max(memory_bytes(message), message.dead_bytes);
  combine(held, std::move(message));
  if (!keeps && old_refs.any()) dropped.add(old_refs);
  bytes_ += memory_bytes(held);
  bytes_ -= before;
}

void Memtable::erase_range(std::string_view lo, std::string_view hi, uint64_t dead_bytes,
                           DroppedRefs& dropped) {
  auto first = points_.lower_bound(lo);
  auto last = points_.lower_bound(hi);
  for (auto it = first; it != last; ++it) {
    const OwnedRefs refs = refs_of(it->second);
    if (refs.any()) dropped.add(refs);
    bytes_ -= point_bytes(it->first, it->second);
  }
  points_.erase(first, last);
  add_range(ranges_, {std::string(lo), std::string(hi), dead_bytes});
  bytes_ += lo.size() + hi.size() + kRangeOverhead;
  weight_ += lo.size() + hi.size() + dead_bytes;
}

uint64_t Memtable::slice_bytes(std::string_view lo, std::string_view hi, uint64_t limit) const {
  uint64_t total = 0;
  for (const RangeErase& range : ranges_) {
    if (range.lo < hi && lo < range.hi) total += range.lo.size() + range.hi.size() + 16;
    if (total > limit) return total;
  }
  for (auto it = points_.lower_bound(lo); it != points_.end() && it->first < hi; ++it) {
    total += it->first.size() + memory_bytes(it->second) + 8;
    if (total > limit) return total;
  }
  return total;
}

}  // namespace caw
