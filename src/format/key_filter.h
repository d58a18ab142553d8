// KeyFilter: says of most keys that are not in a set that they are not.  Immutable once built.
//
// A blocked Bloom filter (Putze, Sanders, Singler 2007): a key's bits lie in one cache line.  With
// 12 bits a key about one absent key in 200 passes.  Only in memory; never written.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace caw {

class KeyFilter {
 public:
  static uint64_t hash(std::string_view key);

  explicit KeyFilter(size_t keys);
  void add(uint64_t hash);
  bool may_contain(uint64_t hash) const;
  /// Memory of a filter of so many keys, about.
  static size_t memory_bytes(size_t keys) { return lines_for(keys) * sizeof(Line) + 64; }

 private:
  struct alignas(64) Line {
    std::array<uint64_t, 8> words{};
  };
  static size_t lines_for(size_t keys) { return keys * 12 / 512 + 1; }
  size_t line_of(uint64_t hash) const {
    return static_cast<size_t>(((hash >> 32) * lines_.size()) >> 32);
  }

  std::vector<Line> lines_;
};

/// A filter that is built when it is first asked for.  Any thread.
class LazyKeyFilter {
 public:
  LazyKeyFilter() = default;
  ~LazyKeyFilter() { delete filter_.load(std::memory_order_relaxed); }
  LazyKeyFilter(const LazyKeyFilter&) = delete;
  LazyKeyFilter& operator=(const LazyKeyFilter&) = delete;

  /// `build` makes it; of several at once one is kept.
  template <typename Build>
  const KeyFilter& get(const Build& build) const {
    const KeyFilter* there = filter_.load(std::memory_order_acquire);
    if (there != nullptr) return *there;
    auto made = std::make_unique<const KeyFilter>(build());
    if (filter_.compare_exchange_strong(there, made.get(), std::memory_order_acq_rel)) {
      return *made.release();
    }
    return *there;
  }

 private:
  mutable std::atomic<const KeyFilter*> filter_{nullptr};
};

}  // namespace caw
