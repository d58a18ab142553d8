// Recovery from logs that no writer wrote; what real ones do is in tests/crash.
#include <gtest/gtest.h>

#include "base/aligned_buffer.h"
#include "dev/memory_device.h"
#include "format/log_frame.h"
#include "format/log_record.h"
#include "log/log_ring.h"
#include "volume/volume.h"

namespace caw {
namespace {

class RecoveryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::unique_ptr<BlockDevice> device = make_memory_device(image_);
    ASSERT_TRUE(Volume::make(*device, {}).has_value());
    ASSERT_TRUE(open().has_value());  // makes the log
    volume_.reset();
  }
  Result<void> open() {
    volume_.reset();
    VolumeOptions options;
    options.cache_bytes = 4U << 20;
    options.background = false;
    volume_ = CAW_TRY(Volume::open(make_memory_device(image_), options));
    return {};
  }
  Superblock newest() const {
    Superblock best;
    for (uint64_t slot = 0; slot < 2; ++slot) {
      AlignedBuffer block(kBlockSize);
      image_->read(BlockAddr{slot}, block.span());
      const Superblock found = decode_superblock(block.view()).value();
      if (found.epoch > best.epoch) best = found;
    }
    return best;
  }
  /// Replaces the log by one record.
  void write_log(LogRecordBuilder& builder) {
    const Superblock superblock = newest();
    std::string record = builder.finish();
    set_record_seq(record, superblock.next_seq);
    const uint64_t position = superblock.log_position;
    const AlignedBuffer frame = encode_frame({superblock.uuid, position, position, 0}, record);
    image_->write(LogRing(superblock.log_segments).at(position).addr, frame.span());
  }

  Ref<MemoryImage> image_ = make_ref<MemoryImage>(kMinVolumeBlocks);
  std::unique_ptr<Volume> volume_;
};

TEST_F(RecoveryTest, ATreeThatIsThereAlreadyIsNotMadeAgain) {
  LogRecordBuilder record;
  record.add_new_tree(newest().system_tree);
  write_log(record);
  EXPECT_EQ(open().error().code, Code::log_malformed);
}

TEST_F(RecoveryTest, ACloneOntoATreeThatIsThereAlreadyIsRefused) {
  LogRecordBuilder record;
  record.add_clone(newest().system_tree, newest().system_tree);
  record.add_clone_prefix("", "");
  write_log(record);
  EXPECT_EQ(open().error().code, Code::log_malformed);
}

/// Else it would be drawn again, for something else.
TEST_F(RecoveryTest, ANumberThatTheLogUsesIsNotDrawnAgain) {
  const NodeId next{newest().counters[static_cast<size_t>(Counter::node_id)]};
  LogRecordBuilder record;
  record.add_new_tree(next);
  record.add_message(newest().system_tree, "key", Message::put(inline_value("value", next)));
  write_log(record);
  ASSERT_TRUE(open().has_value());
  EXPECT_EQ(volume_->figures().replayed, 1U);
  EXPECT_GT(raw(volume_->new_tree_id()), raw(next));
}

TEST_F(RecoveryTest, ATreeThatDoesNotExistTakesNoMessage) {
  LogRecordBuilder record;
  record.add_message(NodeId{12345}, "key", Message::put(inline_value("value")));
  write_log(record);
  EXPECT_EQ(open().error().code, Code::node_absent);
}

}  // namespace
}  // namespace caw
