// Work that goes on for ever on clones of clones, the older ones removed in turn: what is held does
// not grow.  Each clone refers to nodes that also hold records of its neighbours; were these kept,
// each clone would keep the one before, and that one the one before it.
#include <gtest/gtest.h>

#include <string>

#include "check/check.h"
#include "dev/memory_device.h"
#include "model/fs_harness.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

constexpr int kAlive = 3;

class Turnover {
 public:
  explicit Turnover(uint64_t seed, bool tiny) : bed_(options(seed, tiny)), client_(bed_.forest()) {
    EXPECT_EQ(client_.make_and_mount(), 0);
    EXPECT_EQ(client_.mkdir("/base"), 0);
    for (int i = 0; i < 60; ++i) make_file("/base/" + std::to_string(i), i);
  }

  /// A job on two clones of the base, in which it clones and changes more; the job of some time ago
  /// goes.
  void turn(int number) {
    const std::string job = "/job" + std::to_string(number);
    EXPECT_EQ(client_.mkdir(job), 0);
    EXPECT_EQ(client_.clone("/base", job + "/a"), 0);
    EXPECT_EQ(client_.clone("/base", job + "/b"), 0);
    make_file(job + "/a/new", number);
    EXPECT_EQ(client_.clone(job + "/a", job + "/c"), 0);
    EXPECT_EQ(client_.clone(job, "/copy" + std::to_string(number)), 0);
    EXPECT_EQ(client_.unlink(job + "/b/7"), 0);
    if (number >= kAlive) {
      EXPECT_EQ(client_.remove_tree("/job" + std::to_string(number - kAlive)), 0);
      EXPECT_EQ(client_.remove_tree("/copy" + std::to_string(number - kAlive)), 0);
    }
    settle();
  }

  CheckFigures figures() {
    EXPECT_EQ(bed_.drain_and_check(), "");
    const auto report = check_volume(*make_memory_device(bed_.image(), /*read_only=*/true));
    EXPECT_TRUE(report.has_value() && report->is_sound());
    return report ? report->figures : CheckFigures{};
  }

 private:
  static VolumeBedOptions options(uint64_t seed, bool tiny) {
    VolumeBedOptions options;
    options.shape = tiny ? tiny_shape(seed) : TreeShape{};
    return options;
  }
  void make_file(const std::string& path, int number) {
    EXPECT_EQ(client_.create(path), 0);
    EXPECT_EQ(client_.write(path, 0, fill_bytes(300, static_cast<uint32_t>(number))), 0);
  }
  void settle() {
    EXPECT_TRUE(bed_.maintain());
    EXPECT_TRUE(bed_.volume().checkpoint());
  }

  VolumeBed bed_;
  FsClient client_;
};

void run_turns(uint64_t seed, bool tiny) {
  Turnover turnover(seed, tiny);
  for (int i = 0; i < 20; ++i) turnover.turn(i);
  const CheckFigures early = turnover.figures();
  for (int i = 20; i < 100; ++i) turnover.turn(i);
  const CheckFigures late = turnover.figures();
  EXPECT_LE(late.trees, early.trees + 10);
  EXPECT_LE(late.used_blocks, early.used_blocks * 3 / 2);
}

TEST(FsTurnover, HoldsWhatIsAlive) { run_turns(1, /*tiny=*/false); }

TEST(FsTurnover, HoldsWhatIsAliveInDeepTrees) {
  const uint64_t first = env_number("CAW_SEED", 1);
  for (uint64_t seed = first; seed < first + env_number("CAW_SEEDS", 3); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    run_turns(seed, /*tiny=*/true);
  }
}

}  // namespace
}  // namespace caw
