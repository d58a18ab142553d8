// The four nimble properties, counted at the device with trees of the real shape: clones, reads,
// writes and space do not pay for what they do not touch.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "support/counting_device.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

constexpr uint64_t kMiB = 1U << 20;

class Volumes {
 public:
  explicit Volumes(uint64_t blocks = 131072) {
    options_.shape = TreeShape{};
    options_.blocks = blocks;
    options_.cache_bytes = 64 * kMiB;
    options_.compression = Compression::none;
    options_.wrap = [this](std::unique_ptr<BlockDevice> inner) -> std::unique_ptr<BlockDevice> {
      return std::make_unique<CountingDevice>(std::move(inner), counter_);
    };
    bed_ = std::make_unique<VolumeBed>(options_);
  }

  Forest& forest() { return bed_->forest(); }
  DeviceCounts counts() const { return counter_.counts(); }
  uint64_t used_bytes() { return forest().space().used_bytes; }

  void settle() {
    must(bed_->maintain());
    must(bed_->volume().checkpoint());
    must(bed_->maintain());
    must(bed_->volume().checkpoint());
  }
  void cold() { must(bed_->reopen()); }
  void must(const Result<void>& done) { ASSERT_TRUE(done) << done.error().to_string(); }

  TreeRef tree(const std::string& name) {
    const auto value = forest().get(forest().system_tree(), name);
    CAW_ASSERT(value && *value);
    return forest().open_tree((*value)->tree);
  }

  /// A tree of `keys` records of `bytes` each under two prefixes, "a/" and "m/".
  void fill(const std::string& name, uint64_t keys, uint32_t bytes) {
    const NodeId id = forest().new_tree_id();
    Batch make;
    make.generation = forest().share_generation();
    make.create_tree(id);
    make.put(forest().system_tree(), name, inline_value("", id));
    must(forest().apply(make));
    const TreeRef tree = forest().open_tree(id);
    for (uint64_t i = 0; i < keys;) {
      Batch batch;
      batch.generation = forest().share_generation();
      for (uint64_t end = std::min(keys, i + 256); i < end; ++i) {
        batch.put(tree, key(i), inline_value(fill_bytes(bytes, static_cast<uint32_t>(i))));
      }
      must(forest().apply(batch));
    }
    settle();
  }

  static std::string key(uint64_t i) {
    char text[24];
    std::snprintf(text, sizeof text, "%c/%09llu", i % 2 == 0 ? 'a' : 'm',
                  static_cast<unsigned long long>(i));
    return text;
  }

  void clone(const std::string& from, const std::string& to, const ClonePrefix& prefix) {
    const NodeId id = forest().new_tree_id();
    Batch then;
    then.generation = forest().share_generation();
    then.put(forest().system_tree(), to, inline_value("", id));
    must(forest().clone(tree(from), {&prefix, 1}, id, then));
  }

  /// `count` patches of 16 bytes at random records.
  void edit(const std::string& name, uint64_t keys, uint64_t count, Random& random) {
    const TreeRef target = tree(name);
    for (uint64_t done = 0; done < count;) {
      Batch batch;
      batch.generation = forest().share_generation();
      for (const uint64_t end = std::min(count, done + 16); done < end; ++done) {
        const std::string bytes = fill_bytes(16, static_cast<uint32_t>(random.next()));
        batch.patch(target, key(random.below(keys)), write_patch(8, bytes));
      }
      must(forest().apply(batch));
    }
  }

  /// Reads everything, from the device; how many records.
  uint64_t scan(const std::string& name) {
    uint64_t records = 0;
    auto cursor = forest().scan(tree(name), std::string(), "\xff");
    while (true) {
      const Result<bool> more = cursor->next();
      if (!more || !*more) {
        EXPECT_TRUE(more) << more.error().to_string();
        return records;
      }
      ++records;
    }
  }

 private:
  DeviceCounter counter_;
  VolumeBedOptions options_;
  std::unique_ptr<VolumeBed> bed_;
};

struct CloneCost {
  DeviceCounts clone;                    ///< the call, from a cold cache
  uint64_t write_bytes = 0;              ///< with the sync after it
  uint64_t space_bytes = 0;
};

CloneCost cost_of_clone(uint64_t keys) {
  Volumes volumes;
  volumes.fill("source", keys, 60);
  volumes.cold();
  volumes.tree("source");                // the way to it is not the clone's cost
  const DeviceCounts before = volumes.counts();
  const uint64_t used = volumes.used_bytes();
  volumes.clone("source", "clone", {"m/", ""});
  CloneCost cost;
  cost.clone = volumes.counts() - before;
  EXPECT_TRUE(volumes.forest().sync());
  cost.write_bytes = (volumes.counts() - before).write_bytes;
  volumes.settle();
  cost.space_bytes = volumes.used_bytes() - used;
  EXPECT_EQ(volumes.scan("clone"), keys / 2);
  std::printf("%8llu keys: clone reads %llu bytes in %llu, writes %llu; sync %llu; space %llu\n",
              static_cast<unsigned long long>(keys),
              static_cast<unsigned long long>(cost.clone.read_bytes),
              static_cast<unsigned long long>(cost.clone.reads),
              static_cast<unsigned long long>(cost.clone.writes),
              static_cast<unsigned long long>(cost.write_bytes),
              static_cast<unsigned long long>(cost.space_bytes));
  return cost;
}

TEST(Nimble, CloneCostsTheSameForAnySize) {
  const uint64_t largest = env_number("CAW_KEYS", 100000);
  std::vector<CloneCost> costs;
  for (uint64_t keys = 100; keys <= largest; keys *= 10) costs.push_back(cost_of_clone(keys));
  for (const CloneCost& cost : costs) {
    // A few table pages and interior nodes: one level more per factor of about 30.
    EXPECT_LE(cost.clone.reads, 4U);
    EXPECT_EQ(cost.clone.writes, 0U);
    EXPECT_LE(cost.write_bytes, 64U << 10);
    EXPECT_LE(cost.space_bytes, 8U << 10);
  }
  EXPECT_LE(costs.back().write_bytes, costs.front().write_bytes + (32U << 10));
}

/// Rounds of clone and edit; then every version is read from a cold cache.
void expect_fresh_reads(uint64_t edits, int rounds, uint64_t seeks_per_mib) {
  constexpr uint64_t kKeys = 20000;
  Volumes volumes;
  volumes.fill("v0", kKeys, 400);
  const auto read_cold = [&](const std::string& name) {
    volumes.cold();
    const DeviceCounts before = volumes.counts();
    EXPECT_EQ(volumes.scan(name), kKeys);
    return volumes.counts() - before;
  };
  const DeviceCounts fresh = read_cold("v0");
  Random random(5);
  for (int round = 1; round <= rounds; ++round) {
    const std::string name = "v" + std::to_string(round);
    volumes.clone("v" + std::to_string(round - 1), name, {"", ""});
    volumes.edit(name, kKeys, edits, random);
    volumes.settle();
  }
  for (int round = 0; round <= rounds; ++round) {
    const DeviceCounts aged = read_cold("v" + std::to_string(round));
    std::printf("v%d: %llu bytes, %llu seeks; fresh: %llu, %llu\n", round,
                static_cast<unsigned long long>(aged.read_bytes),
                static_cast<unsigned long long>(aged.read_seeks),
                static_cast<unsigned long long>(fresh.read_bytes),
                static_cast<unsigned long long>(fresh.read_seeks));
    EXPECT_LE(aged.read_bytes, fresh.read_bytes * 3 / 2 + (64U << 10)) << "v" << round;
    EXPECT_LE(aged.read_seeks, seeks_per_mib * fresh.read_bytes / kMiB) << "v" << round;
  }
}

TEST(Nimble, EveryVersionReadsLikeAFreshOne) { expect_fresh_reads(300, 10, 1); }

// Enough to overflow buffers: leaves are copied one by one, each in one piece of 128 KiB; so a scan
// seeks once or twice for each at worst, 16 times per MiB.
TEST(Nimble, EveryMuchEditedVersionReadsLikeAFreshOne) { expect_fresh_reads(20000, 6, 16); }

uint64_t bytes_per_update(bool in_clone) {
  constexpr uint64_t kKeys = 20000;
  constexpr uint64_t kUpdates = 4000;
  Volumes volumes;
  volumes.fill("source", kKeys, 400);
  if (in_clone) volumes.clone("source", "clone", {"", ""});
  volumes.settle();
  const DeviceCounts before = volumes.counts();
  Random random(9);
  for (uint64_t i = 0; i < kUpdates; i += 200) {
    volumes.edit(in_clone ? "clone" : "source", kKeys, 200, random);
    EXPECT_TRUE(volumes.forest().sync());
  }
  volumes.settle();
  return (volumes.counts() - before).write_bytes / kUpdates;
}

TEST(Nimble, UpdatesInACloneCostWhatTheyCostElsewhere) {
  const uint64_t unshared = bytes_per_update(false);
  const uint64_t cloned = bytes_per_update(true);
  std::printf("bytes written per update: unshared %llu, in a clone %llu\n",
              static_cast<unsigned long long>(unshared), static_cast<unsigned long long>(cloned));
  EXPECT_LE(cloned * 10, unshared * 12 + 1280);
}

TEST(Nimble, AFirstSmallWriteCopiesNothingBelowTheRoot) {
  constexpr uint64_t kKeys = 20000;
  Volumes volumes;
  volumes.fill("source", kKeys, 400);
  volumes.clone("source", "clone", {"", ""});
  volumes.settle();
  const DeviceCounts before = volumes.counts();
  const uint64_t used = volumes.used_bytes();
  Random random(3);
  volumes.edit("clone", kKeys, 1, random);
  volumes.settle();
  const DeviceCounts cost = volumes.counts() - before;
  // Roots, table pages, bitmap, superblocks; a leaf alone would be 128 KiB.
  EXPECT_LE(cost.write_bytes, 96U << 10);
  EXPECT_LE(volumes.used_bytes(), used + (16U << 10));
}

TEST(Nimble, AChainOfClonesCostsItsEditsOnly) {
  constexpr uint64_t kKeys = 20000;
  constexpr int kRounds = 40;
  constexpr uint64_t kEdits = 64;
  Volumes volumes;
  volumes.fill("v0", kKeys, 400);
  Random random(4);
  std::vector<uint64_t> used{volumes.used_bytes()};
  for (int round = 1; round <= kRounds; ++round) {
    const std::string name = "v" + std::to_string(round);
    volumes.clone("v" + std::to_string(round - 1), name, {"", ""});
    volumes.edit(name, kKeys, kEdits, random);
    volumes.settle();
    used.push_back(volumes.used_bytes());
  }
  const uint64_t per_round = (used.back() - used.front()) / kRounds;
  std::printf("space per clone and %llu edits: %llu bytes\n",
              static_cast<unsigned long long>(kEdits), static_cast<unsigned long long>(per_round));
  EXPECT_LE(per_round, 16U << 10);
}

TEST(Nimble, OverwritesDoNotGrowATree) {
  constexpr uint64_t kKeys = 20000;
  Volumes volumes;
  volumes.fill("tree", kKeys, 400);
  const uint64_t used = volumes.used_bytes();
  Random random(6);
  for (int round = 0; round < 10; ++round) {
    volumes.edit("tree", kKeys, 10000, random);
    volumes.settle();
  }
  std::printf("bytes used: %llu before, %llu after 100000 patches\n",
              static_cast<unsigned long long>(used),
              static_cast<unsigned long long>(volumes.used_bytes()));
  // What is pending (B, 512 KiB), in runs that are partly applied, and leaves that were split.
  EXPECT_LE(volumes.used_bytes(), used * 3 / 2 + 2 * kMiB);
}

/// Once everything is erased: dead bytes up to B wait for a flush, and the erases themselves.
constexpr uint64_t kLeftover = 3 * kMiB / 2;

/// Erases every record by itself, saying how much that makes dead.
void erase_each(Volumes& volumes, const std::string& name, uint64_t keys, uint64_t dead_bytes) {
  const TreeRef tree = volumes.tree(name);
  for (uint64_t i = 0; i < keys;) {
    Batch batch;
    batch.generation = volumes.forest().share_generation();
    for (const uint64_t end = std::min(keys, i + 100); i < end; ++i) {
      batch.erase(tree, Volumes::key(i), dead_bytes);
    }
    volumes.must(volumes.forest().apply(batch));
  }
  volumes.settle();
}

TEST(Nimble, ErasingRecordByRecordGivesTheSpaceBack) {
  constexpr uint64_t kKeys = 20000;
  Volumes volumes;
  const uint64_t empty = volumes.used_bytes();
  volumes.fill("tree", kKeys, 400);
  erase_each(volumes, "tree", kKeys, 430);
  std::printf("bytes used: %llu empty, %llu after erasing\n",
              static_cast<unsigned long long>(empty),
              static_cast<unsigned long long>(volumes.used_bytes()));
  EXPECT_LE(volumes.used_bytes(), empty + kLeftover);
}

TEST(Nimble, ErasingInACloneGivesTheSpaceBackOnceTheSourceIsGone) {
  constexpr uint64_t kKeys = 20000;
  Volumes volumes;
  const uint64_t empty = volumes.used_bytes();
  volumes.fill("source", kKeys, 400);
  volumes.clone("source", "clone", {"", ""});
  erase_each(volumes, "clone", kKeys, 430);
  Batch batch;
  batch.generation = volumes.forest().share_generation();
  batch.erase(volumes.forest().system_tree(), "source", 0);
  volumes.must(volumes.forest().apply(batch));
  volumes.settle();
  volumes.settle();
  EXPECT_EQ(volumes.scan("clone"), 0U);
  std::printf("bytes used: %llu empty, %llu at the end\n", static_cast<unsigned long long>(empty),
              static_cast<unsigned long long>(volumes.used_bytes()));
  EXPECT_LE(volumes.used_bytes(), empty + kLeftover);
}

}  // namespace
}  // namespace caw
