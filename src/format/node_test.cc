#include "format/node.h"

#include <gtest/gtest.h>

#include <cstring>

#include "base/bytes.h"
#include "base/random.h"

namespace caw {
namespace {

NodeInfo sample_info() {
  NodeInfo info;
  info.id = NodeId{0x0102030405};
  info.kind = NodeKind::interior;
  info.height = 3;
  info.owns_refs = true;
  info.birth = 0x11;
  info.max_seq = 0x22;
  return info;
}

std::string compressible(size_t size) {
  std::string out;
  while (out.size() < size) out += "line " + std::to_string(out.size() / 100) + "\n";
  out.resize(size);
  return out;
}

std::string random_bytes(size_t size) {
  Random random(size);
  std::string out;
  for (size_t i = 0; i < size; ++i) out.push_back(static_cast<char>(random.next()));
  return out;
}

Code open_error(std::string_view stored, NodeId id, uint64_t checksum) {
  const Result<OpenedNode> node = open_node(stored, id, checksum);
  return node ? Code::unknown : node.error().code;
}

TEST(Compression, RoundTripAndFallBack) {
  for (const Compression wanted : {Compression::none, Compression::lz4, Compression::zstd}) {
    for (const size_t size : {0UL, 1UL, 4096UL, 4097UL, 100'000UL, 1UL << 20}) {
      for (const std::string& raw : {compressible(size), random_bytes(size)}) {
        std::string stored = "old";
        const Compression method = compress(wanted, raw, &stored);
        ASSERT_TRUE(method == wanted || method == Compression::none);
        if (method == Compression::none) {
          ASSERT_EQ(stored, raw);
        } else {
          ASSERT_LT(blocks_for(stored.size()), blocks_for(raw.size()));
        }
        const auto raw_bytes = static_cast<uint32_t>(size);
        ASSERT_EQ(decompress(method, stored, raw_bytes).value(), raw);
        EXPECT_FALSE(decompress(method, stored, raw_bytes + 1));
      }
    }
    std::string stored;
    EXPECT_EQ(compress(wanted, compressible(100'000), &stored), wanted);
    EXPECT_EQ(compress(wanted, compressible(4096), &stored), Compression::none) << "one block";
  }
}

TEST(Compression, DamagedDataAreRefused) {
  const std::string raw = compressible(50'000);
  Random random(3);
  for (const Compression method : {Compression::lz4, Compression::zstd}) {
    std::string good;
    ASSERT_EQ(compress(method, raw, &good), method);
    for (int i = 0; i < 2000; ++i) {
      std::string bad = good;
      bad[random.below(bad.size())] = static_cast<char>(random.next());
      bad.resize(random.below(bad.size()) + 1);
      const Result<std::string> out = decompress(method, bad, 50'000);
      if (!out) {
        ASSERT_EQ(out.error().code, Code::decompress);
      }
    }
    EXPECT_EQ(decompress(method, good, kMaxNodePayload + 1).error().code, Code::decompress);
  }
  EXPECT_FALSE(decompress(static_cast<Compression>(3), raw, 50'000));
}

TEST(Node, RoundTrip) {
  for (const Compression wanted : {Compression::none, Compression::lz4, Compression::zstd}) {
    for (const size_t size : {0UL, 4032UL, 4033UL, 130'000UL}) {
      const std::string payload = compressible(size);
      const SealedNode sealed = seal_node(sample_info(), payload, wanted);
      EXPECT_EQ(sealed.bytes.size(), blocks_for(sealed.stored_bytes) * kBlockSize);
      for (const size_t given : {size_t{sealed.stored_bytes}, sealed.bytes.size()}) {
        const Result<OpenedNode> node =
            open_node(sealed.bytes.view().substr(0, given), sample_info().id, sealed.checksum);
        ASSERT_TRUE(node) << node.error().to_string();
        EXPECT_EQ(node->info, sample_info());
        EXPECT_EQ(node->payload, payload);
      }
    }
  }
}

TEST(Node, GoldenBytes) {
  const SealedNode sealed = seal_node(sample_info(), "payload", Compression::zstd);
  using std::string_view_literals::operator""sv;
  EXPECT_EQ(sealed.stored_bytes, 71U);
  EXPECT_EQ(sealed.bytes.view().substr(0, 72),
            "CAWN\x01\x02\x03\x00"
            "\x05\x04\x03\x02\x01\x00\x00\x00"
            "\x11\x00\x00\x00\x00\x00\x00\x00"
            "\x22\x00\x00\x00\x00\x00\x00\x00"
            "\x07\x00\x00\x00\x07\x00\x00\x00"
            "\x01\x00\x00\x00\x00\x00\x00\x00"
            "\x00\x00\x00\x00\x00\x00\x00\x00"
            "\x00\x00\x00\x00\x00\x00\x00\x00"
            "payload\x00"sv);
  EXPECT_EQ(sealed.checksum, 0x83108588d859cacdU);
}

TEST(Node, EveryFlippedBitIsNoticed) {
  const SealedNode sealed = seal_node(sample_info(), compressible(5000), Compression::lz4);
  std::string bytes(sealed.bytes.view());
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
    ASSERT_EQ(open_error(bytes, sample_info().id, sealed.checksum), Code::node_checksum) << bit;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << (bit % 8)));
  }
  EXPECT_EQ(open_error(bytes, sample_info().id, sealed.checksum + 1), Code::node_checksum);
}

TEST(Node, AnotherNodeIsNoticed) {
  const SealedNode sealed = seal_node(sample_info(), "x", Compression::none);
  EXPECT_EQ(open_error(sealed.bytes.view(), NodeId{1}, sealed.checksum), Code::node_identity);
}

TEST(Node, HeaderFieldsAreChecked) {
  const SealedNode sealed = seal_node(sample_info(), "payload", Compression::none);
  const auto with = [&](size_t offset, uint8_t value) {
    std::string bytes(sealed.bytes.view().substr(0, sealed.stored_bytes));
    bytes[offset] = static_cast<char>(value);
    return open_error(bytes, sample_info().id, checksum64(bytes));
  };
  EXPECT_EQ(with(0, 'X'), Code::node_header);
  EXPECT_EQ(with(4, 2), Code::node_header) << "version";
  EXPECT_EQ(with(5, 0), Code::node_header) << "kind";
  EXPECT_EQ(with(5, 4), Code::node_header) << "kind";
  EXPECT_EQ(with(5, 1), Code::node_header) << "a leaf of height 3";
  EXPECT_EQ(with(6, 0), Code::node_header) << "an interior of height 0";
  EXPECT_EQ(with(7, 3), Code::node_header) << "compression";
  EXPECT_EQ(with(7, 1), Code::decompress);
  EXPECT_EQ(with(32, 8), Code::decompress) << "raw_bytes";
  EXPECT_EQ(with(35, 1), Code::node_header) << "raw_bytes";
  EXPECT_EQ(with(40, 2), Code::node_header) << "flags";
  EXPECT_EQ(with(41, 1), Code::node_header) << "reserved";
  EXPECT_EQ(with(63, 1), Code::node_header) << "reserved";
  EXPECT_EQ(open_error("", NodeId{1}, 0), Code::node_checksum);
}

TEST(Blob, RoundTripAndDamage) {
  for (const Compression wanted : {Compression::none, Compression::lz4, Compression::zstd}) {
    for (const size_t size : {1UL, 4096UL, 131'072UL}) {
      const std::string raw_bytes = compressible(size);
      const SealedBlob sealed = seal_blob(raw_bytes, wanted);
      EXPECT_EQ(sealed.bytes.size(), sealed.ref.blocks() * kBlockSize);
      std::string stored(sealed.bytes.view().substr(0, sealed.ref.stored_bytes));
      EXPECT_EQ(open_blob(sealed.ref, stored).value(), raw_bytes);
      stored[size % stored.size()] = static_cast<char>(stored[size % stored.size()] ^ 1);
      EXPECT_EQ(open_blob(sealed.ref, stored).error().code, Code::blob_checksum);
      stored.pop_back();
      EXPECT_EQ(open_blob(sealed.ref, stored).error().code, Code::blob_checksum);
      BlobRef hostile = sealed.ref;
      hostile.raw_bytes += 1;
      stored.assign(sealed.bytes.view().substr(0, sealed.ref.stored_bytes));
      EXPECT_EQ(open_blob(hostile, stored).error().code, Code::decompress);
    }
  }
}

}  // namespace
}  // namespace caw
