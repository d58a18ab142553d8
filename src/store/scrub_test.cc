#include <set>

#include "format/node.h"
#include "store/store_fixture.h"

namespace caw {
namespace {

class ScrubTest : public StoreFixture {
 protected:
  /// Slices of one byte at least; between them `meanwhile` happens.
  template <typename Meanwhile>
  ScrubSlice scrub(const Meanwhile& meanwhile) {
    ScrubSlice all;
    for (int slices = 0; !all.done && slices < 1000; ++slices) {
      const Result<ScrubSlice> slice = store_->scrub(all.next, 1, 8);
      EXPECT_TRUE(slice) << slice.error().to_string();
      if (!slice) return all;
      all.next = slice->next;
      all.done = slice->done;
      all.bytes += slice->bytes;
      all.nodes += slice->nodes;
      all.blobs += slice->blobs;
      all.lost_blobs += slice->lost_blobs;
      all.errors.insert(all.errors.end(), slice->errors.begin(), slice->errors.end());
      meanwhile();
    }
    EXPECT_TRUE(all.done);
    return all;
  }
  ScrubSlice scrub() {
    return scrub([] {});
  }
  void flip(BlockAddr block, size_t offset) {
    const auto device = make_memory_device(medium_);
    AlignedBuffer bytes(kBlockSize);
    ASSERT_TRUE(device->read(block, bytes.span()));
    bytes.chars()[offset] ^= 1;
    ASSERT_TRUE(device->write(block, bytes.span()));
  }
  NodeId leaf_with_blobs(uint64_t seed, size_t blobs) {
    std::vector<LeafRecord> records;
    for (size_t i = 0; i < blobs; ++i) {
      last_blob_ = write_blob(std::string(20'000 + i, static_cast<char>('a' + seed)));
      records.push_back({"key" + std::to_string(i), blob_value(last_blob_)});
    }
    return publish_new(make_block(NodeKind::leaf, records));
  }
  BlobRef last_blob_;
};

TEST_F(ScrubTest, ReadsAllFromTheDeviceInSlices) {
  leaf_with_blobs(1, 3);
  publish_new(make_leaf(2));
  EXPECT_EQ(scrub().nodes, 0U) << "nothing is on the device yet";
  checkpoint();
  const ScrubSlice all = scrub();
  EXPECT_TRUE(all.errors.empty());
  EXPECT_EQ(all.blobs, 3U);
  EXPECT_GE(all.nodes, 2U);
  EXPECT_GE(all.bytes, 5U * kBlockSize);
}

TEST_F(ScrubTest, DamageIsFoundAlthoughTheCacheHasItWhole) {
  leaf_with_blobs(1, 2);
  checkpoint();
  flip(last_blob_.addr, 9);
  const ScrubSlice all = scrub();
  ASSERT_EQ(all.errors.size(), 1U);
  EXPECT_EQ(all.errors[0].code, Code::blob_checksum);
  EXPECT_EQ(all.errors[0].blob, last_blob_.addr);
}

TEST_F(ScrubTest, DamagedNodeIsFoundAndTheRestVerified) {
  const NodeId id = leaf_with_blobs(1, 1);
  publish_new(make_leaf(2));
  checkpoint();
  flip(last_blob_.addr + last_blob_.blocks(), 70);
  const ScrubSlice all = scrub();
  ASSERT_EQ(all.errors.size(), 1U);
  EXPECT_EQ(all.errors[0].code, Code::node_checksum);
  EXPECT_EQ(all.errors[0].blob, kNoBlock);
  EXPECT_EQ(all.errors[0].node, id);
  EXPECT_GE(all.nodes, 1U);
}

TEST_F(ScrubTest, DataGivenUpByARepairAreCounted) {
  const SealedBlob lost = seal_lost_blob(20'000);
  leaf_with_blobs(1, 1);
  BlobRef ref = lost.ref;
  ref.addr = last_blob_.addr;
  publish_new(make_block(NodeKind::leaf, {{"k", blob_value(ref)}}));
  checkpoint();
  ASSERT_TRUE(make_memory_device(medium_)->write(ref.addr, lost.bytes.span()));
  EXPECT_EQ(scrub().lost_blobs, 1U);
}

TEST_F(ScrubTest, WhatIsRewrittenAndFreedMeanwhileIsNoDamage) {
  std::vector<NodeId> ids;
  for (uint64_t seed = 0; seed < 12; ++seed) ids.push_back(leaf_with_blobs(seed, 2));
  checkpoint();
  uint64_t round = 0;
  const ScrubSlice all = scrub([&] {
    if (round >= 40) return;
    const NodeId id = ids[round % ids.size()];
    if (round % 3 == 0) {
      add_ref(id, -1);
      ids[round % ids.size()] = leaf_with_blobs(round % 20, 1);
    } else {
      publish(id, make_leaf(1000 + round, 3000));
    }
    ++round;
    reclaim_all();
    checkpoint();
    checkpoint();
  });
  EXPECT_TRUE(all.errors.empty());
  EXPECT_GT(all.nodes, 12U);
}

}  // namespace
}  // namespace caw
