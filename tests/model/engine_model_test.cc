// Random operations on the real engine against a model.
//   CAW_SEED   first seed (default 1)        CAW_SEEDS  how many seeds (default 30)
//   CAW_OPS    ops of each (default 1500)    CAW_REPLAY file of ops that a failure wrote
#include <gtest/gtest.h>

#include <cstdlib>

#include "support/volume_bed.h"

namespace caw {
namespace {

RunPlan plan_for(uint64_t seed) {
  RunPlan plan;
  plan.make_bed = [seed] {
    VolumeBedOptions options;
    options.shape = tiny_shape(seed);
    if (seed % 5 == 0) {                 // less tiny: other proportions
      options.shape.leaf_bytes = 4096;
      options.shape.fanout = 6;
      options.shape.buffer_bytes = 4096;
      options.shape.run_bytes = 2048;
      options.shape.inline_bytes = 512;
      options.shape.inline_value_bytes = 700;
    }
    options.blocks = 131072;             // every tiny node takes a block of its own
    options.cache_bytes = seed % 3 == 0 ? 64U << 10 : 4U << 20;
    options.compression = seed % 2 == 0 ? Compression::lz4 : Compression::zstd;
    return std::make_unique<VolumeBed>(options);
  };
  plan.check_every = 250;
  if (seed % 4 == 0) plan.mix.inline_bytes_max = 3000;   // several leaves' worth
  return plan;
}

TEST(EngineModel, HoldsWhatAMapWould) {
  const uint64_t first = env_number("CAW_SEED", 1);
  if (const char* file = std::getenv("CAW_REPLAY"); file != nullptr) {
    const RunFailure failure = run_list(plan_for(first), load_ops(file));
    ASSERT_TRUE(failure.what.empty()) << failure.what;
    return;
  }
  const uint64_t ops = env_number("CAW_OPS", 1500);
  const uint64_t seeds = env_number("CAW_SEEDS", 30);
  const auto shrink_seconds = static_cast<unsigned>(env_number("CAW_SHRINK", 60));
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    RunFailure failure = run_random(plan_for(seed), seed, ops);
    if (!failure.what.empty()) failure = shrink(plan_for(seed), failure, shrink_seconds);
    ASSERT_TRUE(failure.what.empty()) << report(failure, seed, "engine_model_test");
  }
}

}  // namespace
}  // namespace caw
