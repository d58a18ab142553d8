#include "fuse/token_table.h"

#include <gtest/gtest.h>

namespace caw {
namespace {

using std::chrono::seconds;

class TokenTableTest : public ::testing::Test {
 protected:
  // The table never looks into an Inode: any distinct addresses will do.
  Inode& inode(size_t i) { return *reinterpret_cast<Inode*>(&places_[i]); }

  const TokenTable::Clock::time_point start_{};
  std::array<uint64_t, 4> places_{};
  std::vector<std::pair<Inode*, uint64_t>> forgotten_;
  TokenTable table_{seconds(30), [this](Inode& inode, uint64_t lookups) {
                      forgotten_.emplace_back(&inode, lookups);
                    }};
};

TEST_F(TokenTableTest, FindsWhatItIssued) {
  const TokenBytes a = *table_.issue(inode(0), start_);
  const TokenBytes b = *table_.issue(inode(1), start_);
  EXPECT_NE(a, b);
  EXPECT_EQ(&table_.find(a, start_)->inode(), &inode(0));
  EXPECT_EQ(&table_.find(b, start_ + seconds(30))->inode(), &inode(1));
}

TEST_F(TokenTableTest, RefusesForgedAndOldTokens) {
  TokenBytes token = *table_.issue(inode(0), start_);
  EXPECT_FALSE(table_.find(token, start_ + seconds(31)).has_value());
  token[7] ^= 1;
  EXPECT_FALSE(table_.find(token, start_).has_value());
}

TEST_F(TokenTableTest, KeepsForgetsBackUntilTheTokenDies) {
  ASSERT_TRUE(table_.issue(inode(0), start_).has_value());
  EXPECT_FALSE(table_.keep_back(inode(1), 1));
  EXPECT_TRUE(table_.keep_back(inode(0), 2));
  EXPECT_TRUE(table_.keep_back(inode(0), 3));
  table_.expire(start_ + seconds(30));
  EXPECT_TRUE(forgotten_.empty());
  table_.expire(start_ + seconds(31));
  ASSERT_EQ(forgotten_.size(), 1U);
  EXPECT_EQ(forgotten_[0], std::pair(&inode(0), uint64_t{5}));
  EXPECT_FALSE(table_.keep_back(inode(0), 1));
}

TEST_F(TokenTableTest, PinOutlivesItsToken) {
  const TokenBytes token = *table_.issue(inode(0), start_);
  {
    const auto pin = table_.find(token, start_);
    EXPECT_TRUE(table_.keep_back(inode(0), 1));
    table_.expire(start_ + seconds(31));
    EXPECT_TRUE(forgotten_.empty());
  }
  EXPECT_EQ(forgotten_.size(), 1U);
}

TEST_F(TokenTableTest, OldestMakeRoom) {
  const TokenBytes first = *table_.issue(inode(0), start_);
  const TokenBytes second = *table_.issue(inode(1), start_);
  for (size_t i = 0; i + 1 < TokenTable::kMaxTokens; ++i) {
    ASSERT_TRUE(table_.issue(inode(2), start_).has_value());
  }
  EXPECT_EQ(table_.size(), TokenTable::kMaxTokens);
  EXPECT_FALSE(table_.find(first, start_).has_value());
  EXPECT_TRUE(table_.find(second, start_).has_value());
}

}  // namespace
}  // namespace caw
