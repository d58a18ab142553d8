#include "format/value.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace caw {
namespace {

// Bodies, byte by byte: docs/format.md, "Messages".
constexpr uint8_t kHasTree = 1;
constexpr uint8_t kHasBlob = 2;
/// The value is its bytes, or its whole blob, and nothing else.
constexpr uint8_t kWhole = 4;

constexpr uint8_t kHasCut = 1;
constexpr uint8_t kHasExtend = 2;
/// One piece, which reaches to the end of the body.
constexpr uint8_t kOnePiece = 4;

constexpr uint32_t kNoCut = std::numeric_limits<uint32_t>::max();

std::unexpected<Error> malformed(const char* where) {
  return fail(Code::message_malformed, 0, where);
}

uint32_t end_of(const Pieces& pieces) { return pieces.empty() ? 0 : pieces.back().end(); }

bool is_whole(const Value& value) {
  if (value.blob) {
    return value.pieces.empty() && value.blob_length == value.blob.raw_bytes &&
           value.length == value.blob.raw_bytes;
  }
  if (value.length == 0) return true;
  return value.pieces.size() == 1 && value.pieces[0].bytes.size() == value.length;
}

void encode_pieces(std::string& out, const Pieces& pieces) {
  put_varint(out, pieces.size());
  uint32_t at = 0;
  for (const Piece& piece : pieces) {
    put_varint(out, piece.offset - at);
    put_sized(out, piece.bytes);
    at = piece.end();
  }
}

void encode_blob(std::string& out, const BlobRef& blob) {
  put_varint(out, raw(blob.addr));
  put_varint(out, blob.stored_bytes);
  put_varint(out, blob.raw_bytes);
  put_fixed(out, blob.checksum);
  out.push_back(static_cast<char>(blob.compression));
}

void encode_value(std::string& out, const Value& value) {
  const bool whole = is_whole(value);
  uint8_t flags = 0;
  if (value.tree != kNoNode) flags |= kHasTree;
  if (value.blob) flags |= kHasBlob;
  if (whole) flags |= kWhole;
  out.push_back(static_cast<char>(flags));
  if (value.tree != kNoNode) put_varint(out, raw(value.tree));
  if (value.blob) encode_blob(out, value.blob);
  if (whole) {
    if (!value.pieces.empty()) out.append(value.pieces[0].bytes);
    return;
  }
  if (value.blob) put_varint(out, value.blob_length);
  put_varint(out, value.length);
  encode_pieces(out, value.pieces);
}

void encode_patch(std::string& out, const Patch& patch) {
  const bool one_piece = patch.pieces.size() == 1;
  const bool has_extend = patch.extend != end_of(patch.pieces);
  uint8_t flags = 0;
  if (patch.cut != kNoCut) flags |= kHasCut;
  if (has_extend) flags |= kHasExtend;
  if (one_piece) flags |= kOnePiece;
  out.push_back(static_cast<char>(flags));
  if (patch.cut != kNoCut) put_varint(out, patch.cut);
  if (has_extend) put_varint(out, patch.extend);
  if (one_piece) {
    put_varint(out, patch.pieces[0].offset);
    out.append(patch.pieces[0].bytes);
  } else {
    encode_pieces(out, patch.pieces);
  }
}

/// A varint that must not exceed `max`; sets *ok to false where it does.
uint32_t bounded(Reader& reader, uint32_t max, bool* ok) {
  const uint64_t value = reader.varint();
  if (value > max) *ok = false;
  return static_cast<uint32_t>(value);
}

/// Reads pieces that end at or before `limit`; `out` may be null.  Returns the last one's end.
Result<uint32_t> parse_pieces(Reader& reader, uint32_t limit, Pieces* out) {
  const uint64_t count = reader.varint();
  if (count > reader.rest().size()) return malformed("piece count");
  uint64_t at = 0;
  for (uint64_t i = 0; i < count; ++i) {
    const uint64_t gap = reader.varint();
    const std::string_view bytes = reader.sized();
    if (!reader.ok() || bytes.empty() || (gap == 0 && i > 0) || gap > limit ||
        at + gap + bytes.size() > limit) {
      return malformed("piece");
    }
    at += gap;
    if (out != nullptr) out->push_back({static_cast<uint32_t>(at), std::string(bytes)});
    at += bytes.size();
  }
  return static_cast<uint32_t>(at);
}

Result<BlobRef> parse_blob(Reader& reader) {
  bool ok = true;
  BlobRef blob;
  blob.addr = BlockAddr{reader.varint()};
  blob.stored_bytes = bounded(reader, kMaxBlobBytes, &ok);
  blob.raw_bytes = bounded(reader, kMaxBlobBytes, &ok);
  blob.checksum = reader.fixed<uint64_t>();
  const auto method = reader.fixed<uint8_t>();
  if (method > static_cast<uint8_t>(Compression::zstd)) ok = false;
  blob.compression = static_cast<Compression>(method);
  if (blob.stored_bytes == 0 || blob.stored_bytes > blob.raw_bytes) ok = false;
  if (blob.compression == Compression::none && blob.stored_bytes != blob.raw_bytes) ok = false;
  if (!ok || !reader.ok() || !blob) return malformed("blob");
  return blob;
}

/// Into `out` without pieces if `with_pieces` is false; checks the same either way.
Result<void> parse_value(Reader& reader, Value* out, bool with_pieces) {
  const auto flags = reader.fixed<uint8_t>();
  if (!reader.ok() || flags > (kHasTree | kHasBlob | kWhole)) return malformed("flags");
  if ((flags & kHasTree) != 0) {
    out->tree = NodeId{reader.varint()};
    if (!reader.ok() || out->tree == kNoNode) return malformed("tree");
  }
  if ((flags & kHasBlob) != 0) out->blob = CAW_TRY(parse_blob(reader));
  if ((flags & kWhole) != 0) {
    if (out->blob) {
      out->blob_length = out->length = out->blob.raw_bytes;
      return reader.at_end() ? Result<void>{} : malformed("trailing bytes");
    }
    const std::string_view bytes = reader.rest();
    if (bytes.size() > kMaxValueBytes) return malformed("length");
    out->length = static_cast<uint32_t>(bytes.size());
    if (with_pieces && !bytes.empty()) out->pieces.push_back({0, std::string(bytes)});
    return {};
  }
  bool ok = true;
  if (out->blob) out->blob_length = bounded(reader, out->blob.raw_bytes, &ok);
  out->length = bounded(reader, kMaxValueBytes, &ok);
  if (!ok || !reader.ok() || out->blob_length > out->length) return malformed("length");
  const std::string_view pieces = reader.rest();
  const uint32_t end =
      CAW_TRY(parse_pieces(reader, out->length, with_pieces ? &out->pieces : nullptr));
  if (!reader.at_end()) return malformed("trailing bytes");
  // What could have been written as kWhole must have been.
  if (out->blob) {
    if (end == 0 && out->blob_length == out->blob.raw_bytes && out->length == out->blob_length) {
      return malformed("form");
    }
  } else {
    Reader again(pieces);
    const uint64_t count = again.varint();
    const bool covers = count == 1 && again.varint() == 0 && end == out->length;
    if (out->length == 0 || covers) return malformed("form");
  }
  return {};
}

Result<void> parse_patch(Reader& reader, Patch* out, bool with_pieces) {
  bool ok = true;
  const auto flags = reader.fixed<uint8_t>();
  if (!reader.ok() || flags > (kHasCut | kHasExtend | kOnePiece)) return malformed("flags");
  if ((flags & kHasCut) != 0) out->cut = bounded(reader, kNoCut - 1, &ok);
  if ((flags & kHasExtend) != 0) out->extend = bounded(reader, kMaxValueBytes, &ok);
  uint32_t end = 0;
  if ((flags & kOnePiece) != 0) {
    const uint32_t offset = bounded(reader, kMaxValueBytes, &ok);
    const std::string_view bytes = reader.rest();
    if (!ok || !reader.ok() || bytes.empty() || bytes.size() > kMaxValueBytes - offset) {
      return malformed("piece");
    }
    if (with_pieces) out->pieces.push_back({offset, std::string(bytes)});
    end = offset + static_cast<uint32_t>(bytes.size());
  } else {
    if (!ok || !reader.ok()) return malformed("patch");
    const std::string_view rest = reader.rest();
    end = CAW_TRY(parse_pieces(reader, kMaxValueBytes, with_pieces ? &out->pieces : nullptr));
    if (!reader.at_end()) return malformed("trailing bytes");
    if (Reader(rest).varint() == 1) return malformed("form");
  }
  if ((flags & kHasExtend) == 0) {
    out->extend = end;
  } else if (out->extend <= end) {
    return malformed("extend");
  }
  return {};
}

Result<void> parse_message(std::string_view body, bool with_pieces, Message* out) {
  Reader reader(body);
  switch (out->kind) {
    case MessageKind::put:
      return parse_value(reader, &out->value, with_pieces);
    case MessageKind::patch:
      return parse_patch(reader, &out->patch, with_pieces);
    case MessageKind::erase:
      out->dead_bytes = reader.varint();
      if (!reader.ok() || !reader.at_end()) return malformed("erase");
      return {};
  }
  return malformed("kind");
}

size_t varint_bytes(uint64_t value) {
  size_t bytes = 1;
  for (; value >= 0x80; value >>= 7) ++bytes;
  return bytes;
}

}  // namespace

void overlay(Pieces& pieces, uint32_t offset, std::string_view bytes) {
  if (bytes.empty()) return;
  const uint32_t end = offset + static_cast<uint32_t>(bytes.size());
  // Pieces that touch or overlap [offset, end): [first, last).
  const auto first =
      std::lower_bound(pieces.begin(), pieces.end(), offset,
                       [](const Piece& piece, uint32_t at) { return piece.end() < at; });
  const auto last = std::upper_bound(
      first, pieces.end(), end, [](uint32_t at, const Piece& piece) { return at < piece.offset; });
  if (first == last) {
    pieces.insert(first, {offset, std::string(bytes)});
    return;
  }
  // What the last of them has beyond `end`; if it is also the first and begins before `offset`,
  // replace() keeps it by itself.
  std::string tail;
  const Piece& behind = *(last - 1);
  if (behind.end() > end && (last - first > 1 || first->offset > offset)) {
    tail = behind.bytes.substr(end - behind.offset);
  }
  if (first->offset > offset) {
    first->bytes.assign(bytes);
    first->offset = offset;
  } else {
    first->bytes.replace(offset - first->offset, bytes.size(), bytes);
  }
  first->bytes.append(tail);
  pieces.erase(first + 1, last);
}

void trim(Pieces& pieces, uint32_t length) {
  while (!pieces.empty() && pieces.back().offset >= length) pieces.pop_back();
  if (!pieces.empty() && pieces.back().end() > length) {
    pieces.back().bytes.resize(length - pieces.back().offset);
  }
}

uint64_t piece_bytes(const Pieces& pieces) {
  uint64_t sum = 0;
  for (const Piece& piece : pieces) sum += piece.bytes.size();
  return sum;
}

Value inline_value(std::string_view bytes, NodeId tree) {
  CAW_ASSERT(bytes.size() <= kMaxValueBytes);
  Value value;
  value.tree = tree;
  value.length = static_cast<uint32_t>(bytes.size());
  if (!bytes.empty()) value.pieces.push_back({0, std::string(bytes)});
  return value;
}

Value blob_value(const BlobRef& blob) {
  Value value;
  value.blob = blob;
  value.blob_length = blob.raw_bytes;
  value.length = blob.raw_bytes;
  return value;
}

std::string inline_bytes(const Value& value) {
  CAW_ASSERT(value.is_inline());
  if (value.pieces.size() == 1 && value.pieces[0].bytes.size() == value.length) {
    return value.pieces[0].bytes;
  }
  std::string out(value.length, '\0');
  for (const Piece& piece : value.pieces)
    out.replace(piece.offset, piece.bytes.size(), piece.bytes);
  return out;
}

Patch write_patch(uint32_t offset, std::string_view bytes) {
  CAW_ASSERT(bytes.size() <= kMaxValueBytes && offset <= kMaxValueBytes - bytes.size());
  Patch patch;
  if (bytes.empty()) return patch;
  patch.extend = offset + static_cast<uint32_t>(bytes.size());
  patch.pieces.push_back({offset, std::string(bytes)});
  return patch;
}

Patch resize_patch(uint32_t length) {
  CAW_ASSERT(length <= kMaxValueBytes);
  return {length, length, {}};
}

void apply_patch(Value& value, const Patch& patch) {
  value.blob_length = std::min(value.blob_length, patch.cut);
  trim(value.pieces, patch.cut);
  value.length = std::max(std::min(value.length, patch.cut), patch.extend);
  for (const Piece& piece : patch.pieces) overlay(value.pieces, piece.offset, piece.bytes);
}

void compose_patch(Patch& older, const Patch& newer) {
  // length = max(min(max(min(L, c1), e1), c2), e2)
  //        = max(min(L, min(c1, c2)), max(min(e1, c2), e2))
  trim(older.pieces, newer.cut);
  older.extend = std::max(std::min(older.extend, newer.cut), newer.extend);
  older.cut = std::min(older.cut, newer.cut);
  for (const Piece& piece : newer.pieces) overlay(older.pieces, piece.offset, piece.bytes);
}

Message Message::put(Value value) {
  Message message;
  message.kind = MessageKind::put;
  message.value = std::move(value);
  return message;
}

Message Message::erase(uint64_t dead_bytes) {
  Message message;
  message.kind = MessageKind::erase;
  message.dead_bytes = dead_bytes;
  return message;
}

Message Message::make_patch(Patch patch) {
  Message message;
  message.kind = MessageKind::patch;
  message.patch = std::move(patch);
  return message;
}

void combine(Message& older, Message&& newer) {
  if (newer.kind != MessageKind::patch) {
    older = std::move(newer);
    return;
  }
  if (older.kind == MessageKind::patch) {
    compose_patch(older.patch, newer.patch);
    return;
  }
  if (older.kind == MessageKind::erase) older = Message::put({});
  apply_patch(older.value, newer.patch);
}

uint64_t memory_bytes(const Message& message) {
  uint64_t sum = 0;
  for (const Pieces* pieces : {&message.value.pieces, &message.patch.pieces}) {
    for (const Piece& piece : *pieces) sum += sizeof(Piece) + piece.bytes.size();
  }
  return sum;
}

uint64_t weight_bytes(const Message& message) {
  constexpr uint64_t kFixed = 4;  // kind, flags, lengths
  constexpr uint64_t kPerPiece = 4;
  constexpr uint64_t kPerReference = 20;
  uint64_t own = kFixed;
  for (const Pieces* pieces : {&message.value.pieces, &message.patch.pieces}) {
    own += pieces->size() * kPerPiece + piece_bytes(*pieces);
  }
  if (message.value.tree != kNoNode) own += varint_bytes(raw(message.value.tree));
  if (message.value.blob) own += kPerReference;
  return std::max(own, message.dead_bytes);
}

void encode_message(std::string& out, const Message& message) {
  switch (message.kind) {
    case MessageKind::put:
      return encode_value(out, message.value);
    case MessageKind::patch:
      return encode_patch(out, message.patch);
    case MessageKind::erase:
      return put_varint(out, message.dead_bytes);
  }
}

Result<Message> decode_message(MessageKind kind, std::string_view body) {
  Message message;
  message.kind = kind;
  CAW_TRY(parse_message(body, true, &message));
  return message;
}

Result<void> validate_message(MessageKind kind, std::string_view body) {
  Message message;
  message.kind = kind;
  return parse_message(body, false, &message);
}

OwnedRefs peek_refs(MessageKind kind, std::string_view body) {
  OwnedRefs refs;
  if (kind != MessageKind::put || body.empty()) return refs;
  const auto flags = static_cast<uint8_t>(body.front());
  if ((flags & (kHasTree | kHasBlob)) == 0) return refs;
  Reader reader(body.substr(1));
  if ((flags & kHasTree) != 0) refs.tree = NodeId{reader.varint()};
  if ((flags & kHasBlob) != 0) {
    refs.blob.addr = BlockAddr{reader.varint()};
    refs.blob.stored_bytes = static_cast<uint32_t>(reader.varint());
    refs.blob.raw_bytes = static_cast<uint32_t>(reader.varint());
    refs.blob.checksum = reader.fixed<uint64_t>();
    refs.blob.compression = static_cast<Compression>(reader.fixed<uint8_t>());
  }
  return refs;
}

uint64_t peek_dead_bytes(std::string_view body) { return Reader(body).varint(); }

}  // namespace caw
