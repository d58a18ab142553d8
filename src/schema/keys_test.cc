#include "schema/keys.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace caw {
namespace {

using namespace std::string_literals;

TEST(OrderedNumber, GoldenBytes) {
  std::string out;
  put_ordered(out, 0);
  EXPECT_EQ(out, "\x01\x00"s);
  out.clear();
  put_ordered(out, 0x0102ff);
  EXPECT_EQ(out, "\x03\x01\x02\xff"s);
  out.clear();
  put_ordered(out, UINT64_MAX);
  EXPECT_EQ(out, "\x08\xff\xff\xff\xff\xff\xff\xff\xff"s);
}

TEST(OrderedNumber, ByteOrderIsNumberOrder) {
  Random random(1);
  for (int i = 0; i < 5000; ++i) {
    const uint64_t a = random.next() >> random.below(64);
    const uint64_t b = random.next() >> random.below(64);
    std::string x;
    std::string y;
    put_ordered(x, a);
    put_ordered(y, b);
    EXPECT_EQ(x < y, a < b) << a << " " << b;
    std::string_view rest = x;
    EXPECT_EQ(take_ordered(rest), a);
    EXPECT_TRUE(rest.empty());
  }
}

TEST(OrderedNumber, RefusesMalformedBytes) {
  for (const std::string& bytes :
       {""s, "\x00"s, "\x01"s, "\x09\x01\x01\x01\x01\x01\x01\x01\x01\x01"s, "\x02\x01"s,
        "\x02\x00\x01"s}) {
    std::string_view view = bytes;
    EXPECT_FALSE(take_ordered(view));
  }
}

TEST(Keys, GoldenBytes) {
  const std::string path = body_path(body_path("", 16), 300);
  EXPECT_EQ(path, "\x04\x01\x10\x04\x02\x01\x2c"s);
  EXPECT_EQ(dirent_key(path, "a"), "\0\x04\x01\x10\x04\x02\x01\x2c\x01"s + "a");
  EXPECT_EQ(record_key("", 17), "\0\x02\x01\x11"s);
  EXPECT_EQ(records_end(""), "\0\x03"s);
  EXPECT_EQ(chunk_key("", 17, 5), "\x01\x02\x01\x11\x01\x05"s);
  EXPECT_EQ(owned_chunk_key(256), "\x01\x02\x01\x00"s);
  EXPECT_EQ(domain_map_key(1, 2, 3), "\x02\x01\x01\x01\x02\x01\x03"s);
  EXPECT_EQ(chunk_map_key(1, 0), "\x03\x01\x01\x01\x00"s);
}

TEST(Keys, AfterPrefixIsTheEndOfThePrefix) {
  EXPECT_EQ(after_prefix("\x01"s), "\x02"s);
  EXPECT_EQ(after_prefix("\x01\xff\xff"s), "\x02"s);
  EXPECT_EQ(after_prefix("\x01\x05"s), "\x01\x06"s);
}

TEST(Keys, AllOfADirectoryLiesInItsPrefixAndNothingElse) {
  const std::string inside = body_path("", 300);
  const std::string lo = metadata_prefix(inside);
  const std::string hi = after_prefix(lo);
  for (const std::string& key :
       {dirent_key(inside, "\xff\xff"), dirent_key(inside, "\x01"), record_key(inside, 1ULL << 60),
        dirent_key(body_path(inside, 7), "x")}) {
    EXPECT_TRUE(lo <= key && key < hi);
  }
  for (const std::string& key :
       {dirent_key("", "\x04\x02\x01\x2c"), record_key("", 300),
        dirent_key(body_path("", 301), "a"), dirent_key(body_path("", 299), "\xff"),
        dirent_key(body_path("", 300 * 256), "a")}) {
    EXPECT_FALSE(lo <= key && key < hi);
  }
}

TEST(Keys, ParseGivesBackWhatWasBuilt) {
  const std::string path = body_path(body_path("", 16), 1ULL << 40);
  const std::string record = record_key(path, 99);
  ParsedKey parsed = parse_key(record, TreeKind::directory).value();
  EXPECT_EQ(parsed.kind, KeyKind::record);
  EXPECT_EQ(parsed.path, (std::vector<uint64_t>{16, 1ULL << 40}));
  EXPECT_EQ(parsed.entry, 99u);
  const std::string dirent = dirent_key(path, "\x04name");
  parsed = parse_key(dirent, TreeKind::directory).value();
  EXPECT_EQ(parsed.kind, KeyKind::dirent);
  EXPECT_EQ(parsed.name, "\x04name");
  const std::string chunk = chunk_key("", 20, 3);
  parsed = parse_key(chunk, TreeKind::directory).value();
  EXPECT_EQ(parsed.kind, KeyKind::chunk);
  EXPECT_EQ(parsed.chunk, 3u);
  const std::string xattr = xattr_prefix(path, 99) + "user.x";
  parsed = parse_key(xattr, TreeKind::directory).value();
  EXPECT_EQ(parsed.kind, KeyKind::xattr);
  EXPECT_EQ(parsed.entry, 99u);
  EXPECT_EQ(parsed.name, "user.x");
  parsed = parse_key(link_key(path, 99), TreeKind::directory).value();
  EXPECT_EQ(parsed.kind, KeyKind::link);
  EXPECT_EQ(parsed.path, (std::vector<uint64_t>{16, 1ULL << 40}));
  EXPECT_EQ(parsed.entry, 99u);
  EXPECT_EQ(link_key("", 16), "\x04\x02\x01\x10"s);
  EXPECT_FALSE(parse_key("\x04\x01name"s, TreeKind::directory));
  EXPECT_EQ(parse_key(owned_chunk_key(7), TreeKind::file).value().chunk, 7u);
  EXPECT_EQ(parse_key(chunk_map_key(7, 1), TreeKind::system).value().kind, KeyKind::chunk_map);
  EXPECT_EQ(parse_key(domain_map_key(7, 1, 2), TreeKind::system).value().kind, KeyKind::domain_map);
}

TEST(Keys, ParseRefusesMalformedKeys) {
  for (const std::string& key : {""s, "\0"s, "\x05\x01"s, "\0\x01"s, "\0\x01/"s, "\0\x01."s,
                                 "\0\x02\x01"s, "\0\x02\x01\x10z"s, "\0\x04\x01\x10"s, "\x01\x01z"s,
                                 "\x01\x02\x01\x10"s, "\0\x05\x01\x10"s}) {
    EXPECT_FALSE(parse_key(key, TreeKind::directory)) << testing::PrintToString(key);
  }
  EXPECT_FALSE(parse_key(chunk_map_key(1, 2), TreeKind::directory));
  EXPECT_FALSE(parse_key(record_key("", 16), TreeKind::file));
}

TEST(Keys, ParseSurvivesRandomBytes) {
  Random random(2);
  for (int i = 0; i < 20000; ++i) {
    std::string key;
    const uint64_t size = random.below(12);
    for (uint64_t b = 0; b < size; ++b) key.push_back(static_cast<char>(random.below(6)));
    const Result<ParsedKey> parsed = parse_key(key, TreeKind::directory);
    if (!parsed || parsed->kind != KeyKind::record) continue;
    std::string path;
    for (uint64_t entry : parsed->path) path = body_path(path, entry);
    EXPECT_EQ(record_key(path, parsed->entry), key);
  }
}

}  // namespace
}  // namespace caw
