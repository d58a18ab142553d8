// Power cuts on the real engine: at every point of a recorded history, with subsets of the writes
// in flight, the volume opens and holds what it held after some op, none before the last sync.
//   CAW_SEED, CAW_SEEDS (default 4), CAW_OPS (ops of each life; default 80),
//   CAW_CUTS (images tried per point; default 3)
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "dev/recording_device.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

constexpr int kLives = 3;

/// What a history promises: digests[i] is the state after i ops.
struct History {
  std::vector<uint64_t> digests;
  std::vector<uint64_t> begun;           ///< point of the log at which op i began
  std::vector<std::pair<uint64_t, size_t>> synced;   ///< point, ops surely held from there on

  size_t at_least(uint64_t point) const {
    size_t ops = 0;
    for (const auto& [from, held] : synced) {
      if (from <= point) ops = held;
    }
    return ops;
  }
  size_t at_most(uint64_t point) const {
    const auto end = std::upper_bound(begun.begin(), begun.end(), point);
    return static_cast<size_t>(end - begun.begin());
  }
};

class CrashLife {
 public:
  CrashLife(uint64_t seed, ForestModel model, const Ref<MemoryImage>& image, uint64_t ops)
      : seed_(seed), log_(image->clone()), model_(std::move(model)), random_(seed) {
    live(image->clone(), ops);
  }

  /// Tries the images; the last one tried, and what it holds, is where the next life may start.
  void explore(uint64_t cuts) {
    CrashExplorer crash(log_);
    do {
      const size_t writes = crash.in_flight().size();
      for (uint64_t cut = 0; cut < cuts && !testing::Test::HasFatalFailure(); ++cut) {
        std::vector<Fate> fates(writes, cut == 0 ? Fate::absent : Fate::whole);
        if (cut >= 2) {
          for (Fate& fate : fates) fate = static_cast<Fate>(random_.below(3));
        }
        try_image(crash.image(fates, random_.next()), crash.point());
        if (writes == 0) break;
      }
    } while (!testing::Test::HasFatalFailure() && crash.advance());
    EXPECT_GT(images_, 20U);
  }

  Ref<MemoryImage> survivor() const { return survivor_; }
  const ForestModel& survivor_model() const { return survivor_model_; }

 private:
  VolumeBedOptions options(bool recorded) {
    VolumeBedOptions options;
    options.shape = tiny_shape(seed_);
    if (recorded) {
      options.wrap = [this](std::unique_ptr<BlockDevice> inner) -> std::unique_ptr<BlockDevice> {
        return std::make_unique<RecordingDevice>(std::move(inner), log_);
      };
    }
    return options;
  }

  void live(Ref<MemoryImage> image, uint64_t ops) {
    VolumeBed bed(options(true), std::move(image));
    const Result<void> opened = bed.open();
    ASSERT_TRUE(opened) << opened.error().to_string();
    OpMix mix;
    mix.durability = false;
    OpSource source(seed_, mix);
    history_.digests = {model_.digest()};
    states_ = {model_};
    history_.synced = {{0, 0}};
    ForestClient client(bed.forest());
    for (uint64_t i = 0; i < ops; ++i) {
      if (i % 11 == 10) {
        ASSERT_TRUE(bed.maintain());
      }
      if (i % 17 == 16) {
        const size_t before = states_.size() - 1;
        ASSERT_TRUE(bed.forest().sync());
        history_.synced.emplace_back(log_.point(), before);
      }
      const ForestOp op = sensible(source.next(model_), model_);
      if (op.empty() || op.front().kind > ActionKind::clone) continue;
      history_.begun.push_back(log_.point());
      const Result<void> done = client.apply(op);
      ASSERT_TRUE(done) << done.error().to_string();
      apply_to_model(op, model_);
      states_.push_back(model_);
      history_.digests.push_back(model_.digest());
    }
    ASSERT_TRUE(bed.close());
    history_.synced.emplace_back(log_.point(), states_.size() - 1);
  }

  void try_image(const Ref<MemoryImage>& image, uint64_t point) {
    ++images_;
    VolumeBed bed(options(false), image);
    const Result<void> opened = bed.open();
    ASSERT_TRUE(opened) << "point " << point << ": " << opened.error().to_string();
    const Result<uint64_t> digest = digest_forest(bed.forest());
    ASSERT_TRUE(digest) << "point " << point << ": " << digest.error().to_string();
    const size_t first = history_.at_least(point);
    const size_t last = history_.at_most(point);
    for (size_t i = first; i <= last; ++i) {
      if (history_.digests[i] != *digest) continue;
      if (images_ % 16 == 1 || random_.one_in(8)) {
        ASSERT_EQ(bed.check(), "") << "point " << point;
        ASSERT_EQ(compare_forest(bed.forest(), states_[i]), "") << "point " << point;
      }
      survivor_ = image->clone();
      survivor_model_ = states_[i];
      return;
    }
    FAIL() << "point " << point << ": the state is none of those after ops " << first << " to "
           << last << "; against the first: " << compare_forest(bed.forest(), states_[first]);
  }

  const uint64_t seed_;
  WriteLog log_;
  ForestModel model_;
  Random random_;
  History history_;
  std::vector<ForestModel> states_;
  uint64_t images_ = 0;
  Ref<MemoryImage> survivor_;
  ForestModel survivor_model_;
};

TEST(EngineCrash, LeavesAPrefixThatHoldsEverySync) {
  const uint64_t first = env_number("CAW_SEED", 1);
  const uint64_t seeds = env_number("CAW_SEEDS", 4);
  const uint64_t ops = env_number("CAW_OPS", 80);
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE("replay: CAW_SEEDS=1 CAW_SEED=" + std::to_string(seed) +
                 " CAW_OPS=" + std::to_string(ops) + " engine_crash_test");
    VolumeBedOptions options;
    options.shape = tiny_shape(seed);
    VolumeBed fresh(options);
    ASSERT_TRUE(fresh.close());
    Ref<MemoryImage> image = fresh.image();
    ForestModel model;
    // Each life begins where a crash left the one before.
    for (uint64_t life = 0; life < kLives; ++life) {
      CrashLife crash(seed * 100 + life, model, image, ops);
      if (HasFatalFailure()) return;
      crash.explore(env_number("CAW_CUTS", 3));
      if (HasFatalFailure()) return;
      image = crash.survivor();
      model = crash.survivor_model();
    }
  }
}

}  // namespace
}  // namespace caw
