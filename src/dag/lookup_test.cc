#include "dag/lookup.h"

#include <gtest/gtest.h>

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

}  // namespace
}  // namespace caw
