#include "format/interior.h"

#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/random.h"
#include "format/sorted_block.h"

namespace caw {
namespace {

Edge edge(std::string lo, uint64_t child) {
  Edge out;
  out.lo = std::move(lo);
  out.child = NodeId{child};
  return out;
}

RunRef run(uint64_t id, uint64_t pos) {
  RunRef out;
  out.run = NodeId{id};
  out.hi = kKeyEnd;
  out.pos = pos;
  return out;
}

std::string small_block() {
  SortedBlockBuilder builder;
  builder.add("k", Message::erase(1));
  return builder.finish();
}

Interior sample() {
  Interior node;
  node.height = 2;
  node.next_pos = 10;
  node.max_seq = 77;
  node.edges = {edge("", 5), edge("b", 6), edge("bcd", 0), edge("be", 7)};
  node.edges[0].child_bytes = 4096;
  node.edges[0].child_height = 1;
  node.edges[0].applied_pos = 9;
  node.edges[0].max_seq = 70;
  node.edges[3].translation = {"b", "xyz"};
  node.hi = "c";
  node.runs = {run(20, 8), run(21, 3)};
  node.runs[0].translation = {"", "p"};
  node.runs[0].bytes = 1000;
  node.runs[0].weight = 5000;
  node.runs[1].lo = "a";
  node.runs[1].hi = "b";
  node.inline_block = small_block();
  node.inline_pos = 9;
  return node;
}

Code decode_error(const Interior& node) {
  const Result<Interior> back = decode_interior(encode_interior(node));
  return back ? Code::unknown : back.error().code;
}

TEST(Interior, RoundTrip) {
  const Interior node = sample();
  const Result<Interior> back = decode_interior(encode_interior(node));
  ASSERT_TRUE(back) << back.error().to_string();
  EXPECT_EQ(*back, node);
  // Bounds may be wider than the prefix that is stripped: keys without it are not below the edge.
  Interior wide = node;
  wide.hi = kKeyEnd;
  wide.runs[1].translation.strip = "b";
  EXPECT_EQ(decode_interior(encode_interior(wide)).value(), wide);
  Interior plain;
  plain.edges.push_back(edge("", 0));
  EXPECT_EQ(decode_interior(encode_interior(plain)).value(), plain);
}

TEST(Interior, GoldenBytes) {
  Interior node;
  node.next_pos = 5;
  node.max_seq = 6;
  node.edges = {edge("", 0), edge("ab", 300), edge("ac", 9)};
  node.edges[1].child_bytes = 200;
  node.edges[1].translation = {"a", "z"};
  node.edges[2].applied_pos = 4;
  node.edges[2].max_seq = 3;
  node.edges[2].translation = {"a", "z"};
  node.hi = "b";
  node.runs = {run(7, 2)};
  node.runs[0].hi = "q";
  using std::string_view_literals::operator""sv;
  EXPECT_EQ(encode_interior(node),
            "\x01\x01"
            "b\x05\x06\x03"
            "\x03\x00\x00\x00\x00"
            "\x00\x01"
            "a\x01z\x00\x02"
            "ab\x00\x00\xac\x02\xc8\x01\x00"
            "\x01\x01\x01"
            "c\x04\x03\x09\x00\x00"
            "\x01\x01\x00\x00\x00\x01q\x07\x02\x00\x00\x00"
            "\x00"sv);
}

TEST(Interior, EdgesCodeSmall) {
  Interior node;
  node.next_pos = 100;
  const Translation same{"prefix/of/a/clone", "prefix/of/its/source"};
  for (uint64_t i = 0; i < 32; ++i) {
    node.edges.push_back(edge("prefix/of/a/clone/" + std::to_string(1000 + i * 7), 100'000 + i));
    node.edges.back().child_bytes = 120'000;
    node.edges.back().translation = same;
    node.edges.back().max_seq = 1'000'000;
  }
  EXPECT_LE(encode_interior(node).size(), 32U * 20U + 100U);
  node.hi = "prefix/of/a/clone/2";
  EXPECT_EQ(decode_interior(encode_interior(node)).value(), node);
}

TEST(Interior, DecoderRefuses) {
  constexpr Code kBad = Code::interior_malformed;
  ASSERT_EQ(decode_error(sample()), Code::unknown);
  const auto with = [](auto change) {
    Interior node = sample();
    change(node);
    return decode_error(node);
  };
  EXPECT_EQ(with([](Interior& n) { n.height = 0; }), kBad);
  EXPECT_EQ(with([](Interior& n) { n.height = 64; }), kBad);
  EXPECT_EQ(with([](Interior& n) { n.height = 1; }), kBad) << "child as high as its parent";
  EXPECT_EQ(with([](Interior& n) { n.edges[1].lo = "z"; }), kBad) << "order";
  EXPECT_EQ(with([](Interior& n) { n.edges[1].lo = ""; }), kBad) << "empty range";
  EXPECT_EQ(with([](Interior& n) { n.hi = "be"; }), kBad) << "nothing for the last edge";
  EXPECT_EQ(with([](Interior& n) { n.hi = "\xff\x01"; }), kBad) << "above kKeyEnd";
  EXPECT_EQ(with([](Interior& n) { n.edges[0].applied_pos = 10; }), kBad);
  EXPECT_EQ(with([](Interior& n) { n.runs[1].pos = 8; }), kBad) << "not newest first";
  EXPECT_EQ(with([](Interior& n) { n.runs[0].pos = 10; }), kBad) << "not below next_pos";
  EXPECT_EQ(with([](Interior& n) { n.runs[0].run = kNoNode; }), kBad);
  EXPECT_EQ(with([](Interior& n) { n.runs[0].lo = "\xff"; }), kBad);
  EXPECT_EQ(with([](Interior& n) { n.runs[1].hi = "a"; }), kBad) << "empty run";
  EXPECT_EQ(with([](Interior& n) { n.inline_pos = 8; }), kBad) << "a run's position";
  EXPECT_EQ(with([](Interior& n) { n.inline_pos = 10; }), kBad);
  EXPECT_EQ(with([](Interior& n) { n.inline_block = "x"; }), Code::node_payload);
  EXPECT_FALSE(decode_interior(""));
}

TEST(Interior, MutatedPayloadsNeverCrash) {
  Random random(7);
  const std::string good = encode_interior(sample());
  size_t refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string bytes = good;
    for (uint64_t n = 1 + random.below(3); n > 0; --n) {
      bytes[random.below(bytes.size())] = static_cast<char>(random.next());
    }
    if (random.one_in(8)) bytes.resize(random.below(bytes.size()));
    bytes.shrink_to_fit();
    const Result<Interior> node = decode_interior(bytes);
    if (!node) {
      ++refused;
      continue;
    }
    ASSERT_EQ(decode_interior(encode_interior(*node)).value(), *node);
  }
  EXPECT_GT(refused, 5000U);
}

/// Keys that share their fronts are small on the device and large in memory.
TEST(Interior, SmallBytesThatWouldTakeMuchMemoryAreRefused) {
  Interior node;
  node.edges.clear();
  std::string lo(kMaxKeyBytes - 3, 'k');
  for (size_t i = 0; i < 16'000; ++i) {
    node.edges.push_back(edge(lo, 0));
    node.edges.back().lo += {static_cast<char>(i >> 8), static_cast<char>(i)};
  }
  EXPECT_LT(encode_interior(node).size(), 300'000U);
  EXPECT_FALSE(check_limits(node).has_value());
  EXPECT_EQ(decode_interior(encode_interior(node)).error().code, Code::interior_malformed);
  node.edges.resize(5000);
  EXPECT_TRUE(check_limits(node).has_value());
  EXPECT_TRUE(decode_interior(encode_interior(node)).has_value());
}

TEST(Interior, MoreEdgesOrRunsThanAnyWriterMakesAreRefused) {
  Interior node;
  node.edges.clear();
  for (size_t i = 0; i <= kMaxEdges; ++i) {
    node.edges.push_back(edge({static_cast<char>(i >> 14), static_cast<char>(i >> 7 & 127),
                               static_cast<char>(i & 127)},
                              0));
  }
  EXPECT_FALSE(decode_interior(encode_interior(node)).has_value());
  node.edges.pop_back();
  EXPECT_TRUE(decode_interior(encode_interior(node)).has_value());
  node.next_pos = kMaxRuns + 2;
  for (uint64_t pos = kMaxRuns + 1; pos > 0; --pos) node.runs.push_back(run(9, pos));
  EXPECT_FALSE(check_limits(node).has_value());
  EXPECT_FALSE(decode_interior(encode_interior(node)).has_value());
}

TEST(Interior, APositionThatCouldOverflowIsRefused) {
  Interior node = sample();
  node.next_pos = ~uint64_t{0};
  EXPECT_FALSE(decode_interior(encode_interior(node)).has_value());
}

}  // namespace
}  // namespace caw
