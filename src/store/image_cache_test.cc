#include "store/image_cache.h"

#include <gtest/gtest.h>

#include "store/store_fixture.h"

namespace caw {
namespace {

using Found = ImageCache::Found;

ImageRef load(ImageCache& cache, NodeId id, const ImageRef& image) {
  ImageRef found;
  if (cache.find_or_claim(id, true, &found) != Found::claimed) return found;
  return cache.finish_load(id, image).value_or(nullptr);
}

TEST(ImageCache, EvictsCleanLeavesBeforeInteriors) {
  ImageCache cache(100000);
  for (uint64_t i = 1; i <= 20; ++i) {
    load(cache, NodeId{1000 + i}, make_interior({NodeId{7}}));
  }
  for (uint64_t i = 1; i <= 100; ++i) {
    load(cache, NodeId{i}, make_leaf(i, 4000));
    cache.evict();
    EXPECT_LE(cache.clean_bytes(), 100000U);
  }
  ImageRef image;
  for (uint64_t i = 1; i <= 20; ++i) {
    EXPECT_EQ(cache.find(NodeId{1000 + i}, &image), Found::image) << i;
  }
  uint64_t leaves = 0;
  for (uint64_t i = 1; i <= 100; ++i) leaves += cache.find(NodeId{i}, &image) == Found::image;
  EXPECT_GT(leaves, 5U);
  EXPECT_LT(leaves, 30U);
}

TEST(ImageCache, KeepsWhatSomebodyHolds) {
  ImageCache cache(1000);
  const ImageRef held = load(cache, NodeId{1}, make_leaf(1, 4000));
  load(cache, NodeId{2}, make_leaf(2, 4000));
  cache.evict();
  ImageRef image;
  EXPECT_EQ(cache.find(NodeId{2}, &image), Found::missing);
  EXPECT_EQ(cache.find(NodeId{1}, &image), Found::image);
  EXPECT_EQ(image, held);
}

TEST(ImageCache, KeepsDirtyImagesUntilFinished) {
  ImageCache cache(1000);
  EXPECT_TRUE(cache.publish(NodeId{1}, make_leaf(1, 4000), 5));
  cache.evict();
  ImageRef image;
  EXPECT_EQ(cache.find(NodeId{1}, &image), Found::image);
  EXPECT_GT(cache.dirty_bytes(), 4000U);
  image = nullptr;
  cache.finish(5);
  EXPECT_EQ(cache.dirty_bytes(), 0U);
  EXPECT_EQ(cache.find(NodeId{1}, &image), Found::missing);
  EXPECT_EQ(cache.clean_bytes(), 0U);
}

TEST(ImageCache, SealingImageStaysBesideTheOpenOne) {
  ImageCache cache(1 << 20);
  const ImageRef old = make_leaf(1);
  const ImageRef now = make_leaf(2);
  EXPECT_TRUE(cache.publish(NodeId{1}, old, 5));
  EXPECT_TRUE(cache.publish(NodeId{1}, now, 6));
  EXPECT_TRUE(old->superseded());
  EXPECT_FALSE(now->superseded());
  ASSERT_EQ(cache.dirty_images(5).size(), 1U);
  EXPECT_EQ(cache.dirty_images(5)[0].image, old);
  EXPECT_EQ(cache.dirty_bytes(), old->memory_bytes() + now->memory_bytes());
  cache.finish(5);
  EXPECT_EQ(cache.dirty_bytes(), now->memory_bytes());
  ASSERT_EQ(cache.dirty_images(6).size(), 1U);
  EXPECT_EQ(cache.dirty_images(6)[0].image, now);
}

TEST(ImageCache, MergeKeepsTheNewestOnly) {
  ImageCache cache(1 << 20);
  const ImageRef newest = make_leaf(2);
  const ImageRef only_sealing = make_leaf(3);
  EXPECT_TRUE(cache.publish(NodeId{1}, make_leaf(1), 5));
  EXPECT_TRUE(cache.publish(NodeId{2}, only_sealing, 5));
  EXPECT_TRUE(cache.drop(NodeId{3}, 5));
  EXPECT_TRUE(cache.publish(NodeId{1}, newest, 6));
  cache.merge_into_next(5);
  EXPECT_TRUE(cache.dirty_images(5).empty());
  ASSERT_EQ(cache.dirty_images(6).size(), 2U);
  EXPECT_EQ(cache.dirty_images(6)[0].image, newest);
  EXPECT_EQ(cache.dirty_images(6)[1].image, only_sealing);
  EXPECT_EQ(cache.dropped(6), std::vector<NodeId>{NodeId{3}});
  EXPECT_EQ(cache.dirty_bytes(), newest->memory_bytes() + only_sealing->memory_bytes());
}

TEST(ImageCache, PublishDuringALoadWins) {
  ImageCache cache(1 << 20);
  ImageRef image;
  ASSERT_EQ(cache.find_or_claim(NodeId{1}, true, &image), Found::claimed);
  EXPECT_EQ(cache.find_or_claim(NodeId{1}, false, &image), Found::busy);
  const ImageRef published = make_leaf(2);
  EXPECT_TRUE(cache.publish(NodeId{1}, published, 5));
  EXPECT_EQ(cache.finish_load(NodeId{1}, make_leaf(1)).value(), published);
  ASSERT_EQ(cache.find(NodeId{1}, &image), Found::image);
  EXPECT_EQ(image, published);
  EXPECT_EQ(cache.dirty_bytes(), published->memory_bytes());
}

TEST(ImageCache, DropDuringALoadWins) {
  ImageCache cache(1 << 20);
  ImageRef image;
  ASSERT_EQ(cache.find_or_claim(NodeId{1}, true, &image), Found::claimed);
  EXPECT_TRUE(cache.drop(NodeId{1}, 5));
  cache.finish(5);
  EXPECT_EQ(cache.find(NodeId{1}, &image), Found::dropped);
  EXPECT_EQ(cache.finish_load(NodeId{1}, make_leaf(1)).error().code, Code::node_absent);
  EXPECT_EQ(cache.find(NodeId{1}, &image), Found::missing);
}

TEST(ImageCache, FailedLoadLeavesNothing) {
  ImageCache cache(1 << 20);
  ImageRef image;
  ASSERT_EQ(cache.find_or_claim(NodeId{1}, true, &image), Found::claimed);
  EXPECT_EQ(cache.finish_load(NodeId{1}, fail(Code::device_read)).error().code, Code::device_read);
  EXPECT_EQ(cache.find_or_claim(NodeId{1}, true, &image), Found::claimed);
  EXPECT_TRUE(cache.finish_load(NodeId{1}, make_leaf(1)).has_value());
}

TEST(ImageCache, FiguresReturnToZero) {
  ImageCache cache(20000);
  Random random(3);
  Epoch open = 2;
  for (int round = 0; round < 5000; ++round) {
    const NodeId id{1 + random.below(50)};
    switch (random.below(4)) {
      case 0:
        EXPECT_TRUE(cache.publish(id, make_leaf(random.next(), 500), open));
        break;
      case 1:
        load(cache, id, make_leaf(random.next(), 500));
        break;
      case 2:
        cache.evict();
        break;
      default:
        if (random.one_in(8)) cache.finish(open++);
        break;
    }
  }
  cache.finish(open++);
  for (uint64_t id = 1; id <= 50; ++id) EXPECT_TRUE(cache.drop(NodeId{id}, open));
  EXPECT_EQ(cache.clean_bytes(), 0U);
  EXPECT_EQ(cache.dirty_bytes(), 0U);
}

/// Wrong counts on a damaged volume drop nodes that are in use.
TEST(ImageCache, WhatWasDroppedTakesNoImageAndIsNotDroppedAgain) {
  ImageCache cache(1 << 20);
  EXPECT_TRUE(cache.drop(NodeId{1}, 5));
  EXPECT_FALSE(cache.publish(NodeId{1}, make_leaf(1), 5));
  EXPECT_FALSE(cache.drop(NodeId{1}, 5));
  EXPECT_EQ(cache.dirty_bytes(), 0U);
}

TEST(ImageCache, AnImageOfANewerEpochIsNotReplacedByOneOfAnOlder) {
  ImageCache cache(1 << 20);
  const ImageRef newer = make_leaf(1);
  EXPECT_TRUE(cache.publish(NodeId{1}, newer, 6));
  EXPECT_FALSE(cache.publish(NodeId{1}, make_leaf(2), 5));
  ImageRef image;
  ASSERT_EQ(cache.find(NodeId{1}, &image), Found::image);
  EXPECT_EQ(image, newer);
}

}  // namespace
}  // namespace caw
