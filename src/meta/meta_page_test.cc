#include "meta/meta_page.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/bytes.h"
#include "format/compression.h"

namespace caw {
namespace {

constexpr BlockAddr kAddr{0x1234};

MetaPageContent leaf_content() {
  MetaPageContent content{0, 2, {}};
  append_leaf_entry(content.entries, {MetaSpace::node, 0x0102}, "abc");
  append_leaf_entry(content.entries, {MetaSpace::dead_node, 1}, "");
  return content;
}

MetaPageContent interior_content() {
  MetaPageContent content{2, 2, {}};
  append_interior_entry(content.entries, {MetaSpace::node, 5}, {BlockAddr{77}, 0xaabb});
  append_interior_entry(content.entries, {MetaSpace::node, 9}, {BlockAddr{78}, 0xccdd});
  return content;
}

struct Encoded {
  std::string bytes;
  PageRef ref;
};
Encoded encode(const MetaPageContent& content, BlockAddr addr = kAddr) {
  Encoded out{std::string(kBlockSize, 'x'), {}};
  out.ref = {addr, encode_meta_page(content, addr, 3, out.bytes.data())};
  return out;
}

bool decodes(const MetaPageContent& content) {
  const Encoded page = encode(content);
  return MetaPage::decode(page.bytes, page.ref, content.level).has_value();
}

TEST(MetaPage, GoldenBytesOfALeaf) {
  const unsigned char expected[] = {
      'C', 'A', 'W', 'M', 0, 0, 2, 0, 0x34, 0x12, 0, 0, 0, 0, 0, 0,   //
      3,   0,   0,   0,   0, 0, 0, 0, 23,   0,    0, 0, 0, 0, 0, 0,   //
      1, 2, 1, 0, 0, 0, 0, 0, 0, 3, 'a', 'b', 'c',                    //
      4, 1, 0, 0, 0, 0, 0, 0, 0, 0};
  std::string bytes(kBlockSize, '\0');
  std::memcpy(bytes.data(), expected, sizeof(expected));
  const Encoded page = encode(leaf_content());
  EXPECT_EQ(page.bytes, bytes);
  EXPECT_EQ(page.ref.checksum, checksum64(bytes));
}

TEST(MetaPage, GoldenBytesOfAnInteriorPage) {
  const unsigned char expected[] = {
      1, 5, 0, 0, 0, 0, 0, 0, 0, 77, 0, 0, 0, 0, 0, 0, 0, 0xbb, 0xaa, 0, 0, 0, 0, 0, 0,
      1, 9, 0, 0, 0, 0, 0, 0, 0, 78, 0, 0, 0, 0, 0, 0, 0, 0xdd, 0xcc, 0, 0, 0, 0, 0, 0};
  const Encoded page = encode(interior_content());
  EXPECT_EQ(page.bytes[4], 2);
  EXPECT_EQ(page.bytes[24], 50);
  EXPECT_EQ(page.bytes.substr(32, 50), std::string(reinterpret_cast<const char*>(expected), 50));
}

TEST(MetaPage, ReadsBackWhatItWrote) {
  const Encoded bytes = encode(leaf_content());
  const auto page = MetaPage::decode(bytes.bytes, bytes.ref, 0);
  ASSERT_TRUE(page) << page.error().to_string();
  EXPECT_EQ((*page)->count(), 2U);
  EXPECT_EQ((*page)->key(0), (MetaKey{MetaSpace::node, 0x0102}));
  EXPECT_EQ((*page)->value(0), "abc");
  EXPECT_EQ((*page)->value(1), "");
  EXPECT_EQ((*page)->lower_bound({MetaSpace::node, 0x0103}), 1U);

  const Encoded upper = encode(interior_content());
  const auto interior = MetaPage::decode(upper.bytes, upper.ref, 2);
  ASSERT_TRUE(interior);
  EXPECT_EQ((*interior)->child(1), (PageRef{BlockAddr{78}, 0xccdd}));
  EXPECT_EQ((*interior)->child_index({MetaSpace::node, 1}), 0U);
  EXPECT_EQ((*interior)->child_index({MetaSpace::node, 8}), 0U);
  EXPECT_EQ((*interior)->child_index({MetaSpace::node, 9}), 1U);
  EXPECT_EQ((*interior)->child_index({MetaSpace::dead_node, 0}), 1U);
}

TEST(MetaPage, EveryFlippedByteIsNoticed) {
  const Encoded good = encode(leaf_content());
  for (size_t i = 0; i < kBlockSize; ++i) {
    std::string bad = good.bytes;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    const auto page = MetaPage::decode(bad, good.ref, 0);
    ASSERT_FALSE(page) << i;
    ASSERT_EQ(page.error().code, Code::meta_page);
    ASSERT_EQ(page.error().detail, raw(kAddr));
  }
}

TEST(MetaPage, AnotherPageOrLevelIsRefusedDespiteAGoodChecksum) {
  const Encoded good = encode(leaf_content());
  EXPECT_TRUE(MetaPage::decode(good.bytes, good.ref, 0));
  EXPECT_FALSE(MetaPage::decode(good.bytes, good.ref, 1));
  EXPECT_FALSE(MetaPage::decode(good.bytes, {BlockAddr{9}, good.ref.checksum}, 0));
}

TEST(MetaPage, MalformedEntriesAreRefusedDespiteAGoodChecksum) {
  EXPECT_TRUE(decodes(leaf_content()));
  MetaPageContent content = leaf_content();
  content.count = 3;
  EXPECT_FALSE(decodes(content)) << "too few entries";
  content.count = 1;
  EXPECT_FALSE(decodes(content)) << "bytes left over";
  content = leaf_content();
  content.entries[9] = 65;
  EXPECT_FALSE(decodes(content)) << "value too long";
  content = leaf_content();
  content.entries[0] = 4;
  EXPECT_FALSE(decodes(content)) << "out of order";
  content = leaf_content();
  content.entries.pop_back();
  EXPECT_FALSE(decodes(content)) << "cut short";
  content = interior_content();
  content.entries.replace(9, 8, 8, '\0');
  EXPECT_FALSE(decodes(content)) << "no child";
  content = interior_content();
  content.entries[26] = 5;
  EXPECT_FALSE(decodes(content)) << "same key twice";

  Encoded page = encode(leaf_content());
  store_fixed<uint16_t>(page.bytes.data() + 24, 5000);
  page.ref.checksum = checksum64(page.bytes);
  EXPECT_FALSE(MetaPage::decode(page.bytes, page.ref, 0)) << "used bytes past the end";
}

}  // namespace
}  // namespace caw
