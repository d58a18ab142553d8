#include "dag/lookup.h"

#include <gtest/gtest.h>

#include "dag/node_load.h"
#include "store/store_fixture.h"

namespace caw {
namespace {

/// A tree of one leaf whose root a reader has in hand.
class LookupTest : public StoreFixture {
 protected:
  void SetUp() override {
    StoreFixture::SetUp();
    leaf_ = publish_new(make_leaf(1));
    core_ = make_ref<TreeCore>(publish_new(make_interior({leaf_})));
    ASSERT_TRUE(lookup(*store_, *core_, "key1").value().has_value());
  }
  Code error() { return lookup(*store_, *core_, "key1").error().code; }
  Code scan_error() { return scan_chunk(*store_, *core_, "", kKeyEnd, 10).error().code; }

  NodeId leaf_ = kNoNode;
  Ref<TreeCore> core_;
};

/// On a damaged volume a root may stand in another tree as well, which changes it.
TEST_F(LookupTest, ARootThatAnotherTreeChangesIsAnErrorNotALoop) {
  publish(core_->id, make_interior({leaf_}));
  EXPECT_EQ(error(), Code::interior_malformed);
  EXPECT_EQ(scan_error(), Code::interior_malformed);
}

TEST_F(LookupTest, ARootThatWasDroppedIsAbsent) {
  add_ref(core_->id, -1);
  EXPECT_GT(reclaim_all(), 0U);
  EXPECT_EQ(error(), Code::node_absent);
  EXPECT_EQ(scan_error(), Code::node_absent);
}

/// A node may refer to a few large runs again and again.
TEST_F(LookupTest, MoreRunsThanFitIntoMemoryTogetherAreAnError) {
  const Value large = inline_value(std::string(kMaxValueBytes, 'v'));
  const NodeId run =
      publish_new(make_block(NodeKind::run, {{"a", large}, {"b", large}, {"c", large}}));
  const size_t too_many = kMaxPendingBytes / (3 * kMaxValueBytes) + 1;
  const ImageRef root = make_interior({leaf_}, std::vector<NodeId>(too_many, run));
  core_ = make_ref<TreeCore>(publish_new(root));
  EXPECT_EQ(scan_error(), Code::interior_malformed);
  const Ref<const InteriorImage> image = load_root(*store_, *core_).value();
  EXPECT_EQ(load_runs(*store_, image).error().code, Code::interior_malformed);
  EXPECT_TRUE(lookup(*store_, *core_, "a").value().has_value());
}

}  // namespace
}  // namespace caw
