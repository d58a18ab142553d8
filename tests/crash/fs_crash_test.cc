// Power cuts on a file system: at every point of a recorded history, with subsets of the writes in
// flight, it mounts and shows what it showed after some operation, none before the last sync; so
// renames, clones and removals are there wholly or not at all.  A second thread syncs and makes
// checkpoints all the while, so that they are cut between any two batches.
//   CAW_SEED, CAW_SEEDS (default 12), CAW_OPS (default 200),
//   CAW_CUTS (most images per point; default 9)
#include <gtest/gtest.h>

#include <atomic>
#include <cstdio>
#include <string>
#include <thread>
#include <unordered_set>
#include <vector>

#include "crash/fs_dump.h"
#include "dev/recording_device.h"
#include "model/fs_harness.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

class FsCrash {
 public:
  explicit FsCrash(uint64_t seed)
      : random_(seed), base_(new_image(seed)), log_(base_->clone()) {}

  void live(uint64_t ops) {
    VolumeBedOptions options;
    options.wrap = [this](std::unique_ptr<BlockDevice> inner) -> std::unique_ptr<BlockDevice> {
      return std::make_unique<RecordingDevice>(std::move(inner), log_);
    };
    VolumeBed bed(options, base_->clone());
    ASSERT_TRUE(bed.open());
    FsClient client(bed.forest());
    ASSERT_EQ(client.mount(), 0);
    dumps_ = {dump(client)};
    names_ = {"mount"};
    synced_ = {{0, 0}};
    std::atomic<bool> stop{false};
    std::thread syncer([&] {
      for (uint64_t turn = 0; !stop; ++turn) {
        EXPECT_TRUE(turn % 3 == 0 ? bed.volume().checkpoint() : bed.forest().sync());
        std::this_thread::yield();
      }
    });
    for (uint64_t i = 0; i < ops; ++i) {
      begun_.push_back(log_.point());
      names_.push_back(step(client));
      dumps_.push_back(dump(client));
      if (random_.one_in(3)) {
        EXPECT_TRUE(client.fs().sync());
        synced_.emplace_back(log_.point(), dumps_.size() - 1);
      }
    }
    stop = true;
    syncer.join();
    EXPECT_TRUE(client.fs().sync());
    synced_.emplace_back(log_.point(), dumps_.size() - 1);
  }

  void explore(uint64_t cuts) {
    CrashExplorer crash(log_);
    do {
      for (const std::vector<Fate>& fates : crash.cases(cuts, random_)) {
        try_image(crash.image(fates, random_.next()), crash.point());
        if (testing::Test::HasFailure()) return;
      }
    } while (crash.advance());
  }

  uint64_t image_count() const { return images_; }
  /// Digests of the images tried.
  const std::unordered_set<uint64_t>& digests() const { return digests_; }

 private:
  static Ref<MemoryImage> new_image(uint64_t seed) {
    VolumeBedOptions options;
    options.shape = tiny_shape(seed);
    VolumeBed bed(options);
    FsClient client(bed.forest());
    EXPECT_EQ(client.make_and_mount(), 0);
    client.unmount();
    EXPECT_TRUE(bed.close());
    return bed.image();
  }

  std::string any_path() {
    std::string path;
    for (uint64_t depth = 1 + random_.below(3); depth > 0; --depth) {
      path += "/" + std::string(1, static_cast<char>('a' + random_.below(4)));
    }
    return path;
  }

  /// One call.  What fails (no such file, not empty) changes nothing and is as good.
  std::string step(FsClient& client) {
    const std::string a = any_path();
    const std::string b = any_path();
    const std::string both = " " + a + " " + b;
    const auto bytes = [&] {
      const auto length = static_cast<uint32_t>(random_.below(random_.one_in(4) ? 20000 : 300));
      return fill_bytes(1 + length, static_cast<uint32_t>(random_.below(1U << 20)));
    };
    switch (random_.below(15)) {
      case 0:
      case 1:
        return "mkdir" + both + std::to_string(client.mkdir(a));
      case 2:
      case 3:
        return "create" + both + std::to_string(client.create(a));
      case 4:
      case 5:
        // Within one chunk: larger writes may be cut.
        return "write" + both + std::to_string(client.write(a, random_.below(60000), bytes()));
      case 6:
        return "truncate" + both + std::to_string(client.truncate(a, random_.below(30000)));
      case 7:
        return "unlink" + both + std::to_string(client.unlink(a));
      case 8:
        return "rmdir" + both + std::to_string(client.rmdir(a));
      case 9:
        return "remove_tree" + both + std::to_string(client.remove_tree(a));
      case 13:
        return "setxattr" + both + std::to_string(client.set_xattr(a, "user.x", bytes()));
      case 14:
        return "removexattr" + both + std::to_string(client.remove_xattr(a, "user.x"));
      case 10:
        return "rename" + both + std::to_string(client.rename(a, b));
      case 11:
      case 12:
        return "link" + both + std::to_string(client.link(a, b));
      default:
        return "clone" + both + std::to_string(client.clone(a, b));
    }
  }

  void try_image(const Ref<MemoryImage>& image, uint64_t point) {
    ++images_;
    digests_.insert(image->digest());
    VolumeBed bed(VolumeBedOptions{}, image);
    const Result<void> opened = bed.open();
    ASSERT_TRUE(opened) << "point " << point << ": " << opened.error().to_string();
    FsClient client(bed.forest());
    ASSERT_EQ(client.mount(), 0) << "point " << point;
    const std::string found = dump(client);
    size_t first = 0;
    for (const auto& [from, held] : synced_) {
      if (from <= point) first = held;
    }
    size_t last = 0;
    while (last < begun_.size() && begun_[last] <= point) ++last;
    for (size_t i = first; i <= last; ++i) {
      if (dumps_[i] != found) continue;
      if (random_.one_in(8)) {
        EXPECT_EQ(bed.check(), "") << "point " << point;
      }
      return;
    }
    std::string history;
    for (size_t i = first; i <= last; ++i) {
      history += "\n  after " + std::to_string(i) + ", " + names_[i] + ": " +
                 difference(found, dumps_[i]);
    }
    FAIL() << "point " << point << " shows none of the states" << history;
  }

  Random random_;
  Ref<MemoryImage> base_;
  WriteLog log_;
  std::vector<std::string> dumps_;       ///< [i]: after i operations
  std::vector<std::string> names_;
  std::vector<uint64_t> begun_;          ///< [i]: point at which operation i + 1 began
  std::vector<std::pair<uint64_t, size_t>> synced_;
  uint64_t images_ = 0;
  std::unordered_set<uint64_t> digests_;
};

TEST(FsCrash, ShowsAPrefixThatHoldsEverySync) {
  const uint64_t first = env_number("CAW_SEED", 1);
  const uint64_t seeds = env_number("CAW_SEEDS", 12);
  const uint64_t ops = env_number("CAW_OPS", 200);
  uint64_t images = 0;
  std::unordered_set<uint64_t> distinct;
  for (uint64_t seed = first; seed < first + seeds; ++seed) {
    SCOPED_TRACE("about (threads differ): CAW_SEEDS=1 CAW_SEED=" + std::to_string(seed) +
                 " CAW_OPS=" + std::to_string(ops) + " fs_crash_test");
    FsCrash crash(seed);
    crash.live(ops);
    if (HasFailure()) return;
    crash.explore(env_number("CAW_CUTS", 9));
    if (HasFailure()) return;
    images += crash.image_count();
    distinct.insert(crash.digests().begin(), crash.digests().end());
  }
  EXPECT_GT(images, 20 * seeds);
  std::printf("%llu images tried, %zu of them distinct\n",
              static_cast<unsigned long long>(images), distinct.size());
}

}  // namespace
}  // namespace caw
