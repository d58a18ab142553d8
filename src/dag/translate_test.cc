#include "dag/translate.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace caw {
namespace {

std::string random_key(Random& random, size_t longest) {
  static constexpr char kAlphabet[] = {'\x00', '\x01', 'a', 'b', '/', '\xfe'};
  std::string key;
  for (size_t n = random.below(longest + 1); n > 0; --n) {
    key.push_back(kAlphabet[random.below(sizeof(kAlphabet))]);
  }
  return key;
}

TEST(Translate, EndOfPrefixIsFirstKeyBehindIt) {
  EXPECT_EQ(key_after_prefix("ab"), "ac");
  EXPECT_EQ(key_after_prefix(std::string("a\xff\xff", 3)), "b");
  EXPECT_EQ(key_after_prefix(""), kKeyEnd);
  EXPECT_EQ(key_after_prefix("\xfe"), kKeyEnd);
}

TEST(Translate, UpperBoundThatLeavesThePrefixEndsAtThePrefix) {
  const Translation t{"a/", "x"};
  EXPECT_EQ(down_bound(t, "b"), "y");
  EXPECT_EQ(down_bound(t, "a/q"), "xq");
  EXPECT_EQ(down_bound(t, "a"), "x");
  EXPECT_EQ(down_bound(t, kKeyEnd), "y");
}

/// A key lies in [lo, hi) exactly if its translation lies in the translated bounds.
TEST(Translate, BoundsHoldTheSameKeysOnBothSides) {
  Random random(1);
  for (int i = 0; i < 200000; ++i) {
    const Translation t{random_key(random, 3), random_key(random, 3)};
    const std::string key = t.strip + random_key(random, 4);
    std::string lo = random_key(random, 5);
    std::string hi = random.one_in(4) ? std::string(kKeyEnd) : random_key(random, 5);
    if (hi < lo) std::swap(lo, hi);
    const std::string inner = *down_key(t, key);
    const bool outside = key < lo || key >= hi;
    const bool inner_outside = inner < down_bound(t, lo) || inner >= down_bound(t, hi);
    ASSERT_EQ(outside, inner_outside) << i;
    ASSERT_EQ(*down_key(inverse(t), inner), key);
  }
}

/// Going down two edges is going down their composition.
TEST(Translate, CompositionIsOneAfterTheOther) {
  Random random(2);
  int passed = 0;
  for (int i = 0; i < 200000; ++i) {
    const Translation outer{random_key(random, 2), random_key(random, 2)};
    const Translation inner{random_key(random, 2), random_key(random, 2)};
    const std::string key = random_key(random, 6);
    const auto both = compose(outer, inner);
    const auto first = down_key(outer, key);
    const auto second = first ? down_key(inner, *first) : std::nullopt;
    if (!both) {
      ASSERT_FALSE(second.has_value()) << i;
      continue;
    }
    ASSERT_EQ(down_key(*both, key), second) << i;
    passed += second.has_value();
  }
  EXPECT_GT(passed, 1000);
}

}  // namespace
}  // namespace caw
