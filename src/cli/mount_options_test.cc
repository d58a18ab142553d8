#include "cli/mount_options.h"

#include <gtest/gtest.h>

#include "cli/size.h"

namespace caw {
namespace {

TEST(SizeTest, TakesPowersOf1024) {
  EXPECT_EQ(parse_size("4096"), 4096U);
  EXPECT_EQ(parse_size("64k"), 64U << 10);
  EXPECT_EQ(parse_size("3M"), 3U << 20);
  EXPECT_EQ(parse_size("64G"), uint64_t{64} << 30);
  EXPECT_EQ(parse_size("2T"), uint64_t{2} << 40);
}

TEST(SizeTest, RefusesWhatIsNoSize) {
  for (const char* text :
       {"", "G", "-1", "1X", "1GB", "1 G", "1.5G", "8388608T", "99999999999999999999"}) {
    EXPECT_FALSE(parse_size(text).has_value()) << text;
  }
  EXPECT_TRUE(parse_size("8388607T").has_value());
}

TEST(SizeTest, ShowsUnits) {
  EXPECT_EQ(human_size(812), "812 B");
  EXPECT_EQ(human_size(uint64_t{64} << 30), "64 GiB");
  EXPECT_EQ(human_size(3U << 19), "1.5 MiB");
}

TEST(MountOptionsTest, TakesWhatFstabHas) {
  MountOptions options;
  ASSERT_TRUE(
      add_mount_options("rw,noauto,user,nodev,noatime,x-systemd.automount,comment=a", options));
  EXPECT_FALSE(options.read_only);
  EXPECT_TRUE(options.no_atime);
  EXPECT_EQ(options.kernel_options, (std::vector<std::string>{"nodev", "noatime"}));
  EXPECT_TRUE(options.acls);
  ASSERT_TRUE(add_mount_options("acl,user_xattr,noacl", options));
  EXPECT_FALSE(options.acls);
}

TEST(MountOptionsTest, TakesItsOwn) {
  MountOptions options;
  ASSERT_TRUE(add_mount_options("ro,allow_other,cache=256M,,commit=30,fsname=disk", options));
  EXPECT_TRUE(options.read_only);
  EXPECT_TRUE(options.allow_other);
  EXPECT_EQ(options.cache_bytes, 256U << 20);
  EXPECT_EQ(options.commit_interval, std::chrono::seconds(30));
  EXPECT_EQ(options.source, "disk");
}

TEST(MountOptionsTest, LaterOnesWin) {
  MountOptions options;
  ASSERT_TRUE(add_mount_options("ro", options));
  ASSERT_TRUE(add_mount_options("rw,commit=1,commit=2", options));
  EXPECT_FALSE(options.read_only);
  EXPECT_EQ(options.commit_interval, std::chrono::seconds(2));
}

TEST(MountOptionsTest, RefusesTheRestByName) {
  for (const char* text : {"frobnicate", "ro,frobnicate=1", "cache=1M", "cache=many", "commit=0",
                           "commit=5s", "commit=301", "compress=lz4", "fsname=", "subtype=x"}) {
    MountOptions options;
    const auto added = add_mount_options(text, options);
    ASSERT_FALSE(added.has_value()) << text;
    EXPECT_TRUE(added.error().starts_with("option ")) << added.error();
  }
}

TEST(MountOptionsTest, DefaultCacheIsBounded) {
  EXPECT_GE(default_cache_bytes(), 32U << 20);
  EXPECT_LE(default_cache_bytes(), 1U << 30);
}

}  // namespace
}  // namespace caw
