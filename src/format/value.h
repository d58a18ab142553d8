// Values, patches and messages: what trees hold and what is put into them.  Pure; no I/O.
//
// A Value is `length` logical bytes: a base (the first blob_length bytes of a blob, zeros beyond)
// overlaid with pieces, plus possibly an owned tree.  An inline value has no blob and usually one
// piece at offset 0.  A message is put, erase or patch of one key; all messages are absolute, so
// that applying a suffix of a history twice changes nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/bytes.h"
#include "base/error.h"
#include "base/ids.h"
#include "format/compression.h"

namespace caw {

/// Where a blob is, and how to verify it.  Blobs are immutable and counted by address.
struct BlobRef {
  BlockAddr addr = kNoBlock;
  uint32_t stored_bytes = 0;   ///< on the device, from the first byte of the block `addr`
  uint32_t raw_bytes = 0;      ///< after decompression
  uint64_t checksum = 0;       ///< XXH3-64 of the stored bytes
  Compression compression = Compression::none;

  explicit operator bool() const { return addr != kNoBlock; }
  uint64_t blocks() const { return blocks_for(stored_bytes); }
  friend bool operator==(const BlobRef&, const BlobRef&) = default;
};

inline constexpr uint32_t kMaxValueBytes = 1U << 20;   ///< Value::length never exceeds it
inline constexpr uint32_t kMaxBlobBytes = 1U << 20;
inline constexpr uint32_t kMaxKeyBytes = 4096;

struct Piece {
  uint32_t offset = 0;
  std::string bytes;                                    ///< never empty
  uint32_t end() const { return offset + static_cast<uint32_t>(bytes.size()); }
  friend bool operator==(const Piece&, const Piece&) = default;
};

/// Sorted by offset, disjoint, not adjacent (adjacent pieces are joined).
using Pieces = std::vector<Piece>;

/// Puts `bytes` at `offset` over what is there.
void overlay(Pieces& pieces, uint32_t offset, std::string_view bytes);
/// Drops everything at or beyond `length`.
void trim(Pieces& pieces, uint32_t length);
uint64_t piece_bytes(const Pieces& pieces);

struct Value {
  NodeId tree = kNoNode;        ///< owned tree, or none
  BlobRef blob;                 ///< owned blob, or none
  uint32_t blob_length = 0;     ///< bytes of the blob that show, <= blob.raw_bytes
  uint32_t length = 0;          ///< logical bytes; >= blob_length and every piece's end
  Pieces pieces;

  friend bool operator==(const Value&, const Value&) = default;
  /// All bytes are in memory: no blob.
  bool is_inline() const { return !blob; }
};

Value inline_value(std::string_view bytes, NodeId tree = kNoNode);
Value blob_value(const BlobRef& blob);
/// The logical bytes of an inline value.  Requires: is_inline().
std::string inline_bytes(const Value& value);

/// length = max(min(length, cut), extend), then pieces over it; extend >= every piece's end.
struct Patch {
  uint32_t cut = std::numeric_limits<uint32_t>::max();
  uint32_t extend = 0;
  Pieces pieces;
  friend bool operator==(const Patch&, const Patch&) = default;
};

/// A patch that writes `bytes` at `offset`.
Patch write_patch(uint32_t offset, std::string_view bytes);
/// A patch that sets the length.
Patch resize_patch(uint32_t length);

/// `value` after `patch`.  A blob stays referred to even where nothing of it shows any more
/// (blob_length 0, or pieces over all of it): references are counted by whoever owns the value, who
/// alone may drop one.
void apply_patch(Value& value, const Patch& patch);
/// First `older`, then `newer`, as one patch (into `older`).
void compose_patch(Patch& older, const Patch& newer);

enum class MessageKind : uint8_t { put = 1, erase = 2, patch = 3 };

struct Message {
  MessageKind kind = MessageKind::erase;
  Value value;                  ///< put
  Patch patch;                  ///< patch; over an absent key it applies to the empty value
  uint64_t dead_bytes = 0;      ///< erase: what it makes dead, a hint for the flusher

  static Message put(Value value);
  static Message erase(uint64_t dead_bytes);
  static Message make_patch(Patch patch);
  friend bool operator==(const Message&, const Message&) = default;
};

/// First `older`, then `newer`, on one key, as one message (into `older`).  A put or erase wins;
/// a patch over a put gives a put, over an erase a put of the patched empty value.
void combine(Message& older, Message&& newer);

/// Bytes of memory a message holds beyond the struct.
uint64_t memory_bytes(const Message& message);
/// Its weight for the α rule: the larger of its own encoded size (within a few bytes, without the
/// key) and what it makes dead.
uint64_t weight_bytes(const Message& message);

/// Body of a message as stored in a sorted block (the kind is stored beside it).
void encode_message(std::string& out, const Message& message);
/// Fails: message_malformed.  Every field is checked.
Result<Message> decode_message(MessageKind kind, std::string_view body);
/// The same checks without making the message.
Result<void> validate_message(MessageKind kind, std::string_view body);

/// The references an encoded body owns, without decoding the rest.  Requires: a validated body.
struct OwnedRefs {
  NodeId tree = kNoNode;
  BlobRef blob;
  bool any() const { return tree != kNoNode || static_cast<bool>(blob); }
};
OwnedRefs peek_refs(MessageKind kind, std::string_view body);
inline OwnedRefs refs_of(const Message& m) {
  return m.kind == MessageKind::put ? OwnedRefs{m.value.tree, m.value.blob} : OwnedRefs{};
}
/// dead_bytes of an encoded erase.  Requires: a validated body.
uint64_t peek_dead_bytes(std::string_view body);

}  // namespace caw
