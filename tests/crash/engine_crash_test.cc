// Power cuts on the real engine: at every point of a recorded history, with subsets of the writes
// in flight, the volume opens and holds what it held after some op, none before the last sync.
//   CAW_SEED, CAW_SEEDS (default 12), CAW_OPS (ops of each life; default 80),
//   CAW_CUTS (most images tried per point; default 9)
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <unordered_set>
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
  std::vector<std::pair<uint64_t, uint64_t>> drawn;  ///< point, number handed out by then

  uint64_t most_drawn(uint64_t point) const {
    uint64_t most = 0;
    for (const auto& [at, number] : drawn) {
      if (at <= point) most = std::max(most, number);
    }
    return most;
  }

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

/// Flushes that do not reach the medium: the test must notice.
class FlushlessDevice final : public BlockDevice {
 public:
  explicit FlushlessDevice(std::unique_ptr<BlockDevice> inner) : inner_(std::move(inner)) {}
  uint64_t block_count() const override { return inner_->block_count(); }
  bool read_only() const override { return inner_->read_only(); }
  Result<void> read(BlockAddr first, std::span<std::byte> out) override {
    return inner_->read(first, out);
  }
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override {
    return inner_->write(first, data);
  }
  Result<void> read_batch(std::span<const ReadRequest> requests) override {
    return inner_->read_batch(requests);
  }
  Result<void> write_batch(std::span<const WriteRequest> requests) override {
    return inner_->write_batch(requests);
  }
  Result<void> flush() override { return {}; }
  Result<void> ensure_backed(BlockAddr first, uint64_t blocks) override {
    return inner_->ensure_backed(first, blocks);
  }
  Result<void> discard(BlockAddr first, uint64_t blocks) override {
    return inner_->discard(first, blocks);
  }

 private:
  std::unique_ptr<BlockDevice> inner_;
};

struct LifePlan {
  uint64_t seed = 1;
  uint64_t ops = 80;
  uint64_t cuts = 9;                     ///< images tried at each point
  bool lose_flushes = false;
};

/// A recorded life of a volume and the deaths it might have died.
class CrashLife {
 public:
  CrashLife(const LifePlan& plan, ForestModel model, const Ref<MemoryImage>& image)
      : plan_(plan), log_(image->clone()), model_(std::move(model)), random_(plan.seed) {
    what_ = live(image->clone());
  }

  /// Tries the images; empty if each is as it should be.  The last one tried, and what it holds,
  /// is where the next life may start.
  std::string explore() {
    if (!what_.empty()) return what_;
    CrashExplorer crash(log_);
    do {
      for (const std::vector<Fate>& fates : crash.cases(plan_.cuts, random_)) {
        std::string wrong = try_image(crash.image(fates, random_.next()), crash.point());
        if (!wrong.empty()) return "point " + std::to_string(crash.point()) + ": " + wrong;
      }
    } while (crash.advance());
    return images_ > 20 ? std::string() : "only " + std::to_string(images_) + " images";
  }

  Ref<MemoryImage> survivor() const { return survivor_; }
  const ForestModel& survivor_model() const { return survivor_model_; }
  uint64_t image_count() const { return images_; }
  /// Digests of the images tried.
  const std::unordered_set<uint64_t>& digests() const { return digests_; }
  /// Operations that the log gave back, in all images.
  uint64_t replayed() const { return replayed_; }

 private:
  VolumeBedOptions options(bool recorded) {
    VolumeBedOptions options;
    if (recorded) {
      options.wrap = [this](std::unique_ptr<BlockDevice> inner) -> std::unique_ptr<BlockDevice> {
        auto recording = std::make_unique<RecordingDevice>(std::move(inner), log_);
        if (!plan_.lose_flushes) return recording;
        return std::make_unique<FlushlessDevice>(std::move(recording));
      };
    }
    return options;
  }

  static std::string text_of(const Result<void>& done, const char* what) {
    return done ? std::string() : std::string(what) + " fails: " + done.error().to_string();
  }

  std::string live(Ref<MemoryImage> image) {
    VolumeBed bed(options(true), std::move(image));
    if (const auto done = bed.open(); !done) return text_of(done, "open");
    OpMix mix;
    mix.durability = false;
    OpSource source(plan_.seed, mix);
    history_.digests = {model_.digest()};
    states_ = {model_};
    history_.synced = {{0, 0}};
    ForestClient client(bed.forest());
    for (uint64_t i = 0; i < plan_.ops; ++i) {
      if (i % 11 == 10) {
        if (const auto done = bed.maintain(); !done) return text_of(done, "maintain");
      }
      if (i % 17 == 16) {
        if (const auto done = bed.forest().sync(); !done) return text_of(done, "sync");
        history_.synced.emplace_back(log_.point(), states_.size() - 1);
      }
      if (i % 31 == 30) {
        if (const auto done = bed.volume().checkpoint(); !done) return text_of(done, "commit");
        history_.synced.emplace_back(log_.point(), states_.size() - 1);
      }
      const ForestOp op = sensible(source.next(model_), model_);
      if (op.empty() || op.front().kind > ActionKind::clone) continue;
      history_.drawn.emplace_back(log_.point(), bed.forest().draw(Counter::entry, 3) + 2);
      history_.begun.push_back(log_.point());
      if (const auto done = client.apply(op); !done) return text_of(done, "apply");
      apply_to_model(op, model_);
      states_.push_back(model_);
      history_.digests.push_back(model_.digest());
    }
    const auto closed = bed.close();
    history_.synced.emplace_back(log_.point(), states_.size() - 1);
    return text_of(closed, "close");
  }

  /// A volume opened to be read only shows the same; its device refuses writes.
  std::string compare_read_only(Ref<MemoryImage> image, const ForestModel& model) {
    VolumeBedOptions read_only = options(false);
    read_only.read_only = true;
    VolumeBed bed(read_only, std::move(image));
    if (const auto opened = bed.open(); !opened) return text_of(opened, "opening read-only");
    if (std::string wrong = compare_forest(bed.forest(), model); !wrong.empty()) {
      return "read-only: " + wrong;
    }
    Batch batch;
    batch.generation = bed.forest().share_generation();
    batch.erase(bed.forest().system_tree(), "k", 0);
    if (bed.forest().apply(batch)) return "a read-only volume takes a batch";
    return text_of(bed.close(), "closing what is read-only");
  }

  std::string try_image(const Ref<MemoryImage>& image, uint64_t point) {
    ++images_;
    digests_.insert(image->digest());
    VolumeBed bed(options(false), image);
    if (const auto opened = bed.open(); !opened) return text_of(opened, "open");
    replayed_ += bed.volume().figures().replayed;
    if (bed.forest().draw(Counter::entry, 1) <= history_.most_drawn(point)) {
      return "a number is handed out twice";
    }
    const Result<uint64_t> digest = digest_forest(bed.forest());
    if (!digest) return "reading fails: " + digest.error().to_string();
    const size_t first = history_.at_least(point);
    const size_t last = history_.at_most(point);
    for (size_t i = first; i <= last; ++i) {
      if (history_.digests[i] != *digest) continue;
      survivor_model_ = states_[i];
      std::string wrong;
      if (images_ % 16 == 1 || random_.one_in(8)) {
        wrong = compare_read_only(image->clone(), states_[i]);
        if (wrong.empty()) wrong = compare_forest(bed.forest(), states_[i]);
        if (wrong.empty()) wrong = bed.check();
        if (wrong.empty()) wrong = bed.drain_and_check();
        if (wrong.empty()) wrong = compare_forest(bed.forest(), states_[i]);
      }
      survivor_ = image->clone();
      return wrong;
    }
    return "the state is none of those after ops " + std::to_string(first) + " to " +
           std::to_string(last) +
           "; against the first: " + compare_forest(bed.forest(), states_[first]);
  }

  const LifePlan plan_;
  WriteLog log_;
  ForestModel model_;
  Random random_;
  History history_;
  std::vector<ForestModel> states_;
  std::string what_;
  uint64_t images_ = 0;
  std::unordered_set<uint64_t> digests_;
  uint64_t replayed_ = 0;
  Ref<MemoryImage> survivor_;
  ForestModel survivor_model_;
};

Ref<MemoryImage> new_volume(uint64_t seed) {
  VolumeBedOptions options;
  options.shape = tiny_shape(seed);
  VolumeBed fresh(options);
  EXPECT_TRUE(fresh.close());
  return fresh.image();
}

TEST(EngineCrash, LeavesAPrefixThatHoldsEverySync) {
  const uint64_t first = env_number("CAW_SEED", 1);
  const uint64_t seeds = env_number("CAW_SEEDS", 12);
  LifePlan plan;
  plan.ops = env_number("CAW_OPS", 80);
  plan.cuts = env_number("CAW_CUTS", 9);
  uint64_t images = 0;
  std::unordered_set<uint64_t> distinct;
  uint64_t replayed = 0;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    Ref<MemoryImage> image = new_volume(seed);
    ForestModel model;
    // Each life begins where a crash left the one before.
    for (uint64_t life = 0; life < kLives; ++life) {
      plan.seed = seed * 100 + life;
      CrashLife crash(plan, model, image);
      const std::string wrong = crash.explore();
      ASSERT_EQ(wrong, "") << "life " << life << "; replay: CAW_SEEDS=1 CAW_SEED=" << seed
                           << " CAW_OPS=" << plan.ops << " CAW_CUTS=" << plan.cuts
                           << " engine_crash_test";
      images += crash.image_count();
      distinct.insert(crash.digests().begin(), crash.digests().end());
      replayed += crash.replayed();
      image = crash.survivor();
      model = crash.survivor_model();
    }
  }
  std::printf("%llu images tried, %zu of them distinct, %llu operations replayed\n",
              static_cast<unsigned long long>(images), distinct.size(),
              static_cast<unsigned long long>(replayed));
  EXPECT_GT(replayed, images);
}

// The test can fail: without flushes the superblock overtakes what it refers to.
TEST(EngineCrash, NoticesFlushesThatDoNothing) {
  LifePlan plan;
  plan.lose_flushes = true;
  EXPECT_NE(CrashLife(plan, ForestModel(), new_volume(1)).explore(), "");
}

}  // namespace
}  // namespace caw
