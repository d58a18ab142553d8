#include "space/bitmap.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/random.h"

namespace caw {
namespace {

struct Model {
  RegionBits bits{};
  std::vector<bool> naive = std::vector<bool>(kRegionBlocks);

  void randomize(Random& random) {
    for (int i = 0; i < 200; ++i) {
      const auto first = static_cast<uint32_t>(random.below(kRegionBlocks));
      const auto count = static_cast<uint32_t>(
          random.below(std::min<uint64_t>(kRegionBlocks - first, 1 + random.below(700))));
      const bool set = !random.one_in(3);
      set ? set_bits(bits, first, count) : clear_bits(bits, first, count);
      for (uint32_t at = first; at < first + count; ++at) naive[at] = set;
    }
  }
  uint32_t find(bool value, uint32_t from, uint32_t limit) const {
    while (from < limit && naive[from] != value) ++from;
    return from;
  }
};

TEST(Bitmap, AgreesWithOneBoolPerBlock) {
  Random random(1);
  for (int round = 0; round < 20; ++round) {
    Model model;
    model.randomize(random);
    for (int i = 0; i < 500; ++i) {
      const auto limit = static_cast<uint32_t>(1 + random.below(kRegionBlocks));
      const auto from = static_cast<uint32_t>(random.below(limit));
      ASSERT_EQ(find_clear(model.bits, from, limit), model.find(false, from, limit));
      ASSERT_EQ(find_set(model.bits, from, limit), model.find(true, from, limit));
      uint32_t begin = limit;
      while (begin > 0 && !model.naive[begin - 1]) --begin;
      ASSERT_EQ(clear_run_begin(model.bits, limit), begin);
      uint32_t set = 0;
      for (uint32_t at = from; at < limit; ++at) set += model.naive[at] ? 1U : 0U;
      ASSERT_EQ(count_set(model.bits, from, limit - from), set);
    }
  }
}

TEST(Bitmap, FindsTheFirstRunThatIsLongEnough) {
  Random random(2);
  for (int round = 0; round < 300; ++round) {
    Model model;
    model.randomize(random);
    const auto limit = static_cast<uint32_t>(1 + random.below(kRegionBlocks));
    const auto from = static_cast<uint32_t>(random.below(limit));
    const auto count = static_cast<uint32_t>(1 + random.below(600));
    uint32_t at = model.find(false, from, limit);
    uint32_t skipped = 0;
    while (at < limit) {
      const uint32_t end = model.find(true, at, limit);
      if (end - at >= count) break;
      skipped = std::max(skipped, end - at);
      at = model.find(false, end, limit);
    }
    const ClearRun run = find_clear_run(model.bits, from, limit, count);
    ASSERT_EQ(run.first, at);
    ASSERT_EQ(run.longest_skipped, skipped);
  }
}

TEST(Bitmap, BitsAreInDiskOrder) {
  RegionBits bits{};
  set_bits(bits, 9, 1);
  EXPECT_EQ(reinterpret_cast<const unsigned char*>(bits.data())[1], 2);
}

}  // namespace
}  // namespace caw
