#include "format/key_filter.h"

#include <gtest/gtest.h>

#include <string>
#include <thread>

namespace caw {
namespace {

std::string key_of(size_t i) { return "directory/" + std::to_string(i); }

KeyFilter filter_of(size_t keys) {
  KeyFilter filter(keys);
  for (size_t i = 0; i < keys; ++i) filter.add(KeyFilter::hash(key_of(i)));
  return filter;
}

TEST(KeyFilter, PassesAllThatIsInIt) {
  for (const size_t keys : {0U, 1U, 40U, 1000U, 50'000U}) {
    const KeyFilter filter = filter_of(keys);
    for (size_t i = 0; i < keys; ++i) {
      ASSERT_TRUE(filter.may_contain(KeyFilter::hash(key_of(i)))) << i;
    }
  }
}

TEST(KeyFilter, KeepsOutMostOfTheRest) {
  constexpr size_t kAsked = 20'000;
  for (const size_t keys : {100U, 1000U, 50'000U}) {
    const KeyFilter filter = filter_of(keys);
    size_t passed = 0;
    for (size_t i = keys; i < keys + kAsked; ++i) {
      if (filter.may_contain(KeyFilter::hash(key_of(i)))) ++passed;
    }
    EXPECT_LT(passed, kAsked / 50) << keys;
  }
}

TEST(KeyFilter, OfNothingKeepsOutEverything) {
  EXPECT_FALSE(KeyFilter(0).may_contain(KeyFilter::hash("")));
  EXPECT_FALSE(KeyFilter(0).may_contain(KeyFilter::hash("a")));
}

TEST(LazyKeyFilter, IsOneForAllThreads) {
  const LazyKeyFilter lazy;
  const KeyFilter* seen[2] = {};
  std::thread other([&] { seen[0] = &lazy.get([] { return filter_of(1000); }); });
  seen[1] = &lazy.get([] { return filter_of(1000); });
  other.join();
  EXPECT_EQ(seen[0], seen[1]);
  EXPECT_TRUE(seen[0]->may_contain(KeyFilter::hash(key_of(7))));
}

}  // namespace
}  // namespace caw
