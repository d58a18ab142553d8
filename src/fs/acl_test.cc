#include "fs/acl.h"

#include <gtest/gtest.h>

namespace caw {
namespace {

using namespace std::string_literals;

const std::string kGolden =
    "\x02\0\0\0"
    "\x01\0\x07\0\xff\xff\xff\xff"
    "\x02\0\x06\0\xe8\x03\0\0"
    "\x04\0\x05\0\xff\xff\xff\xff"
    "\x10\0\x07\0\xff\xff\xff\xff"
    "\x20\0\0\0\xff\xff\xff\xff"s;

Acl example() { return decode_acl(kGolden).value(); }

uint16_t permissions_of(const Acl& acl, AclTag tag) {
  for (const AclEntry& entry : acl) {
    if (entry.tag == tag) return entry.permissions;
  }
  return 0777;
}

TEST(Acl, GoldenBytes) {
  const Acl acl = example();
  ASSERT_EQ(acl.size(), 5U);
  EXPECT_EQ(acl[1].tag, AclTag::user);
  EXPECT_EQ(acl[1].id, 1000U);
  EXPECT_EQ(encode_acl(acl), kGolden);
}

TEST(Acl, RefusesWhatIsNoAcl) {
  EXPECT_TRUE(decode_acl("\x02\0\0\0"s)) << "empty";
  EXPECT_FALSE(decode_acl(""));
  EXPECT_FALSE(decode_acl("\x01\0\0\0"s));
  EXPECT_FALSE(decode_acl(kGolden.substr(0, kGolden.size() - 1)));
  EXPECT_FALSE(decode_acl(kGolden.substr(0, kGolden.size() - 8))) << "others missing";
  std::string without_mask = kGolden;
  EXPECT_FALSE(decode_acl(without_mask.erase(28, 8)));
  std::string out_of_order = kGolden.substr(0, 4) + kGolden.substr(12) + kGolden.substr(4, 8);
  EXPECT_FALSE(decode_acl(out_of_order));
}

TEST(Acl, TheMaskIsTheGroupsBits) {
  Acl acl = example();
  EXPECT_EQ(acl_mode(acl), 0770U);
  EXPECT_FALSE(is_mode_only(acl));
  set_acl_mode(acl, 0641);
  EXPECT_EQ(acl_mode(acl), 0641U);
  EXPECT_EQ(permissions_of(acl, AclTag::mask), 4);
  EXPECT_EQ(permissions_of(acl, AclTag::group_owner), 5) << "stays";
}

TEST(Acl, WhoMayWhat) {
  constexpr uint32_t kOwner = 5;
  constexpr uint32_t kGroup = 6;
  const Acl acl = {{AclTag::owner, 6, 0},       {AclTag::user, 7, 1000}, {AclTag::user, 0, 1001},
                   {AclTag::group_owner, 2, 0}, {AclTag::group, 7, 77},  {AclTag::mask, 3, 0},
                   {AclTag::other, 4, 0}};
  const auto may = [&](uint32_t uid, uint32_t gid, uint32_t wanted) {
    return acl_allows(acl, uid, gid, kOwner, kGroup, wanted);
  };
  EXPECT_TRUE(may(kOwner, 77, 6)) << "the mask is not the owner's";
  EXPECT_FALSE(may(kOwner, 77, 1));
  EXPECT_TRUE(may(1000, 1, 3));
  EXPECT_FALSE(may(1000, 1, 4)) << "masked";
  EXPECT_FALSE(may(1001, 77, 1)) << "named, whatever the group may";
  EXPECT_TRUE(may(9, 77, 3));
  EXPECT_TRUE(may(9, kGroup, 2));
  EXPECT_FALSE(may(9, kGroup, 4)) << "others may, this group not";
  EXPECT_TRUE(may(9, 9, 4));
  EXPECT_FALSE(may(9, 9, 2));
}

TEST(Acl, NobodyInheritsMoreThanTheFileWasMadeWith) {
  Acl acl = example();
  EXPECT_EQ(inherit_acl(acl, 0100644), 0100640U);
  EXPECT_EQ(permissions_of(acl, AclTag::owner), 6);
  EXPECT_EQ(permissions_of(acl, AclTag::mask), 4);
  EXPECT_EQ(permissions_of(acl, AclTag::user), 6);
  Acl minimal = {{AclTag::owner, 7, 0}, {AclTag::group_owner, 5, 0}, {AclTag::other, 5, 0}};
  EXPECT_TRUE(is_mode_only(minimal));
  EXPECT_EQ(inherit_acl(minimal, 0640), 0640U);
}

}  // namespace
}  // namespace caw
