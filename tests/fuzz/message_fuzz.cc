// decode_message, and what the engine does with messages: apply, compose, encode.
#include "format/value.h"

#include "fuzz/fuzz.h"

namespace {

using caw::Message;
using caw::MessageKind;

void check_round_trip(const Message& message) {
  std::string body;
  caw::encode_message(body, message);
  const caw::Result<Message> again = caw::decode_message(message.kind, body);
  FUZZ_CHECK(again && *again == message);
  FUZZ_CHECK(caw::validate_message(message.kind, body).has_value());
  const caw::OwnedRefs peeked = caw::peek_refs(message.kind, body);
  const caw::OwnedRefs owned = caw::refs_of(message);
  FUZZ_CHECK(peeked.tree == owned.tree && peeked.blob == owned.blob);
}

}  // namespace

/// Two messages, one over the other.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  caw::Input input(caw::as_input(data, size));
  const auto kinds = input.take<uint8_t>();
  const size_t first_bytes = input.take<uint16_t>();
  const std::string_view first = input.bytes(first_bytes);
  const auto older_kind = static_cast<MessageKind>(kinds & 3U);
  const auto newer_kind = static_cast<MessageKind>(kinds >> 2U & 3U);
  caw::Result<Message> older = caw::decode_message(older_kind, first);
  FUZZ_CHECK(older.has_value() == caw::validate_message(older_kind, first).has_value());
  if (!older) return 0;
  check_round_trip(*older);
  caw::Result<Message> newer = caw::decode_message(newer_kind, input.rest());
  if (!newer) return 0;
  check_round_trip(*newer);
  caw::combine(*older, std::move(*newer));
  check_round_trip(*older);
  if (older->kind == MessageKind::put && older->value.is_inline()) {
    FUZZ_CHECK(caw::inline_bytes(older->value).size() == older->value.length);
  }
  return 0;
}
