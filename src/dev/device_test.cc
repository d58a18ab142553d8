// What every BlockDevice promises, held against each kind of device.
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/bytes.h"
#include "base/random.h"
#include "dev/block_device.h"
#include "dev/faulty_device.h"
#include "dev/memory_device.h"
#include "dev/recording_device.h"

namespace caw {
namespace {

constexpr uint64_t kBlocks = 300;

/// An image in the file system the tests run on; gone with the object.
class TemporaryImage {
 public:
  explicit TemporaryImage(off_t size_bytes) {
    char name[] = "device_test.XXXXXX";
    const int fd = ::mkstemp(name);
    EXPECT_GE(fd, 0);
    EXPECT_EQ(::ftruncate(fd, size_bytes), 0);
    ::close(fd);
    path_ = name;
  }
  ~TemporaryImage() { ::unlink(path_.c_str()); }
  const std::string& path() const { return path_; }
  uint64_t allocated_bytes() const {
    struct stat info {};
    EXPECT_EQ(::stat(path_.c_str(), &info), 0);
    return static_cast<uint64_t>(info.st_blocks) * 512;
  }

 private:
  std::string path_;
};

/// `blocks` blocks that tell `tag` and their place in the buffer.
std::string filled(uint64_t blocks, uint64_t tag) {
  Random random(tag);
  std::string out;
  while (out.size() < blocks * kBlockSize) put_fixed(out, random.next());
  return out;
}

std::string read_back(BlockDevice& device, uint64_t first, uint64_t blocks) {
  std::string out(blocks * kBlockSize, '?');
  const Result<void> result =
      device.read(BlockAddr{first}, {reinterpret_cast<std::byte*>(out.data()), out.size()});
  EXPECT_TRUE(result) << result.error().to_string();
  return out;
}

struct DeviceCase {
  const char* name;
  std::function<std::unique_ptr<BlockDevice>(const std::string& path)> open;
};

std::unique_ptr<BlockDevice> open_file(const std::string& path, bool direct) {
  auto device = open_file_device(path, {.direct = direct});
  EXPECT_TRUE(device) << device.error().to_string();
  return device ? std::move(*device) : nullptr;
}

class DeviceContract : public testing::TestWithParam<DeviceCase> {
 protected:
  void SetUp() override {
    device_ = GetParam().open(image_.path());
    ASSERT_NE(device_, nullptr);
  }
  TemporaryImage image_{static_cast<off_t>(kBlocks * kBlockSize)};
  std::unique_ptr<BlockDevice> device_;
};

TEST_P(DeviceContract, HasTheSizeOfItsImage) {
  EXPECT_EQ(device_->block_count(), kBlocks);
  EXPECT_FALSE(device_->read_only());
}

TEST_P(DeviceContract, ReadsZerosThenWhatWasWritten) {
  EXPECT_EQ(read_back(*device_, 7, 3), std::string(3 * kBlockSize, '\0'));
  const std::string data = filled(3, 1);
  ASSERT_TRUE(device_->write(BlockAddr{7}, as_bytes(data)));
  ASSERT_TRUE(device_->flush());
  EXPECT_EQ(read_back(*device_, 7, 3), data);
  EXPECT_EQ(read_back(*device_, 6, 1), std::string(kBlockSize, '\0'));
  EXPECT_EQ(read_back(*device_, 10, 1), std::string(kBlockSize, '\0'));
}

TEST_P(DeviceContract, TakesMemoryAtAnyAddress) {
  // More than the bounce buffer holds.
  const std::string data = filled(280, 2);
  for (size_t shift : {size_t{0}, size_t{1}, size_t{512}}) {
    AlignedBuffer room(data.size() + kBlockSize);
    std::memcpy(room.data() + shift, data.data(), data.size());
    ASSERT_TRUE(device_->write(BlockAddr{5}, room.span().subspan(shift, data.size())));
    std::memset(room.data(), 0, room.size());
    ASSERT_TRUE(device_->read(BlockAddr{5}, room.span().subspan(shift, data.size())));
    EXPECT_EQ(room.view().substr(shift, data.size()), data);
  }
}

TEST_P(DeviceContract, BatchesMoveEveryRequest) {
  // More requests than a ring holds, of different sizes, half of them in unaligned memory.
  std::vector<std::string> data;
  std::vector<WriteRequest> writes;
  uint64_t next = 1;
  for (uint64_t i = 0; i < 100; ++i) {
    data.push_back(filled(1 + i % 3, 100 + i));
  }
  AlignedBuffer aligned(kBlocks * kBlockSize);
  for (uint64_t i = 0; i < data.size(); ++i) {
    std::span<const std::byte> from = as_bytes(data[i]);
    if (i % 2 == 0) {
      std::memcpy(aligned.data() + next * kBlockSize, data[i].data(), data[i].size());
      from = aligned.span().subspan(next * kBlockSize, data[i].size());
    }
    writes.push_back({BlockAddr{next}, from});
    next += data[i].size() / kBlockSize;
  }
  ASSERT_LE(next, kBlocks);
  ASSERT_TRUE(device_->write_batch(writes));

  std::vector<std::string> found;
  for (const std::string& bytes : data) found.emplace_back(bytes.size(), '?');
  std::vector<ReadRequest> reads;
  for (size_t i = 0; i < data.size(); ++i) {
    reads.push_back(
        {writes[i].first, {reinterpret_cast<std::byte*>(found[i].data()), found[i].size()}});
  }
  ASSERT_TRUE(device_->read_batch(reads));
  EXPECT_EQ(found, data);
  EXPECT_TRUE(device_->read_batch({}));
  EXPECT_TRUE(device_->write_batch({}));
}

TEST_P(DeviceContract, RefusesWhatLiesPastItsEnd) {
  std::string data = filled(2, 3);
  const std::span<std::byte> room{reinterpret_cast<std::byte*>(data.data()), data.size()};
  for (uint64_t first : {kBlocks - 1, kBlocks, kBlocks + 1, UINT64_MAX}) {
    SCOPED_TRACE(first);
    const BlockAddr at{first};
    const ReadRequest read{at, room};
    const WriteRequest write{at, room};
    EXPECT_EQ(device_->read(at, room).error().code, Code::device_bounds);
    EXPECT_EQ(device_->write(at, room).error().code, Code::device_bounds);
    EXPECT_EQ(device_->read_batch({&read, 1}).error().code, Code::device_bounds);
    EXPECT_EQ(device_->write_batch({&write, 1}).error().code, Code::device_bounds);
    EXPECT_EQ(device_->ensure_backed(at, 2).error().code, Code::device_bounds);
    EXPECT_EQ(device_->discard(at, 2).error().code, Code::device_bounds);
  }
}

TEST_P(DeviceContract, BackingKeepsContentsAndDiscardKeepsNeighbours) {
  const std::string data = filled(20, 4);
  ASSERT_TRUE(device_->write(BlockAddr{10}, as_bytes(data)));
  ASSERT_TRUE(device_->ensure_backed(BlockAddr{0}, kBlocks));
  EXPECT_EQ(read_back(*device_, 10, 20), data);
  ASSERT_TRUE(device_->discard(BlockAddr{12}, 4));
  EXPECT_EQ(read_back(*device_, 10, 2), data.substr(0, 2 * kBlockSize));
  EXPECT_EQ(read_back(*device_, 16, 14), data.substr(6 * kBlockSize));
}

TEST_P(DeviceContract, ServesManyThreads) {
  constexpr uint64_t kThreads = 4;
  constexpr uint64_t kShare = kBlocks / kThreads;
  std::vector<std::jthread> threads;
  for (uint64_t thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([this, thread] {
      const uint64_t first = thread * kShare;
      for (uint64_t round = 0; round < 20; ++round) {
        const std::string one = filled(5, thread * 1000 + round);
        const std::string two = filled(5, thread * 1000 + round + 500);
        const WriteRequest writes[] = {{BlockAddr{first + round}, as_bytes(one)},
                                       {BlockAddr{first + 40 + round}, as_bytes(two)}};
        EXPECT_TRUE(device_->write_batch(writes));
        EXPECT_TRUE(device_->flush());
        EXPECT_EQ(read_back(*device_, first + round, 5), one);
        EXPECT_EQ(read_back(*device_, first + 40 + round, 5), two);
      }
    });
  }
}

FaultPlan& quiet_plan() {
  static FaultPlan plan;
  return plan;
}
WriteLog& any_log() {
  static WriteLog log(make_ref<MemoryImage>(kBlocks));
  return log;
}

INSTANTIATE_TEST_SUITE_P(
    Devices, DeviceContract,
    testing::Values(
        DeviceCase{"direct", [](const std::string& path) { return open_file(path, true); }},
        DeviceCase{"buffered", [](const std::string& path) { return open_file(path, false); }},
        DeviceCase{"memory", [](const std::string&) { return make_memory_device(kBlocks); }},
        DeviceCase{"recording",
                   [](const std::string&) -> std::unique_ptr<BlockDevice> {
                     return std::make_unique<RecordingDevice>(make_memory_device(kBlocks),
                                                              any_log());
                   }},
        DeviceCase{"faulty",
                   [](const std::string&) -> std::unique_ptr<BlockDevice> {
                     return std::make_unique<FaultyDevice>(make_memory_device(kBlocks),
                                                           quiet_plan());
                   }}),
    [](const testing::TestParamInfo<DeviceCase>& one) { return std::string(one.param.name); });

TEST(FileDevice, NamesWhatIsWrongWithAPath) {
  EXPECT_EQ(open_file_device("no/such/image", {}).error().code, Code::device_open);
  EXPECT_EQ(open_file_device("no/such/image", {}).error().as_errno(), ENOENT);
  EXPECT_EQ(open_file_device("/dev/null", {}).error().code, Code::device_kind);
  EXPECT_EQ(open_file_device(".", {}).error().code, Code::device_kind);
  const TemporaryImage empty(0);
  EXPECT_EQ(open_file_device(empty.path(), {}).error().code, Code::device_size);
  const TemporaryImage ragged(kBlockSize + 512);
  EXPECT_EQ(open_file_device(ragged.path(), {}).error().code, Code::device_size);
}

TEST(FileDevice, KeepsASecondOpenerOut) {
  const TemporaryImage image(kBlockSize);
  const FileDeviceOptions read_only{.read_only = true};
  {
    auto writer = open_file_device(image.path(), {});
    ASSERT_TRUE(writer);
    EXPECT_EQ(open_file_device(image.path(), {}).error().code, Code::device_in_use);
    EXPECT_EQ(open_file_device(image.path(), {}).error().code, Code::device_in_use);
    EXPECT_EQ(open_file_device(image.path(), read_only).error().code, Code::device_in_use);
    EXPECT_TRUE(open_file_device(image.path(), {.read_only = true, .exclusive = false}));
  }
  auto reader = open_file_device(image.path(), read_only);
  ASSERT_TRUE(reader);
  EXPECT_TRUE(open_file_device(image.path(), read_only));
  EXPECT_EQ(open_file_device(image.path(), {}).error().code, Code::device_in_use);
  reader->reset();
  EXPECT_TRUE(open_file_device(image.path(), {}));
}

TEST(FileDevice, ReadOnlyRefusesEveryChange) {
  const TemporaryImage image(4 * kBlockSize);
  auto device = open_file_device(image.path(), {.read_only = true});
  ASSERT_TRUE(device);
  EXPECT_TRUE((*device)->read_only());
  const std::string data = filled(1, 5);
  EXPECT_EQ((*device)->write(BlockAddr{0}, as_bytes(data)).error().code, Code::read_only);
  EXPECT_EQ((*device)->ensure_backed(BlockAddr{0}, 1).error().code, Code::read_only);
  EXPECT_EQ((*device)->discard(BlockAddr{0}, 1).error().code, Code::read_only);
  EXPECT_EQ(read_back(**device, 0, 4), std::string(4 * kBlockSize, '\0'));
}

TEST(FileDevice, WritesSurviveReopening) {
  const TemporaryImage image(16 * kBlockSize);
  const std::string data = filled(16, 6);
  {
    auto device = open_file_device(image.path(), {});
    ASSERT_TRUE(device);
    ASSERT_TRUE((*device)->write(BlockAddr{0}, as_bytes(data)));
    ASSERT_TRUE((*device)->flush());
  }
  auto device = open_file_device(image.path(), {.read_only = true, .direct = false});
  ASSERT_TRUE(device);
  EXPECT_EQ(read_back(**device, 0, 16), data);
}

TEST(FileDevice, BackingTakesHostSpaceAndDiscardGivesItBack) {
  constexpr uint64_t kSizeBytes = 1024 * kBlockSize;
  const TemporaryImage image(kSizeBytes);
  auto device = open_file_device(image.path(), {});
  ASSERT_TRUE(device);
  ASSERT_LT(image.allocated_bytes(), kSizeBytes / 2);
  ASSERT_TRUE((*device)->ensure_backed(BlockAddr{0}, 1024));
  if (image.allocated_bytes() < kSizeBytes) GTEST_SKIP() << "this host does not preallocate";
  ASSERT_TRUE((*device)->discard(BlockAddr{0}, 1024));
  if (image.allocated_bytes() != 0) GTEST_SKIP() << "this host does not punch holes";
  EXPECT_EQ(read_back(**device, 0, 1024), std::string(kSizeBytes, '\0'));
}

TEST(FileDevice, AnImageCutShorterFailsToRead) {
  const TemporaryImage image(8 * kBlockSize);
  auto device = open_file_device(image.path(), {});
  ASSERT_TRUE(device);
  ASSERT_EQ(::truncate(image.path().c_str(), 2 * kBlockSize), 0);
  AlignedBuffer one(kBlockSize);
  AlignedBuffer two(4 * kBlockSize);
  const ReadRequest reads[] = {{BlockAddr{0}, one.span()}, {BlockAddr{1}, two.span()}};
  EXPECT_EQ((*device)->read(BlockAddr{1}, two.span()).error().code, Code::device_read);
  const Result<void> batch = (*device)->read_batch(reads);
  EXPECT_EQ(batch.error().code, Code::device_read);
  EXPECT_EQ(batch.error().detail, 2U);
}

/// Makes io_uring_setup fail with EPERM for the calling thread, as many containers do.
bool forbid_io_uring() {
  sock_filter program[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  const sock_fprog filter{4, program};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

TEST(FileDevice, BatchesNeedNoIoUring) {
  const TemporaryImage image(8 * kBlockSize);
  auto device = open_file_device(image.path(), {});
  ASSERT_TRUE(device);
  bool forbidden = false;
  const std::string data = filled(8, 9);
  std::string found(data.size(), '?');
  std::jthread([&] {
    forbidden = forbid_io_uring();
    if (!forbidden) return;
    const std::span<const std::byte> from = as_bytes(data);
    const WriteRequest writes[] = {{BlockAddr{0}, from.first(3 * kBlockSize)},
                                   {BlockAddr{3}, from.subspan(3 * kBlockSize)}};
    EXPECT_TRUE((*device)->write_batch(writes));
    const std::span<std::byte> to{reinterpret_cast<std::byte*>(found.data()), found.size()};
    const ReadRequest reads[] = {{BlockAddr{0}, to.first(kBlockSize)},
                                 {BlockAddr{1}, to.subspan(kBlockSize)}};
    EXPECT_TRUE((*device)->read_batch(reads));
  }).join();
  if (!forbidden) GTEST_SKIP() << "this host allows no system-call filter";
  EXPECT_EQ(found, data);
}

TEST(MemoryImage, ClonesGoTheirOwnWay) {
  auto image = make_ref<MemoryImage>(uint64_t{4});
  const std::string old_data = filled(1, 7);
  const std::string new_data = filled(1, 8);
  image->write(BlockAddr{1}, as_bytes(old_data));
  auto clone = image->clone();
  image->write(BlockAddr{1}, as_bytes(new_data));
  EXPECT_EQ(read_back(*make_memory_device(clone), 1, 1), old_data);
  EXPECT_EQ(read_back(*make_memory_device(image), 1, 1), new_data);
  EXPECT_EQ(make_memory_device(clone, true)->write(BlockAddr{0}, as_bytes(new_data)).error().code,
            Code::read_only);
}

}  // namespace
}  // namespace caw
