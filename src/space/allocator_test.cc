#include "space/allocator.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <thread>
#include <vector>

#include "base/random.h"
#include "space/bitmap_allocator.h"
#include "space/host_model_device.h"

namespace caw {
namespace {

constexpr auto kOrdinary = SpaceClass::ordinary;
constexpr auto kEssential = SpaceClass::essential;

Superblock make_volume(BlockDevice& device, uint64_t blocks) {
  Superblock superblock;
  superblock.block_count = blocks;
  const auto done = Allocator::format(device, superblock);
  EXPECT_TRUE(done) << done.error().to_string();
  return superblock;
}

std::unique_ptr<BitmapAllocator> open_volume(BlockDevice& device, const Superblock& superblock,
                                             size_t max_loaded = BitmapAllocator::kMaxLoaded) {
  auto allocator = BitmapAllocator::open(device, superblock, max_loaded);
  EXPECT_TRUE(allocator) << allocator.error().to_string();
  return allocator ? std::move(*allocator) : nullptr;
}

BlockAddr must_reserve(Allocator& allocator, uint64_t blocks, SpaceClass c = kOrdinary) {
  const auto first = allocator.reserve(blocks, c);
  EXPECT_TRUE(first) << first.error().to_string();
  return first ? *first : kNoBlock;
}

void checkpoint(Allocator& allocator, Epoch epoch, Superblock& superblock) {
  const auto done = allocator.write_checkpoint(epoch, superblock);
  ASSERT_TRUE(done) << done.error().to_string();
  superblock.epoch = epoch;
}

/// What the bitmaps that `superblock` names say is in use, without what is used for good.  Read
/// from the device, not through the allocator.
std::set<uint64_t> used_on_disk(BlockDevice& device, const Superblock& superblock) {
  const RegionGeometry geometry(superblock.block_count);
  std::set<uint64_t> used;
  AlignedBuffer table(kBlockSize), bitmap(kBlockSize);
  for (uint32_t t = 0; t < geometry.table_blocks; ++t) {
    const auto slot = static_cast<uint32_t>(superblock.region_table_slots[t / 64] >> t % 64 & 1);
    EXPECT_TRUE(device.read(geometry.table_slot(t, slot), table.span()));
    const auto block = decode_region_table_block(table.view(), t, geometry);
    EXPECT_TRUE(block);
    for (uint32_t i = 0; block && i < block->entries.size(); ++i) {
      if (!block->entries[i].written) continue;
      const uint32_t region = t * kRegionsPerTableBlock + i;
      EXPECT_TRUE(device.read(geometry.bitmap_slot(region, block->entries[i].slot), bitmap.span()));
      for (uint32_t b = geometry.fixed_blocks(region); b < geometry.size_blocks(region); ++b) {
        const unsigned byte = static_cast<unsigned char>(bitmap.chars()[b / 8]);
        if ((byte >> b % 8 & 1U) != 0) used.insert(region * kRegionBlocks + b);
      }
    }
  }
  return used;
}

TEST(Allocator, FreshVolumeIsAllFree) {
  HostModelDevice device(4096);
  const auto allocator = open_volume(device, make_volume(device, 4096));
  const SpaceFigures figures = allocator->figures();
  EXPECT_EQ(figures.total_blocks, 4090U);
  EXPECT_EQ(figures.used_blocks, 0U);
  EXPECT_EQ(figures.reserve_blocks, 1024U);
}

TEST(Allocator, OrdinaryRequestsLeaveTheReserveAndEssentialOnesUseIt) {
  HostModelDevice device(4096);
  const auto allocator = open_volume(device, make_volume(device, 4096));
  uint64_t given = 0;
  while (allocator->reserve(1, kOrdinary)) ++given;
  EXPECT_EQ(given, 4090U - 1024U);
  EXPECT_EQ(allocator->reserve(1, kOrdinary).error().code, Code::no_space);
  while (allocator->reserve(1, kEssential)) ++given;
  EXPECT_EQ(given, 4090U);
  EXPECT_EQ(allocator->reserve(1, kEssential).error().code, Code::no_space);
  EXPECT_EQ(allocator->figures().used_blocks, 4090U);
}

TEST(Allocator, CancelGivesBackAtOnce) {
  HostModelDevice device(4096);
  const auto allocator = open_volume(device, make_volume(device, 4096));
  for (int i = 0; i < 1000; ++i) {
    const BlockAddr first = must_reserve(*allocator, 3000, kEssential);
    allocator->cancel({first, 3000});
  }
  EXPECT_EQ(allocator->figures().used_blocks, 0U);
}

TEST(Allocator, FreedBlocksWaitForTheirCheckpoint) {
  HostModelDevice device(4096);
  Superblock superblock = make_volume(device, 4096);
  const auto allocator = open_volume(device, superblock);
  const BlockAddr first = must_reserve(*allocator, 4000, kEssential);
  allocator->commit({first, 4000}, 1);
  checkpoint(*allocator, 1, superblock);
  allocator->release_through(1);
  allocator->free({first, 4000}, 2);
  EXPECT_EQ(allocator->figures().reclaiming_blocks, 4000U);
  EXPECT_FALSE(allocator->reserve(100, kEssential));
  checkpoint(*allocator, 2, superblock);
  EXPECT_FALSE(allocator->reserve(100, kEssential));
  allocator->release_through(2);
  EXPECT_EQ(allocator->figures().reclaiming_blocks, 0U);
  EXPECT_TRUE(allocator->reserve(100, kEssential));
}

TEST(Allocator, CheckpointHoldsItsEpochsOnly) {
  HostModelDevice device(4096);
  Superblock superblock = make_volume(device, 4096);
  const auto allocator = open_volume(device, superblock);
  const BlockAddr a = must_reserve(*allocator, 1), b = must_reserve(*allocator, 1),
                  c = must_reserve(*allocator, 1), d = must_reserve(*allocator, 1);
  allocator->commit({b, 1}, 2);       // before those of epoch 1
  allocator->commit({a, 1}, 1);
  allocator->commit({c, 1}, 1);
  allocator->free({c, 1}, 2);         // d stays reserved
  checkpoint(*allocator, 1, superblock);
  EXPECT_EQ(used_on_disk(device, superblock), (std::set<uint64_t>{raw(a), raw(c)}));
  EXPECT_EQ(superblock.used_blocks, 2U);
  allocator->release_through(1);
  checkpoint(*allocator, 2, superblock);
  EXPECT_EQ(used_on_disk(device, superblock), (std::set<uint64_t>{raw(a), raw(b)}));
  allocator->cancel({d, 1});
}

TEST(Allocator, AFreeOfWhatIsNotInUseFailsTheCheckpoint) {
  for (const Extent extent : {Extent{BlockAddr{100}, 1}, Extent{BlockAddr{4}, 1},
                              Extent{BlockAddr{9999999}, 1}, Extent{BlockAddr{4095}, 5},
                              Extent{BlockAddr{100}, uint64_t{1} << 32}}) {
    HostModelDevice device(4096);
    Superblock superblock = make_volume(device, 4096);
    const auto allocator = open_volume(device, superblock);
    allocator->free(extent, 1);
    const auto done = allocator->write_checkpoint(1, superblock);
    ASSERT_FALSE(done);
    EXPECT_EQ(done.error().code, Code::bitmap_damaged);
    EXPECT_EQ(done.error().detail, raw(extent.first));
  }
}

TEST(Allocator, ASecondCheckpointMustWaitForTheFirst) {
  HostModelDevice device(4096);
  Superblock superblock = make_volume(device, 4096);
  const auto allocator = open_volume(device, superblock);
  allocator->commit({must_reserve(*allocator, 1), 1}, 1);
  checkpoint(*allocator, 1, superblock);
  EXPECT_EQ(allocator->write_checkpoint(2, superblock).error().code, Code::checkpoint_order);
}

TEST(Allocator, ShortLastRegionIsUsedToItsEndOnly) {
  const uint64_t blocks = kRegionBlocks + 1000;
  HostModelDevice device(blocks);
  Superblock superblock = make_volume(device, blocks);
  auto allocator = open_volume(device, superblock);
  std::set<uint64_t> given;
  while (const auto first = allocator->reserve(1, kEssential)) {
    ASSERT_LT(raw(*first), blocks);
    ASSERT_TRUE(given.insert(raw(*first)).second);
    allocator->commit({*first, 1}, 1);
  }
  EXPECT_EQ(given.size(), allocator->figures().total_blocks);
  EXPECT_EQ(given.size(), kRegionBlocks - 6 + 998);
  checkpoint(*allocator, 1, superblock);
  EXPECT_EQ(used_on_disk(device, superblock), given);
  allocator = open_volume(device, superblock);
  EXPECT_FALSE(allocator->reserve(1, kEssential));
}

TEST(Allocator, DamageIsReported) {
  HostModelDevice device(4096);
  Superblock superblock = make_volume(device, 4096);
  {
    const auto allocator = open_volume(device, superblock);
    allocator->commit({must_reserve(*allocator, 5), 5}, 1);
    checkpoint(*allocator, 1, superblock);
  }
  const AlignedBuffer garbage(kBlockSize);
  ASSERT_TRUE(device.write(BlockAddr{5}, garbage.span()));   // bitmap slot 1
  auto allocator = open_volume(device, superblock);
  const auto first = allocator->reserve(1, kOrdinary);
  ASSERT_FALSE(first);
  EXPECT_EQ(first.error().code, Code::bitmap_damaged);
  EXPECT_EQ(first.error().detail, 5U);

  Superblock wrong_hash = superblock;
  wrong_hash.region_table_hash ^= 1;
  EXPECT_EQ(Allocator::open(device, wrong_hash).error().code, Code::region_table);
  Superblock older = superblock;
  older.epoch = 0;
  EXPECT_EQ(Allocator::open(device, older).error().code, Code::region_table);
  ASSERT_TRUE(device.write(BlockAddr{3}, garbage.span()));   // table slot 1
  EXPECT_EQ(Allocator::open(device, superblock).error().code, Code::region_table);

  Superblock longer = superblock;
  longer.block_count = 5000;
  EXPECT_EQ(Allocator::open(device, longer).error().code, Code::volume_truncated);
  longer.block_count = 10;
  EXPECT_EQ(Allocator::open(device, longer).error().code, Code::device_size);
}

/// Random work with checkpoints one epoch behind, against sets of blocks.
class AllocatorModel {
 public:
  AllocatorModel(uint64_t blocks, uint64_t seed, size_t max_loaded)
      : device_(blocks), random_(seed), max_loaded_(max_loaded) {
    superblock_ = make_volume(device_, blocks);
    allocator_ = open_volume(device_, superblock_, max_loaded_);
  }

  void run(int steps) {
    for (int i = 0; i < steps && !testing::Test::HasFatalFailure(); ++i) {
      const uint64_t dice = random_.below(1000);
      if (dice < 550) {
        reserve();
      } else if (dice < 980) {
        free_one();
      } else if (dice < 998) {
        take_checkpoint();
      } else {
        reopen();
      }
    }
  }

 private:
  void reserve() {
    const bool large = random_.one_in(10);
    const uint64_t blocks = 1 + random_.below(large ? 600 : random_.one_in(2) ? 8 : 64);
    const auto first = allocator_->reserve(blocks, random_.one_in(8) ? kEssential : kOrdinary);
    if (!first) {
      ASSERT_EQ(first.error().code, Code::no_space);
      return;
    }
    ASSERT_EQ(raw(*first) / kRegionBlocks, (raw(*first) + blocks - 1) / kRegionBlocks);
    for (uint64_t b = raw(*first); b < raw(*first) + blocks; ++b) {
      ASSERT_TRUE(busy_.insert(b).second) << "given out twice: " << b;
    }
    if (random_.one_in(20)) {
      allocator_->cancel({*first, blocks});
      erase(busy_, {*first, blocks});
      return;
    }
    allocator_->commit({*first, blocks}, epoch_);
    live_.push_back({*first, blocks});
    for (uint64_t b = raw(*first); b < raw(*first) + blocks; ++b) current_.insert(b);
  }

  void free_one() {
    if (live_.empty()) return;
    const size_t at = random_.below(live_.size());
    const Extent extent = live_[at];
    live_[at] = live_.back();
    live_.pop_back();
    allocator_->free(extent, epoch_);
    erase(current_, extent);
    freed_[epoch_].push_back(extent);
  }

  void take_checkpoint() {
    const Epoch sealed = epoch_++;
    const std::set<uint64_t> expected = current_;
    for (int i = 0; i < 20; ++i) random_.one_in(2) ? reserve() : free_one();   // of the next epoch
    const Superblock before = superblock_;
    checkpoint(*allocator_, sealed, superblock_);
    ASSERT_EQ(used_on_disk(device_, superblock_), expected);
    ASSERT_EQ(superblock_.used_blocks, expected.size());
    if (on_disk_known_) {
      ASSERT_EQ(used_on_disk(device_, before), on_disk_) << "the older checkpoint was overwritten";
    }
    on_disk_ = expected;
    on_disk_known_ = true;
    allocator_->release_through(sealed);
    while (!freed_.empty() && freed_.begin()->first <= sealed) {
      for (const Extent& extent : freed_.begin()->second) erase(busy_, extent);
      freed_.erase(freed_.begin());
    }
    ASSERT_EQ(allocator_->figures().used_blocks, busy_.size());
  }

  /// A crash: all since the last checkpoint is forgotten.
  void reopen() {
    if (!on_disk_known_) return;
    allocator_ = open_volume(device_, superblock_, max_loaded_);
    busy_ = current_ = on_disk_;
    freed_.clear();
    live_.clear();
    epoch_ = superblock_.epoch + 1;
    for (const uint64_t b : on_disk_) {
      if (!live_.empty() && raw(live_.back().first) + live_.back().blocks == b &&
          b % kRegionBlocks != 0 && live_.back().blocks < 20) {
        ++live_.back().blocks;
      } else {
        live_.push_back({BlockAddr{b}, 1});
      }
    }
    ASSERT_EQ(allocator_->figures().used_blocks, busy_.size());
  }

  static void erase(std::set<uint64_t>& blocks, const Extent& extent) {
    for (uint64_t i = 0; i < extent.blocks; ++i) blocks.erase(raw(extent.first) + i);
  }

  HostModelDevice device_;
  Random random_;
  const size_t max_loaded_;
  Superblock superblock_;
  std::unique_ptr<BitmapAllocator> allocator_;
  Epoch epoch_ = 1;
  std::vector<Extent> live_;
  std::set<uint64_t> busy_;      // may not be given out
  std::set<uint64_t> current_;   // committed and not freed
  std::set<uint64_t> on_disk_;
  bool on_disk_known_ = false;
  std::map<Epoch, std::vector<Extent>> freed_;
};

TEST(Allocator, AChurnedVolumeStillHasLongRunsWhenItIsNearlyFull) {
  const uint64_t blocks = 16 * kRegionBlocks;
  HostModelDevice device(blocks);
  Superblock superblock = make_volume(device, blocks);
  const auto allocator = open_volume(device, superblock);
  const uint64_t target = allocator->figures().total_blocks / 100 * 93;
  Random random(3);
  std::vector<Extent> live;
  uint64_t used = 0, requests = 0, refused = 0;
  for (Epoch epoch = 1; epoch <= 40; ++epoch) {
    while (used < target) {
      const uint64_t count = random.one_in(2) ? 32 : 1 + random.below(32);
      const auto first = allocator->reserve(count, kOrdinary);
      ++requests;
      if (!first) {
        ++refused;
        ASSERT_LE(refused, 1 + requests / 100);
        continue;
      }
      allocator->commit({*first, count}, epoch);
      live.push_back({*first, count});
      used += count;
    }
    for (size_t i = live.size() / 10; i > 0; --i) {
      const size_t at = random.below(live.size());
      allocator->free(live[at], epoch);
      used -= live[at].blocks;
      live[at] = live.back();
      live.pop_back();
    }
    checkpoint(*allocator, epoch, superblock);
    allocator->release_through(epoch);
  }
}

TEST(Allocator, RandomWorkInOneSmallRegion) {
  AllocatorModel(5000, 11, 4096).run(5000);
}

TEST(Allocator, RandomWorkInSeveralRegions) {
  AllocatorModel(3 * kRegionBlocks + 777, 12, 4096).run(5000);
}

TEST(Allocator, RandomWorkWithFewRegionsInMemory) {
  AllocatorModel(4 * kRegionBlocks + 5, 13, 1).run(4000);
}

}  // namespace
}  // namespace caw
