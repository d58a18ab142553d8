#include "dag/merge.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace caw {
namespace {

Ref<const BlockImage> encode(const Memtable& table) {
  SortedBlockBuilder builder;
  for (const RangeErase& range : table.ranges()) builder.add_range_erase(range);
  for (const auto& [key, message] : table.points()) builder.add(key, message);
  return make_ref<const BlockImage>(NodeKind::run, builder.finish(), false, Seq{0});
}

std::string random_key(Random& random) {
  std::string key(1, static_cast<char>('a' + random.below(4)));
  if (random.one_in(2)) key.push_back(static_cast<char>('a' + random.below(4)));
  return key;
}

using Model = std::map<std::string, std::string>;

void patch_model(Model& model, const std::string& key, uint32_t offset, const std::string& bytes) {
  std::string& value = model[key];
  if (value.size() < offset + bytes.size()) value.resize(offset + bytes.size());
  value.replace(offset, bytes.size(), bytes);
}

void random_step(Random& random, Memtable& table, Model& model) {
  DroppedRefs dropped;
  std::string key = random_key(random);
  switch (random.below(4)) {
    case 0: {
      std::string hi = random_key(random);
      if (hi < key) std::swap(hi, key);
      if (key == hi) break;
      table.erase_range(key, hi, 0, dropped);
      model.erase(model.lower_bound(key), model.lower_bound(hi));
      break;
    }
    case 1:
      table.insert(key, Message::erase(0), dropped);
      model.erase(key);
      break;
    case 2: {
      const auto offset = static_cast<uint32_t>(random.below(4));
      table.insert(key, Message::make_patch(write_patch(offset, "xy")), dropped);
      patch_model(model, key, offset, "xy");
      break;
    }
    default: {
      const std::string value = std::to_string(random.below(1000));
      table.insert(key, Message::put(inline_value(value)), dropped);
      model[key] = value;
    }
  }
}

Model read_all(std::vector<Layer> layers) {
  Model out;
  MergeCursor cursor(std::move(layers), /*complete=*/true);
  Merged merged;
  while (cursor.next(merged)) {
    const std::string key = merged.key;
    out[key] = inline_bytes(merged.take().value);
  }
  return out;
}

/// Layers of blocks and of copied slices, merged at once or pairwise, give what a map gives.
TEST(Merge, LayersComeToWhatAMapHolds) {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    Random random(seed);
    Model model;
    std::vector<Ref<const BlockImage>> oldest_first;
    for (int run = 0; run < 4; ++run) {
      Memtable table;
      for (uint64_t n = random.below(8); n > 0; --n) random_step(random, table, model);
      oldest_first.push_back(encode(table));
    }
    std::vector<Layer> layers;
    for (auto it = oldest_first.rbegin(); it != oldest_first.rend(); ++it) {
      layers.emplace_back(*it, (*it)->block(), Translation{}, "", kKeyEnd);
    }
    ASSERT_EQ(read_all(std::move(layers)), model) << "seed " << seed;

    // Two runs in the middle merged first: the result must not change.
    std::vector<Layer> middle;
    middle.emplace_back(oldest_first[2], oldest_first[2]->block(), Translation{}, "", kKeyEnd);
    middle.emplace_back(oldest_first[1], oldest_first[1]->block(), Translation{}, "", kKeyEnd);
    MergeCursor cursor(std::move(middle), /*complete=*/false);
    SortedBlockBuilder builder;
    for (const RangeErase& range : cursor.ranges()) builder.add_range_erase(range);
    Merged merged;
    while (cursor.next(merged)) builder.add(merged.key, merged.take());
    auto joined = make_ref<const BlockImage>(NodeKind::run, builder.finish(), false, Seq{0});
    ASSERT_TRUE(SortedBlock::open(joined->bytes()).has_value());
    std::vector<Layer> three;
    three.emplace_back(oldest_first[3], oldest_first[3]->block(), Translation{}, "", kKeyEnd);
    three.emplace_back(joined, joined->block(), Translation{}, "", kKeyEnd);
    three.emplace_back(oldest_first[0], oldest_first[0]->block(), Translation{}, "", kKeyEnd);
    ASSERT_EQ(read_all(std::move(three)), model) << "seed " << seed;
  }
}

TEST(Merge, TranslatedLayerShowsOnlyItsPrefix) {
  Memtable table;
  DroppedRefs dropped;
  table.erase_range("p", "r", 0, dropped);
  table.insert("pa", Message::put(inline_value("1")), dropped);
  table.insert("qa", Message::put(inline_value("2")), dropped);
  auto image = encode(table);
  Layer layer(image, image->block(), Translation{"new/", "p"}, "", kKeyEnd);
  ASSERT_TRUE(layer.valid());
  EXPECT_EQ(layer.key(), "new/a");
  ASSERT_EQ(layer.ranges().size(), 1U);
  EXPECT_EQ(layer.ranges()[0].lo, "new/");
  EXPECT_EQ(layer.ranges()[0].hi, "new0");
  layer.next();
  EXPECT_FALSE(layer.valid());
}

TEST(Memtable, GivesBackReferencesItDrops) {
  Memtable table;
  DroppedRefs dropped;
  table.insert("a", Message::put(inline_value("", NodeId{7})), dropped);
  table.insert("b", Message::put(inline_value("", NodeId{8})), dropped);
  EXPECT_TRUE(dropped.trees.empty());
  table.insert("a", Message::make_patch(write_patch(0, "x")), dropped);
  EXPECT_TRUE(dropped.trees.empty());
  table.insert("a", Message::erase(0), dropped);
  table.erase_range("a", "c", 0, dropped);
  EXPECT_EQ(dropped.trees, (std::vector<NodeId>{NodeId{7}, NodeId{8}}));
  EXPECT_TRUE(table.points().empty());
}

TEST(Memtable, JoinsOverlappingRanges) {
  std::vector<RangeErase> ranges;
  add_range(ranges, {"a", "c", 1});
  add_range(ranges, {"e", "g", 1});
  add_range(ranges, {"c", "d", 1});
  ASSERT_EQ(ranges.size(), 2U);
  add_range(ranges, {"b", "f", 1});
  ASSERT_EQ(ranges.size(), 1U);
  EXPECT_EQ(ranges[0], (RangeErase{"a", "g", 4}));
  EXPECT_TRUE(covered(ranges, "a"));
  EXPECT_FALSE(covered(ranges, "g"));
}

/// A translation on a damaged volume may put anything before a key.
TEST(MergeCursor, AKeyGrownTooLongIsAnErrorOfTheMerge) {
  Memtable table;
  DroppedRefs dropped;
  table.insert(std::string(kMaxKeyBytes, 'k'), Message::put(inline_value("v")), dropped);
  const auto merged = [&](const Translation& down) {
    const auto run = encode(table);
    std::vector<Layer> layers;
    layers.emplace_back(run, run->block(), down, "", kKeyEnd);
    return merge_to_block(std::move(layers));
  };
  EXPECT_TRUE(merged({}).has_value());
  EXPECT_EQ(merged({"x", ""}).error().code, Code::block_order);
}

TEST(MergeCursor, ARangeGrownTooLongIsAnErrorOfTheMerge) {
  Memtable table;
  DroppedRefs dropped;
  table.erase_range(std::string(kMaxKeyBytes, 'a'), "b", 0, dropped);
  const auto run = encode(table);
  std::vector<Layer> layers;
  layers.emplace_back(run, run->block(), Translation{"x", ""}, "", kKeyEnd);
  EXPECT_EQ(merge_to_block(std::move(layers)).error().code, Code::block_order);
}

}  // namespace
}  // namespace caw
