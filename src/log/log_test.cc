#include "log/log.h"

#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "base/aligned_buffer.h"
#include "base/bytes.h"
#include "base/random.h"
#include "dev/faulty_device.h"
#include "dev/memory_device.h"
#include "dev/recording_device.h"
#include "format/log_record.h"
#include "log/log_reader.h"

namespace caw {
namespace {

constexpr uint64_t kBlocks = 64;
constexpr Log::Uuid kUuid = {1, 2, 3};

/// Two segments apart from each other: 8 blocks and 5.
LogRing small_ring() {
  const std::array<LogSegment, 2> segments = {LogSegment{BlockAddr{10}, 8},
                                              LogSegment{BlockAddr{30}, 5}};
  return LogRing(segments);
}

std::string record_of(size_t bytes, uint64_t mark) {
  LogRecordBuilder builder;
  builder.add_message(NodeId{7}, "key" + std::to_string(mark),
                      Message::put(inline_value(std::string(bytes, 'v'))));
  return builder.finish();
}

/// Numbers of the records that are there.
std::vector<Seq> read_back(BlockDevice& device, uint64_t position,
                           const Log::Uuid& uuid = kUuid) {
  const auto contents = read_log(device, small_ring(), uuid, position);
  EXPECT_TRUE(contents.has_value());
  std::vector<Seq> out;
  LogCursor cursor(*contents);
  while (true) {
    const Result<bool> more = cursor.next();
    EXPECT_TRUE(more.has_value());
    if (!more || !*more) return out;
    out.push_back(cursor.record().seq);
  }
}

Code code_of(const Result<void>& result) { return result ? Code::unknown : result.error().code; }

TEST(Log, CommittedRecordsComeBack) {
  const auto device = make_memory_device(kBlocks);
  Log log(*device, small_ring(), kUuid, 100, 5);
  EXPECT_EQ(log.append(record_of(10, 0)), 5U);
  EXPECT_EQ(log.append(record_of(9000, 1)), 6U);
  EXPECT_TRUE(read_back(*device, 100).empty());
  ASSERT_TRUE(log.commit(6).has_value());
  EXPECT_EQ(log.append(record_of(10, 2)), 7U);
  ASSERT_TRUE(log.commit(8).has_value());
  EXPECT_EQ(read_back(*device, 100), (std::vector<Seq>{5, 6, 7}));
  EXPECT_TRUE(read_back(*device, 101).empty());
  EXPECT_TRUE(read_back(*device, 100, Log::Uuid{9}).empty());
  EXPECT_EQ(log.figures().flushes, 2U);
  ASSERT_TRUE(log.commit(8).has_value());  // nothing to do
  EXPECT_EQ(log.figures().flushes, 2U);
}

TEST(Log, AFullRingWaitsForACheckpoint) {
  const auto device = make_memory_device(kBlocks);
  Log log(*device, small_ring(), kUuid, 0, 1);
  for (int i = 0; i < 5; ++i) {
    log.append(record_of(8000, 1));
    ASSERT_TRUE(log.commit(log.next_seq()).has_value());
  }
  EXPECT_TRUE(log.is_filling());
  log.append(record_of(16000, 2));
  EXPECT_EQ(code_of(log.commit(7)), Code::log_full);
  EXPECT_TRUE(log.write_behind().has_value());
  const Seq cut = log.cut();
  EXPECT_EQ(cut, 7U);
  log.append(record_of(10, 3));
  const Result<uint64_t> position = log.position_after_cut();
  ASSERT_TRUE(position.has_value());
  // Number 6 was dropped: number 7 alone would not be a prefix.
  EXPECT_EQ(code_of(log.commit(8)), Code::log_full);
  EXPECT_EQ(read_back(*device, 0).back(), 5U);
  log.trim(*position, cut);
  EXPECT_TRUE(log.commit(7).has_value());
  ASSERT_TRUE(log.commit(8).has_value());
  EXPECT_EQ(read_back(*device, *position), std::vector<Seq>{7});
}

TEST(Log, WithoutARingEverythingIsRefused) {
  const auto device = make_memory_device(kBlocks);
  Log log(*device, LogRing(), kUuid, 0, 1);
  log.append(record_of(10, 1));
  EXPECT_EQ(log.pending_bytes(), 0U);
  EXPECT_EQ(code_of(log.commit(2)), Code::log_full);
  const Seq cut = log.cut();
  EXPECT_EQ(log.position_after_cut().value_or(9), 0U);
  log.trim(0, cut);
  EXPECT_TRUE(log.commit(2).has_value());
}

TEST(Log, NothingIsWrittenWhileItIsHeld) {
  const auto device = make_memory_device(kBlocks);
  Log log(*device, small_ring(), kUuid, 26, 9);
  log.hold_until_trim();
  log.append(record_of(10, 1));
  EXPECT_EQ(code_of(log.commit(10)), Code::log_full);
  const Seq cut = log.cut();
  log.append(record_of(10, 2));
  EXPECT_EQ(log.position_after_cut().value_or(0), 26U);
  log.trim(26, cut);
  ASSERT_TRUE(log.commit(11).has_value());
  EXPECT_EQ(read_back(*device, 26), std::vector<Seq>{10});
}

TEST(Log, AFullHostLeavesItToTheCheckpoint) {
  FaultPlan plan;
  FaultyDevice device(make_memory_device(kBlocks), plan);
  Log log(device, small_ring(), kUuid, 100, 5);
  log.append(record_of(10, 0));
  const Seq first_cut = log.cut();
  const Result<uint64_t> first = log.position_after_cut();
  ASSERT_TRUE(first.has_value());
  log.append(record_of(10, 1));
  plan.arm({.on = DeviceOp::write, .error = Error{Code::device_full}});
  EXPECT_EQ(code_of(log.commit(7)), Code::log_full);
  // Of what failed any part may lie after the first cut: that checkpoint does not help.
  log.trim(*first, first_cut);
  EXPECT_EQ(code_of(log.commit(7)), Code::log_full);
  log.append(record_of(10, 2));
  const Seq second_cut = log.cut();
  const Result<uint64_t> second = log.position_after_cut();
  ASSERT_TRUE(second.has_value());
  EXPECT_GT(*second, *first);
  log.append(record_of(10, 3));
  EXPECT_EQ(code_of(log.commit(9)), Code::log_full);
  log.trim(*second, second_cut);
  ASSERT_TRUE(log.commit(9).has_value());
  EXPECT_EQ(read_back(device, *second), std::vector<Seq>{8});
}

TEST(Log, ManyThreadsShareAFlush) {
  const auto device = make_memory_device(4096);
  const std::array<LogSegment, 1> segments = {LogSegment{BlockAddr{1}, 4000}};
  Log log(*device, LogRing(segments), kUuid, 0, 1);
  constexpr int kThreads = 4, kRounds = 100;
  std::vector<std::jthread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&log] {
      for (int i = 0; i < kRounds; ++i) {
        const Seq seq = log.append(record_of(50, 0));
        EXPECT_TRUE(log.commit(seq + 1).has_value());
      }
    });
  }
  threads.clear();
  EXPECT_LE(log.figures().flushes, uint64_t{kThreads} * kRounds);
  const auto contents = read_log(*device, LogRing(segments), kUuid, 0);
  ASSERT_TRUE(contents.has_value());
  LogCursor cursor(*contents);
  Seq expected = 1;
  while (cursor.next().value_or(false)) EXPECT_EQ(cursor.record().seq, expected++);
  EXPECT_EQ(expected, 1U + kThreads * kRounds);
}

/// A checkpoint's superblock, as far as the log needs one: the first bytes of block 0.
void write_checkpoint(BlockDevice& device, uint64_t position, Seq seq) {
  AlignedBuffer block(kBlockSize);
  store_fixed(block.chars(), position);
  store_fixed(block.chars() + sizeof(position), seq);
  ASSERT_TRUE(device.write(BlockAddr{0}, block.span()).has_value());
  ASSERT_TRUE(device.flush().has_value());
}

struct Promise {
  uint64_t point = 0;
  Seq durable = 0;
};

/// Appends, commits, cuts and checkpoints at random.
std::vector<Promise> run_random(Log& log, BlockDevice& device, const WriteLog& written,
                                Random& random) {
  std::vector<Promise> promises;
  Seq durable = 1;
  const auto promise = [&](Seq seq) {
    durable = std::max(durable, seq);
    promises.push_back({written.point(), durable});
  };
  for (int step = 0; step < 60; ++step) {
    const uint64_t choice = random.below(10);
    if (choice < 5) {
      log.append(record_of(random.one_in(4) ? random.below(9000) : random.below(60), 0));
    } else if (choice < 8) {
      const Seq upto = log.next_seq();
      const Result<void> done = log.commit(upto);
      if (done) promise(upto);
      EXPECT_TRUE(done || done.error().code == Code::log_full);
    } else if (choice == 8) {
      EXPECT_TRUE(log.write_behind().has_value());
    } else {
      const Seq cut = log.cut();
      if (random.one_in(3)) continue;  // a checkpoint that fails early
      if (random.one_in(2)) log.append(record_of(random.below(3000), 0));
      if (random.one_in(3)) {
        if (log.commit(log.next_seq())) promise(log.next_seq());
      }
      const Result<uint64_t> position = log.position_after_cut();
      EXPECT_TRUE(position.has_value());
      if (random.one_in(4)) continue;  // one that fails late
      EXPECT_TRUE(device.flush().has_value());
      write_checkpoint(device, *position, cut);
      log.trim(*position, cut);
      promise(cut);
    }
  }
  return promises;
}

/// The records behind the checkpoint on `image` follow one another and reach `durable`.
void check_image(const Ref<MemoryImage>& image, Seq durable) {
  const auto device = make_memory_device(image);
  AlignedBuffer block(kBlockSize);
  ASSERT_TRUE(device->read(BlockAddr{0}, block.span()).has_value());
  Seq next = load_fixed<Seq>(block.chars() + sizeof(uint64_t));
  for (const Seq seq : read_back(*device, load_fixed<uint64_t>(block.chars()))) {
    ASSERT_EQ(seq, next);
    ++next;
  }
  ASSERT_GE(next, durable);
}

TEST(Log, ACrashLeavesAPrefix) {
  uint64_t images = 0;
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    Random random(seed);
    const auto base = make_ref<MemoryImage>(kBlocks);
    write_checkpoint(*make_memory_device(base), 0, 1);
    WriteLog written(base->clone());
    RecordingDevice device(make_memory_device(base), written);
    Log log(device, small_ring(), kUuid, 0, 1);
    const std::vector<Promise> promises = run_random(log, device, written, random);
    CrashExplorer crash(written);
    size_t passed = 0;
    Seq durable = 1;
    do {
      while (passed < promises.size() && promises[passed].point <= crash.point()) {
        durable = promises[passed++].durable;
      }
      for (int i = 0; i < 4; ++i) {
        std::vector<Fate> fates;
        for (size_t k = 0; k < crash.in_flight().size(); ++k) {
          fates.push_back(static_cast<Fate>(random.below(3)));
        }
        check_image(crash.image(fates, random.next()), durable);
        if (testing::Test::HasFatalFailure()) FAIL() << "seed " << seed;
        ++images;
        if (crash.in_flight().empty()) break;
      }
    } while (crash.advance());
  }
  EXPECT_GT(images, 1000U);
}

}  // namespace
}  // namespace caw
