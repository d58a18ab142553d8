#include "meta/meta_store.h"

#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <map>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "base/bytes.h"
#include "base/random.h"
#include "dev/faulty_device.h"
#include "dev/memory_device.h"
#include "meta/meta_page.h"
#include "meta/page_cache.h"

namespace caw {
namespace {

constexpr uint64_t kBlocks = 60000;
constexpr uint64_t kCacheBytes = 1 << 20;
using Model = std::map<MetaKey, std::string>;

/// A volume with nothing in it but a meta tree.
struct Volume {
  explicit Volume(uint64_t cache = kCacheBytes)
      : image(make_ref<MemoryImage>(kBlocks)), cache_bytes(cache) {
    open_device();
    superblock.block_count = kBlocks;
    EXPECT_TRUE(Allocator::format(*device, superblock));
    open();
  }
  void open_device() {
    device = std::make_unique<FaultyDevice>(make_memory_device(image), faults);
  }
  /// As after a crash: what was not checkpointed is gone.
  void open() {
    store.reset();
    auto opened = Allocator::open(*device, superblock);
    ASSERT_TRUE(opened) << opened.error().to_string();
    allocator = std::move(*opened);
    store = MetaStore::open(*device, *allocator, superblock.meta_root, superblock.meta_height,
                            cache_bytes);
  }
  Result<void> apply(const std::vector<MetaChange>& changes) {
    return store->apply(changes, superblock.epoch + 1);
  }
  void checkpoint() {
    ++superblock.epoch;
    const auto done = allocator->write_checkpoint(superblock.epoch, superblock);
    ASSERT_TRUE(done) << done.error().to_string();
    superblock.meta_root = store->root();
    superblock.meta_height = store->height();
    allocator->release_through(superblock.epoch);
  }
  Model read_all() {
    Model all;
    for (uint8_t space = 1; space <= 4; ++space) {
      const auto done = store->scan(MetaSpace{space}, 0, [&](uint64_t id, std::string_view value) {
        EXPECT_TRUE(all.emplace(MetaKey{MetaSpace{space}, id}, value).second);
        return true;
      });
      EXPECT_TRUE(done) << done.error().to_string();
    }
    return all;
  }

  Ref<MemoryImage> image;
  FaultPlan faults;
  std::unique_ptr<BlockDevice> device;
  Superblock superblock;
  uint64_t cache_bytes;
  std::unique_ptr<Allocator> allocator;
  std::unique_ptr<MetaStore> store;
};

std::string random_value(Random& random) {
  return std::string(random.below(65), static_cast<char>('a' + random.below(26)));
}

/// Keys crowd at the low end of each space, with a few anywhere.
MetaKey random_key(Random& random, uint64_t range) {
  const auto space = static_cast<MetaSpace>(1 + random.below(4));
  return {space, random.one_in(50) ? random.next() : random.below(range)};
}

std::vector<MetaChange> random_changes(Random& random, size_t count, uint64_t range,
                                       uint64_t erase_percent) {
  std::map<MetaKey, std::optional<std::string>> changes;
  for (size_t i = 0; i < count; ++i) {
    std::optional<std::string> value;
    if (random.below(100) >= erase_percent) value = random_value(random);
    changes[random_key(random, range)] = value;
  }
  std::vector<MetaChange> out;
  for (auto& [key, value] : changes) out.push_back({key, value});
  return out;
}

void change_model(Model& model, const std::vector<MetaChange>& changes) {
  for (const MetaChange& change : changes) {
    if (change.value) {
      model[change.key] = *change.value;
    } else {
      model.erase(change.key);
    }
  }
}

std::vector<MetaChange> sequence(uint64_t first, uint64_t count, size_t value_bytes) {
  std::vector<MetaChange> changes;
  for (uint64_t i = 0; i < count; ++i) {
    changes.push_back({{MetaSpace::node, first + i}, std::string(value_bytes, 'v')});
  }
  return changes;
}

TEST(MetaStore, AnEmptyTreeHoldsNothing) {
  Volume volume;
  EXPECT_FALSE(volume.store->root());
  EXPECT_EQ(volume.store->height(), 0);
  const auto got = volume.store->get({MetaSpace::node, 1});
  ASSERT_TRUE(got);
  EXPECT_FALSE(*got);
  EXPECT_TRUE(volume.read_all().empty());
  ASSERT_TRUE(volume.apply({{{MetaSpace::node, 1}, std::nullopt}}));
  EXPECT_FALSE(volume.store->root());
}

TEST(MetaStore, RandomBatchesAgainstAMap) {
  for (const uint64_t seed : {1U, 2U, 3U}) {
    Volume volume(seed == 3 ? 0 : 256 << 10);
    Random random(seed);
    Model model;
    for (int round = 0; round < 40 && !HasFailure(); ++round) {
      // Grows, then shrinks, over and over.
      const uint64_t erase_percent = round / 10 % 2 == 0 ? 20 : 85;
      const size_t count = random.one_in(3) ? 1 + random.below(20) : random.below(6000);
      const auto changes = random_changes(random, count, 12000, erase_percent);
      const auto done = volume.apply(changes);
      ASSERT_TRUE(done) << done.error().to_string();
      change_model(model, changes);
      if (random.one_in(3)) volume.checkpoint();
      ASSERT_EQ(volume.read_all(), model) << "seed " << seed << " round " << round;
      for (int i = 0; i < 200; ++i) {
        const MetaKey key = random_key(random, 12000);
        const auto got = volume.store->get(key);
        ASSERT_TRUE(got);
        const auto expected = model.find(key);
        ASSERT_EQ(*got, expected == model.end() ? std::nullopt : std::optional(expected->second));
      }
      if (random.one_in(5)) {
        volume.checkpoint();
        volume.open();
      }
    }
    std::vector<MetaChange> erase_all;
    for (const auto& [key, value] : model) erase_all.push_back({key, std::nullopt});
    ASSERT_TRUE(volume.apply(erase_all));
    EXPECT_FALSE(volume.store->root());
    volume.checkpoint();
    EXPECT_EQ(volume.superblock.used_blocks, 0U) << "pages leaked";
    EXPECT_EQ(volume.allocator->figures().used_blocks, 0U);
  }
}

TEST(MetaStore, ScanStartsWhereAskedAndStopsWhenTold) {
  Volume volume;
  ASSERT_TRUE(volume.apply(sequence(100, 5000, 30)));
  std::vector<uint64_t> seen;
  ASSERT_TRUE(volume.store->scan(MetaSpace::node, 3333, [&](uint64_t id, std::string_view) {
    seen.push_back(id);
    return seen.size() < 300;
  }));
  ASSERT_EQ(seen.size(), 300U);
  EXPECT_EQ(seen.front(), 3333U);
  EXPECT_EQ(seen.back(), 3632U);
  seen.clear();
  ASSERT_TRUE(volume.store->scan(MetaSpace::node_count, 0, [&](uint64_t id, std::string_view) {
    seen.push_back(id);
    return true;
  }));
  EXPECT_TRUE(seen.empty());
}

TEST(MetaStore, PagesStayWellFilled) {
  Volume volume;
  const uint64_t per_page = kMetaCapacityBytes / (kLeafEntryBytes + 40);
  for (uint64_t batch = 0; batch < 200; ++batch) {
    ASSERT_TRUE(volume.apply(sequence(1 + batch * 100, 100, 40)));
    volume.checkpoint();
  }
  EXPECT_LT(volume.superblock.used_blocks, 20000 / per_page * 11 / 10) << "appended keys";
  Random random(4);
  for (int batch = 0; batch < 40; ++batch) {
    std::map<MetaKey, std::optional<std::string>> erased;
    for (int i = 0; i < 900; ++i) erased[{MetaSpace::node, random.below(20001)}] = std::nullopt;
    std::vector<MetaChange> changes;
    for (auto& [key, value] : erased) changes.push_back({key, value});
    ASSERT_TRUE(volume.apply(changes));
    volume.checkpoint();
  }
  const size_t left = volume.read_all().size();
  EXPECT_LT(left, 5000U);
  EXPECT_LT(volume.superblock.used_blocks, 5 + left * 4 / per_page) << "after erasing at random";
}

TEST(MetaStore, PagesStayWellFilledWhenKeysComeInAnyOrder) {
  Volume volume;
  Random random(5);
  for (int batch = 0; batch < 100; ++batch) {
    std::map<MetaKey, std::optional<std::string>> added;
    for (int i = 0; i < 200; ++i) added[{MetaSpace::node, random.next()}] = std::string(40, 'v');
    std::vector<MetaChange> changes;
    for (auto& [key, value] : added) changes.push_back({key, value});
    ASSERT_TRUE(volume.apply(changes));
    volume.checkpoint();
  }
  EXPECT_LT(volume.superblock.used_blocks, 20000 * 50 / kMetaCapacityBytes * 3 / 2);
}

TEST(MetaStore, ANearlyEmptyPageJoinsANeighbourThatDidNotChange) {
  Volume volume;
  ASSERT_TRUE(volume.apply(sequence(1, 2000, 40)));
  volume.checkpoint();
  Model model = volume.read_all();
  const uint64_t before = volume.superblock.used_blocks;
  for (const uint64_t first : {500U, 1000U, 1500U}) {
    std::vector<MetaChange> changes;
    for (uint64_t i = 0; i < 155; ++i) changes.push_back({{MetaSpace::node, first + i}, {}});
    ASSERT_TRUE(volume.apply(changes));
    change_model(model, changes);
    volume.checkpoint();
    ASSERT_EQ(volume.read_all(), model);
  }
  EXPECT_LE(volume.superblock.used_blocks, before - 3);
  std::vector<MetaChange> rest;
  for (const auto& [key, value] : model) rest.push_back({key, std::nullopt});
  ASSERT_TRUE(volume.apply(rest));
  volume.checkpoint();
  EXPECT_EQ(volume.superblock.used_blocks, 0U) << "pages leaked";
}

TEST(MetaStore, ATreeThatShrankIsLowAgain) {
  Volume volume;
  ASSERT_TRUE(volume.apply(sequence(1, 30000, 64)));
  volume.checkpoint();
  ASSERT_EQ(volume.store->height(), 3);
  std::vector<MetaChange> changes;
  for (uint64_t i = 1; i <= 30000; ++i) {
    if (i != 15000) changes.push_back({{MetaSpace::node, i}, std::nullopt});
  }
  ASSERT_TRUE(volume.apply(changes));
  volume.checkpoint();
  EXPECT_EQ(volume.store->height(), 1);
  EXPECT_EQ(volume.superblock.used_blocks, 1U);
  EXPECT_EQ(volume.read_all().size(), 1U);
}

TEST(MetaStore, AChildWithKeysOutOfItsBoundsIsDamage) {
  Volume volume;
  AlignedBuffer block(kBlockSize);
  const auto write = [&](uint64_t at, const MetaPageContent& content) {
    const PageRef ref{BlockAddr{at}, encode_meta_page(content, BlockAddr{at}, 1, block.chars())};
    volume.image->write(ref.addr, block.span());
    return ref;
  };
  MetaPageContent leaf{0, 1, {}};
  append_leaf_entry(leaf.entries, {MetaSpace::node, 30}, "x");
  const PageRef child = write(100, leaf);
  for (const auto& [low, high, good] : {std::tuple{10U, 31U, true}, {31U, 40U, false},
                                        {10U, 30U, false}}) {
    MetaPageContent root{1, 2, {}};
    append_interior_entry(root.entries, {MetaSpace::node, low}, child);
    append_interior_entry(root.entries, {MetaSpace::node, high}, child);
    const auto store = MetaStore::open(*volume.device, *volume.allocator, write(200, root), 2, 0);
    const MetaKey key{MetaSpace::node, low};
    EXPECT_EQ(store->get(key).has_value(), good) << low << " " << high;
    const std::vector<MetaChange> changes{{key, "y"}};
    const auto applied = store->apply(changes, 1);
    // Also where the damaged child is only a neighbour to join with.
    ASSERT_FALSE(applied.has_value());
    EXPECT_EQ(applied.error().code, Code::meta_page);
  }
}

TEST(MetaStore, ABatchWritesEachTouchedPageOnce) {
  Volume volume;
  ASSERT_TRUE(volume.apply(sequence(1, 20000, 40)));
  volume.checkpoint();
  const uint64_t before = volume.allocator->figures().used_blocks;
  ASSERT_TRUE(volume.apply({{{MetaSpace::node, 10000}, "x"}, {{MetaSpace::node, 10001}, "y"}}));
  EXPECT_EQ(volume.allocator->figures().used_blocks, before + volume.store->height());
  volume.checkpoint();
  const PageRef root = volume.store->root();
  ASSERT_TRUE(volume.apply({{{MetaSpace::node, 10000}, "x"}, {{MetaSpace::dead_node, 3}, {}}}));
  EXPECT_EQ(volume.store->root(), root) << "nothing changed";
}

TEST(MetaStore, CacheStaysWithinItsBound) {
  Volume volume(200 << 10);
  ASSERT_TRUE(volume.apply(sequence(1, 30000, 40)));
  EXPECT_LE(volume.store->cached_bytes(), 200U << 10);
  EXPECT_EQ(volume.read_all().size(), 30000U);
  EXPECT_LE(volume.store->cached_bytes(), 200U << 10);
  EXPECT_GT(volume.store->cached_bytes(), 100U << 10);
}

TEST(MetaStore, DamageOfAnyPageIsReportedAndNeverReturned) {
  Volume volume(0);
  Random random(7);
  Model model;
  const auto changes = random_changes(random, 6000, 20000, 0);
  ASSERT_TRUE(volume.apply(changes));
  change_model(model, changes);
  volume.checkpoint();
  int pages = 0;
  for (uint64_t at = 6; at < kBlocks; ++at) {
    AlignedBuffer block(kBlockSize);
    volume.image->read(BlockAddr{at}, block.span());
    if (load_fixed<uint32_t>(block.chars()) != kMetaPageMagic) continue;
    ++pages;
    char& byte = block.chars()[random.below(kBlockSize)];
    const char good = byte;
    byte = static_cast<char>(byte ^ (1 << random.below(8)));
    volume.image->write(BlockAddr{at}, block.span());
    bool reported = false;
    for (uint8_t space = 1; space <= 4; ++space) {
      const auto done = volume.store->scan(MetaSpace{space}, 0, [&](uint64_t id, auto value) {
        EXPECT_EQ(model.at({MetaSpace{space}, id}), value);
        return true;
      });
      if (done) continue;
      reported = true;
      ASSERT_EQ(done.error().code, Code::meta_page);
      ASSERT_EQ(done.error().detail, at);
    }
    ASSERT_TRUE(reported) << at;
    byte = good;
    volume.image->write(BlockAddr{at}, block.span());
  }
  EXPECT_EQ(pages, static_cast<int>(volume.superblock.used_blocks));
  EXPECT_EQ(volume.read_all(), model);
}

TEST(MetaStore, ATallerTreeThanAllowedIsRefused) {
  Volume volume;
  ASSERT_TRUE(volume.apply(sequence(1, 10, 40)));
  const auto store = MetaStore::open(*volume.device, *volume.allocator, volume.store->root(),
                                     kMaxMetaHeight + 1, kCacheBytes);
  EXPECT_EQ(store->get({MetaSpace::node, 1}).error().code, Code::meta_depth);
  EXPECT_EQ(store->apply(sequence(1, 1, 1), 1).error().code, Code::meta_depth);
}

TEST(MetaStore, AFailedBatchLeavesTheOldTree) {
  Volume volume(0);
  ASSERT_TRUE(volume.apply(sequence(1, 20000, 40)));
  volume.checkpoint();
  int failures = 0;
  for (const DeviceOp op : {DeviceOp::read, DeviceOp::write}) {
    const Model before = volume.read_all();
    const PageRef root = volume.store->root();
    std::vector<MetaChange> changes;
    for (uint64_t i = 1; i < 20000; i += 50) {
      changes.push_back({{MetaSpace::node, i}, op == DeviceOp::read ? "new" : "newer"});
    }
    for (uint64_t at = 1;; at += op == DeviceOp::read ? 17 : 1) {
      volume.faults.arm({.on = op, .at = at});
      const auto done = volume.apply(changes);
      const bool hit = volume.faults.hits() > 0;
      volume.faults.disarm();
      if (!hit) break;
      ++failures;
      ASSERT_FALSE(done);
      ASSERT_EQ(done.error().code, op == DeviceOp::read ? Code::device_read : Code::device_write);
      ASSERT_EQ(volume.store->root(), root);
      ASSERT_EQ(volume.allocator->figures().used_blocks, volume.superblock.used_blocks);
      ASSERT_EQ(volume.read_all(), before);
    }
    EXPECT_NE(volume.store->root(), root);
    volume.checkpoint();
  }
  EXPECT_GT(failures, 8);
}

TEST(MetaStore, ABatchThatFindsNoSpaceLeavesTheOldTree) {
  Volume volume;
  ASSERT_TRUE(volume.apply(sequence(1, 20000, 40)));
  volume.checkpoint();
  while (volume.allocator->reserve(1, SpaceClass::essential)) {
  }
  const Model before = volume.read_all();
  const auto done = volume.apply(sequence(1, 5000, 41));
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().code, Code::no_space);
  EXPECT_EQ(volume.read_all(), before);
}

/// Does something before the next read.
class HookDevice final : public BlockDevice {
 public:
  explicit HookDevice(BlockDevice& inner) : inner_(inner) {}
  uint64_t block_count() const override { return inner_.block_count(); }
  bool read_only() const override { return inner_.read_only(); }
  Result<void> read(BlockAddr first, std::span<std::byte> out) override {
    if (auto hook = std::exchange(before_read, nullptr)) hook();
    return inner_.read(first, out);
  }
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override {
    return inner_.write(first, data);
  }
  Result<void> read_batch(std::span<const ReadRequest> requests) override {
    return inner_.read_batch(requests);
  }
  Result<void> write_batch(std::span<const WriteRequest> requests) override {
    return inner_.write_batch(requests);
  }
  Result<void> flush() override { return inner_.flush(); }
  Result<void> ensure_backed(BlockAddr first, uint64_t blocks) override {
    return inner_.ensure_backed(first, blocks);
  }
  Result<void> discard(BlockAddr first, uint64_t blocks) override {
    return inner_.discard(first, blocks);
  }

  std::function<void()> before_read;

 private:
  BlockDevice& inner_;
};

TEST(MetaStore, AReaderWhosePagesAreReusedStartsAgain) {
  Volume volume;
  ASSERT_TRUE(volume.apply(sequence(1, 100, 40)));
  volume.checkpoint();
  HookDevice device(*volume.device);
  volume.store = MetaStore::open(device, *volume.allocator, volume.superblock.meta_root,
                                 volume.superblock.meta_height, 0);
  bool reused = false;
  device.before_read = [&] {
    const BlockAddr old_root = volume.store->root().addr;
    for (int i = 0; i < 100000 && !reused; ++i) {
      ASSERT_TRUE(volume.apply({{{MetaSpace::node, 7}, std::to_string(i)}}));
      volume.checkpoint();
      reused = volume.store->root().addr == old_root;
    }
  };
  const auto got = volume.store->get({MetaSpace::node, 8});
  ASSERT_TRUE(reused);
  ASSERT_TRUE(got) << got.error().to_string();
  EXPECT_EQ(*got, std::string(40, 'v'));
}

TEST(PageCache, APageIsKnownByItsChecksumToo) {
  Volume volume;
  MetaPageContent content{0, 1, {}};
  append_leaf_entry(content.entries, {MetaSpace::node, 1}, "old");
  const PageRef ref{BlockAddr{50}, 123};
  PageCache cache(*volume.device, kCacheBytes);
  cache.put(MetaPage::make(content, ref));
  EXPECT_TRUE(cache.get(ref, 0));
  EXPECT_EQ(cache.get({BlockAddr{50}, 124}, 0).error().code, Code::meta_page);
  EXPECT_EQ(cache.get(ref, 1).error().code, Code::meta_page);
}

TEST(MetaStore, ReadersGoOnWhileBatchesAreApplied) {
  Volume volume(64 << 10);
  constexpr uint64_t kKeys = 6000;
  ASSERT_TRUE(volume.apply(sequence(1, kKeys, 40)));
  volume.checkpoint();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> reads{0};
  std::vector<std::thread> readers;
  for (uint64_t t = 0; t < 3; ++t) {
    readers.emplace_back([&, t] {
      Random random(t);
      while (!stop) {
        const auto got = volume.store->get({MetaSpace::node, 1 + random.below(kKeys)});
        ASSERT_TRUE(got) << got.error().to_string();
        ASSERT_TRUE(*got);
        if (random.one_in(200)) {
          uint64_t count = 0;
          const auto done = volume.store->scan(MetaSpace::node, 0, [&](uint64_t, auto) {
            return ++count, true;
          });
          ASSERT_TRUE(done) << done.error().to_string();
          ASSERT_EQ(count, kKeys);
        }
        ++reads;
      }
    });
  }
  Random random(99);
  for (int round = 0; round < 150; ++round) {
    std::map<MetaKey, std::optional<std::string>> changed;
    for (int i = 0; i < 200; ++i) {
      changed[{MetaSpace::node, 1 + random.below(kKeys)}] = random_value(random);
    }
    std::vector<MetaChange> changes;
    for (auto& [key, value] : changed) changes.push_back({key, value});
    ASSERT_TRUE(volume.apply(changes));
    volume.checkpoint();
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(reads, 0U);
}

}  // namespace
}  // namespace caw
