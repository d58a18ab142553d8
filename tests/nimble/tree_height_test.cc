// A tree stays as low as what it holds allows, however long keys come and go.
#include <gtest/gtest.h>

#include <string>

#include "base/random.h"
#include "store/image.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

std::string key(uint64_t i) {
  std::string text = std::to_string(i);
  return std::string(8 - text.size(), '0') + text;
}

void must(const Result<void>& done) { ASSERT_TRUE(done) << done.error().to_string(); }

uint64_t height_of(VolumeBed& bed, const TreeRef& tree) {
  const Result<ImageRef> root = bed.volume().store().get(tree->root());
  CAW_ASSERT(root && (*root)->kind() == NodeKind::interior);
  return static_cast<const InteriorImage&>(**root).node().height;
}

/// Ranges are filled and emptied in turn, here and there, with a clone now and then so that nodes
/// are shared: growing beside tall children again and again.
uint64_t tallest(uint64_t seed, uint64_t rounds) {
  VolumeBedOptions options;
  options.shape = tiny_shape(seed);
  options.blocks = 65536;
  VolumeBed bed(options);
  Forest& forest = bed.forest();
  const TreeRef tree = forest.system_tree();
  Random random(seed);
  uint64_t most = 0;
  for (uint64_t round = 0; round < rounds; ++round) {
    Batch batch;
    batch.generation = forest.share_generation();
    const uint64_t at = random.below(3000);
    if (random.one_in(2)) {
      batch.erase_range(tree, key(at), key(at + 1 + random.below(1500)), 100);
    }
    for (uint64_t i = 0; i < 20; ++i) {
      batch.put(tree, key(at + random.below(60)), inline_value(std::string(40, 'v')));
    }
    must(forest.apply(batch));
    if (round % 20 == 0) {
      Batch then;
      then.generation = forest.share_generation();
      const NodeId id = forest.new_tree_id();
      then.put(tree, "clone", inline_value("", id));
      const ClonePrefix prefix{"0000", "0000"};
      must(forest.clone(tree, {&prefix, 1}, id, then));
    }
    if (round % 4 == 0) must(bed.maintain());
    if (round % 50 == 0) {
      EXPECT_EQ(bed.check(), "");
    }
    most = std::max(most, height_of(bed, tree));
  }
  return most;
}

TEST(TreeHeight, DoesNotGrowWithTime) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    const uint64_t early = tallest(seed, 300);
    const uint64_t late = tallest(seed, 3000);
    EXPECT_LE(late, early + 2) << "seed " << seed << ": " << early << " then " << late;
    EXPECT_LE(late, 10U) << "seed " << seed;
  }
}

}  // namespace
}  // namespace caw
