// Records and frames of the log: golden bytes, round trips, damage.
#include <gtest/gtest.h>

#include "base/bytes.h"
#include "base/random.h"
#include "format/compression.h"
#include "format/log_frame.h"
#include "format/log_record.h"

namespace caw {
namespace {

using namespace std::string_literals;

constexpr std::array<uint8_t, 16> kUuid = {0xa, 0xb};

std::string sample_record() {
  LogRecordBuilder builder;
  builder.add_clone(NodeId{300}, NodeId{301});
  builder.add_clone_prefix("\2ab", "\2");
  builder.add_new_tree(NodeId{5});
  builder.add_message(NodeId{6}, "k", Message::put(inline_value("xyz", NodeId{301})));
  builder.add_message(NodeId{6}, "k", Message::erase(77));
  builder.add_message(NodeId{6}, "m", Message::make_patch(write_patch(3, "pp")));
  builder.add_range_erase(NodeId{6}, "a", "b", 4);
  std::string record = builder.finish();
  set_record_seq(record, 0x0102);
  return record;
}

TEST(LogRecord, GoldenBytes) {
  LogRecordBuilder builder;
  builder.add_clone(NodeId{300}, NodeId{301});
  builder.add_clone_prefix("\2a", "\2");
  builder.add_new_tree(NodeId{5});
  builder.add_range_erase(NodeId{6}, "a", "b", 4);
  std::string record = builder.finish();
  set_record_seq(record, 0x0102);
  EXPECT_EQ(record,
            "\x1c\0\0\0"
            "\x02\x01\0\0\0\0\0\0"
            "\x01\xac\x02\xad\x02"
            "\x02\x02\x02"
            "a\x01\x02"
            "\x03\x05"
            "\x07\x06\x01"
            "a\x01"
            "b\x04"s);
}

TEST(LogRecord, ComesBack) {
  const std::string bytes = sample_record();
  EXPECT_EQ(log_record_bytes(bytes + "more"), bytes.size());
  EXPECT_EQ(log_record_bytes(bytes.substr(0, bytes.size() - 1)), 0U);
  const Result<LogRecord> record = decode_log_record(bytes);
  ASSERT_TRUE(record.has_value());
  EXPECT_EQ(record->seq, 0x0102U);
  EXPECT_EQ(record->clone_source, NodeId{300});
  EXPECT_EQ(record->clone_id, NodeId{301});
  ASSERT_EQ(record->clone_prefixes.size(), 1U);
  EXPECT_EQ(record->clone_prefixes[0].first, "\2ab");
  EXPECT_EQ(record->new_trees, std::vector<NodeId>{NodeId{5}});
  ASSERT_EQ(record->ops.size(), 4U);
  EXPECT_EQ(record->ops[0].message, Message::put(inline_value("xyz", NodeId{301})));
  EXPECT_EQ(record->ops[1].message, Message::erase(77));
  EXPECT_EQ(record->ops[2].message, Message::make_patch(write_patch(3, "pp")));
  EXPECT_EQ(record->ops[3].range_end, "b");
}

TEST(LogRecord, DamageIsAnErrorOrAnotherRecordNeverMore) {
  const std::string bytes = sample_record();
  Random random(1);
  for (int i = 0; i < 20000; ++i) {
    std::string bad = bytes;
    for (uint64_t n = 1 + random.below(3); n > 0; --n) {
      bad[4 + random.below(bad.size() - 4)] = static_cast<char>(random.next());
    }
    const Result<LogRecord> record = decode_log_record(bad);
    if (!record) {
      EXPECT_TRUE(record.error().code == Code::log_malformed ||
                  record.error().code == Code::message_malformed);
    }
  }
}

TEST(LogRecord, MoreItemsThanAnyOperationHasAreRefused) {
  LogRecordBuilder builder;
  for (size_t i = 0; i <= kMaxRecordItems; ++i) builder.add_new_tree(NodeId{5});
  EXPECT_EQ(decode_log_record(builder.finish()).error().code, Code::log_malformed);
}

TEST(LogRecord, ClonePrefixesOutOfOrderAreRefused) {
  const auto decodes = [](const std::vector<std::string>& to) {
    LogRecordBuilder builder;
    builder.add_clone(NodeId{1}, NodeId{2});
    for (const std::string& prefix : to) builder.add_clone_prefix("from", prefix);
    return decode_log_record(builder.finish()).has_value();
  };
  EXPECT_TRUE(decodes({""}));
  EXPECT_TRUE(decodes({"a", "b"}));
  EXPECT_FALSE(decodes({"b", "a"}));
  EXPECT_FALSE(decodes({"a", "a"}));
  EXPECT_FALSE(decodes({"a", "ab"}));
}

TEST(LogFrame, HeaderGoldenBytes) {
  const AlignedBuffer frame = encode_frame({kUuid, 0x0506, 0x0304, 0}, "records");
  ASSERT_EQ(frame.size(), kBlockSize);
  EXPECT_EQ(frame.view().substr(0, 8), "CAWFSLOG");
  EXPECT_EQ(load_fixed<uint64_t>(frame.chars() + 8), checksum64(frame.view().substr(16)));
  EXPECT_EQ(frame.view().substr(16, 62),
            "\x0a\x0b\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
            "\x06\x05\0\0\0\0\0\0"
            "\x04\x03\0\0\0\0\0\0"
            "\x07\0\0\0"
            "\0\0\0\0\0\0\0\0\0\0\0\0"
            "records"
            "\0\0\0\0\0\0\0"s);
}

TEST(LogFrame, IsKnownByItsPlaceAndVolume) {
  const std::string records(5000, 'r');
  AlignedBuffer frame = encode_frame({kUuid, 70, 60, 0}, records);
  ASSERT_EQ(frame.size(), 2 * kBlockSize);
  const Result<FrameInfo> info = peek_frame(frame.view().substr(0, kBlockSize), kUuid, 70);
  ASSERT_TRUE(info.has_value());
  EXPECT_EQ(info->flushed, 60U);
  EXPECT_EQ(open_frame(frame.view(), *info).value_or(""), records);
  EXPECT_FALSE(peek_frame(frame.view(), kUuid, 71).has_value());
  EXPECT_FALSE(peek_frame(frame.view(), {}, 70).has_value());
  for (const size_t at : {size_t{20}, size_t{70}, size_t{5000}, frame.size() - 1}) {
    frame.chars()[at] = static_cast<char>(frame.chars()[at] ^ 1);
    EXPECT_FALSE(open_frame(frame.view(), *info).has_value()) << at;
    frame.chars()[at] = static_cast<char>(frame.chars()[at] ^ 1);
  }
}

}  // namespace
}  // namespace caw
