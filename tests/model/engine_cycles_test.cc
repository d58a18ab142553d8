// The rules by which no references ever form a cycle (docs/adr/0018-no-cycles.md), at the engine.
#include <gtest/gtest.h>

#include "check/check.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

class EngineCycles : public testing::Test {
 protected:
  TreeRef make_tree(const TreeRef& outer, const std::string& key) {
    Batch batch = new_batch();
    const NodeId id = forest().new_tree_id();
    batch.create_tree(id);
    batch.put(outer, key, record(id));
    EXPECT_TRUE(forest().apply(batch).has_value());
    return forest().open_tree(id);
  }
  void fill(const TreeRef& tree) {
    for (int i = 0; i < 200; ++i) {
      Batch batch = new_batch();
      batch.put(tree, "f" + std::to_string(i), inline_value(std::string(30, 'x')));
      ASSERT_TRUE(forest().apply(batch).has_value());
    }
  }
  /// Moves the record of `tree` as one who checked privacy under `generation`.
  Result<void> move(const TreeRef& tree, const std::pair<TreeRef, std::string>& from,
                    const std::pair<TreeRef, std::string>& to, uint64_t generation) {
    Batch batch;
    batch.generation = generation;
    batch.put(to.first, to.second, record(tree->root()));
    batch.erase(from.first, from.second, 0);
    return forest().apply(batch);
  }
  static Value record(NodeId tree) {
    Value value = inline_value("directory");
    value.tree = tree;
    return value;
  }
  Batch new_batch() {
    Batch batch;
    batch.generation = forest().share_generation();
    return batch;
  }
  Forest& forest() { return bed.forest(); }
  bool is_private(const TreeRef& outer, const std::string& key) {
    return forest().is_private(outer, key).value();
  }
  void settle() {
    for (int i = 0; i < 3; ++i) {
      ASSERT_TRUE(bed.maintain().has_value());
      ASSERT_TRUE(bed.volume().sync().has_value());
    }
  }

  VolumeBed bed{VolumeBedOptions{}};
};

/// Until the erase reaches the leaf, the tree that moved has two references: who knew it to be
/// private knows that no longer.
TEST_F(EngineCycles, AMovedTreeIsNotKnownToBePrivate) {
  const TreeRef top = forest().system_tree();
  const TreeRef a = make_tree(top, "a");
  const TreeRef b = make_tree(a, "b");
  fill(a);
  settle();
  const uint64_t generation = forest().share_generation();
  ASSERT_TRUE(is_private(top, "a"));
  ASSERT_TRUE(is_private(a, "b"));
  ASSERT_TRUE(move(b, {a, "b"}, {top, "b"}, generation).has_value());
  const Result<void> into_itself = move(a, {top, "a"}, {b, "a"}, generation);
  ASSERT_FALSE(into_itself.has_value());
  EXPECT_EQ(into_itself.error().code, Code::tree_not_private);
  EXPECT_FALSE(is_private(top, "b"));
  settle();
  EXPECT_EQ(bed.drain_and_check(), "");
}

}  // namespace
}  // namespace caw
