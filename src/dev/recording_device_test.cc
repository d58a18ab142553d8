#include "dev/recording_device.h"

#include <gtest/gtest.h>

#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/bytes.h"
#include "dev/faulty_device.h"

namespace caw {
namespace {

std::string block_of(char c, uint64_t blocks = 1) { return std::string(blocks * kBlockSize, c); }

std::string contents_of(const MemoryImage& image, uint64_t first, uint64_t blocks = 1) {
  std::string out(blocks * kBlockSize, '?');
  image.read(BlockAddr{first}, {reinterpret_cast<std::byte*>(out.data()), out.size()});
  return out;
}

/// A log on 8 blocks of '0' and a device that fills it.
class Recorded : public testing::Test {
 protected:
  static Ref<MemoryImage> zero_digits() {
    auto image = make_ref<MemoryImage>(uint64_t{8});
    image->write(BlockAddr{0}, as_bytes(block_of('0', 8)));
    return image;
  }
  void write(uint64_t first, char c, uint64_t blocks = 1) {
    ASSERT_TRUE(device_.write(BlockAddr{first}, as_bytes(block_of(c, blocks))));
  }
  Ref<MemoryImage> base_ = zero_digits();
  WriteLog log_{base_->clone()};
  FaultPlan plan_;
  RecordingDevice device_{std::make_unique<FaultyDevice>(make_memory_device(base_), plan_), log_};
};

TEST_F(Recorded, FlushedWritesAreInEveryImage) {
  write(1, 'a');
  write(2, 'b');
  ASSERT_TRUE(device_.flush());
  write(2, 'c');
  CrashExplorer crash(log_);
  while (crash.advance()) {
  }
  EXPECT_EQ(crash.point(), log_.point());
  ASSERT_EQ(crash.in_flight().size(), 1U);
  const Fate absent[] = {Fate::absent};
  const Fate whole[] = {Fate::whole};
  EXPECT_EQ(contents_of(*crash.image(absent, 0), 1), block_of('a'));
  EXPECT_EQ(contents_of(*crash.image(absent, 0), 2), block_of('b'));
  EXPECT_EQ(contents_of(*crash.image(whole, 0), 2), block_of('c'));
  EXPECT_EQ(contents_of(*log_.base(), 1), block_of('0'));
}

TEST_F(Recorded, EverySubsetOfWhatIsInFlightCanBeBuilt) {
  write(1, 'a');
  write(2, 'b');
  write(1, 'c');
  CrashExplorer crash(log_);
  while (crash.advance()) {
  }
  ASSERT_EQ(crash.in_flight().size(), 3U);
  std::set<std::string> states;
  for (unsigned subset = 0; subset < 8; ++subset) {
    std::vector<Fate> fates;
    for (unsigned i = 0; i < 3; ++i) {
      fates.push_back(((subset >> i) & 1U) != 0 ? Fate::whole : Fate::absent);
    }
    const auto image = crash.image(fates, 0);
    states.insert({contents_of(*image, 1)[0], contents_of(*image, 2)[0]});
  }
  EXPECT_EQ(states, (std::set<std::string>{"00", "a0", "c0", "0b", "ab", "cb"}));
}

TEST_F(Recorded, TornWritesMixOldAndNewSectors) {
  write(3, 'a', 2);
  CrashExplorer crash(log_);
  while (crash.advance()) {
  }
  const Fate torn[] = {Fate::torn};
  std::set<std::string> states;
  for (uint64_t seed = 0; seed < 50; ++seed) {
    const std::string found = contents_of(*crash.image(torn, seed), 3, 2);
    EXPECT_NE(found.find('a'), std::string::npos);
    EXPECT_NE(found.find('0'), std::string::npos);
    for (size_t at = 0; at < found.size(); at += 512) {
      EXPECT_EQ(found.substr(at, 512), std::string(512, found[at]));
    }
    EXPECT_EQ(contents_of(*crash.image(torn, seed), 3, 2), found) << "a seed replays";
    EXPECT_EQ(contents_of(*crash.image(torn, seed), 5), block_of('0'));
    states.insert(found);
  }
  EXPECT_GT(states.size(), 20U);
}

TEST_F(Recorded, EachOperationBeginsAndEndsAtItsOwnPoint) {
  write(1, 'a');                 // points 1, 2
  ASSERT_TRUE(device_.flush());  // points 3, 4
  EXPECT_EQ(log_.point(), 4U);
  CrashExplorer crash(log_);
  EXPECT_TRUE(crash.in_flight().empty());
  for (size_t in_flight : {1U, 1U, 1U, 0U}) {
    ASSERT_TRUE(crash.advance());
    EXPECT_EQ(crash.in_flight().size(), in_flight) << "at point " << crash.point();
  }
  EXPECT_FALSE(crash.advance());
}

TEST_F(Recorded, AFailedWriteMayStillReachTheMedium) {
  plan_.arm({.on = DeviceOp::write, .at = 1});
  EXPECT_EQ(device_.write(BlockAddr{1}, as_bytes(block_of('a'))).error().code, Code::device_write);
  ASSERT_TRUE(device_.flush());
  CrashExplorer crash(log_);
  while (crash.advance()) {
  }
  ASSERT_EQ(crash.in_flight().size(), 1U);
  const Fate whole[] = {Fate::whole};
  EXPECT_EQ(contents_of(*crash.image(whole, 0), 1), block_of('a'));
}

TEST_F(Recorded, AFailedFlushMakesNothingDurable) {
  write(1, 'a');
  plan_.arm({.on = DeviceOp::flush, .at = 1});
  EXPECT_EQ(device_.flush().error().code, Code::device_flush);
  CrashExplorer crash(log_);
  while (crash.advance()) {
  }
  EXPECT_EQ(crash.in_flight().size(), 1U);
}

TEST_F(Recorded, ADiscardMayTakeTheContentsAway) {
  ASSERT_TRUE(device_.discard(BlockAddr{2}, 2));
  CrashExplorer crash(log_);
  while (crash.advance()) {
  }
  const Fate absent[] = {Fate::absent};
  const Fate whole[] = {Fate::whole};
  EXPECT_EQ(contents_of(*crash.image(absent, 0), 2, 2), block_of('0', 2));
  EXPECT_EQ(contents_of(*crash.image(whole, 0), 2, 2), block_of('\0', 2));
}

TEST_F(Recorded, AFlushCoversOnlyWritesThatHadReturned) {
  const size_t early =
      log_.begin(LoggedKind::write, BlockAddr{1}, make_block_contents(as_bytes(block_of('a'))));
  const size_t late =
      log_.begin(LoggedKind::write, BlockAddr{2}, make_block_contents(as_bytes(block_of('b'))));
  log_.end(early);
  const size_t flush = log_.begin(LoggedKind::flush, BlockAddr{0}, {});
  log_.end(late);
  log_.end(flush);
  CrashExplorer crash(log_);
  while (crash.advance()) {
  }
  ASSERT_EQ(crash.in_flight().size(), 1U);
  EXPECT_EQ(crash.in_flight()[0]->first, BlockAddr{2});
}

TEST_F(Recorded, LogsTheWritesOfAllThreads) {
  {
    std::vector<std::jthread> threads;
    for (uint64_t thread = 0; thread < 4; ++thread) {
      threads.emplace_back([this, thread] {
        for (int round = 0; round < 25; ++round) {
          write(thread, static_cast<char>('a' + round));
          EXPECT_TRUE(device_.flush());
        }
      });
    }
  }
  CrashExplorer crash(log_);
  while (crash.advance()) {
  }
  EXPECT_EQ(log_.point(), 4U * 25 * 4);
  EXPECT_TRUE(crash.in_flight().empty());
  EXPECT_EQ(contents_of(*crash.image({}, 0), 0, 4), block_of('y', 4));
}

class Faulty : public testing::Test {
 protected:
  FaultPlan plan_;
  FaultyDevice device_{make_memory_device(8), plan_};
  std::string data_ = block_of('x');
  Result<void> write(uint64_t at) { return device_.write(BlockAddr{at}, as_bytes(data_)); }
  char found(uint64_t at) {
    std::string out = block_of('?');
    EXPECT_TRUE(
        device_.read(BlockAddr{at}, {reinterpret_cast<std::byte*>(out.data()), out.size()}));
    return out[out.size() / 2];
  }
};

TEST_F(Faulty, OnlyTheChosenOperationFails) {
  plan_.arm({.on = DeviceOp::write, .at = 2});
  EXPECT_TRUE(write(0));
  EXPECT_TRUE(device_.flush());
  const Result<void> failed = write(1);
  EXPECT_EQ(failed.error().code, Code::device_write);
  EXPECT_EQ(failed.error().as_errno(), EIO);
  EXPECT_TRUE(write(2));
  EXPECT_EQ(plan_.count(DeviceOp::write), 3U);
  EXPECT_EQ(plan_.count(DeviceOp::flush), 1U);
  EXPECT_EQ(plan_.hits(), 1U);
  EXPECT_EQ(found(1), '\0');
}

TEST_F(Faulty, FailsForEverUntilDisarmed) {
  plan_.arm({.on = DeviceOp::flush, .at = 1, .for_ever = true});
  EXPECT_EQ(device_.flush().error().code, Code::device_flush);
  EXPECT_EQ(device_.flush().error().code, Code::device_flush);
  plan_.disarm();
  EXPECT_TRUE(device_.flush());
}

TEST_F(Faulty, BackingFailsForWantOfSpace) {
  plan_.arm({.on = DeviceOp::ensure_backed});
  const Result<void> failed = device_.ensure_backed(BlockAddr{0}, 1);
  EXPECT_EQ(failed.error().code, Code::device_full);
  EXPECT_EQ(failed.error().as_errno(), ENOSPC);
}

TEST_F(Faulty, OneRequestOfABatchFails) {
  plan_.arm({.on = DeviceOp::write, .at = 2, .error = Error{Code::device_full, ENOSPC, 0, ""}});
  const WriteRequest batch[] = {{BlockAddr{0}, as_bytes(data_)},
                                {BlockAddr{1}, as_bytes(data_)},
                                {BlockAddr{2}, as_bytes(data_)}};
  EXPECT_EQ(device_.write_batch(batch).error().code, Code::device_full);
  EXPECT_EQ(found(0), 'x');
  EXPECT_EQ(found(1), '\0');
  EXPECT_EQ(found(2), 'x');
}

TEST_F(Faulty, LiesAreReportedAsSuccess) {
  plan_.arm({.on = DeviceOp::write, .kind = FaultKind::lost});
  EXPECT_TRUE(write(0));
  EXPECT_EQ(found(0), '\0');
  plan_.arm({.on = DeviceOp::write, .kind = FaultKind::misplaced});
  EXPECT_TRUE(write(1));
  EXPECT_EQ(found(1), '\0');
  EXPECT_EQ(found(2), 'x');
  plan_.arm({.on = DeviceOp::write, .kind = FaultKind::flip});
  EXPECT_TRUE(write(3));
  EXPECT_EQ(found(3), 'x' ^ 1);
  plan_.arm({.on = DeviceOp::read, .kind = FaultKind::flip});
  EXPECT_EQ(found(2), 'x' ^ 1);
  EXPECT_EQ(found(2), 'x');
}

}  // namespace
}  // namespace caw
