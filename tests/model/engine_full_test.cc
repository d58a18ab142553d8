// A volume that runs full: puts are refused and change nothing, removals always work, what was
// accepted stays, and the space comes back.
#include <gtest/gtest.h>

#include "support/volume_bed.h"

namespace caw {
namespace {

class FullVolume {
 public:
  explicit FullVolume(uint64_t seed) : random_(seed), bed_(options(seed)) { settle(); }

  uint64_t used_bytes() { return bed_.forest().space().used_bytes; }
  VolumeBed& bed() { return bed_; }
  const ForestModel& model() const { return model_; }
  uint64_t refused_count() const { return refused_count_; }

  /// Carries out `op`; only want of space may refuse it.
  bool run(const ForestOp& raw_op) {
    const ForestOp op = sensible(raw_op, model_);
    if (op.empty()) return true;
    const Result<void> done = ForestClient(bed_.forest()).apply(op);
    if (done) {
      apply_to_model(op, model_);
      return true;
    }
    EXPECT_EQ(done.error().code, Code::no_space) << done.error().to_string();
    ++refused_count_;
    return false;
  }

  /// Puts, patches and clones until many are refused.
  void fill() {
    for (uint64_t refused = 0; refused < 20 && !testing::Test::HasFailure();) {
      Action a;
      a.path = {slot()};
      a.key = key();
      a.n = {1, number(1U << 30), 0, 0};
      const uint64_t kind = random_.below(20);
      if (kind == 0) {
        a.kind = ActionKind::clone;
        a.prefixes = {{"", ""}};
        a.other_key = slot();
        a.n = {};
      } else if (kind == 1) {
        a.kind = ActionKind::make_tree;
        a.path = {};
        a.key = slot();
        a.n[0] = 30;
        if (model_.find({a.key}) != nullptr) continue;
      } else if (kind < 6) {
        a.kind = ActionKind::patch;
        a.n = {0, 0, number(100), 1 + number(200)};
      } else {
        a.kind = ActionKind::put;
        a.n[0] = 1 + number(random_.one_in(3) ? 60000 : 500);
        a.n[2] = a.n[0] > 500 ? 1 : 0;
      }
      if (!run({a})) ++refused;
    }
  }

  /// Removals of all sizes; each must work.
  void remove(uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
      Action a;
      a.path = {slot()};
      a.key = key();
      a.kind = ActionKind::erase;
      if (i % 8 == 0) {
        a.kind = ActionKind::erase_range;
        a.other_key = a.key + "\x7f";
      }
      EXPECT_TRUE(run({a})) << "a removal is refused";
    }
  }
  void remove_all() {
    for (char c = 'A'; c < 'E'; ++c) {
      Action a;
      a.kind = ActionKind::erase;
      a.key = std::string(1, c);
      EXPECT_TRUE(run({a})) << "a removal is refused";
    }
  }
  void settle() {
    for (int i = 0; i < 4; ++i) {
      const Result<void> maintained = bed_.maintain();
      EXPECT_TRUE(maintained) << maintained.error().to_string();
      const Result<void> synced = bed_.volume().checkpoint();
      EXPECT_TRUE(synced) << synced.error().to_string();
    }
  }

 private:
  static VolumeBedOptions options(uint64_t seed) {
    VolumeBedOptions options;
    options.shape = tiny_shape(seed);
    options.shape.leaf_bytes *= 8;
    options.shape.buffer_bytes *= 8;
    options.shape.run_bytes *= 8;
    options.blocks = 4096;               // 16 MiB, the least
    return options;
  }
  uint32_t number(uint64_t bound) { return static_cast<uint32_t>(random_.below(bound)); }
  std::string slot() { return std::string(1, static_cast<char>('A' + random_.below(4))); }
  std::string key() { return "k" + std::to_string(random_.below(400)) + "."; }

  Random random_;
  VolumeBed bed_;
  ForestModel model_;
  uint64_t refused_count_ = 0;
};

TEST(EngineFull, RefusesPutsButNeverRemovals) {
  const uint64_t first = env_number("CAW_SEED", 1);
  for (uint64_t seed = first; seed < first + env_number("CAW_SEEDS", 3); ++seed) {
    SCOPED_TRACE("replay: CAW_SEEDS=1 CAW_SEED=" + std::to_string(seed) + " engine_full_test");
    FullVolume volume(seed);
    const uint64_t empty = volume.used_bytes();
    for (int round = 0; round < 3 && !HasFailure(); ++round) {
      volume.fill();
      EXPECT_EQ(compare_forest(volume.bed().forest(), volume.model()), "");
      volume.remove(100);
      EXPECT_EQ(compare_forest(volume.bed().forest(), volume.model()), "");
      EXPECT_EQ(volume.bed().check(), "");
      volume.settle();
    }
    EXPECT_GE(volume.refused_count(), 60U);
    volume.fill();
    volume.remove_all();
    volume.settle();
    EXPECT_EQ(compare_forest(volume.bed().forest(), volume.model()), "");
    EXPECT_LE(volume.used_bytes(), empty + (128U << 10)) << "space did not come back";
    EXPECT_EQ(volume.bed().check(), "");
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace caw
