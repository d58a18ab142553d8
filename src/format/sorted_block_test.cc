#include "format/sorted_block.h"

#include <gtest/gtest.h>

#include <map>

#include "base/random.h"

namespace caw {
namespace {

using Model = std::map<std::string, Message>;

std::string random_key(Random& random) {
  std::string key;
  for (uint64_t n = random.below(12); n > 0; --n) {
    key.push_back(static_cast<char>("\0ab\x04\xfe\xff"[random.below(key.empty() ? 5 : 6)]));
  }
  return key;
}

Model random_model(Random& random, size_t count) {
  Model model;
  for (size_t i = 0; i < count; ++i) {
    const std::string bytes(random.below(40), 'v');
    model[random_key(random)] = random.one_in(3)   ? Message::erase(random.below(100))
                                : random.one_in(2) ? Message::make_patch(write_patch(3, bytes))
                                                   : Message::put(inline_value(bytes));
  }
  return model;
}

std::string build(const Model& model, const std::vector<RangeErase>& ranges = {}) {
  SortedBlockBuilder builder;
  for (const RangeErase& range : ranges) builder.add_range_erase(range);
  for (const auto& [key, message] : model) builder.add(key, message);
  const size_t size = builder.size_bytes();
  std::string out = builder.finish();
  EXPECT_EQ(out.size(), size);
  EXPECT_TRUE(builder.empty());
  return out;
}

Code open_error(std::string_view bytes) {
  const Result<SortedBlock> block = SortedBlock::open(bytes);
  return block ? Code::unknown : block.error().code;
}

/// A block of hand-made entries, ranges and restarts.
std::string assemble(std::string_view entries, uint32_t count, std::string_view ranges,
                     uint32_t range_count, const std::vector<uint32_t>& restarts) {
  std::string out(entries);
  out.append(ranges);
  for (const uint32_t offset : restarts) put_fixed(out, offset);
  put_fixed(out, count);
  put_fixed(out, range_count);
  put_fixed(out, static_cast<uint32_t>(restarts.size()));
  put_fixed(out, static_cast<uint32_t>(entries.size()));
  return out;
}

TEST(SortedBlock, HoldsWhatWasAdded) {
  for (uint64_t seed = 0; seed < 300; ++seed) {
    Random random(seed);
    const Model model = random_model(random, random.below(100));
    const std::string bytes = build(model);
    const Result<SortedBlock> block = SortedBlock::open(bytes);
    ASSERT_TRUE(block) << block.error().to_string();
    ASSERT_EQ(block->count(), model.size());
    SortedBlock::Iterator it(*block);
    it.seek_to_first();
    for (const auto& [key, message] : model) {
      ASSERT_TRUE(it.valid());
      ASSERT_EQ(it.key(), key);
      ASSERT_EQ(decode_message(it.kind(), it.body()).value(), message);
      it.next();
    }
    ASSERT_FALSE(it.valid());
  }
}

TEST(SortedBlock, SeekFindsTheFirstKeyNotBelow) {
  for (uint64_t seed = 0; seed < 100; ++seed) {
    Random random(seed);
    const Model model = random_model(random, random.below(120));
    const std::string bytes = build(model);
    const SortedBlock block = SortedBlock::trust(bytes);
    SortedBlock::Iterator it(block);
    for (int i = 0; i < 100; ++i) {
      std::string key = random_key(random);
      if (!model.empty() && random.one_in(2)) {
        key = std::next(model.begin(), static_cast<ptrdiff_t>(random.below(model.size())))->first;
      }
      it.seek(key);
      const auto want = model.lower_bound(key);
      ASSERT_EQ(it.valid(), want != model.end()) << "seed " << seed;
      if (it.valid()) {
        ASSERT_EQ(it.key(), want->first) << "seed " << seed;
        it.next();
        ASSERT_EQ(it.valid(), std::next(want) != model.end());
      }
    }
    it.seek(kKeyEnd);
    ASSERT_FALSE(it.valid());
  }
}

TEST(SortedBlock, EmptyBlocks) {
  const SortedBlock none;
  SortedBlock::Iterator it(none);
  it.seek_to_first();
  EXPECT_FALSE(it.valid());
  it.seek("a");
  EXPECT_FALSE(it.valid());
  EXPECT_EQ(SortedBlock::trust("").count(), 0U);
  const std::string bytes = build({});
  EXPECT_EQ(bytes, std::string(16, '\0'));
  EXPECT_EQ(SortedBlock::open(bytes).value().count(), 0U);
  EXPECT_EQ(open_error(""), Code::node_payload);
}

TEST(SortedBlock, RangeErases) {
  const std::vector<RangeErase> ranges = {
      {"", "a", 0}, {"a", "ab", 7}, {"b\xff", std::string(kKeyEnd), 300}};
  const std::string bytes = build({{"abc", Message::erase(1)}}, ranges);
  const SortedBlock block = SortedBlock::open(bytes).value();
  EXPECT_EQ(block.range_erases(), ranges);
  EXPECT_EQ(SortedBlock::trust(bytes).range_erases(), ranges);
  EXPECT_EQ(block.count(), 1U);
}

TEST(SortedBlock, KnowsWhetherItOwnsReferences) {
  SortedBlockBuilder builder;
  builder.add("a", Message::put(inline_value("x")));
  EXPECT_FALSE(builder.owns_refs());
  builder.add("b", Message::put(inline_value("x", NodeId{9})));
  EXPECT_TRUE(builder.owns_refs());
  builder.finish();
  EXPECT_FALSE(builder.owns_refs());
}

TEST(SortedBlock, GoldenBytes) {
  const std::string bytes =
      build({{"ab", Message::put(inline_value("1"))}, {"ac", Message::erase(2)}}, {{"x", "xy", 3}});
  using std::string_view_literals::operator""sv;
  EXPECT_EQ(bytes, std::string("\x00\x02\x09"
                               "ab\x04"
                               "1"
                               "\x01\x01\x06"
                               "c\x02"               // entries
                               "\x01x\x01\x01y\x03"  // range erase
                               "\x00\x00\x00\x00"    // restart
                               "\x02\x00\x00\x00\x01\x00\x00\x00"
                               "\x01\x00\x00\x00\x0c\x00\x00\x00"sv));
}

// Letters are octal below, since \x would swallow them: \141 is "a".
TEST(SortedBlock, OpenRefusesEntries) {
  using std::string_view_literals::operator""sv;
  constexpr Code kBad = Code::node_payload;
  const auto entries = [](std::string_view bytes, uint32_t count) {
    return open_error(assemble(bytes, count, "", 0, {0}));
  };
  constexpr std::string_view kOne = "\x00\x01\x06\142\x00"sv;
  EXPECT_EQ(entries(kOne, 1), Code::unknown);
  EXPECT_EQ(entries("\x00\x01\x06\142\x00\x00\x01\x06\141\x00"sv, 2), Code::block_order);
  EXPECT_EQ(entries("\x00\x01\x06\142\x00\x01\x00\x06\x00"sv, 2), Code::block_order) << "twice";
  EXPECT_EQ(entries("\x00\x01\x06\142\x00\x02\x00\x06\x00"sv, 2), kBad) << "shares too much";
  EXPECT_EQ(entries("\x00\x01\x04\142\x00"sv, 1), Code::message_malformed) << "kind 0";
  EXPECT_EQ(entries("\x00\x01\x05\142\x09"sv, 1), Code::message_malformed);
  EXPECT_EQ(entries("\x00\x01\x06\xff\x00"sv, 1), kBad) << "key above all";
  EXPECT_EQ(entries(kOne, 2), kBad) << "too few";
  EXPECT_EQ(entries("\x00\x01\x06\142\x00\x00"sv, 1), kBad) << "trailing";
  EXPECT_EQ(entries("\x80\x00\x01\x06\142\x00"sv, 1), kBad) << "longer varint than needed";
  EXPECT_EQ(entries("\x00\x01\x0e\142\x00"sv, 1), kBad) << "body past the end";
  EXPECT_EQ(open_error(assemble(kOne, 1, "", 0, {1})), kBad) << "restart";
  EXPECT_EQ(open_error(assemble(kOne, 1, "", 0, {})), kBad);
  EXPECT_EQ(open_error(assemble(kOne, 1, "", 0, {0, 0})), kBad);
  std::string long_key("\x00\x81\x20\x06", 4);
  long_key.append(kMaxKeyBytes + 1, 'k').push_back('\0');
  EXPECT_EQ(entries(long_key, 1), kBad) << "key too long";
}

TEST(SortedBlock, OpenRefusesRanges) {
  using std::string_view_literals::operator""sv;
  constexpr Code kBad = Code::node_payload;
  const auto ranges = [](std::string_view bytes, uint32_t count) {
    return open_error(assemble("", 0, bytes, count, {}));
  };
  constexpr std::string_view kOne = "\x01\141\x00\x01\142\x00"sv;
  EXPECT_EQ(ranges(kOne, 1), Code::unknown);
  EXPECT_EQ(ranges("\x01\141\x00\x01\141\x00"sv, 1), Code::block_order) << "empty";
  EXPECT_EQ(ranges("\x01\142\x00\x01\141\x00"sv, 1), Code::block_order) << "inverted";
  EXPECT_EQ(ranges("\x01\141\x00\x01\143\x00\x01\142\x00\x01\144\x00"sv, 2), Code::block_order)
      << "overlapping";
  EXPECT_EQ(ranges("\x01\141\x02\x01\142\x00"sv, 1), kBad) << "shares too much";
  EXPECT_EQ(ranges("\x01\141\x00\x02\xff\xff\x00"sv, 1), kBad) << "end above kKeyEnd";
  EXPECT_EQ(ranges("\x01\xff\x00\x02\xff\xff\x00"sv, 1), kBad) << "begins above all keys";
  EXPECT_EQ(ranges("\x01\141\x00\x01\142\x00\x00"sv, 1), kBad) << "trailing";
  EXPECT_EQ(ranges(kOne, 0xffffffff), kBad) << "hostile count";
  EXPECT_EQ(open_error(std::string(16, '\xff')), kBad) << "hostile footer";
}

TEST(SortedBlock, MutatedBlocksAreRefusedOrReadable) {
  Random random(42);
  const Model model = random_model(random, 60);
  const std::string good = build(model, {{"a", "b", 1}, {"c", "d", 2}});
  size_t refused = 0;
  for (int round = 0; round < 20000; ++round) {
    // An own allocation, so that ASan sees a step past the end.
    std::string bytes = good;
    for (uint64_t n = 1 + random.below(4); n > 0; --n) {
      bytes[random.below(bytes.size())] = static_cast<char>(random.next());
    }
    if (random.one_in(8)) bytes.resize(random.below(bytes.size()));
    bytes.shrink_to_fit();
    const Result<SortedBlock> block = SortedBlock::open(bytes);
    if (!block) {
      ++refused;
      continue;
    }
    SortedBlock::Iterator it(*block);
    uint32_t count = 0;
    std::string last;
    for (it.seek_to_first(); it.valid(); it.next(), ++count) {
      ASSERT_TRUE(count == 0 || it.key() > last);
      last = it.key();
      ASSERT_TRUE(decode_message(it.kind(), it.body()));
    }
    ASSERT_EQ(count, block->count());
    it.seek(random_key(random));
  }
  EXPECT_GT(refused, 5000U);
}

}  // namespace
}  // namespace caw
