// The model test's machinery against MapForest: quiet on a correct forest, loud on each mistake
// switched on, and able to shrink what it finds.
#include <gtest/gtest.h>

#include "support/forest_runner.h"
#include "support/map_forest.h"

namespace caw {
namespace {

class MapBed final : public ForestBed {
 public:
  explicit MapBed(const MapForestOptions& options) : forest_(options) {}
  Forest& forest() override { return forest_; }
  Result<void> maintain() override { return {}; }
  Result<void> reopen() override { return {}; }
  Result<void> crash() override { return {}; }     // it never loses anything
  std::string check() override {
    return forest_.pending_blob_count() == 0 ? "" : "a blob without reference is left over";
  }

 private:
  MapForest forest_;
};

RunPlan plan_with(const MapForestOptions& options) {
  RunPlan plan;
  plan.make_bed = [options] { return std::make_unique<MapBed>(options); };
  plan.check_every = 50;
  return plan;
}

TEST(MapForestModel, ACorrectForestPasses) {
  const uint64_t ops = env_number("CAW_OPS", 2000);
  const uint64_t first = env_number("CAW_SEED", 1);
  for (uint64_t seed = first; seed < first + 20; ++seed) {
    const RunPlan plan = plan_with({.seed = seed, .lie_one_in = 10});
    RunFailure failure = run_random(plan, seed, ops);
    if (!failure.what.empty()) failure = shrink(plan, failure, 20);
    ASSERT_TRUE(failure.what.empty()) << report(failure, seed, "map_forest_model_test");
  }
}

class MapForestBugs : public testing::TestWithParam<ForestBug> {};

TEST_P(MapForestBugs, AreFoundAndShrunk) {
  const RunPlan plan = plan_with({.bug = GetParam()});
  RunFailure failure;
  uint64_t seed = 1;
  for (; seed < 20 && failure.what.empty(); ++seed) failure = run_random(plan, seed, 1000);
  ASSERT_FALSE(failure.what.empty());
  failure = shrink(plan, failure, 20);
  EXPECT_FALSE(failure.what.empty());
  EXPECT_LE(failure.ops.size(), 12U) << report(failure, seed - 1, "map_forest_model_test");
  EXPECT_FALSE(run_list(plan, failure.ops).what.empty()) << "the shrunk list must fail again";
}

INSTANTIATE_TEST_SUITE_P(Each, MapForestBugs,
                         testing::Values(ForestBug::clone_open_end, ForestBug::erase_range_closed,
                                         ForestBug::patch_ignores_cut,
                                         ForestBug::clone_shares_record));

TEST(ForestOps, SurviveBeingWrittenAsText) {
  ForestModel model;
  OpSource source(7, {});
  for (int i = 0; i < 500; ++i) {
    const ForestOp op = source.next(model);
    const std::string line = encode_op(op);
    const auto again = decode_op(line);
    ASSERT_TRUE(again) << line;
    EXPECT_EQ(encode_op(*again), line);
    apply_to_model(sensible(op, model), model);
  }
}

}  // namespace
}  // namespace caw
