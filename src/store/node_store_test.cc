#include "store/node_store.h"

#include <atomic>
#include <thread>

#include "store/store_fixture.h"

namespace caw {
namespace {

class NodeStoreTest : public StoreFixture {};

TEST_F(NodeStoreTest, PublishedImageIsCurrent) {
  const ImageRef first = make_leaf(1);
  const NodeId id = publish_new(first);
  EXPECT_EQ(store_->get(id).value(), first);
  EXPECT_FALSE(first->superseded());
  const ImageRef second = make_leaf(2);
  publish(id, second);
  EXPECT_TRUE(first->superseded());
  EXPECT_EQ(store_->get_cached(id), second);
  EXPECT_EQ(store_->dirty_bytes(), second->memory_bytes());
}

TEST_F(NodeStoreTest, UnknownNodeIsAbsent) {
  EXPECT_EQ(error_of(NodeId{12345}), Code::node_absent);
  EXPECT_FALSE(store_->get_cached(NodeId{12345}));
}

TEST_F(NodeStoreTest, ReadsBackWhatACheckpointWrote) {
  const NodeId leaf = publish_new(make_leaf(1, 60000));
  const NodeId run = publish_new(make_block(NodeKind::run, {{"a", inline_value("b")}}));
  const NodeId root = publish_new(make_interior({leaf}, {run}));
  const std::string leaf_bytes = read_node(leaf);
  const std::string root_bytes = read_node(root);
  checkpoint();
  EXPECT_EQ(store_->dirty_bytes(), 0U);
  open();
  EXPECT_EQ(store_->counters().node_reads, 0U);
  EXPECT_EQ(read_node(leaf), leaf_bytes);
  EXPECT_EQ(read_node(root), root_bytes);
  EXPECT_EQ(store_->get(run).value()->kind(), NodeKind::run);
  EXPECT_EQ(store_->counters().node_reads, 3U);
  read_node(leaf);
  EXPECT_EQ(store_->counters().node_reads, 3U);
}

TEST_F(NodeStoreTest, CacheStaysBoundedAndReloads) {
  open(4U << 20);
  std::vector<NodeId> ids;
  for (uint64_t i = 0; i < 150; ++i) {
    ids.push_back(publish_new(make_leaf(i, 60000)));
    if (i % 20 == 0) checkpoint();
  }
  checkpoint();
  EXPECT_LE(store_->counters().cache_bytes, 4U << 20);
  for (uint64_t i = 0; i < 150; ++i) {
    EXPECT_EQ(read_node(ids[i]), contents(*make_leaf(i, 60000)));
    EXPECT_LE(store_->counters().cache_bytes, 4U << 20);
  }
  EXPECT_GT(store_->counters().node_reads, 50U);
}

TEST_F(NodeStoreTest, PrefetchBringsNodesIn) {
  std::vector<NodeId> ids;
  for (uint64_t i = 0; i < 20; ++i) ids.push_back(publish_new(make_leaf(i, 5000)));
  checkpoint();
  open();
  store_->prefetch(ids);
  for (uint64_t i = 0; i < 20; ++i) EXPECT_EQ(read_node(ids[i]), contents(*make_leaf(i, 5000)));
  EXPECT_EQ(store_->counters().node_reads, 20U);
}

TEST_F(NodeStoreTest, NumbersAreNeverDrawnTwice) {
  const uint64_t first = store_->draw(Counter::file, 100);
  EXPECT_EQ(store_->draw(Counter::file, 1), first + 100);
  checkpoint();
  const uint64_t after = store_->draw(Counter::file, 50);
  open();                               // a crash: nothing tells the device about the 50
  EXPECT_GE(store_->draw(Counter::file, 1), after + 50);
  EXPECT_GE(store_->draw(Counter::node_id, 1), 1U);
  EXPECT_GE(store_->draw(Counter::chunk, 1), 1U);
  checkpoint();
  EXPECT_FALSE(store_->needs_checkpoint());
  store_->draw(Counter::file, 1U << 20);
  EXPECT_TRUE(store_->needs_checkpoint());
  checkpoint();
  EXPECT_FALSE(store_->needs_checkpoint());
}

// ---- blobs

TEST_F(NodeStoreTest, BlobsReadBack) {
  std::string text;
  Random random(1);
  while (text.size() < 128 * 1024) put_fixed(text, random.next());
  const BlobRef noise = write_blob(text);
  const BlobRef plain = write_blob(std::string(100000, 'x'));
  EXPECT_EQ(noise.blocks(), 32U);
  EXPECT_LT(plain.blocks(), 3U);
  checkpoint();
  open();
  const std::vector<BlobRef> both = {noise, plain};
  store_->prefetch_blobs(both);
  std::string out(1000, '\0');
  ASSERT_TRUE(store_->read_blob(noise, 5000, out).has_value());
  EXPECT_EQ(out, text.substr(5000, 1000));
  ASSERT_TRUE(store_->read_blob(plain, 99000, out).has_value());
  EXPECT_EQ(out, std::string(1000, 'x'));
  ASSERT_TRUE(store_->read_blob(noise, 0, out).has_value());
  EXPECT_EQ(store_->counters().blob_reads, 2U);
}

TEST_F(NodeStoreTest, CancelledBlobGivesItsSpaceBack) {
  const uint64_t before = used();
  const Result<BlobRef> blob = store_->write_blob(std::string(1000, 'x'), SpaceClass::ordinary);
  ASSERT_TRUE(blob.has_value());
  EXPECT_GT(used(), before);
  store_->cancel_blob(*blob);
  EXPECT_EQ(used(), before);
}

TEST_F(NodeStoreTest, WrongBlobReferenceIsAnError) {
  BlobRef blob = write_blob(std::string(1000, 'x'));
  std::string out(10, '\0');
  blob.checksum ^= 1;
  EXPECT_EQ(store_->read_blob(blob, 0, out).error().code, Code::blob_checksum);
}

// ---- opening

TEST_F(NodeStoreTest, RefusesWhatIsNoVolume) {
  medium_ = make_ref<MemoryImage>(kMinVolumeBlocks);
  EXPECT_EQ(try_open().error().code, Code::not_a_volume);
}

TEST_F(NodeStoreTest, RefusesATruncatedImage) {
  store_.reset();
  const auto shorter = make_ref<MemoryImage>(medium_->block_count() - 1);
  AlignedBuffer block(kBlockSize);
  for (uint64_t i = 0; i < shorter->block_count(); ++i) {
    medium_->read(BlockAddr{i}, block.span());
    shorter->write(BlockAddr{i}, block.span());
  }
  medium_ = shorter;
  EXPECT_EQ(try_open().error().code, Code::volume_truncated);
}

TEST_F(NodeStoreTest, OneDamagedSuperblockIsSurvived) {
  const NodeId id = publish_new(make_leaf(1));
  checkpoint();                         // epoch 3, in block 1
  publish_new(make_leaf(2));
  checkpoint();                         // epoch 4, in block 0
  const Ref<MemoryImage> good = medium_->clone();
  store_.reset();
  std::string junk(kBlockSize, 'j');
  for (const uint64_t bad : {uint64_t{0}, uint64_t{1}}) {
    medium_ = good->clone();
    medium_->write(BlockAddr{bad}, as_bytes(junk));
    open();
    EXPECT_EQ(store_->superblock().epoch, bad == 0 ? 3U : 4U);
    EXPECT_EQ(read_node(id), contents(*make_leaf(1)));
  }
  medium_->write(BlockAddr{0}, as_bytes(junk));
  EXPECT_FALSE(try_open().has_value());
}

TEST_F(NodeStoreTest, ReadOnlyChangesNothing) {
  const NodeId id = publish_new(make_leaf(1));
  checkpoint();
  store_.reset();
  StoreOptions options;
  options.read_only = true;
  store_ = NodeStore::open(make_memory_device(medium_, true), options).value();
  EXPECT_EQ(read_node(id), contents(*make_leaf(1)));
  EXPECT_EQ(store_->write_blob("x", SpaceClass::ordinary).error().code, Code::read_only);
  EXPECT_EQ(store_->reclaim(10).value(), 0U);
}

// ---- damage

TEST_F(NodeStoreTest, EveryDamagedBlockIsAnErrorNeverWrongData) {
  std::vector<NodeId> ids;
  for (uint64_t i = 0; i < 12; ++i) ids.push_back(publish_new(make_leaf(i, 6000)));
  ids.push_back(publish_new(make_interior(ids)));
  const BlobRef blob = write_blob(std::string(9000, 'b'));
  add_ref(ids[3], 2);
  std::vector<std::string> expected;
  for (const NodeId id : ids) expected.push_back(read_node(id));
  checkpoint();
  store_.reset();
  const Ref<MemoryImage> good = medium_;
  uint64_t errors = 0;
  for (uint64_t at = 0; at < 128; ++at) {
    medium_ = good->clone();
    AlignedBuffer block(kBlockSize);
    medium_->read(BlockAddr{at}, block.span());
    block.data()[17] ^= std::byte{0x40};
    medium_->write(BlockAddr{at}, block.span());
    if (!try_open()) {
      ++errors;
      continue;
    }
    if (store_->superblock().epoch != 3) continue;      // the superblock before it: no nodes yet
    for (size_t i = 0; i < ids.size(); ++i) {
      const Result<ImageRef> image = store_->get(ids[i]);
      if (image) {
        EXPECT_EQ(contents(**image), expected[i]) << "block " << at;
      }
      errors += image ? 0U : 1U;
    }
    std::string out(9000, '\0');
    const Result<void> read = store_->read_blob(blob, 0, out);
    if (read) {
      EXPECT_EQ(out, std::string(9000, 'b')) << "block " << at;
    }
    errors += read ? 0U : 1U;
    const Result<uint64_t> references = store_->node_count(ids[3]);
    if (references) {
      EXPECT_EQ(*references, 3U) << "block " << at;
    }
    errors += references ? 0U : 1U;
  }
  EXPECT_GE(errors, 14U);               // each object was hit at least once
}

// ---- threads

TEST_F(NodeStoreTest, ReadersSeeWholeImagesWhilePublishingAndCheckpointing) {
  open(4U << 20);
  std::vector<NodeId> ids;
  for (uint64_t i = 0; i < 40; ++i) ids.push_back(publish_new(make_leaf(i, 30000)));
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> reads{0};
  std::vector<std::thread> readers;
  for (uint64_t t = 0; t < 2; ++t) {
    readers.emplace_back([&, t] {
      Random random(t);
      while (!stop) {
        const uint64_t i = random.below(ids.size());
        const Result<ImageRef> image = store_->get(ids[i]);
        ASSERT_TRUE(image.has_value()) << image.error().to_string();
        const std::string bytes = contents(**image);
        // The newest version's number is i + a multiple of 1000; all of them are well-formed.
        const SortedBlock block = SortedBlock::open(bytes).value();
        SortedBlock::Iterator it(block);
        it.seek_to_first();
        ASSERT_EQ(std::stoull(std::string(it.key().substr(3))) % 1000, i);
        ++reads;
      }
    });
  }
  for (uint64_t round = 1; round <= 20; ++round) {
    for (uint64_t i = 0; i < 20; i += 1 + round % 3) {
      publish(ids[i], make_leaf(1000 * round + i, 30000));
    }
    begin();
    for (uint64_t i = 10; i < ids.size(); i += 1 + round % 3) {
      publish(ids[i], make_leaf(1000 * (100 + round) + i, 30000));
    }
    const Result<void> written = store_->write_checkpoint(1, false, 0);
    ASSERT_TRUE(written.has_value()) << written.error().to_string();
    if (round % 4 == 0) store_->prefetch(ids);
  }
  stop = true;
  for (std::thread& reader : readers) reader.join();
  EXPECT_GT(reads, 100U);
}

}  // namespace
}  // namespace caw
