// A root holds a bounded number of runs, whatever is cloned from what, with maintenance or without.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>

#include "base/random.h"
#include "store/image.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

constexpr int kRounds = 240;
constexpr uint64_t kKeys = 400;
constexpr uint64_t kEdits = 24;  // a round seals a few memtables
constexpr size_t kSealedInARound = 24;

VolumeBedOptions options() {
  VolumeBedOptions options;
  options.blocks = 65536;
  return options;
}

class Trees {
 public:
  explicit Trees(bool maintained) : bed_(options()), maintained_(maintained) {}

  uint32_t max_runs() const { return options().shape.max_runs; }
  size_t most() const { return most_; }

  TreeRef tree(const std::string& name) {
    const auto value = forest().get(forest().system_tree(), name);
    CAW_ASSERT(value && *value);
    return forest().open_tree((*value)->tree);
  }
  void make(const std::string& name) {
    const NodeId id = forest().new_tree_id();
    Batch batch = new_batch();
    batch.create_tree(id);
    batch.put(forest().system_tree(), name, inline_value("", id));
    must(forest().apply(batch));
  }
  void clone(const std::string& from, const std::string& to) {
    const NodeId id = forest().new_tree_id();
    const ClonePrefix whole;
    Batch then = new_batch();
    then.put(forest().system_tree(), to, inline_value("", id));
    must(forest().clone(tree(from), {&whole, 1}, id, then));
  }
  void edit(const std::string& name) {
    const TreeRef target = tree(name);
    for (uint64_t i = 0; i < kEdits; ++i) {
      Batch batch = new_batch();
      const std::string key = "k" + std::to_string(random_.below(kKeys));
      batch.put(target, key, inline_value(fill_bytes(40, static_cast<uint32_t>(random_.next()))));
      must(forest().apply(batch));
    }
  }
  /// What a commit interval brings; then the runs of the tree's root are counted.
  void pass(const std::string& name) {
    if (maintained_) must(bed_.maintain());
    must(bed_.volume().checkpoint());
    const Result<ImageRef> root = bed_.volume().store().get(tree(name)->root());
    CAW_ASSERT(root && (*root)->kind() == NodeKind::interior);
    most_ = std::max(most_, static_cast<const InteriorImage&>(**root).node().runs.size());
  }
  void expect_sound() { EXPECT_EQ(bed_.drain_and_check(), ""); }

 private:
  Forest& forest() { return bed_.forest(); }
  Batch new_batch() {
    Batch batch;
    batch.generation = forest().share_generation();
    return batch;
  }
  static void must(const Result<void>& done) { ASSERT_TRUE(done) << done.error().to_string(); }

  VolumeBed bed_;
  bool maintained_;
  Random random_{7};
  size_t most_ = 0;
};

/// Nobody settles a clone that was not written to before 64 runs; without maintenance, a checkpoint
/// settles what holds sixteen times as many as settling leaves.
void expect_few(const Trees& trees, bool maintained) {
  const size_t kept = maintained ? 64 : size_t{16} * trees.max_runs();
  std::printf("at most %zu runs\n", trees.most());
  EXPECT_LE(trees.most(), kept + kSealedInARound);
}

class RootRuns : public testing::TestWithParam<bool> {};

TEST_P(RootRuns, OfAChainOfClonesWithEdits) {
  Trees trees(GetParam());
  trees.make("0");
  trees.edit("0");
  for (int round = 1; round <= kRounds; ++round) {
    const std::string name = std::to_string(round);
    trees.clone(std::to_string(round - 1), name);
    trees.edit(name);
    trees.pass(name);
  }
  expect_few(trees, GetParam());
  trees.expect_sound();
}

TEST_P(RootRuns, OfABusySourceAndItsClones) {
  Trees trees(GetParam());
  trees.make("source");
  for (int round = 1; round <= kRounds; ++round) {
    const std::string name = std::to_string(round);
    trees.edit("source");
    trees.clone("source", name);
    trees.edit("source");
    trees.pass(name);
    trees.pass("source");
  }
  expect_few(trees, GetParam());
  trees.expect_sound();
}

TEST_P(RootRuns, OfClonesOfClonesThatNobodyWritesTo) {
  Trees trees(GetParam());
  trees.make("0");
  for (int round = 1; round <= kRounds; ++round) {
    const std::string name = std::to_string(round);
    trees.edit("0");
    trees.clone(round % 8 == 1 ? "0" : std::to_string(round - 1), name);
    trees.pass(name);
    trees.pass("0");
  }
  expect_few(trees, GetParam());
  trees.expect_sound();
}

INSTANTIATE_TEST_SUITE_P(Maintained, RootRuns, testing::Bool());

}  // namespace
}  // namespace caw
