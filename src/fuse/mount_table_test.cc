#include "fuse/mount_table.h"

#include <gtest/gtest.h>

namespace caw {
namespace {

TEST(MountTableTest, ReadsFieldsAndEscapes) {
  const auto table = parse_mount_table(
      "22 1 0:21 / /proc rw,nosuid - proc proc rw\n"
      "36 35 0:47 / /mnt/a\\040b rw,noatime shared:1 master:2 - fuse.cawfs /img\\011x rw\n"
      "cut off 1:2\n");
  ASSERT_EQ(table.size(), 2U);
  EXPECT_EQ(table[0].type, "proc");
  EXPECT_EQ(table[1].device_number, "0:47");
  EXPECT_EQ(table[1].directory, "/mnt/a b");
  EXPECT_EQ(table[1].type, "fuse.cawfs");
  EXPECT_EQ(table[1].source, "/img\tx");
}

TEST(MountTableTest, ReadsTheRealOne) {
  EXPECT_TRUE(find_mount("/").has_value() || read_mount_table().empty());
  EXPECT_FALSE(find_mount("/no/such/place").has_value());
}

}  // namespace
}  // namespace caw
