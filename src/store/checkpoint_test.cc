#include "dev/faulty_device.h"
#include "dev/recording_device.h"
#include "store/store_fixture.h"

namespace caw {
namespace {

class CheckpointTest : public StoreFixture {
 protected:
  void open_faulty() {
    store_.reset();
    auto device = std::make_unique<FaultyDevice>(make_memory_device(medium_), plan_);
    store_ = NodeStore::open(std::move(device), StoreOptions{}).value();
  }
  FaultPlan plan_;
};

TEST_F(CheckpointTest, CrashBeforeItLosesOnlyTheOpenEpoch) {
  const NodeId kept = publish_new(make_leaf(1));
  checkpoint();
  const NodeId lost = publish_new(make_leaf(2));
  publish(kept, make_leaf(3));
  add_ref(kept, 5);
  begin();
  open();
  EXPECT_EQ(read_node(kept), contents(*make_leaf(1)));
  EXPECT_EQ(count(kept), 1U);
  EXPECT_EQ(error_of(lost), Code::node_absent);
}

TEST_F(CheckpointTest, HoldsTheSealingSetAndNothingLater) {
  const NodeId id = publish_new(make_leaf(1));
  const NodeId other = publish_new(make_leaf(2));
  begin();
  const NodeId later = publish_new(make_leaf(4));
  publish(id, make_leaf(3));
  add_ref(other, 1);
  EXPECT_EQ(read_node(id), contents(*make_leaf(3)));
  ASSERT_TRUE(store_->write_checkpoint(77, true, 0).has_value());
  EXPECT_EQ(read_node(id), contents(*make_leaf(3)));
  EXPECT_EQ(count(other), 2U);
  EXPECT_GT(store_->dirty_bytes(), 0U);
  open();
  EXPECT_EQ(read_node(id), contents(*make_leaf(1)));
  EXPECT_EQ(count(other), 1U);
  EXPECT_EQ(error_of(later), Code::node_absent);
  EXPECT_EQ(store_->superblock().next_seq, 77U);
  EXPECT_TRUE(store_->superblock().clean);
}

TEST_F(CheckpointTest, SealingEpochTakesChangesUntilItIsWritten) {
  const NodeId id = publish_new(make_leaf(1));
  const Epoch sealing = begin();
  store_->publish(id, make_leaf(2), sealing);
  store_->add_node_ref(id, 1, sealing);
  ASSERT_TRUE(store_->write_checkpoint(1, false, 0).has_value());
  open();
  EXPECT_EQ(read_node(id), contents(*make_leaf(2)));
  EXPECT_EQ(count(id), 2U);
}

TEST_F(CheckpointTest, OneThatWasNeverWrittenGoesIntoTheNext) {
  const NodeId id = publish_new(make_leaf(1));
  const NodeId other = publish_new(make_leaf(2));
  begin();
  publish(id, make_leaf(3));
  add_ref(other, 1);
  checkpoint();
  open();
  EXPECT_EQ(read_node(id), contents(*make_leaf(3)));
  EXPECT_EQ(read_node(other), contents(*make_leaf(2)));
  EXPECT_EQ(count(other), 2U);
}

TEST_F(CheckpointTest, RewritingManyTimesTakesNoMoreSpace) {
  std::vector<NodeId> ids;
  for (uint64_t i = 0; i < 30; ++i) ids.push_back(publish_new(make_leaf(i, 5000)));
  checkpoint();
  checkpoint();
  const uint64_t before = used();
  for (uint64_t round = 0; round < 20; ++round) {
    for (size_t i = 0; i < ids.size(); i += 1 + round % 4) {
      publish(ids[i], make_leaf(round * 100 + i, 5000));
    }
    checkpoint();
  }
  checkpoint();
  EXPECT_EQ(used(), before);
  EXPECT_EQ(store_->space().reclaiming_blocks, 0U);
}

TEST_F(CheckpointTest, EveryFailedWriteOrFlushLatches) {
  const NodeId id = publish_new(make_leaf(1));
  checkpoint();
  store_.reset();
  const Ref<MemoryImage> start = medium_;
  for (const DeviceOp op : {DeviceOp::write, DeviceOp::flush}) {
    for (uint64_t k = 1;; ++k) {
      SCOPED_TRACE(k);
      medium_ = start->clone();
      open_faulty();
      publish(id, make_leaf(2));
      add_ref(id, 1);
      plan_.arm({.on = op, .at = k});
      begin();
      const Result<void> written = store_->write_checkpoint(1, false, 0);
      if (written) {
        EXPECT_EQ(plan_.hits(), 0U);
        EXPECT_GT(k, 1U);
        break;
      }
      plan_.disarm();
      EXPECT_TRUE(store_->failed());
      EXPECT_EQ(read_node(id), contents(*make_leaf(2)));
      EXPECT_EQ(store_->write_checkpoint(1, false, 0).error().code, Code::volume_failed);
      EXPECT_EQ(store_->write_blob("x", SpaceClass::ordinary).error().code, Code::volume_failed);
      open();
      const std::string now = read_node(id);
      EXPECT_EQ(now, contents(*make_leaf(count(id) == 2 ? 2 : 1)));
    }
  }
}

TEST_F(CheckpointTest, WantOfSpaceIsSurvived) {
  const NodeId kept = publish_new(make_leaf(1));
  const BlobRef blob = write_blob(std::string(3000, 'x'));
  const NodeId dropped = publish_new(make_block(NodeKind::leaf, {{"a", blob_value(blob)}}));
  checkpoint();
  checkpoint();
  const uint64_t before = used();
  add_ref(kept, 1);
  add_ref(dropped, -1);
  reclaim_all();                        // node and blob, freed in the epoch that will fail
  std::vector<NodeId> big;
  const uint64_t total = store_->space().total_blocks;
  for (uint64_t i = 0; i < total / 24; ++i) {
    big.push_back(publish_new(make_leaf(100 + i, 120000)));
  }
  begin();
  publish(kept, make_leaf(5));
  const Result<void> full = store_->write_checkpoint(1, false, 0);
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, Code::no_space);
  EXPECT_FALSE(store_->failed());
  EXPECT_EQ(read_node(kept), contents(*make_leaf(5)));
  EXPECT_EQ(count(kept), 2U);
  EXPECT_EQ(read_node(big[3]), contents(*make_leaf(103, 120000)));
  for (const NodeId id : big) add_ref(id, -1);
  EXPECT_EQ(reclaim_all(), big.size());
  checkpoint();
  checkpoint();
  EXPECT_EQ(used(), before - 2);
  open();
  EXPECT_EQ(read_node(kept), contents(*make_leaf(5)));
  EXPECT_EQ(count(kept), 2U);
  EXPECT_EQ(error_of(dropped), Code::node_absent);
  EXPECT_EQ(error_of(big[3]), Code::node_absent);
}

TEST_F(CheckpointTest, HostWithoutSpaceIsSurvived) {
  open_faulty();
  const NodeId id = publish_new(make_leaf(1, 60000));
  plan_.arm({.on = DeviceOp::ensure_backed, .at = 1, .for_ever = true});
  begin();
  const Result<void> full = store_->write_checkpoint(1, false, 0);
  if (plan_.hits() > 0) {
    ASSERT_FALSE(full.has_value());
    EXPECT_FALSE(store_->failed());
    plan_.disarm();
    checkpoint();
  }
  open();
  EXPECT_EQ(read_node(id), contents(*make_leaf(1, 60000)));
}

/// At every point of a history, with every fate of the writes in flight (sampled beyond five):
/// the volume opens in the state of a checkpoint, whole, with exact space.
TEST_F(CheckpointTest, EveryCrashLeavesAWholeCheckpoint) {
  store_.reset();
  WriteLog log(medium_->clone());
  store_ = NodeStore::open(
               std::make_unique<RecordingDevice>(make_memory_device(log.base()->clone()), log),
               StoreOptions{})
               .value();
  const NodeId leaf = publish_new(make_leaf(0));
  const NodeId dying = publish_new(make_leaf(1000, 5000));
  std::vector<uint64_t> durable_at;     // log point after checkpoint i
  for (uint64_t i = 1; i <= 4; ++i) {
    publish(leaf, make_leaf(i));
    add_ref(leaf, 1);
    if (i == 3) add_ref(dying, -1);
    reclaim_all();
    checkpoint();
    durable_at.push_back(log.point());
  }
  store_.reset();
  CrashExplorer crash(log);
  Random random(5);
  do {
    const size_t in_flight = crash.in_flight().size();
    for (uint64_t sample = 0; sample < (in_flight == 0 ? 1U : 6U); ++sample) {
      std::vector<Fate> fates;
      for (size_t i = 0; i < in_flight; ++i) fates.push_back(Fate{static_cast<uint8_t>(random.below(3))});
      medium_ = crash.image(fates, random.next());
      open();
      uint64_t least = 0;
      for (size_t i = 0; i < durable_at.size(); ++i) {
        if (durable_at[i] <= crash.point()) least = i + 1;
      }
      const uint64_t state = store_->superblock().epoch - 2;
      ASSERT_GE(state, least) << "point " << crash.point();
      ASSERT_LE(state, least + 1);
      if (state == 0) {
        ASSERT_EQ(error_of(leaf), Code::node_absent);
        continue;
      }
      ASSERT_EQ(read_node(leaf), contents(*make_leaf(state)));
      ASSERT_EQ(count(leaf), state + 1);
      if (state < 3) {
        ASSERT_EQ(read_node(dying), contents(*make_leaf(1000, 5000)));
      } else {
        ASSERT_EQ(error_of(dying), Code::node_absent);
      }
      publish(leaf, make_leaf(50));     // and it can go on
      checkpoint();
      open();
      ASSERT_EQ(read_node(leaf), contents(*make_leaf(50)));
    }
  } while (crash.advance());
}

/// It would be drawn later, and meet what is there.
TEST_F(CheckpointTest, ANodeWithANumberThatWasNeverDrawnIsRefused) {
  publish(NodeId{uint64_t{1} << 40}, make_leaf(1));
  checkpoint();
  EXPECT_EQ(try_open().error().code, Code::node_entry);
}

TEST_F(CheckpointTest, WhatWasSealedInACheckpointThatWasGivenUpBelongsToTheNext) {
  const Epoch first = begin();
  EXPECT_EQ(store_->live_epoch(first), first);
  const Epoch second = begin();  // the first was never written
  EXPECT_EQ(store_->live_epoch(first), second);
  ASSERT_TRUE(store_->write_checkpoint(1, false, 0).has_value());
  EXPECT_EQ(store_->live_epoch(first), store_->open_epoch());
}

}  // namespace
}  // namespace caw
