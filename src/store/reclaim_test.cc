#include <atomic>
#include <map>
#include <thread>

#include "store/store_fixture.h"

namespace caw {
namespace {

class ReclaimTest : public StoreFixture {
 protected:
  /// Drops the only reference to each and makes the space usable again.
  void drop_everything(const std::vector<NodeId>& roots) {
    for (const NodeId id : roots) add_ref(id, -1);
    reclaim_all();
    checkpoint();
    reclaim_all();
    checkpoint();
  }
};

TEST_F(ReclaimTest, CountsAddUpOverEpochs) {
  const NodeId id = publish_new(make_leaf(1));
  EXPECT_EQ(count(id), 1U);
  add_ref(id, 3);
  EXPECT_EQ(count(id), 4U);
  begin();
  add_ref(id, -1);
  EXPECT_EQ(count(id), 3U);
  ASSERT_TRUE(store_->write_checkpoint(1, false, 0).has_value());
  EXPECT_EQ(count(id), 3U);
  checkpoint();
  open();
  EXPECT_EQ(count(id), 3U);
  add_ref(id, -2);
  EXPECT_EQ(count(id), 1U);
  checkpoint();
  open();
  EXPECT_EQ(count(id), 1U);
  EXPECT_EQ(reclaim_all(), 0U);
  EXPECT_EQ(read_node(id), contents(*make_leaf(1)));
}

TEST_F(ReclaimTest, NeverWrittenNodesVanishWithoutAWrite) {
  const uint64_t before = used();
  const NodeId id = publish_new(make_leaf(1, 20000));
  add_ref(id, -1);
  EXPECT_TRUE(store_->has_dead());
  EXPECT_EQ(reclaim_all(), 1U);
  EXPECT_FALSE(store_->has_dead());
  EXPECT_EQ(store_->dirty_bytes(), 0U);
  EXPECT_EQ(error_of(id), Code::node_absent);
  checkpoint();
  EXPECT_EQ(store_->counters().node_writes, 0U);
  EXPECT_EQ(error_of(id), Code::node_absent);
  EXPECT_EQ(used(), before);
}

TEST_F(ReclaimTest, CheckpointDropsUnwrittenNodesWithWhatTheyHold) {
  const uint64_t before = used();
  const BlobRef blob = write_blob(std::string(50000, 'x'));
  const NodeId leaf = publish_new(make_block(NodeKind::leaf, {{"a", blob_value(blob)}}));
  const NodeId run = publish_new(make_leaf(2));
  const NodeId inner = publish_new(make_interior({leaf}));
  const NodeId root = publish_new(make_interior({inner}, {run}, 2));
  add_ref(root, -1);
  checkpoint();
  EXPECT_EQ(store_->counters().node_writes, 0U);
  for (const NodeId id : {leaf, run, inner, root}) EXPECT_EQ(error_of(id), Code::node_absent);
  checkpoint();
  EXPECT_EQ(used(), before);
  EXPECT_FALSE(store_->has_dead());
}

TEST_F(ReclaimTest, NestedDropGivesEverythingBack) {
  checkpoint();
  const uint64_t before = used();
  const BlobRef blob = write_blob(std::string(50000, 'x'));
  const NodeId tree_leaf = publish_new(make_leaf(7));
  const NodeId tree = publish_new(make_interior({tree_leaf}));
  Value value = blob_value(blob);
  value.tree = tree;
  const NodeId owner = publish_new(make_block(NodeKind::leaf, {{"a", value}}));
  const NodeId plain = publish_new(make_leaf(8, 30000));
  const NodeId run = publish_new(make_leaf(9));
  const NodeId root = publish_new(make_interior({owner, plain}, {run}));
  checkpoint();
  checkpoint();
  EXPECT_GT(used(), before);
  open();
  add_ref(root, -1);
  EXPECT_EQ(reclaim_all(), 6U);
  // The root, the leaf that owns, and the tree's root; leaves and runs without references are
  // not read.
  EXPECT_EQ(store_->counters().node_reads, 3U);
  for (const NodeId id : {owner, plain, run, root, tree, tree_leaf}) {
    EXPECT_EQ(error_of(id), Code::node_absent);
  }
  checkpoint();
  checkpoint();
  EXPECT_EQ(used(), before);
  EXPECT_EQ(store_->counters().dead_nodes, 0U);
  open();
  EXPECT_EQ(used(), before);
  EXPECT_EQ(error_of(root), Code::node_absent);
  EXPECT_FALSE(store_->has_dead());
}

TEST_F(ReclaimTest, SharedChildrenOutliveOneParent) {
  const NodeId leaf = publish_new(make_leaf(1));
  const NodeId first = publish_new(make_interior({leaf}));
  checkpoint();
  const NodeId second = store_->new_id();
  {
    const Gate::Exclusive exclusive(store_->gate());
    const ImageRef copy = make_interior({leaf});
    store_->publish(second, copy, store_->open_epoch());
    store_->add_image_refs(*copy, 1, store_->open_epoch());
  }
  EXPECT_EQ(count(leaf), 2U);
  checkpoint();
  add_ref(first, -1);
  EXPECT_EQ(reclaim_all(), 1U);
  EXPECT_EQ(count(leaf), 1U);
  checkpoint();
  open();
  EXPECT_EQ(read_node(leaf), contents(*make_leaf(1)));
  EXPECT_EQ(error_of(first), Code::node_absent);
  add_ref(second, -1);
  EXPECT_EQ(reclaim_all(), 2U);
  EXPECT_EQ(error_of(leaf), Code::node_absent);
}

TEST_F(ReclaimTest, SharedBlobsOutliveOneOwner) {
  const BlobRef blob = write_blob(std::string(9000, 'x'));
  const ImageRef image = make_block(NodeKind::leaf, {{"a", blob_value(blob)}});
  const NodeId first = publish_new(image);
  const NodeId second = publish_new(make_block(NodeKind::leaf, {{"b", blob_value(blob)}}));
  {
    const Gate::Shared shared(store_->gate());
    store_->add_blob_ref(blob, 1, store_->open_epoch());
  }
  checkpoint();
  open();
  const uint64_t with_blob = used();
  add_ref(first, -1);
  EXPECT_EQ(reclaim_all(), 1U);
  checkpoint();
  open();
  std::string out(9000, '\0');
  ASSERT_TRUE(store_->read_blob(blob, 0, out).has_value());
  add_ref(second, -1);
  EXPECT_EQ(reclaim_all(), 1U);
  checkpoint();
  checkpoint();
  EXPECT_LT(used(), with_blob);
}

TEST_F(ReclaimTest, DeadListOutlivesACrash) {
  checkpoint();
  const uint64_t before = used();
  std::vector<NodeId> children;
  for (uint64_t i = 0; i < 10; ++i) children.push_back(publish_new(make_leaf(i, 5000)));
  const NodeId root = publish_new(make_interior(children));
  checkpoint();
  add_ref(root, -1);
  checkpoint();                         // recorded as dead, not yet dropped
  open();
  EXPECT_TRUE(store_->has_dead());
  EXPECT_EQ(store_->reclaim(1).value(), 1U);
  checkpoint();                         // the root is gone, its children are dead
  open();
  EXPECT_EQ(error_of(root), Code::node_absent);
  EXPECT_TRUE(store_->has_dead());
  EXPECT_EQ(store_->reclaim(4).value(), 4U);
  open();                               // a crash: those four are dead again
  EXPECT_EQ(reclaim_all(), 10U);
  checkpoint();
  checkpoint();
  EXPECT_EQ(used(), before);
  open();
  EXPECT_FALSE(store_->has_dead());
}

TEST_F(ReclaimTest, NodeBeingWrittenIsDroppedAfterwards) {
  checkpoint();
  const uint64_t before = used();
  const NodeId id = publish_new(make_leaf(1, 5000));
  checkpoint();
  publish(id, make_leaf(2, 5000));
  begin();
  add_ref(id, -1);                      // in the next epoch
  EXPECT_EQ(store_->reclaim(10).value(), 0U);
  ASSERT_TRUE(store_->write_checkpoint(1, false, 0).has_value());
  EXPECT_EQ(reclaim_all(), 1U);
  checkpoint();
  checkpoint();
  EXPECT_EQ(used(), before);
}

TEST_F(ReclaimTest, FilterKeepsANodeForLater) {
  const NodeId root = publish_new(make_interior({}));
  bool may_drop = false;
  NodeId asked = kNoNode;
  store_->set_reclaim_filter([&](NodeId id) {
    asked = id;
    return may_drop;
  });
  add_ref(root, -1);
  EXPECT_EQ(reclaim_all(), 0U);
  EXPECT_EQ(asked, root);
  EXPECT_TRUE(store_->has_dead());
  may_drop = true;
  EXPECT_EQ(reclaim_all(), 1U);
  EXPECT_FALSE(store_->has_dead());
}

TEST_F(ReclaimTest, FallingBelowZeroIsAnError) {
  const NodeId id = publish_new(make_leaf(1));
  checkpoint();
  add_ref(id, -2);
  EXPECT_EQ(store_->reclaim(10).error().code, Code::count_underflow);
  begin();
  EXPECT_EQ(store_->write_checkpoint(1, false, 0).error().code, Code::count_underflow);
  EXPECT_TRUE(store_->failed());
  EXPECT_EQ(store_->write_blob("x", SpaceClass::ordinary).error().code, Code::volume_failed);
}

/// A random forest of nodes, its counts kept by hand, with work in the open epoch while another is
/// being sealed, and crashes.
class RandomForest : public ReclaimTest {
 protected:
  struct State {
    std::vector<NodeId> held;                       // one reference each is ours
    std::map<NodeId, std::vector<NodeId>> parents;  // of what we made: its references
  };

  NodeId take_one() {
    std::swap(now_.held[random_.below(now_.held.size())], now_.held.back());
    const NodeId id = now_.held.back();
    now_.held.pop_back();
    return id;
  }
  void step() {
    const uint64_t choice = random_.below(17);
    if (choice < 6) {
      now_.held.push_back(publish_new(make_leaf(random_.next(), 200 + random_.below(9000))));
    } else if (choice < 8) {
      const BlobRef blob = write_blob(std::string(random_.below(30000) + 1, 'b'));
      now_.held.push_back(publish_new(make_block(NodeKind::leaf, {{"a", blob_value(blob)}})));
    } else if (choice < 12 && now_.held.size() > 3) {  // a parent takes over two references
      const std::vector<NodeId> children = {take_one(), take_one()};
      now_.held.push_back(publish_new(make_interior(children, {}, 40)));
      now_.parents[now_.held.back()] = children;
    } else if (choice < 14 && !now_.held.empty()) {    // share
      const NodeId id = now_.held[random_.below(now_.held.size())];
      add_ref(id, 1);
      now_.held.push_back(id);
    } else if (!now_.held.empty()) {
      add_ref(take_one(), -1);
    }
  }
  void reclaim_some() { ASSERT_TRUE(store_->reclaim(1 + random_.below(5)).has_value()); }
  /// Every node reached from ours reads, and has as many references as we know of.
  void check() {
    std::map<NodeId, uint64_t> references;
    std::vector<NodeId> work = now_.held;
    while (!work.empty()) {
      const NodeId id = work.back();
      work.pop_back();
      if (references[id]++ != 0) continue;
      if (const auto found = now_.parents.find(id); found != now_.parents.end()) {
        work.insert(work.end(), found->second.begin(), found->second.end());
      }
    }
    reclaim_all();
    for (const auto& [id, number] : references) {
      ASSERT_TRUE(store_->get(id).has_value());
      ASSERT_EQ(count(id), number);
    }
  }
  void run(uint64_t seed) {
    random_ = Random(seed);
    now_ = State{};
    format(*medium_);
    open(1U << 20);
    checkpoint();
    const uint64_t before = used();
    State durable;
    for (int round = 0; round < 60; ++round) {
      for (uint64_t n = random_.below(20); n > 0; --n) step();
      if (random_.one_in(2)) reclaim_some();
      begin();
      State cut = now_;
      for (uint64_t n = random_.below(10); n > 0; --n) step();
      if (random_.one_in(3)) reclaim_some();
      if (random_.one_in(8)) {            // a crash before it is written
        open(1U << 20);
        now_ = durable;
      } else {
        ASSERT_TRUE(store_->write_checkpoint(1, false, 0).has_value());
        durable = std::move(cut);
      }
      if (random_.one_in(6)) {
        open(1U << 20);
        now_ = durable;
      }
      if (random_.one_in(4)) check();
      if (HasFatalFailure()) return;
    }
    check();
    drop_everything(now_.held);
    EXPECT_EQ(used(), before);
    EXPECT_FALSE(store_->has_dead());
  }

  Random random_{0};
  State now_;
};

TEST_F(RandomForest, CountsAreExactAndSpaceReturnsToTheBaseline) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    run(seed);
    if (HasFatalFailure()) return;
  }
}

/// Each checkpoint moves deltas into the node table; a reader must not see them twice or not at all.
TEST_F(ReclaimTest, CountsNeverWaverDuringCheckpoints) {
  std::vector<NodeId> ids;
  for (uint64_t i = 0; i < 3000; ++i) ids.push_back(publish_new(make_leaf(i, 10)));
  checkpoint();
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> highest{1};     // count of each at most
  std::thread reader([&] {
    Random random(1);
    std::map<NodeId, uint64_t> seen;
    while (!stop) {
      const NodeId id = ids[random.below(ids.size())];
      const uint64_t now = count(id);
      ASSERT_GE(now, seen[id]);
      ASSERT_LE(now, highest.load());
      seen[id] = now;
    }
  });
  for (uint64_t round = 1; round <= 30; ++round) {
    highest = round + 1;
    for (const NodeId id : ids) add_ref(id, 1);
    checkpoint();
  }
  stop = true;
  reader.join();
}

TEST_F(ReclaimTest, RunsBesideWritersAndCheckpoints) {
  checkpoint();
  const uint64_t before = used();
  std::atomic<bool> stop{false};
  std::thread reclaimer([&] {
    while (!stop) EXPECT_TRUE(store_->reclaim(8).has_value());
  });
  std::vector<std::thread> writers;
  for (uint64_t t = 0; t < 2; ++t) {
    writers.emplace_back([&, t] {
      Random random(t);
      std::vector<NodeId> held;
      for (int i = 0; i < 400; ++i) {
        const NodeId leaf = publish_new(make_leaf(random.next(), 3000));
        const BlobRef blob = write_blob(std::string(5000, 'b'));
        const NodeId owner = publish_new(make_block(NodeKind::leaf, {{"a", blob_value(blob)}}));
        held.push_back(publish_new(make_interior({leaf, owner})));
        if (random.below(3) == 0) continue;
        std::swap(held[random.below(held.size())], held.back());
        EXPECT_TRUE(store_->get(held.back()).has_value());
        add_ref(held.back(), -1);
        held.pop_back();
      }
      for (const NodeId id : held) add_ref(id, -1);
    });
  }
  for (int i = 0; i < 15; ++i) checkpoint();
  for (std::thread& writer : writers) writer.join();
  stop = true;
  reclaimer.join();
  reclaim_all();
  checkpoint();
  reclaim_all();
  checkpoint();
  EXPECT_EQ(used(), before);
  EXPECT_EQ(store_->counters().dead_nodes, 0U);
}

/// Somebody refers to it still, though its count was zero: the volume is damaged.
TEST_F(ReclaimTest, AReferenceToAFreedBlobFailsTheVolume) {
  const BlobRef blob = write_blob(std::string(50000, 'x'));
  const auto refer = [&](int64_t delta) {
    const Gate::Shared shared(store_->gate());
    store_->add_blob_ref(blob, delta, store_->open_epoch());
  };
  refer(-1);
  reclaim_all();
  EXPECT_FALSE(store_->failed());
  refer(+1);
  EXPECT_TRUE(store_->failed());
  begin();
  EXPECT_EQ(store_->write_checkpoint(1, false, 0).error().code, Code::volume_failed);
}

TEST_F(ReclaimTest, AnImageForADroppedNodeFailsTheVolume) {
  const NodeId id = publish_new(make_leaf(1));
  add_ref(id, -1);
  EXPECT_EQ(reclaim_all(), 1U);
  publish(id, make_leaf(2));
  EXPECT_TRUE(store_->failed());
}

}  // namespace
}  // namespace caw
