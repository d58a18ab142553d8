// The reference itself: privacy, counts, order within a batch.
#include "support/map_forest.h"

#include <gtest/gtest.h>

namespace caw {
namespace {

Value text(std::string_view bytes, NodeId tree = kNoNode) {
  Value value;
  value.tree = tree;
  value.length = static_cast<uint32_t>(bytes.size());
  if (!bytes.empty()) value.pieces = {{0, std::string(bytes)}};
  return value;
}

Batch batch_for(const Forest& forest) {
  Batch batch;
  batch.generation = forest.share_generation();
  return batch;
}

std::string bytes_of(Forest& forest, const TreeRef& tree, std::string_view key) {
  const auto value = forest.get(tree, key).value();
  if (!value) return "(absent)";
  std::string out(value->length, '?');
  EXPECT_TRUE(forest.read(*value, 0, out));
  return out;
}

NodeId make_tree(MapForest& forest, const std::string& key) {
  const NodeId id = forest.new_tree_id();
  Batch batch = batch_for(forest);
  batch.create_tree(id);
  batch.put(forest.system_tree(), key, text("", id));
  EXPECT_TRUE(forest.apply(batch));
  return id;
}

TEST(MapForest, PatchesCutExtendAndOverlay) {
  MapForest forest;
  Batch batch = batch_for(forest);
  batch.put(forest.system_tree(), "k", text("abcdef"));
  batch.patch(forest.system_tree(), "k", Patch{3, 5, {{4, "Z"}}});
  batch.patch(forest.system_tree(), "new", Patch{.extend = 2, .pieces = {{1, "x"}}});
  ASSERT_TRUE(forest.apply(batch));
  EXPECT_EQ(bytes_of(forest, forest.system_tree(), "k"), std::string("abc\0Z", 5));
  EXPECT_EQ(bytes_of(forest, forest.system_tree(), "new"), std::string("\0x", 2));
}

TEST(MapForest, CloneOfAPrefixSharesWhatItsRecordsOwn) {
  MapForest forest;
  const NodeId outer_id = make_tree(forest, "outer");
  const TreeRef outer = forest.open_tree(outer_id);
  const NodeId inner_id = forest.new_tree_id();
  Batch batch = batch_for(forest);
  batch.create_tree(inner_id);
  batch.put(outer, "a/x", text("", inner_id));
  batch.put(outer, "b", text("outside"));
  batch.put(forest.open_tree(inner_id), "deep", text("1"));
  ASSERT_TRUE(forest.apply(batch));
  EXPECT_TRUE(forest.is_private(outer, "a/x").value());

  const NodeId clone_id = forest.new_tree_id();
  Batch then = batch_for(forest);
  const Batch stale = then;
  then.put(forest.system_tree(), "clone", text("", clone_id));
  const ClonePrefix prefix{"a/", "q"};
  ASSERT_TRUE(forest.clone(outer, {&prefix, 1}, clone_id, then));
  EXPECT_EQ(bytes_of(forest, forest.open_tree(clone_id), "qx"), "");
  EXPECT_EQ(bytes_of(forest, forest.open_tree(clone_id), "b"), "(absent)");
  EXPECT_FALSE(forest.is_private(outer, "a/x").value());
  EXPECT_FALSE(forest.is_private(forest.open_tree(clone_id), "qx").value());

  Batch old = stale;
  old.put(outer, "c", text("late"));
  EXPECT_EQ(forest.apply(old).error().code, Code::tree_not_private);

  // The inner tree lives on in the clone, private again, once its first owner is gone.
  Batch removal = batch_for(forest);
  removal.erase(forest.system_tree(), "outer", 0);
  ASSERT_TRUE(forest.apply(removal));
  EXPECT_EQ(forest.get(outer, "b").error().code, Code::tree_absent);
  EXPECT_TRUE(forest.is_private(forest.open_tree(clone_id), "qx").value());
  EXPECT_EQ(bytes_of(forest, forest.open_tree(inner_id), "deep"), "1");
  EXPECT_EQ(forest.tree_count(), 3U);
}

TEST(MapForest, ARecordMovesWithinABatchWithoutLosingWhatItOwns) {
  MapForest forest;
  const NodeId id = make_tree(forest, "here");
  const BlobRef blob = forest.write_blob("0123456789").value();
  Batch batch = batch_for(forest);
  Value value = text("");
  value.blob = blob;
  value.blob_length = value.length = 10;
  batch.add_new_blob(blob);
  batch.put(forest.open_tree(id), "f", value);
  batch.erase(forest.system_tree(), "here", 0);
  batch.put(forest.system_tree(), "there", text("", id));
  ASSERT_TRUE(forest.apply(batch));
  EXPECT_EQ(bytes_of(forest, forest.open_tree(id), "f"), "0123456789");
  EXPECT_EQ(forest.pending_blob_count(), 0U);

  Batch removal = batch_for(forest);
  removal.erase_range(forest.system_tree(), "a", "z", 0);
  ASSERT_TRUE(forest.apply(removal));
  EXPECT_EQ(forest.blob_count(), 0U);
  EXPECT_EQ(forest.tree_count(), 1U);
}

TEST(MapForestDeathTest, WritingToASharedTreeAborts) {
  MapForest forest;
  const NodeId id = make_tree(forest, "one");
  Batch batch = batch_for(forest);
  batch.put(forest.system_tree(), "two", text("", id));
  ASSERT_TRUE(forest.apply(batch));
  EXPECT_DEATH(
      {
        Batch write = batch_for(forest);
        write.put(forest.open_tree(id), "k", text("v"));
        ignore_error(forest.apply(write), "aborts before");
      },
      "writable");
}

}  // namespace
}  // namespace caw
