#include "format/superblock.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/bytes.h"

namespace caw {
namespace {

Superblock sample() {
  Superblock out;
  for (size_t i = 0; i < out.uuid.size(); ++i) out.uuid[i] = static_cast<uint8_t>(0xa0 + i);
  out.label = "label";
  out.block_count = 8192;
  out.epoch = 3;
  out.next_seq = 4;
  for (size_t i = 0; i < kCounters; ++i) out.counters[i] = 10 + i;
  out.meta_root = {BlockAddr{77}, 0x8877665544332211};
  out.meta_height = 2;
  out.system_tree = NodeId{5};
  out.compression = Compression::zstd;
  out.used_blocks = 100;
  out.clean = true;
  out.region_table_slots[0] = 1;
  out.region_table_slots[31] = 0x8000000000000000;
  out.region_table_hash = 0x1122334455667788;
  out.log_position = 0x0706;
  out.log_segments[0] = {BlockAddr{0x100}, 0x1000};
  out.log_segments[1] = {BlockAddr{0x1ff0}, 0x10};
  return out;
}

void reseal(std::string& bytes) { store_fixed(bytes.data() + 8, checksum64(bytes.substr(16))); }

Code decode_error(std::string_view bytes) {
  const Result<Superblock> result = decode_superblock(bytes);
  return result ? Code::unknown : result.error().code;
}

TEST(Superblock, RoundTrip) {
  Superblock superblock = sample();
  const auto round_trip = [&] {
    return decode_superblock(encode_superblock(superblock).view()).value();
  };
  EXPECT_EQ(round_trip(), superblock);
  superblock.label = std::string(kMaxLabelBytes, 'x');
  superblock.meta_root = {};
  superblock.clean = false;
  EXPECT_EQ(round_trip(), superblock);
}

TEST(Superblock, GoldenBytes) {
  const AlignedBuffer block = encode_superblock(sample());
  const std::string_view bytes = block.view();
  using std::string_view_literals::operator""sv;
  EXPECT_EQ(bytes.substr(0, 8), "CAWFSVOL");
  EXPECT_EQ(load_fixed<uint64_t>(bytes.data() + 8), checksum64(bytes.substr(16)));
  EXPECT_EQ(bytes.substr(16, 16), "\x03\0\0\0\0\x10\0\0\0\0\0\0\0\0\0\0"sv);
  EXPECT_EQ(bytes.substr(32, 4), "\xa0\xa1\xa2\xa3");
  EXPECT_EQ(bytes.substr(48, 8), "label\0\0\0"sv);
  EXPECT_EQ(bytes.substr(112, 24), "\0\x20\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x04\0\0\0\0\0\0\0"sv);
  EXPECT_EQ(bytes.substr(136, 16), "\x0a\0\0\0\0\0\0\0\x0b\0\0\0\0\0\0\0"sv);
  EXPECT_EQ(bytes.substr(200, 16), "\x4d\0\0\0\0\0\0\0\x11\x22\x33\x44\x55\x66\x77\x88"sv);
  EXPECT_EQ(bytes.substr(216, 16), "\x02\x02\x01\0\0\0\0\0\x05\0\0\0\0\0\0\0"sv);
  EXPECT_EQ(bytes.substr(232, 40),
            "\0\0\x02\0\x20\0\0\0\0\0\x08\0\x01\0\0\0\x08\0\0\0\0\x10\0\0\0\0\x01\0\x18\0\0\0"
            "\0\x0c\0\0\0\x40\0\0"sv);
  EXPECT_EQ(bytes.substr(272, 8), "\x64\0\0\0\0\0\0\0"sv);
  EXPECT_EQ(bytes.substr(280, 8), "\x01\0\0\0\0\0\0\0"sv);
  EXPECT_EQ(bytes.substr(528, 16), "\0\0\0\0\0\0\0\x80\x88\x77\x66\x55\x44\x33\x22\x11"sv);
  EXPECT_EQ(bytes.substr(544, 24), "\x06\x07\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x10\0\0\0\0\0\0"sv);
  EXPECT_EQ(bytes.substr(568, 16), "\xf0\x1f\0\0\0\0\0\0\x10\0\0\0\0\0\0\0"sv);
  EXPECT_EQ(checksum64(bytes), 0x3f58418a4c611230U);
}

TEST(Superblock, EveryFlippedBitIsNoticed) {
  std::string bytes(encode_superblock(sample()).view());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_EQ(decode_error(bytes), bit < 64 ? Code::not_a_volume : Code::superblock_damaged);
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
  }
  EXPECT_EQ(decode_error(bytes), Code::unknown);
  EXPECT_EQ(decode_error(bytes.substr(1)), Code::not_a_volume);
  EXPECT_EQ(decode_error(""), Code::not_a_volume);
}

TEST(Superblock, FieldsAreChecked) {
  const auto with = [](size_t offset, auto value) {
    std::string bytes(encode_superblock(sample()).view());
    store_fixed(bytes.data() + offset, value);
    reseal(bytes);
    return decode_error(bytes);
  };
  EXPECT_EQ(with(16, uint32_t{1}), Code::format_version);
  EXPECT_EQ(with(16, uint32_t{4}), Code::format_version);
  EXPECT_EQ(with(16, uint32_t{2}), Code::unknown) << "only lacks what came with 3";
  EXPECT_EQ(with(24, uint64_t{1}), Code::format_version) << "unknown feature";
  constexpr Code kBad = Code::superblock_damaged;
  EXPECT_EQ(with(20, uint32_t{512}), kBad) << "block size";
  EXPECT_EQ(with(54, 'x'), kBad) << "label behind its end";
  EXPECT_EQ(with(112, uint64_t{4095}), kBad) << "too small";
  EXPECT_EQ(with(112, uint64_t{1} << 60), kBad) << "too large";
  EXPECT_EQ(with(200, uint64_t{8192}), kBad) << "meta root outside";
  EXPECT_EQ(with(216, uint8_t{17}), kBad) << "meta height";
  EXPECT_EQ(with(217, uint8_t{3}), kBad) << "compression";
  EXPECT_EQ(with(218, uint8_t{2}), kBad) << "flags";
  EXPECT_EQ(with(219, uint8_t{1}), kBad) << "reserved";
  EXPECT_EQ(with(272, uint64_t{8193}), kBad) << "used";
  EXPECT_EQ(with(552, uint64_t{1}), kBad) << "log over a superblock";
  EXPECT_EQ(with(560, uint64_t{0}), kBad) << "log segment without blocks";
  EXPECT_EQ(with(560, uint64_t{4097}), kBad) << "log segment too large";
  EXPECT_EQ(with(576, uint64_t{0x11}), kBad) << "log past the end";
  EXPECT_EQ(with(600, uint64_t{1}), kBad) << "log segment without a place";
  EXPECT_EQ(with(680, uint8_t{1}), kBad) << "reserved";
  EXPECT_EQ(with(4095, uint8_t{1}), kBad) << "reserved";
  for (size_t i = 0; i < 10; ++i) EXPECT_EQ(with(232 + i * 4, 0xffffffffU), kBad) << i;
}

TEST(Superblock, ShapeMustLetAFullBufferFlush) {
  TreeShape shape;
  EXPECT_TRUE(shape_is_valid(shape));
  shape.alpha_den = 4;
  EXPECT_FALSE(shape_is_valid(shape)) << "32 x 128 KiB / 4 > 512 KiB";
  shape.buffer_bytes *= 2;
  EXPECT_TRUE(shape_is_valid(shape));
}

/// Numbers that were read are counted on from.
TEST(Superblock, NumbersThatCouldOverflowAreRefused) {
  const auto refuses = [](const auto& change) {
    Superblock superblock = sample();
    change(superblock);
    return decode_error(encode_superblock(superblock).view()) == Code::superblock_damaged;
  };
  EXPECT_TRUE(refuses([](Superblock& it) { it.epoch = ~uint64_t{0}; }));
  EXPECT_TRUE(refuses([](Superblock& it) { it.next_seq = kMaxNumber; }));
  EXPECT_TRUE(refuses([](Superblock& it) { it.log_position = ~uint64_t{0}; }));
  EXPECT_TRUE(refuses([](Superblock& it) { it.counters[kCounters - 1] = kMaxNumber; }));
  EXPECT_FALSE(refuses([](Superblock& it) { it.counters.fill(kMaxNumber - 1); }));
}

}  // namespace
}  // namespace caw
