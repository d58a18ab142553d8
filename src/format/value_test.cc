#include "format/value.h"

#include <gtest/gtest.h>

#include "base/random.h"

namespace caw {
namespace {

std::string random_bytes(Random& random, size_t size) {
  std::string out;
  for (size_t i = 0; i < size; ++i) out.push_back(static_cast<char>('a' + random.below(26)));
  return out;
}

/// What a value shows, where byte i of every blob is '#'.
std::string shown(const Value& value) {
  std::string out(value.blob_length, '#');
  out.resize(value.length, '\0');
  for (const Piece& piece : value.pieces) {
    out.replace(piece.offset, piece.bytes.size(), piece.bytes);
  }
  return out;
}

/// The contract of apply_patch, said the slow way.
std::string patched(std::string bytes, const Patch& patch) {
  if (bytes.size() > patch.cut) bytes.resize(patch.cut);
  if (bytes.size() < patch.extend) bytes.resize(patch.extend, '\0');
  for (const Piece& piece : patch.pieces) {
    bytes.replace(piece.offset, piece.bytes.size(), piece.bytes);
  }
  return bytes;
}

bool canonical(const Pieces& pieces, uint32_t limit) {
  uint32_t end = 0;
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (pieces[i].bytes.empty()) return false;
    if (i > 0 && pieces[i].offset <= end) return false;
    end = pieces[i].end();
  }
  return end <= limit;
}

Patch random_patch(Random& random, uint32_t limit) {
  Patch patch;
  if (random.one_in(3)) {
    patch.cut = static_cast<uint32_t>(random.below(limit));
    if (random.one_in(2)) patch.extend = patch.cut;
  }
  for (uint64_t n = random.below(4); n > 0; --n) {
    const auto offset = static_cast<uint32_t>(random.below(limit));
    const std::string bytes = random_bytes(random, 1 + random.below(limit / 2));
    overlay(patch.pieces, offset, bytes);
  }
  if (!patch.pieces.empty()) patch.extend = std::max(patch.extend, patch.pieces.back().end());
  if (random.one_in(4)) patch.extend += static_cast<uint32_t>(random.below(8));
  return patch;
}

BlobRef some_blob(Random& random, uint32_t raw_bytes) {
  BlobRef blob;
  blob.addr = BlockAddr{1 + random.below(1U << 30)};
  blob.raw_bytes = raw_bytes;
  blob.stored_bytes = raw_bytes;
  blob.checksum = random.next();
  if (random.one_in(2)) {
    blob.compression = Compression::zstd;
    blob.stored_bytes = 1 + static_cast<uint32_t>(random.below(raw_bytes));
  }
  return blob;
}

Value random_value(Random& random, uint32_t limit) {
  Value value;
  if (random.one_in(3)) {
    value = blob_value(some_blob(random, 1 + static_cast<uint32_t>(random.below(limit))));
  } else if (random.one_in(2)) {
    value = inline_value(random_bytes(random, random.below(limit)));
  }
  if (random.one_in(4)) value.tree = NodeId{1 + random.below(1000)};
  for (uint64_t n = random.below(3); n > 0; --n) apply_patch(value, random_patch(random, limit));
  return value;
}

Message random_message(Random& random, uint32_t limit) {
  switch (random.below(3)) {
    case 0:
      return Message::put(random_value(random, limit));
    case 1:
      return Message::erase(random.below(1000));
    default:
      return Message::make_patch(random_patch(random, limit));
  }
}

Message combined(Message older, Message newer) {
  combine(older, std::move(newer));
  return older;
}

std::string encoded(const Message& message) {
  std::string out;
  encode_message(out, message);
  return out;
}

Code decode_error(MessageKind kind, std::string_view body) {
  const Result<Message> result = decode_message(kind, body);
  EXPECT_EQ(result.has_value(), validate_message(kind, body).has_value());
  return result ? Code::unknown : result.error().code;
}

TEST(Pieces, OverlayKeepsCanonicalFormAndBytes) {
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    Random random(seed);
    Pieces pieces;
    std::string model(64, '.');
    for (int step = 0; step < 8; ++step) {
      const auto offset = static_cast<uint32_t>(random.below(40));
      const std::string bytes = random_bytes(random, random.below(24));
      overlay(pieces, offset, bytes);
      model.replace(offset, bytes.size(), bytes);
      if (random.one_in(5)) {
        const auto length = static_cast<uint32_t>(random.below(64));
        trim(pieces, length);
        for (size_t i = length; i < model.size(); ++i) model[i] = '.';
      }
      ASSERT_TRUE(canonical(pieces, 64)) << "seed " << seed;
      std::string got(64, '.');
      for (const Piece& piece : pieces) got.replace(piece.offset, piece.bytes.size(), piece.bytes);
      ASSERT_EQ(got, model) << "seed " << seed;
    }
  }
}

TEST(Pieces, AdjacentPiecesAreJoined) {
  Pieces pieces;
  overlay(pieces, 0, "ab");
  overlay(pieces, 4, "ef");
  overlay(pieces, 2, "cd");
  EXPECT_EQ(pieces, (Pieces{{0, "abcdef"}}));
  EXPECT_EQ(piece_bytes(pieces), 6U);
}

TEST(Patch, AppliesAsItsContractSays) {
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    Value value = random_value(random, 48);
    const Patch patch = random_patch(random, 48);
    const std::string want = patched(shown(value), patch);
    apply_patch(value, patch);
    ASSERT_EQ(shown(value), want) << "seed " << seed;
    ASSERT_TRUE(canonical(value.pieces, value.length)) << "seed " << seed;
    ASSERT_LE(value.blob_length, value.length);
  }
}

TEST(Patch, BytesUncoveredAgainAreZero) {
  Value value = inline_value("abcdef");
  apply_patch(value, resize_patch(2));
  apply_patch(value, resize_patch(4));
  EXPECT_EQ(inline_bytes(value), std::string("ab\0\0", 4));
  Random random(1);
  Value blob = blob_value(some_blob(random, 6));
  Patch patch;
  patch.cut = 0;
  patch.extend = 6;
  apply_patch(blob, patch);
  EXPECT_EQ(shown(blob), std::string(6, '\0'));
  EXPECT_TRUE(blob.blob) << "the reference is the owner's to drop";
}

TEST(Patch, ComposeEqualsOneAfterTheOther) {
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    const Value start = random_value(random, 40);
    const Patch a = random_patch(random, 40);
    const Patch b = random_patch(random, 40);
    Value one_by_one = start;
    apply_patch(one_by_one, a);
    apply_patch(one_by_one, b);
    Patch both = a;
    compose_patch(both, b);
    Value at_once = start;
    apply_patch(at_once, both);
    ASSERT_EQ(one_by_one, at_once) << "seed " << seed;
    ASSERT_TRUE(canonical(both.pieces, both.extend)) << "seed " << seed;
  }
}

TEST(Message, CombineIsAssociative) {
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    const Message a = random_message(random, 32);
    const Message b = random_message(random, 32);
    const Message c = random_message(random, 32);
    ASSERT_EQ(combined(combined(a, b), c), combined(a, combined(b, c))) << "seed " << seed;
  }
}

TEST(Message, ReplayOfASuffixChangesNothing) {
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    Random random(seed);
    std::vector<Message> history;
    for (int i = 0; i < 6; ++i) history.push_back(random_message(random, 32));
    history.front() = Message::put(random_value(random, 32));
    Message state = history[0];
    for (size_t i = 1; i < history.size(); ++i) combine(state, Message(history[i]));
    Message again = state;
    for (size_t i = 1 + random.below(5); i < history.size(); ++i) {
      combine(again, Message(history[i]));
    }
    ASSERT_EQ(state, again) << "seed " << seed;
  }
}

TEST(Message, RoundTrip) {
  for (uint64_t seed = 0; seed < 5000; ++seed) {
    Random random(seed);
    const Message message = random_message(random, 300);
    const std::string body = encoded(message);
    const Result<Message> back = decode_message(message.kind, body);
    ASSERT_TRUE(back) << "seed " << seed << ": " << back.error().to_string();
    ASSERT_EQ(*back, message) << "seed " << seed;
    const OwnedRefs refs = peek_refs(message.kind, body);
    ASSERT_EQ(refs.tree, refs_of(message).tree);
    ASSERT_EQ(refs.blob, refs_of(message).blob);
    ASSERT_GE(weight_bytes(message) + 16, body.size());
    if (message.kind == MessageKind::erase) {
      ASSERT_EQ(peek_dead_bytes(body), message.dead_bytes);
    }
  }
}

TEST(Message, GoldenBytes) {
  EXPECT_EQ(encoded(Message::put(inline_value("hi"))), std::string("\x04hi", 3));
  EXPECT_EQ(encoded(Message::put(inline_value(""))), std::string("\x04", 1));
  EXPECT_EQ(encoded(Message::put(inline_value("x", NodeId{300}))), std::string("\x05\xac\x02x", 4));
  EXPECT_EQ(encoded(Message::erase(300)), "\xac\x02");
  EXPECT_EQ(encoded(Message::make_patch(write_patch(130, "abc"))), std::string("\x04\x82\x01"
                                                                               "abc"));
  EXPECT_EQ(encoded(Message::make_patch(resize_patch(5))), std::string("\x03\x05\x05\x00", 4));
  BlobRef blob;
  blob.addr = BlockAddr{0x1234};
  blob.stored_bytes = 4096;
  blob.raw_bytes = 8192;
  blob.checksum = 0x0807060504030201;
  blob.compression = Compression::lz4;
  const std::string ref =
      std::string("\xb4\x24\x80\x20\x80\x40\x01\x02\x03\x04\x05\x06\x07\x08\x01");
  EXPECT_EQ(encoded(Message::put(blob_value(blob))), "\x06" + ref);
  Value value = blob_value(blob);
  apply_patch(value, resize_patch(10));
  apply_patch(value, write_patch(3, "z"));
  apply_patch(value, write_patch(5, "yy"));
  EXPECT_EQ(encoded(Message::put(value)),
            "\x02" + ref + std::string("\x0a\x0a\x02\x03\x01z\x01\x02yy"));
}

TEST(Message, SmallPatchCostsLittle) {
  const std::string body = encoded(Message::make_patch(write_patch(900'000, std::string(16, 'x'))));
  EXPECT_LE(body.size(), 16U + 4U);
  EXPECT_EQ(encoded(Message::put(inline_value(std::string(100, 'x')))).size(), 101U);
}

TEST(Message, DecoderRefusesWhatIsNotCanonical) {
  const auto put = [](std::string_view body) { return decode_error(MessageKind::put, body); };
  const auto patch = [](std::string_view body) { return decode_error(MessageKind::patch, body); };
  using std::string_view_literals::operator""sv;
  constexpr Code kBad = Code::message_malformed;
  EXPECT_EQ(put(""), kBad);
  EXPECT_EQ(put("\x08"), kBad) << "unknown flag";
  EXPECT_EQ(put("\x05\x00"sv), kBad) << "tree 0";
  EXPECT_EQ(put("\x00\x02\x01\x00\x02hi"sv), kBad) << "one piece over all must be `whole`";
  EXPECT_EQ(put("\x00\x00\x00"sv), kBad) << "length 0 must be `whole`";
  EXPECT_EQ(put("\x00\x05\x01\x00\x02hi"sv), Code::unknown);
  EXPECT_EQ(put("\x00\x05\x01\x00\x02hi!"sv), kBad) << "trailing bytes";
  EXPECT_EQ(put("\x00\x05\x01\x04\x02hi"sv), kBad) << "past the length";
  EXPECT_EQ(put("\x00\x09\x02\x00\x02hi\x00\x01z"sv), kBad) << "adjacent";
  EXPECT_EQ(put("\x00\x09\x01\x00\x00"sv), kBad) << "empty piece";
  EXPECT_EQ(put("\x00\x81\x80\x40\x00"sv), kBad) << "longer than kMaxValueBytes";
  EXPECT_EQ(put("\x00\x09\xff\xff\xff\xff\x0f"sv), kBad) << "a count with nothing behind it";
  EXPECT_EQ(put("\x06\x00\x01\x01........\x00"sv), kBad) << "blob at address 0";
  EXPECT_EQ(put("\x06\x01\x01\x01........\x00"sv), Code::unknown);
  EXPECT_EQ(put("\x06\x01\x01\x01........\x00."sv), kBad) << "trailing bytes";
  EXPECT_EQ(put("\x06\x01\x01\x01........\x03"sv), kBad) << "unknown compression";
  EXPECT_EQ(put("\x06\x01\x02\x01........\x01"sv), kBad) << "stored longer than raw";
  EXPECT_EQ(put("\x06\x01\x01\x02........\x00"sv), kBad) << "uncompressed, but shorter than raw";
  EXPECT_EQ(put("\x06\x01\x00\x02........\x01"sv), kBad) << "nothing stored";
  EXPECT_EQ(put("\x02\x01\x01\x01........\x00\x01\x01\x00"sv), kBad) << "must be `whole`";
  EXPECT_EQ(put("\x02\x01\x01\x01........\x00\x02\x02\x00"sv), kBad) << "more than the blob";
  EXPECT_EQ(put("\x02\x01\x01\x01........\x00\x01\x00\x00"sv), kBad) << "blob_length > length";
  EXPECT_EQ(patch(""), kBad);
  EXPECT_EQ(patch("\x08\x00"sv), kBad) << "unknown flag";
  EXPECT_EQ(patch("\x04\x00"sv), kBad) << "empty piece";
  EXPECT_EQ(patch("\x00\x01\x00\x01x"sv), kBad) << "one piece has a form of its own";
  EXPECT_EQ(patch("\x06\x01\x00x"sv), kBad) << "extend is the piece's end";
  EXPECT_EQ(patch("\x06\x02\x00x"sv), Code::unknown);
  EXPECT_EQ(patch("\x01\xff\xff\xff\xff\x0f\x00"sv), kBad) << "the cut that cuts nothing";
  EXPECT_EQ(patch("\x04\x80\x80\x40x"sv), kBad) << "past kMaxValueBytes";
  EXPECT_EQ(decode_error(MessageKind::erase, "\x01\x01"), kBad);
  EXPECT_EQ(decode_error(MessageKind::erase, ""), kBad);
  EXPECT_EQ(decode_error(static_cast<MessageKind>(0), "\x01"), kBad);
}

TEST(Message, MutatedBodiesDecodeToWhatEncodesBack) {
  for (uint64_t seed = 0; seed < 20000; ++seed) {
    Random random(seed);
    const Message message = random_message(random, 60);
    std::string body = encoded(message);
    for (uint64_t n = 1 + random.below(3); n > 0 && !body.empty(); --n) {
      body[random.below(body.size())] = static_cast<char>(random.next());
    }
    if (random.one_in(4)) body.resize(random.below(body.size() + 1));
    const Result<Message> back = decode_message(message.kind, body);
    ASSERT_EQ(back.has_value(), validate_message(message.kind, body).has_value());
    if (!back) continue;
    const Message again = decode_message(message.kind, encoded(*back)).value();
    ASSERT_EQ(again, *back) << "seed " << seed;
    ASSERT_LE(back->value.length, kMaxValueBytes);
    ASSERT_TRUE(canonical(back->value.pieces, back->value.length)) << "seed " << seed;
    ASSERT_TRUE(canonical(back->patch.pieces, back->patch.extend)) << "seed " << seed;
  }
}

TEST(Message, MemoryAndWeight) {
  EXPECT_EQ(memory_bytes(Message::erase(5)), 0U);
  EXPECT_GE(memory_bytes(Message::put(inline_value("hello"))), 5U);
  EXPECT_EQ(weight_bytes(Message::erase(100'000)), 100'000U);
  EXPECT_LT(weight_bytes(Message::put(inline_value("hello"))), 32U);
}

}  // namespace
}  // namespace caw
