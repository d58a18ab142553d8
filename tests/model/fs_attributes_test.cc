// Cases of extended attributes, ACLs, files without names and copies, on the plainest forest.
#include <gtest/gtest.h>

#include "fs/acl.h"
#include "model/fs_harness.h"
#include "schema/keys.h"

namespace caw {
namespace {

using Xattrs = std::map<std::string, std::string>;

class FsAttributes : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(c.make_and_mount(), 0); }

  int unnamed(std::string_view directory, const std::function<int(Inode&)>& use) {
    return c.at(directory, [&](Inode& parent) {
      const Result<Entry> made = c.fs().create_unnamed(parent, 0666, c.caller());
      if (!made) return made.error().as_errno();
      EXPECT_TRUE(c.fs().open_file(*made->inode, OpenFor::mapping, false));
      const int error = use(*made->inode);
      c.fs().release_file(*made->inode, OpenFor::mapping);
      c.fs().forget(*made->inode, 1);
      return error;
    });
  }

  MapForest forest;
  FsClient c{forest};
};

std::string named_acl(uint16_t user, uint16_t mask) {
  return encode_acl({{AclTag::owner, 7, UINT32_MAX},
                     {AclTag::user, user, 1000},
                     {AclTag::group_owner, 5, UINT32_MAX},
                     {AclTag::mask, mask, UINT32_MAX},
                     {AclTag::other, 1, UINT32_MAX}});
}

TEST_F(FsAttributes, LimitsAndErrors) {
  EXPECT_EQ(c.create("f"), 0);
  EXPECT_EQ(c.set_xattr("f", "user.a", std::string(65536, 'x')), 0);
  EXPECT_EQ(c.set_xattr("f", "user.b", std::string(65537, 'x')), E2BIG);
  EXPECT_EQ(c.set_xattr("f", "user.b", std::string(65000, 'x')), 0);
  EXPECT_EQ(c.set_xattr("f", "user.c", std::string(600, 'x')), ENOSPC);
  EXPECT_EQ(c.set_xattr("f", "user.a", ""), 0) << "makes room";
  EXPECT_EQ(c.set_xattr("f", "user.c", std::string(600, 'x')), 0);
  EXPECT_EQ(c.set_xattr("f", "user.c", "x", {.create = true}), EEXIST);
  EXPECT_EQ(c.set_xattr("f", "user.d", "x", {.replace = true}), ENODATA);
  EXPECT_EQ(c.set_xattr("f", "user.", "x"), EINVAL);
  EXPECT_EQ(c.set_xattr("f", "system.other", "x"), EOPNOTSUPP);
  EXPECT_EQ(c.set_xattr("f", "user." + std::string(250, 'n'), "x"), 0);
  EXPECT_EQ(c.set_xattr("f", "user." + std::string(251, 'n'), "x"), ERANGE);
  EXPECT_EQ(c.remove_xattr("f", "user.d"), ENODATA);
  for (const auto& [name, value] : c.xattrs("f")) EXPECT_EQ(c.remove_xattr("f", name), 0);
  EXPECT_TRUE(c.xattrs("f").empty());
}

TEST_F(FsAttributes, TheTopOfACloneHasThemToo) {
  EXPECT_EQ(c.set_xattr("", "user.root", "of the root"), 0);
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.set_xattr("d", "user.d", "before"), 0);
  EXPECT_EQ(c.clone("d", "e"), 0);
  EXPECT_EQ(c.clone("/", "d/all"), 0);
  EXPECT_EQ(c.set_xattr("d", "user.d", "after"), 0);
  EXPECT_EQ(c.remove_xattr("d/all/e", "user.d"), 0);
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(c.xattrs("e"), (Xattrs{{"user.d", "before"}}));
  EXPECT_EQ(c.xattrs("d/all"), (Xattrs{{"user.root", "of the root"}}));
  EXPECT_EQ(c.xattrs("d/all/d"), (Xattrs{{"user.d", "before"}}));
  EXPECT_EQ(c.xattrs("d/all/e"), Xattrs());
  EXPECT_EQ(c.xattrs("d"), (Xattrs{{"user.d", "after"}}));
}

/// Into a tree that hangs from the source's: made among the orphans first.
TEST_F(FsAttributes, ACloneThatTakesADetourHasThem) {
  EXPECT_EQ(c.mkdir("outer"), 0);
  EXPECT_EQ(c.mkdir("outer/s"), 0);
  EXPECT_EQ(c.create("outer/s/f"), 0);
  EXPECT_EQ(c.set_xattr("outer/s", "user.s", "s"), 0);
  EXPECT_EQ(c.clone("outer/s", "outer/hanging"), 0);
  EXPECT_EQ(c.clone("outer/s", "outer/hanging/again"), 0);
  EXPECT_EQ(c.xattrs("outer/hanging/again"), (Xattrs{{"user.s", "s"}}));
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(c.xattrs("outer/hanging/again"), (Xattrs{{"user.s", "s"}}));
}

TEST_F(FsAttributes, AclsAndModesAreInStep) {
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.set_xattr("d", kAccessAcl, named_acl(6, 4)), 0);
  EXPECT_EQ(c.stat("d").mode & 0777, 0741U);
  SetAttributes set;
  set.mode = 0750;
  EXPECT_EQ(c.setattr("d", set), 0);
  const Acl acl = decode_acl(c.xattrs("d")[std::string(kAccessAcl)]).value();
  EXPECT_EQ(acl_mode(acl), 0750U);
  EXPECT_EQ(acl[1].permissions, 6);
  EXPECT_EQ(c.set_xattr("d", kAccessAcl,
                        encode_acl({{AclTag::owner, 6, 0}, {AclTag::group_owner, 4, 0},
                                    {AclTag::other, 4, 0}})), 0);
  EXPECT_EQ(c.stat("d").mode & 0777, 0644U);
  EXPECT_TRUE(c.xattrs("d").empty()) << "the mode says it";
  EXPECT_EQ(c.set_xattr("d", kAccessAcl, "nonsense"), EINVAL);
}

TEST_F(FsAttributes, DefaultAclsAreInheritedAndTheUmaskIsNot) {
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.set_xattr("d", kDefaultAcl, named_acl(6, 7)), 0);
  c.caller().umask = 077;
  EXPECT_EQ(c.create("d/f", 0666), 0);
  EXPECT_EQ(c.mkdir("d/e", 0777), 0);
  EXPECT_EQ(c.create("plain", 0666), 0);
  EXPECT_EQ(c.stat("d/f").mode & 0777, 0660U);
  EXPECT_EQ(c.stat("d/e").mode & 0777, 0771U);
  EXPECT_EQ(c.stat("plain").mode & 0777, 0600U);
  EXPECT_EQ(c.clone("d", "copy"), 0);
  EXPECT_EQ(c.create("copy/e/g", 0666), 0);
  EXPECT_EQ(c.xattrs("copy/e/g").size(), 1U);
  EXPECT_EQ(c.xattrs("d/e"), c.xattrs("copy/e"));
  EXPECT_EQ(c.set_xattr("d/f", kDefaultAcl, named_acl(6, 7)), EACCES);
}

/// The group's bits of a mode are the mask then: they say nothing of the group.
TEST_F(FsAttributes, AclsSayWhoMayCloneIntoADirectory) {
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.create("f"), 0);
  EXPECT_EQ(c.set_xattr("d", kAccessAcl, named_acl(3, 7)), 0);
  SetAttributes owner;
  owner.uid = 1000;
  EXPECT_EQ(c.setattr("f", owner), 0);
  c.caller() = {.uid = 1000, .gid = 0, .privileged = false};
  EXPECT_EQ(c.clone("f", "d/mine"), 0) << "named";
  c.caller() = {.uid = 1001, .gid = 0, .privileged = false};
  owner.uid = 1001;
  EXPECT_EQ(c.setattr("f", owner), 0);
  EXPECT_EQ(c.clone("f", "d/theirs"), EACCES) << "the group may not write";
}

TEST_F(FsAttributes, PrivilegesGoWithAWriteOfOthers) {
  EXPECT_EQ(c.create("f", 06755), 0);
  EXPECT_EQ(c.set_xattr("f", "security.capability", "all"), 0);
  EXPECT_EQ(c.write("f", 0, "by the owner"), 0);
  EXPECT_EQ(c.stat("f").mode & 07777, 06755U);
  EXPECT_EQ(c.at("f", [&](Inode& inode) {
    return FsClient::error_of(c.fs().write(inode, 0, "by others", true));
  }), 0);
  EXPECT_EQ(c.stat("f").mode & 07777, 0755U);
  EXPECT_TRUE(c.xattrs("f").empty());
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(c.stat("f").mode & 07777, 0755U);
}

TEST_F(FsAttributes, AFileWithoutANameLivesUntilItIsClosed) {
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(unnamed("d", [&](Inode& inode) {
    EXPECT_EQ(c.fs().getattr(inode)->nlink, 0U);
    EXPECT_EQ(c.fs().write(inode, 0, "contents").value(), 8U);
    EXPECT_TRUE(c.fs().set_xattr(inode, "user.a", "v", {}));
    std::string bytes;
    EXPECT_EQ(c.read_inode(inode, bytes), 0);
    EXPECT_EQ(bytes, "contents");
    EXPECT_EQ(c.clone("d", "e"), 0);
    return 0;
  }), 0);
  EXPECT_TRUE(c.list("d").empty());
  EXPECT_TRUE(c.list("e").empty());
  EXPECT_EQ(c.rmdir("d"), 0);
}

TEST_F(FsAttributes, AWhiteoutStandsWhereTheFileWas) {
  EXPECT_EQ(c.mkdir("d"), 0);
  for (const char* to : {"g", "d/f"}) {
    EXPECT_EQ(c.create("f"), 0);
    EXPECT_EQ(c.rename("f", to, {.whiteout = true}), 0);
    EXPECT_EQ(c.stat("f").mode, uint32_t{S_IFCHR});
    EXPECT_EQ(c.stat("f").rdev, 0U);
    EXPECT_EQ(c.stat(to).mode, uint32_t{S_IFREG | 0644});
    EXPECT_EQ(c.unlink("f"), 0);
  }
}

TEST_F(FsAttributes, CopiesShareWhatTheyCan) {
  std::string data(3 * kChunkBytes + 5000, 'd');
  for (size_t i = 0; i < data.size(); i += 977) data[i] = static_cast<char>(i / 977);
  EXPECT_EQ(c.create("f"), 0);
  EXPECT_EQ(c.create("g"), 0);
  EXPECT_EQ(c.write("f", 0, data), 0);
  const uint64_t before = forest.space().used_bytes;
  EXPECT_EQ(c.copy("f", 0, "g", 0, data.size()), 0);
  EXPECT_LT(forest.space().used_bytes - before, kChunkBytes);
  EXPECT_EQ(c.read("g"), data);
  EXPECT_EQ(c.write("f", 10, "changed"), 0);
  EXPECT_EQ(c.write("g", kChunkBytes + 10, "changed"), 0);
  EXPECT_EQ(c.read("g").substr(0, kChunkBytes), data.substr(0, kChunkBytes));
  EXPECT_EQ(c.read("f").substr(kChunkBytes), data.substr(kChunkBytes));
  EXPECT_EQ(c.truncate("f", 4 * kChunkBytes), 0);
  EXPECT_EQ(c.write("f", 6 * kChunkBytes, "end"), 0);
  EXPECT_EQ(c.copy("f", 0, "g", 0, 10 * kChunkBytes), 0) << "holes over data";
  EXPECT_EQ(c.read("g"), c.read("f"));
}

}  // namespace
}  // namespace caw
