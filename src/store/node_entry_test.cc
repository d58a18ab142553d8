#include "store/node_entry.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace caw {
namespace {

NodeEntry sample() {
  return NodeEntry{.addr = BlockAddr{0x1234},
                   .stored_bytes = 5000,
                   .checksum = 0x0102030405060708ULL,
                   .kind = NodeKind::interior,
                   .owns_refs = true,
                   .height = 3,
                   .compression = Compression::zstd,
                   .birth = 200,
                   .max_seq = 7,
                   .owner = 0};
}

TEST(NodeEntry, GoldenBytes) {
  const std::string golden(
      "\x16\x03"                             // interior, owns references, zstd; height 3
      "\x08\x07\x06\x05\x04\x03\x02\x01"     // checksum
      "\xb4\x24"                             // addr 0x1234
      "\x88\x27"                             // 5000 bytes
      "\xc8\x01"                             // birth 200
      "\x07"                                 // max_seq
      "\x00",                                // owner
      18);
  EXPECT_EQ(encode_node_entry(sample()), golden);
  const Result<NodeEntry> decoded = decode_node_entry(golden);
  ASSERT_TRUE(decoded.has_value());
  EXPECT_EQ(*decoded, sample());
}

TEST(NodeEntry, LargestFitsTheTable) {
  NodeEntry entry = sample();
  entry.addr = BlockAddr{UINT64_MAX / kBlockSize};
  entry.stored_bytes = kMaxNodePayload;
  entry.birth = entry.max_seq = entry.owner = UINT64_MAX;
  const std::string bytes = encode_node_entry(entry);
  EXPECT_LE(bytes.size(), 64U);
  EXPECT_EQ(*decode_node_entry(bytes), entry);
}

TEST(NodeEntry, RefusesWhatIsDamaged) {
  const std::string good = encode_node_entry(sample());
  for (size_t length = 0; length < good.size(); ++length) {
    EXPECT_FALSE(decode_node_entry(good.substr(0, length)).has_value()) << length;
  }
  EXPECT_FALSE(decode_node_entry(good + '\0').has_value());
  const auto fails = [](NodeEntry entry) {
    const Result<NodeEntry> decoded = decode_node_entry(encode_node_entry(entry));
    return !decoded && decoded.error().code == Code::node_entry;
  };
  NodeEntry entry = sample();
  entry.addr = kNoBlock;
  EXPECT_TRUE(fails(entry));
  entry = sample();
  entry.addr = BlockAddr{UINT64_MAX};
  EXPECT_TRUE(fails(entry));
  entry = sample();
  entry.stored_bytes = 0;
  EXPECT_TRUE(fails(entry));
  entry = sample();
  entry.stored_bytes = UINT32_MAX;
  EXPECT_TRUE(fails(entry));
  entry = sample();
  entry.height = 0;
  EXPECT_TRUE(fails(entry));
  entry = sample();
  entry.kind = NodeKind::leaf;
  EXPECT_TRUE(fails(entry));
  entry = sample();
  entry.kind = NodeKind{0};
  EXPECT_TRUE(fails(entry));
  std::string shape = good;
  shape[0] = static_cast<char>(0x36);
  EXPECT_FALSE(decode_node_entry(shape).has_value());
}

TEST(NodeEntry, AnyBytesDecodeOrFail) {
  Random random(7);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes;
    const uint64_t length = random.below(40);
    while (bytes.size() < length) bytes.push_back(static_cast<char>(random.next()));
    const Result<NodeEntry> decoded = decode_node_entry(bytes);
    if (decoded) {
      EXPECT_EQ(*decode_node_entry(encode_node_entry(*decoded)), *decoded);
    }
  }
}

}  // namespace
}  // namespace caw
