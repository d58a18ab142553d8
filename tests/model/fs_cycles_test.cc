// Clones and renames that could tie trees to each other by records which nobody sees any more: they
// form no cycle of references, and once they are removed all their space comes back
// (docs/adr/0018-no-cycles.md).
#include <gtest/gtest.h>

#include "check/check.h"
#include "model/fs_harness.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

VolumeBedOptions small_bed() {
  VolumeBedOptions options;
  options.shape.leaf_bytes = 4096;
  options.shape.fanout = 4;
  options.shape.buffer_bytes = 8192;
  options.shape.run_bytes = 4096;
  options.shape.floor_bytes = 512;
  return options;
}

class FsCycles : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_EQ(c.make_and_mount(), 0);
    ASSERT_EQ(drain(), "");
    before_ = report().figures;
  }
  void fill(const std::string& name, size_t bytes) {
    ASSERT_EQ(c.create(name), 0);
    ASSERT_EQ(c.write(name, 0, std::string(bytes, 'x')), 0);
  }
  /// A directory n9/n0 and a file n9/large, in a run that also holds the records of n11 and n12,
  /// which own trees.
  void make_neighbours() {
    ASSERT_EQ(c.mkdir("n9"), 0);
    ASSERT_EQ(c.clone("n9", "n11"), 0);
    ASSERT_EQ(c.clone("n9", "n12"), 0);
    ASSERT_EQ(c.mkdir("n9/n0"), 0);
    fill("n9/large", 1 << 20);
    fill("n9/n0/n2", 200000);
    ASSERT_EQ(c.truncate("n9/n0/n2", 1), 0);
  }
  /// A directory with enough in it that a rename gives it a tree of its own.
  void make_large(const std::string& name) {
    ASSERT_EQ(c.mkdir(name), 0);
    for (int i = 0; i < 70; ++i) ASSERT_EQ(c.create(name + "/f" + std::to_string(i)), 0);
  }
  /// `outer` comes to hold a record of the tree of `name`, hidden by an erase that stays pending.
  void hide_within(const std::string& outer, const std::string& name) {
    ASSERT_EQ(c.rename(name, outer + "/" + name), 0);
    for (int i = 0; i < 90; ++i) {  // enough to flush it to a leaf
      ASSERT_EQ(c.create(outer + "/for-" + name + std::to_string(i)), 0);
    }
    ASSERT_EQ(drain(), "");
    ASSERT_EQ(c.rename(outer + "/" + name, name), 0);
    ASSERT_EQ(drain(), "");
  }
  /// As make_large(); it owns a tree, since it was moved.
  void make_tree(const std::string& name) {
    make_large(name);
    ASSERT_EQ(c.mkdir("way"), 0);
    ASSERT_EQ(c.rename(name, "way/x"), 0);
    ASSERT_EQ(c.rename("way/x", name), 0);
    ASSERT_EQ(c.rmdir("way"), 0);
  }
  std::string drain() {
    if (!bed.maintain() || !bed.volume().checkpoint()) return "maintenance fails";
    return bed.drain_and_check();
  }
  CheckReport report() {
    const std::unique_ptr<BlockDevice> still = make_memory_device(bed.image()->clone(), true);
    return check_volume(*still).value();
  }
  /// Crashes (after a sync), so that what memory knows is lost.
  void crash() {
    ASSERT_TRUE(bed.volume().sync().has_value());
    c.unmount();
    ASSERT_TRUE(bed.crash().has_value());
    ASSERT_EQ(c.mount_on(bed.forest()), 0);
  }
  void reopen() {
    c.unmount();
    ASSERT_TRUE(bed.reopen().has_value());
    ASSERT_EQ(c.mount_on(bed.forest()), 0);
  }
  /// Nothing is left of what was made since SetUp.
  void expect_empty() {
    EXPECT_EQ(drain(), "");
    const CheckFigures now = report().figures;
    EXPECT_EQ(now.trees, before_.trees);
    EXPECT_LT(now.blob_blocks, before_.blob_blocks + 4);
  }

  VolumeBed bed{small_bed()};
  FsClient c{bed.forest()};
  CheckFigures before_;
};

TEST_F(FsCycles, ACloneBelowACloneOfTheSameSource) {
  make_neighbours();
  ASSERT_EQ(c.clone("n9/n0", "n11/n0"), 0);
  ASSERT_EQ(drain(), "");
  EXPECT_EQ(c.read("n11/n0/n2"), "x");
  ASSERT_EQ(c.remove_tree("n11"), 0);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.remove_tree("n9"), 0);
  ASSERT_EQ(c.remove_tree("n12"), 0);
  expect_empty();
}

TEST_F(FsCycles, ClonesBelowTwoThatSeeEachOther) {
  make_neighbours();
  ASSERT_EQ(c.clone("n9/n0", "n11/n0"), 0);
  ASSERT_EQ(c.clone("n9/n0", "n12/n1"), 0);
  ASSERT_EQ(c.clone("n11/n0", "n12/n1/deep"), 0);
  ASSERT_EQ(c.clone("n12/n1", "n11/n0/deep"), 0);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.remove_tree("n11"), 0);
  ASSERT_EQ(c.remove_tree("n12"), 0);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.remove_tree("n9"), 0);
  expect_empty();
}

TEST_F(FsCycles, ACloneOfAFileBelowAClone) {
  make_neighbours();
  ASSERT_EQ(c.clone("n9/large", "n11/large"), 0);
  EXPECT_EQ(c.read("n11/large"), std::string(1 << 20, 'x'));
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(c.read("n11/large"), std::string(1 << 20, 'x'));
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.remove_tree("n11"), 0);
  ASSERT_EQ(c.remove_tree("n9"), 0);
  ASSERT_EQ(c.remove_tree("n12"), 0);
  expect_empty();
}

TEST_F(FsCycles, ACloneRenamedBelowAClone) {
  make_neighbours();
  ASSERT_EQ(c.clone("n9/n0", "n10"), 0);
  ASSERT_EQ(c.rename("n10", "n11/n10"), 0);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.remove_tree("n11"), 0);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.remove_tree("n9"), 0);
  ASSERT_EQ(c.remove_tree("n12"), 0);
  expect_empty();
}

TEST_F(FsCycles, ADirectoryRenamedIntoWhatItHeld) {
  make_tree("a");
  make_tree("b");
  hide_within("a", "b");
  ASSERT_EQ(c.rename("a", "b/a"), 0);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.remove_tree("b"), 0);
  expect_empty();
}

TEST_F(FsCycles, ADirectoryRenamedIntoWhatItHeldAMomentAgo) {
  make_tree("a");
  make_tree("b");
  ASSERT_EQ(c.rename("b", "a/b"), 0);
  for (int i = 0; i < 90; ++i) ASSERT_EQ(c.create("a/g" + std::to_string(i)), 0);
  make_large("junk");
  ASSERT_EQ(c.remove_tree("junk"), 0);  // makes the root flush, so that it forgets where b was
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.create("a/b/g"), 0);  // now the tree of b is known to be private
  ASSERT_EQ(c.rename("a/b", "b"), 0);
  ASSERT_EQ(c.rename("a", "b/a"), 0);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.remove_tree("b"), 0);
  expect_empty();
}

TEST_F(FsCycles, AChainOfRenames) {
  for (const char* name : {"a", "b", "c", "d"}) make_tree(name);
  hide_within("a", "b");
  hide_within("b", "c");
  hide_within("c", "d");
  hide_within("a", "d");
  ASSERT_EQ(c.rename("a", "b/a"), 0);
  ASSERT_EQ(c.clone("b", "k"), 0);
  ASSERT_EQ(c.rename("b", "c/b"), 0);
  ASSERT_EQ(c.rename("c", "d/c"), 0);
  ASSERT_EQ(c.remove_tree("d"), 0);
  ASSERT_EQ(drain(), "");
  EXPECT_EQ(c.stat("k/a/f69").size, 0U);  // alive in the clone
  ASSERT_EQ(c.remove_tree("k"), 0);
  expect_empty();
}

TEST_F(FsCycles, AChainOfClonesEachInTheNext) {
  make_large("s");
  for (const char* name : {"s/x", "s/y", "s/z"}) make_tree(name);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.clone("s", "k0"), 0);
  // Clones of neighbours share border leaves; each hangs where another one's leaf holds its owner.
  ASSERT_EQ(c.clone("s/x", "s/y/cx"), 0);
  ASSERT_EQ(c.clone("s/y", "s/z/cy"), 0);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.clone("s/z", "s/x/cz"), 0);
  ASSERT_EQ(c.clone("s", "k1"), 0);
  ASSERT_EQ(drain(), "");
  ASSERT_EQ(c.clone("s/x", "k1/z/again"), 0);
  ASSERT_EQ(c.rename("k1/z/again/cz", "k1/cz"), 0);
  ASSERT_EQ(c.rename("k1/z", "k1/cz/z"), 0);
  ASSERT_EQ(drain(), "");
  for (const char* name : {"k0", "s", "k1"}) {
    ASSERT_EQ(c.remove_tree(name), 0);
    ASSERT_EQ(drain(), "");
  }
  expect_empty();
}

TEST_F(FsCycles, NoneAfterACrashOrAnUnmount) {
  for (const bool crashes : {false, true}) {
    make_neighbours();
    ASSERT_EQ(c.clone("n9/n0", "n11/n0"), 0);
    ASSERT_EQ(c.remove_tree("n11"), 0);
    crashes ? crash() : reopen();
    ASSERT_EQ(c.remove_tree("n9"), 0);
    ASSERT_EQ(c.remove_tree("n12"), 0);
    crashes ? crash() : reopen();
    // Where nothing runs in the background, only a tree that is written to is looked at.
    ASSERT_EQ(c.mkdir("d"), 0);
    ASSERT_EQ(c.rmdir("d"), 0);
    expect_empty();
  }
}

}  // namespace
}  // namespace caw
