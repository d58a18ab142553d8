#include "fs/inode_numbers.h"

#include <gtest/gtest.h>

#include "support/map_forest.h"

namespace caw {
namespace {

TEST(InodeNumbers, TheRootsDomainStartsAtOne) {
  MapForest forest;
  InodeNumbers numbers(forest);
  EXPECT_EQ(numbers.shown(kRootDomain, kRootNumber).value(), 1u);
  EXPECT_EQ(numbers.shown(kRootDomain, 12345).value(), 12345u);
}

TEST(InodeNumbers, ChunksAreDistinctAndOutliveTheObject) {
  MapForest forest;
  uint64_t first = 0;
  uint64_t second = 0;
  uint64_t high = 0;
  {
    InodeNumbers numbers(forest);
    first = numbers.shown(5, 7).value();
    second = numbers.shown(6, 7).value();
    high = numbers.shown(kRootDomain, (uint64_t{1} << 28) + 7).value();
  }
  EXPECT_NE(first, second);
  EXPECT_NE(first, high);
  EXPECT_EQ(first & 0xfffffff, 7u);
  InodeNumbers again(forest);
  EXPECT_EQ(again.shown(5, 7).value(), first);
  EXPECT_EQ(again.shown(6, 7).value(), second);
  EXPECT_EQ(again.shown(kRootDomain, (uint64_t{1} << 28) + 7).value(), high);
  EXPECT_EQ(again.shown(5, 8).value(), first + 1);
}

TEST(InodeNumbers, DomainsSeenThroughAClone) {
  MapForest forest;
  InodeNumbers numbers(forest);
  EXPECT_EQ(numbers.domain_of(9, 0, 0).value(), 9u);  // inherited
  EXPECT_EQ(numbers.domain_of(9, 9, 4).value(), 4u);  // at home
  const uint64_t through = numbers.domain_of(10, 9, 4).value();
  EXPECT_NE(through, 4u);
  EXPECT_NE(through, numbers.domain_of(11, 9, 4).value());
  EXPECT_NE(through, numbers.domain_of(10, 8, 4).value());
  InodeNumbers again(forest);
  EXPECT_EQ(again.domain_of(10, 9, 4).value(), through);
}

TEST(InodeNumbers, AFullVolumeKeepsThemInMemoryAndSavesThemLater) {
  MapForest forest;
  forest.set_options({.no_space_one_in = 1});
  InodeNumbers numbers(forest);
  const uint64_t shown = numbers.shown(5, 7).value();
  EXPECT_EQ(numbers.shown(5, 7).value(), shown);
  EXPECT_EQ(numbers.save().error().code, Code::no_space);
  forest.set_options({});
  EXPECT_TRUE(numbers.save());
  InodeNumbers again(forest);
  EXPECT_EQ(again.shown(5, 7).value(), shown);
}

TEST(InodeNumbers, DamagedMapsAreReported) {
  MapForest forest;
  Batch batch;
  batch.generation = forest.share_generation();
  batch.put(forest.system_tree(), "\x03\x01\x05\x01" + std::string(1, '\0'), inline_value("\x80"));
  ASSERT_TRUE(forest.apply(batch));
  InodeNumbers numbers(forest);
  EXPECT_EQ(numbers.shown(5, 7).error().code, Code::record_malformed);
}

}  // namespace
}  // namespace caw
