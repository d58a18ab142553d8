// Power cuts in small histories, exhaustively: every sequence of up to three calls over two
// directories and two files, with nothing, a sync or a checkpoint after each, cut at every point
// with every fate of the writes in flight.  What is found must be the state after some call, none
// before the last sync; and the recovery itself is cut as well.
//   CAW_STEP (every how many histories; default 1201, a prime), CAW_SEED (the first; default 0),
//   CAW_CUTS (most images per point; default 9)
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <functional>
#include <iterator>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "crash/fs_dump.h"
#include "dev/recording_device.h"
#include "model/fs_harness.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

struct SmallCall {
  const char* name;
  int (*run)(FsClient&);
};

std::string small_bytes() { return fill_bytes(300, 11); }
std::string large_bytes() { return fill_bytes(20'000, 12); }

constexpr SmallCall kCalls[] = {
    {"mkdir a", [](FsClient& fs) { return fs.mkdir("/a"); }},
    {"mkdir b", [](FsClient& fs) { return fs.mkdir("/b"); }},
    {"create a/x", [](FsClient& fs) { return fs.create("/a/x"); }},
    {"create b/y", [](FsClient& fs) { return fs.create("/b/y"); }},
    {"write a/x", [](FsClient& fs) { return fs.write("/a/x", 100, small_bytes()); }},
    {"write b/y", [](FsClient& fs) { return fs.write("/b/y", 0, large_bytes()); }},
    {"write b/y within", [](FsClient& fs) { return fs.write("/b/y", 5000, small_bytes()); }},
    {"truncate a/x", [](FsClient& fs) { return fs.truncate("/a/x", 150); }},
    {"truncate b/y", [](FsClient& fs) { return fs.truncate("/b/y", 0); }},
    {"unlink a/x", [](FsClient& fs) { return fs.unlink("/a/x"); }},
    {"unlink b/y", [](FsClient& fs) { return fs.unlink("/b/y"); }},
    {"rename a/x b/y", [](FsClient& fs) { return fs.rename("/a/x", "/b/y"); }},
    {"rename b/y a/x", [](FsClient& fs) { return fs.rename("/b/y", "/a/x"); }},
    {"rename a/x a/y", [](FsClient& fs) { return fs.rename("/a/x", "/a/y"); }},
    {"rename a b", [](FsClient& fs) { return fs.rename("/a", "/b"); }},
    {"rename a b/a", [](FsClient& fs) { return fs.rename("/a", "/b/a"); }},
    {"link a/x a/y", [](FsClient& fs) { return fs.link("/a/x", "/a/y"); }},
    {"link a/x b/y", [](FsClient& fs) { return fs.link("/a/x", "/b/y"); }},
    {"link a/x c/x", [](FsClient& fs) { return fs.link("/a/x", "/c/x"); }},
    {"clone a c", [](FsClient& fs) { return fs.clone("/a", "/c"); }},
    {"clone a b/a", [](FsClient& fs) { return fs.clone("/a", "/b/a"); }},
    {"clone a/x a/y", [](FsClient& fs) { return fs.clone("/a/x", "/a/y"); }},
    {"clone b/y c", [](FsClient& fs) { return fs.clone("/b/y", "/c"); }},
    {"remove a", [](FsClient& fs) { return fs.remove_tree("/a"); }},
    {"remove b", [](FsClient& fs) { return fs.remove_tree("/b"); }},
    {"rmdir a", [](FsClient& fs) { return fs.rmdir("/a"); }},
};
constexpr uint64_t kCallCount = std::size(kCalls);

/// What follows a call.
enum class Then : uint8_t { nothing, sync, checkpoint };
constexpr uint64_t kThens = 3;

struct SmallStep {
  const SmallCall* call = nullptr;
  Then then = Then::nothing;
};
using SmallHistory = std::vector<SmallStep>;

/// Numbers the histories of up to three calls; empty beyond the last.
SmallHistory history_of(uint64_t number) {
  uint64_t of_length = 1;
  for (size_t length = 1; length <= 3; ++length) {
    of_length *= kCallCount * kThens;
    if (number >= of_length) {
      number -= of_length;
      continue;
    }
    SmallHistory history(length);
    for (SmallStep& step : history) {
      step.then = static_cast<Then>(number % kThens);
      number /= kThens;
      step.call = &kCalls[number % kCallCount];
      number /= kCallCount;
    }
    return history;
  }
  return {};
}

std::string name_of(const SmallHistory& history) {
  std::string out;
  for (const SmallStep& step : history) {
    out += step.call->name;
    if (step.then != Then::nothing) out += step.then == Then::sync ? " + sync" : " + checkpoint";
    out += "; ";
  }
  return out;
}

VolumeBedOptions small_bed() {
  VolumeBedOptions options;
  options.blocks = 4096;
  return options;
}

class SmallCrash {
 public:
  SmallCrash(const SmallHistory& history, const Ref<MemoryImage>& base, uint64_t cuts)
      : history_(history), base_(base), cuts_(cuts), log_(base->clone()), random_(cuts) {}

  /// False if a call fails: then a shorter history does the same.
  bool live() {
    VolumeBed bed = recorded(base_->clone(), log_);
    EXPECT_TRUE(bed.open());
    FsClient client(bed.forest());
    EXPECT_EQ(client.mount(), 0);
    states_ = {dump(client)};
    synced_ = {{0, 0}};
    for (const SmallStep& step : history_) {
      begun_.push_back(log_.point());
      if (step.call->run(client) != 0) return false;
      states_.push_back(dump(client));
      if (step.then == Then::nothing) continue;
      EXPECT_TRUE(step.then == Then::sync ? client.fs().sync() : bed.volume().checkpoint());
      synced_.emplace_back(log_.point(), states_.size() - 1);
    }
    client.unmount();
    EXPECT_TRUE(bed.close());
    synced_.emplace_back(log_.point(), states_.size() - 1);
    return true;
  }

  void explore(std::unordered_set<uint64_t>& distinct) {
    CrashExplorer crash(log_);
    do {
      for (const std::vector<Fate>& fates : crash.cases(cuts_, random_)) {
        const Ref<MemoryImage> image = crash.image(fates, random_.next());
        distinct.insert(image->digest());
        ++images_;
        const size_t found = state_of(image->clone(), crash.point());
        if (testing::Test::HasFailure()) return;
        if (random_.one_in(16)) crash_recovery(image, found, distinct);
        if (testing::Test::HasFailure()) return;
      }
    } while (crash.advance());
  }

  uint64_t image_count() const { return images_; }

 private:
  static VolumeBed recorded(Ref<MemoryImage> image, WriteLog& log) {
    VolumeBedOptions options = small_bed();
    options.wrap = [&log](std::unique_ptr<BlockDevice> inner) -> std::unique_ptr<BlockDevice> {
      return std::make_unique<RecordingDevice>(std::move(inner), log);
    };
    return {options, std::move(image)};
  }

  /// Which state `image` shows; fails if none that a cut at `point` may leave.
  size_t state_of(Ref<MemoryImage> image, uint64_t point) {
    VolumeBed bed(small_bed(), std::move(image));
    const Result<void> opened = bed.open();
    EXPECT_TRUE(opened) << "point " << point << ": " << opened.error().to_string();
    if (!opened) return 0;
    FsClient client(bed.forest());
    EXPECT_EQ(client.mount(), 0) << "point " << point;
    const std::string found = dump(client);
    client.unmount();
    size_t state = 0;
    for (const auto& [from, held] : synced_) {
      if (from <= point) state = held;
    }
    const size_t first = state;
    while (state < begun_.size() && begun_[state] <= point && states_[state] != found) ++state;
    EXPECT_EQ(states_[state], found) << "point " << point << ": none of the states from " << first
                                     << " on";
    if (random_.one_in(16)) {
      EXPECT_EQ(bed.check(), "") << "point " << point;
    }
    return state;
  }

  /// A power cut at every point of a recovery, and of the closing after it, shows the same again.
  void crash_recovery(const Ref<MemoryImage>& image, size_t state,
                      std::unordered_set<uint64_t>& distinct) {
    WriteLog log(image->clone());
    {
      VolumeBed bed = recorded(image->clone(), log);
      EXPECT_TRUE(bed.open());
      EXPECT_TRUE(bed.close());
    }
    CrashExplorer crash(log);
    do {
      for (const std::vector<Fate>& fates : crash.cases(3, random_)) {
        const Ref<MemoryImage> again = crash.image(fates, random_.next());
        distinct.insert(again->digest());
        ++images_;
        VolumeBed bed(small_bed(), again);
        ASSERT_TRUE(bed.open()) << "in recovery, point " << crash.point();
        FsClient client(bed.forest());
        ASSERT_EQ(client.mount(), 0) << "in recovery, point " << crash.point();
        ASSERT_EQ(dump(client), states_[state]) << "in recovery, point " << crash.point();
      }
    } while (crash.advance());
  }

  const SmallHistory& history_;
  const Ref<MemoryImage> base_;
  const uint64_t cuts_;
  WriteLog log_;
  Random random_;
  std::vector<std::string> states_;    ///< [i]: after i calls
  std::vector<uint64_t> begun_;        ///< [i]: point at which call i + 1 began
  std::vector<std::pair<uint64_t, size_t>> synced_;
  uint64_t images_ = 0;
};

/// A volume, empty or with the directories and files that the calls name.
Ref<MemoryImage> new_image(bool filled) {
  VolumeBed bed(small_bed());
  FsClient client(bed.forest());
  EXPECT_EQ(client.make_and_mount(), 0);
  if (filled) {
    EXPECT_EQ(client.mkdir("/a") + client.mkdir("/b"), 0);
    EXPECT_EQ(client.create("/a/x") + client.write("/a/x", 0, large_bytes()), 0);
    EXPECT_EQ(client.create("/b/y") + client.write("/b/y", 0, small_bytes()), 0);
  }
  client.unmount();
  EXPECT_TRUE(bed.close());
  return bed.image();
}

TEST(FsSmallCrash, EveryHistoryOfThreeCalls) {
  const uint64_t step = env_number("CAW_STEP", 1201);
  const uint64_t cuts = env_number("CAW_CUTS", 9);
  const std::array<Ref<MemoryImage>, 2> bases{new_image(false), new_image(true)};
  uint64_t histories = 0;
  uint64_t images = 0;
  std::unordered_set<uint64_t> distinct;
  for (uint64_t number = env_number("CAW_SEED", 0);; number += step) {
    const SmallHistory history = history_of(number / bases.size());
    if (history.empty()) break;
    SCOPED_TRACE("CAW_SEED=" + std::to_string(number) + " CAW_STEP=1: " + name_of(history));
    SmallCrash crash(history, bases[number % bases.size()], cuts);
    if (!crash.live()) continue;
    crash.explore(distinct);
    if (HasFailure()) return;
    ++histories;
    images += crash.image_count();
  }
  EXPECT_GT(images, histories);
  std::printf("%llu histories, %llu images tried, %zu of them distinct\n",
              static_cast<unsigned long long>(histories), static_cast<unsigned long long>(images),
              distinct.size());
}

}  // namespace
}  // namespace caw
