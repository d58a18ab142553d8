#include "fs/inode.h"

#include <gtest/gtest.h>

namespace caw {
namespace {

InodeFields some_fields() {
  InodeFields fields;
  fields.mode = S_IFREG | 06754;
  fields.uid = 0xfffffffe;
  fields.gid = 0xfffffffd;
  fields.nlink = 0xfffffffc;
  fields.rdev = 0xfffffffb;
  fields.flags = kInodeFlags;
  fields.size = kMaxFileBytes;
  fields.mtime = {-1, 999'999'999};
  fields.ctime = {INT64_MAX, 1};
  fields.atime = {INT64_MIN, 2};
  fields.btime = {1, 3};
  fields.content_seq = UINT64_MAX;
  fields.attribute_seq = UINT64_MAX - 1;
  return fields;
}

TEST(Inode, KeepsItsFieldsWhole) {
  Inode inode;
  inode.start_fields(some_fields());
  EXPECT_EQ(inode.load_fields(), some_fields());
  EXPECT_EQ(inode.load_size(), uint64_t{kMaxFileBytes});
  EXPECT_TRUE(inode.is_regular());
  InodeFields changed = some_fields();
  changed.mode = S_IFREG;
  changed.flags = 0;
  inode.store_fields(changed);
  EXPECT_EQ(inode.load_fields(), changed);
  changed.nlink = 5;
  changed.ctime = {6, 7};
  inode.set_links(5, {6, 7});
  EXPECT_EQ(inode.load_fields(), changed);
  EXPECT_EQ(inode.nlink(), 5u);
  InodeFields other = changed;
  other.nlink = 1;
  inode.store_fields(other);
  EXPECT_EQ(inode.load_fields(), changed);
}

TEST(Inode, ItsStateAndItsTypeDoNotDisturbEachOther) {
  for (const int type : {S_IFREG, S_IFDIR, S_IFLNK, S_IFSOCK, S_IFIFO, S_IFCHR, S_IFBLK}) {
    Inode inode;
    InodeFields fields;
    fields.mode = static_cast<uint32_t>(type) | 07777;
    inode.start_fields(fields);
    EXPECT_FALSE(inode.is_removed() || inode.is_orphan());
    inode.set_orphan();
    EXPECT_TRUE(inode.is_orphan() && !inode.is_removed());
    inode.set_removed();
    EXPECT_TRUE(inode.is_orphan() && inode.is_removed());
    EXPECT_EQ(inode.type(), static_cast<uint32_t>(type));
    EXPECT_EQ(inode.load_fields(), fields);
  }
}

TEST(Inode, NoticesReadsInSequence) {
  Inode inode;
  EXPECT_FALSE(inode.note_read(4096, 8192));
  EXPECT_TRUE(inode.note_read(8192, 12288));
  EXPECT_FALSE(inode.note_read(8192, 12288));
  constexpr uint64_t kFar = uint64_t{5} << 32;
  EXPECT_FALSE(inode.note_read(kFar, kFar + 4096));
  EXPECT_TRUE(inode.note_read(kFar + 4096, kFar + 8192));
}

TEST(Inode, OwnsATreeOrNone) {
  Inode inode;
  EXPECT_FALSE(inode.tree());
  inode.set_tree(make_ref<Tree>(NodeId{7}));
  EXPECT_EQ(inode.tree()->root(), NodeId{7});
  EXPECT_EQ(inode.verified(), Inode::kNeverVerified);
  inode.verified() = 3;
  inode.set_tree(make_ref<Tree>(NodeId{8}));
  EXPECT_EQ(inode.tree()->root(), NodeId{8});
}

}  // namespace
}  // namespace caw
