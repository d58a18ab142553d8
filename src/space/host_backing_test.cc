#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <shared_mutex>
#include <thread>
#include <vector>

#include "base/random.h"
#include "space/bitmap_allocator.h"
#include "space/host_model_device.h"

namespace caw {
namespace {

constexpr auto kOrdinary = SpaceClass::ordinary;
constexpr auto kEssential = SpaceClass::essential;
constexpr uint64_t kTiBBlocks = uint64_t{1} << 28;

struct Volume {
  explicit Volume(uint64_t blocks, uint64_t host_blocks = UINT64_MAX)
      : device(blocks, host_blocks) {
    superblock.block_count = blocks;
    EXPECT_TRUE(Allocator::format(device, superblock));
    reopen();
  }
  void reopen(size_t max_loaded = BitmapAllocator::kMaxLoaded) {
    auto opened = BitmapAllocator::open(device, superblock, max_loaded);
    ASSERT_TRUE(opened) << opened.error().to_string();
    allocator = std::move(*opened);
  }
  void checkpoint() {
    ++superblock.epoch;
    const auto done = allocator->write_checkpoint(superblock.epoch, superblock);
    ASSERT_TRUE(done) << done.error().to_string();
    allocator->release_through(superblock.epoch);
  }
  /// Reserves, writes the first and last block, and commits.
  Result<BlockAddr> put(uint64_t blocks, SpaceClass space_class) {
    const BlockAddr first = CAW_TRY(allocator->reserve(blocks, space_class));
    const AlignedBuffer data(kBlockSize);
    CAW_TRY(device.write(first, data.span()));
    CAW_TRY(device.write(first + (blocks - 1), data.span()));
    allocator->commit({first, blocks}, superblock.epoch + 1);
    return first;
  }

  HostModelDevice device;
  Superblock superblock;
  std::unique_ptr<BitmapAllocator> allocator;
};

TEST(HostBacking, NothingIsWrittenThatTheHostDoesNotHold) {
  Volume volume(4 * kRegionBlocks);
  std::vector<BlockAddr> put;
  for (int i = 0; i < 3000; ++i) {
    const auto first = volume.put(16, kOrdinary);
    ASSERT_TRUE(first);
    put.push_back(*first);
    if (i % 500 == 499) {
      for (const BlockAddr at : put) volume.allocator->free({at, 16}, volume.superblock.epoch + 1);
      put.clear();
      volume.checkpoint();
      volume.reopen();
    }
  }
  EXPECT_EQ(volume.device.unbacked_writes(), 0U);
}

TEST(HostBacking, OnAFullHostOrdinaryRequestsFailAndEssentialOnesDoNot) {
  Volume volume(8 * kRegionBlocks, 60000);
  const uint64_t reserve = volume.allocator->figures().reserve_blocks;
  uint64_t given = 0;
  Result<BlockAddr> first = kNoBlock;
  while ((first = volume.put(8, kOrdinary))) given += 8;
  EXPECT_EQ(first.error().code, Code::device_full);
  EXPECT_GT(given, 60000 - reserve - 3 * BitmapAllocator::kZoneBlocks);
  volume.checkpoint();
  uint64_t essential = 0;
  while (essential < reserve - 64 && (first = volume.put(1, kEssential))) ++essential;
  EXPECT_TRUE(first) << first.error().to_string() << " after " << essential;
  EXPECT_FALSE(volume.put(8, kOrdinary));
  volume.checkpoint();
  EXPECT_EQ(volume.device.unbacked_writes(), 0U);
}

TEST(HostBacking, AfterAMountOnAFullHostRemovalsStillFindSpace) {
  Volume volume(8 * kRegionBlocks, 60000);
  std::vector<BlockAddr> put;
  while (const auto first = volume.put(8, kOrdinary)) put.push_back(*first);
  volume.checkpoint();
  volume.device.set_host_blocks(volume.device.host_used());
  volume.reopen();
  const auto first = volume.put(4, kEssential);
  ASSERT_TRUE(first) << first.error().to_string();
  for (const BlockAddr at : put) volume.allocator->free({at, 8}, volume.superblock.epoch + 1);
  volume.checkpoint();
  EXPECT_TRUE(volume.put(8, kOrdinary));
  EXPECT_EQ(volume.device.unbacked_writes(), 0U);
}

TEST(HostBacking, OnAFullHostEssentialRequestsSkipWhatItDoesNotHold) {
  Volume volume(4 * kRegionBlocks);
  constexpr uint64_t kZone = BitmapAllocator::kZoneBlocks;
  const BlockAddr first = *volume.put(kZone, kOrdinary);
  ASSERT_TRUE(volume.put(100, kOrdinary));
  volume.checkpoint();
  volume.allocator->free({first, kZone}, volume.superblock.epoch + 1);
  volume.checkpoint();
  // The lowest free blocks are gone from the host, as after a sparse copy of the image.
  ASSERT_TRUE(volume.device.discard(first, kZone));
  volume.device.set_host_blocks(volume.device.host_used());
  volume.reopen();
  EXPECT_EQ(volume.put(8, kOrdinary).error().code, Code::device_full);
  const auto got = volume.put(8, kEssential);
  ASSERT_TRUE(got) << got.error().to_string();
  EXPECT_GE(raw(*got), raw(first) + kZone);
}

TEST(HostBacking, RoomOnTheHostIsNoticedAtOnce) {
  Volume volume(8 * kRegionBlocks, 60000);
  while (volume.put(8, kOrdinary)) {
  }
  volume.device.set_host_blocks(90000);
  EXPECT_TRUE(volume.put(8, kOrdinary));
}

TEST(HostBacking, SpaceThatIsFreeGoesBackToTheHost) {
  Volume volume(32 * kRegionBlocks);
  std::vector<BlockAddr> put;
  for (int i = 0; i < 8000; ++i) put.push_back(*volume.put(64, kOrdinary));
  volume.checkpoint();
  const uint64_t full = volume.device.host_used();
  for (const BlockAddr at : put) volume.allocator->free({at, 64}, volume.superblock.epoch + 1);
  volume.checkpoint();
  EXPECT_LT(volume.device.host_used(), full / 2);
  EXPECT_GE(volume.device.host_used(), volume.allocator->figures().reserve_blocks);
  EXPECT_EQ(volume.allocator->figures().used_blocks, 0U);
}

TEST(HostBacking, TheReserveStaysOnTheHostWhenSpaceIsGivenBack) {
  Volume volume(2 * kTiBBlocks);
  const uint64_t reserve = volume.allocator->figures().reserve_blocks;
  std::vector<BlockAddr> put;
  for (int i = 0; i < 200; ++i) put.push_back(*volume.put(1024, kOrdinary));
  volume.checkpoint();
  for (const BlockAddr at : put) volume.allocator->free({at, 1024}, volume.superblock.epoch + 1);
  volume.checkpoint();
  EXPECT_LT(volume.device.host_used(), 200 * 1024U);
  volume.device.set_host_blocks(volume.device.host_used());
  for (uint64_t given = 0; given < reserve; given += 64) {
    ASSERT_TRUE(volume.allocator->reserve(64, kEssential)) << given << " of " << reserve;
  }
}

TEST(HostBacking, TheImageDoesNotGrowWhileItHasRoom) {
  Volume volume(kTiBBlocks);
  std::vector<BlockAddr> live;
  Random random(5);
  for (int round = 0; round < 60; ++round) {
    for (int i = 0; i < 400; ++i) live.push_back(*volume.put(16, kOrdinary));
    while (live.size() > 2000) {
      const size_t at = random.below(live.size());
      volume.allocator->free({live[at], 16}, volume.superblock.epoch + 1);
      live[at] = live.back();
      live.pop_back();
    }
    volume.checkpoint();
  }
  // 32000 blocks live, 384000 written.
  EXPECT_LT(volume.device.host_used(), 32000 * 4 + volume.allocator->figures().reserve_blocks);
}

TEST(HostBacking, LargeSparseVolumesCostNothing) {
  const auto begin = std::chrono::steady_clock::now();
  Volume volume(80 * kTiBBlocks);
  ASSERT_TRUE(volume.put(1000, kOrdinary));
  ASSERT_TRUE(volume.put(1, kOrdinary));
  volume.checkpoint();
  volume.reopen();
  ASSERT_TRUE(volume.put(1, kOrdinary));
  EXPECT_LE(volume.allocator->loaded_regions(), 4U);
  EXPECT_LT(volume.device.host_used(), 100000U);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(took.count(), 5.0);

  Superblock too_large;
  too_large.block_count = kMaxVolumeBlocks + 1;
  HostModelDevice device(too_large.block_count);
  EXPECT_EQ(Allocator::format(device, too_large).error().code, Code::device_size);
}

TEST(HostBacking, BitmapsWithoutChangesLeaveMemory) {
  Volume volume(40 * kRegionBlocks);
  volume.reopen(2);
  std::vector<BlockAddr> put;
  for (int i = 0; i < 200; ++i) put.push_back(*volume.put(4096, kOrdinary));
  EXPECT_GT(volume.allocator->loaded_regions(), 20U) << "what changed must stay";
  volume.checkpoint();
  for (int i = 0; i < 40; ++i) put.push_back(*volume.put(4096, kOrdinary));
  EXPECT_LT(volume.allocator->loaded_regions(), 12U);
  for (const BlockAddr at : put) volume.allocator->free({at, 4096}, volume.superblock.epoch + 1);
  volume.checkpoint();
  EXPECT_EQ(volume.superblock.used_blocks, 0U);
}

TEST(HostBacking, ManyThreads) {
  Volume volume(6 * kRegionBlocks);
  // Something in each region, and none of them in memory.
  for (int i = 0; i < 6; ++i) ASSERT_TRUE(volume.put(4000, kOrdinary));
  for (int i = 0; i < 6 * 30; ++i) ASSERT_TRUE(volume.put(256, kOrdinary));
  volume.checkpoint();
  volume.reopen(1);
  const uint64_t before = volume.superblock.used_blocks;
  std::vector<std::vector<Extent>> kept(4);
  std::atomic<Epoch> open_epoch{volume.superblock.epoch + 1};
  std::atomic<int> running{4};
  std::shared_mutex gate;
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kept.size(); ++t) {
    threads.emplace_back([&, t] {
      Random random(t);
      for (int i = 0; i < 6000; ++i) {
        const uint64_t blocks = 1 + random.below(random.one_in(4) ? 200 : 8);
        const auto first = volume.allocator->reserve(blocks, kOrdinary);
        if (first && random.one_in(10)) {
          volume.allocator->cancel({*first, blocks});
        } else if (first) {
          const std::shared_lock<std::shared_mutex> shared(gate);
          volume.allocator->commit({*first, blocks}, open_epoch);
          kept[t].push_back({*first, blocks});
        }
        if (kept[t].size() > 150 || (!first && !kept[t].empty())) {
          const std::shared_lock<std::shared_mutex> shared(gate);
          const size_t at = random.below(kept[t].size());
          volume.allocator->free(kept[t][at], open_epoch);
          kept[t][at] = kept[t].back();
          kept[t].pop_back();
        }
      }
      --running;
    });
  }
  Superblock& superblock = volume.superblock;
  do {
    {
      const std::unique_lock<std::shared_mutex> exclusive(gate);
      ++open_epoch;
    }
    superblock.epoch = open_epoch - 1;
    const auto done = volume.allocator->write_checkpoint(superblock.epoch, superblock);
    ASSERT_TRUE(done) << done.error().to_string();
    volume.allocator->release_through(superblock.epoch);
  } while (running > 0);
  for (std::thread& thread : threads) thread.join();
  superblock.epoch = open_epoch;
  ASSERT_TRUE(volume.allocator->write_checkpoint(superblock.epoch, superblock));
  volume.allocator->release_through(superblock.epoch);
  std::set<uint64_t> blocks;
  for (const auto& extents : kept) {
    for (const Extent& extent : extents) {
      for (uint64_t i = 0; i < extent.blocks; ++i) {
        ASSERT_TRUE(blocks.insert(raw(extent.first) + i).second);
      }
    }
  }
  EXPECT_EQ(superblock.used_blocks, before + blocks.size());
  EXPECT_EQ(volume.allocator->figures().used_blocks, before + blocks.size());
}

}  // namespace
}  // namespace caw
