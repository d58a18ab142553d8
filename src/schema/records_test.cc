#include "schema/records.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace caw {
namespace {

using namespace std::string_literals;

InodeRecord example() {
  InodeRecord record;
  record.fields.mode = S_IFLNK | 0777;
  record.fields.uid = 0x11121314;
  record.fields.gid = 0x21222324;
  record.fields.nlink = 1;
  record.fields.flags = kInodeClone | kInodeXattrs;
  record.fields.size = 0x3132333435363738;
  record.fields.mtime = {0x41, 0x42};
  record.fields.ctime = {0x51, 0x52};
  record.fields.content_seq = 0x61;
  record.fields.attribute_seq = 0x62;
  record.fields.atime = {-1, 0x72};
  record.fields.btime = {0x81, 0x82};
  record.number = 0x91;
  record.home = 0x92;
  record.domain = 0x93;
  record.name = "name";
  record.target = "target";
  return record;
}

TEST(InodeRecord, GoldenBytes) {
  const std::string expected =
      "\xff\xa1\0\0\x14\x13\x12\x11\x24\x23\x22\x21\x01\0\0\0"s
      "\0\0\0\0\x06\0\0\0\x38\x37\x36\x35\x34\x33\x32\x31"s
      "\x41\0\0\0\0\0\0\0\x42\0\0\0\x52\0\0\0"s
      "\x51\0\0\0\0\0\0\0\x61\0\0\0\0\0\0\0"s
      "\x62\0\0\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff"s
      "\x72\0\0\0\x82\0\0\0\x81\0\0\0\0\0\0\0"s
      "\x91\0\0\0\0\0\0\0\x92\0\0\0\0\0\0\0"s
      "\x93\0\0\0\0\0\0\0\x04\0\x06\0\0\0\0\0nametarget"s;
  EXPECT_EQ(encode_inode(example()), expected);
  EXPECT_EQ(decode_inode(expected).value(), example());
}

TEST(InodeRecord, PatchesGiveTheRecordTheyStandFor) {
  InodeRecord record = example();
  const auto patched = [&](const Patch& patch) {
    Value value = inline_value(encode_inode(example()));
    apply_patch(value, patch);
    return decode_inode(inline_bytes(value)).value();
  };
  record.fields.size = 7;
  record.fields.mtime = {1000, 1};
  record.fields.ctime = {1000, 2};
  record.fields.content_seq = 500;
  EXPECT_EQ(patched(content_patch(record.fields)), record);
  record.fields.mode = S_IFLNK | 0700;
  record.fields.uid = 5;
  record.fields.attribute_seq = 501;
  EXPECT_EQ(patched(attributes_patch(record.fields)), record);
  record.fields.atime = {77, 78};
  EXPECT_EQ(patched(all_fields_patch(record.fields)), record);
  for (const std::string& name : {"n"s, "a longer name"s}) {
    record.name = name;
    EXPECT_EQ(patched(rename_patch(record.fields, record.name, record.target)), record);
  }
}

TEST(InodeRecord, PatchesOfFieldsLeaveTheLinkCount) {
  InodeRecord record = example();
  Value value = inline_value(encode_inode(record));
  const auto apply = [&](const Patch& patch) {
    apply_patch(value, patch);
    return decode_inode(inline_bytes(value)).value();
  };
  record.fields.nlink = 7;
  record.fields.ctime = {5, 6};
  EXPECT_EQ(apply(links_patch(7, {5, 6})), record);
  InodeFields old = record.fields;
  old.nlink = 1;
  EXPECT_EQ(apply(attributes_patch(old)), record);
  EXPECT_EQ(apply(all_fields_patch(old)), record);
  EXPECT_EQ(apply(content_patch(old)), record);
  EXPECT_EQ(apply(rename_patch(old, record.name, record.target)), record);
  record.fields.nlink = 9;
  EXPECT_EQ(apply(link_count_patch(9)), record);
}

TEST(InodeRecord, EveryFieldIsChecked) {
  const auto refused = [](auto change) {
    InodeRecord record = example();
    change(record);
    return !decode_inode(encode_inode(record)).has_value();
  };
  EXPECT_TRUE(refused([](InodeRecord& r) { r.fields.mode = 0777; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.fields.mode |= 1U << 20; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.fields.mode = S_IFREG; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.fields.flags = 1U << 31; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.fields.nlink = 0; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.fields.size = 1ULL << 63; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.fields.mtime.nanoseconds = 1'000'000'000; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.number = 0; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.home = 0; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.name = "a/b"; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.name = ".."; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.target = "a\0b"s; }));
  EXPECT_TRUE(refused([](InodeRecord& r) { r.target.clear(); }));
  const std::string good = encode_inode(example());
  for (size_t size = 0; size < good.size(); ++size) {
    EXPECT_FALSE(decode_inode(std::string_view(good).substr(0, size)));
  }
  EXPECT_FALSE(decode_inode(good + "x"));
}

TEST(InodeRecord, RandomBytesAreRefusedOrRoundTrip) {
  Random random(3);
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = encode_inode(example());
    const uint64_t changes = 1 + random.below(3);
    for (uint64_t c = 0; c < changes; ++c) {
      bytes[random.below(bytes.size())] = static_cast<char>(random.next());
    }
    const Result<InodeRecord> record = decode_inode(bytes);
    if (record) {
      EXPECT_EQ(encode_inode(*record), bytes);
    }
  }
}

TEST(Dirent, GoldenBytesAndRefusals) {
  EXPECT_EQ(encode_dirent({300, S_IFDIR}), "\x04\xac\x02"s);
  EXPECT_EQ(decode_dirent("\x04\xac\x02"s).value(), (Dirent{300, S_IFDIR}));
  for (const std::string& bytes : {""s, "\x04"s, "\x03\x10"s, "\x04\x0f"s, "\x04\x10z"s}) {
    EXPECT_FALSE(decode_dirent(bytes));
  }
}

TEST(Dirent, OfALinkedName) {
  const Dirent local{300, S_IFREG, LinkScope::local, 17};
  EXPECT_EQ(encode_dirent(local), "\x48\xac\x02\x11"s);
  EXPECT_EQ(decode_dirent("\x48\xac\x02\x11"s).value(), local);
  const Dirent global{300, S_IFLNK, LinkScope::global, 17};
  EXPECT_EQ(encode_dirent(global), "\x8a\xac\x02\x11"s);
  EXPECT_EQ(decode_dirent("\x8a\xac\x02\x11"s).value(), global);
  for (const std::string& bytes : {"\x48\xac\x02"s, "\x48\xac\x02\x0f"s, "\x44\xac\x02\x11"s,
                                   "\xc8\xac\x02\x11"s, "\x08\xac\x02\x11"s, "\x18\xac\x02"s}) {
    EXPECT_FALSE(decode_dirent(bytes)) << testing::PrintToString(bytes);
  }
}

TEST(LinkName, GoldenBytesAndRefusals) {
  const LinkName name{S_IFREG, LinkScope::global, 258, "n"};
  const std::string bytes = "\0\x80\0\x80\x02\0\0\0\x02\x01\0\0\0\0\0\0n"s;
  EXPECT_EQ(encode_link_name(name), bytes);
  EXPECT_TRUE(is_link_name(bytes));
  EXPECT_EQ(decode_link_name(bytes).value(), name);
  EXPECT_FALSE(is_link_name(encode_inode(example())));
  EXPECT_FALSE(is_link_name("\0\0\x80"s));
  const auto refused = [&](size_t at, char byte) {
    std::string changed = bytes;
    changed[at] = byte;
    return !decode_link_name(changed).has_value();
  };
  EXPECT_TRUE(refused(0, '\1'));
  EXPECT_TRUE(refused(1, '\x40')) << "a directory";
  EXPECT_TRUE(refused(3, '\0'));
  EXPECT_TRUE(refused(4, '\0'));
  EXPECT_TRUE(refused(4, '\3'));
  EXPECT_TRUE(refused(9, '\0')) << "a reserved entry";
  EXPECT_TRUE(refused(16, '/'));
  for (size_t size = 0; size < bytes.size(); ++size) {
    EXPECT_FALSE(decode_link_name(std::string_view(bytes).substr(0, size)));
  }
}

TEST(LinkEntry, GoldenBytesAndRefusals) {
  EXPECT_EQ(encode_link_entry({}), "\0"s);
  EXPECT_TRUE(decode_link_entry("\0"s).value().is_mark());
  EXPECT_EQ(encode_link_entry({LinkScope::local, 300}), "\x01\xac\x02"s);
  EXPECT_EQ(decode_link_entry("\x02\xac\x02"s).value(), (LinkEntry{LinkScope::global, 300}));
  for (const std::string& bytes : {""s, "\0\0"s, "\x01"s, "\x01\x0f"s, "\x03\x10"s, "\x01\x10z"s}) {
    EXPECT_FALSE(decode_link_entry(bytes));
  }
}

TEST(MapNumber, GoldenBytesAndRefusals) {
  EXPECT_EQ(encode_number(300), "\xac\x02"s);
  EXPECT_EQ(decode_number("\xac\x02"s).value(), 300u);
  for (const std::string& bytes : {""s, "\0"s, "\x01z"s, "\x80"s}) {
    EXPECT_FALSE(decode_number(bytes));
  }
}

}  // namespace
}  // namespace caw
