#include "format/log_record.h"

#include "base/assert.h"
#include "base/bytes.h"

namespace caw {
namespace {

enum class Item : uint8_t {
  clone = 1,
  prefix = 2,
  new_tree = 3,
  put = 4,
  erase = 5,
  patch = 6,
  range_erase = 7,
};

std::unexpected<Error> malformed(const char* where) { return fail(Code::log_malformed, 0, where); }

Item item_of(MessageKind kind) {
  switch (kind) {
    case MessageKind::put:
      return Item::put;
    case MessageKind::erase:
      return Item::erase;
    case MessageKind::patch:
      return Item::patch;
  }
  CAW_ASSERT(false);
}

MessageKind kind_of(Item item) {
  if (item == Item::put) return MessageKind::put;
  return item == Item::erase ? MessageKind::erase : MessageKind::patch;
}

void put_item(std::string& out, Item item) { out.push_back(static_cast<char>(item)); }

bool valid_key(std::string_view key) { return !key.empty() && key.size() <= kMaxKeyBytes; }

Result<NodeId> parse_tree(Reader& reader) {
  const NodeId id{reader.varint()};
  if (!reader.ok() || id == kNoNode) return malformed("tree");
  return id;
}

Result<void> parse_clone(Reader& reader, LogRecord& out) {
  const bool first = out.new_trees.empty() && out.ops.empty();
  if (!first || out.clone_source != kNoNode) return malformed("clone");
  out.clone_source = CAW_TRY(parse_tree(reader));
  out.clone_id = CAW_TRY(parse_tree(reader));
  return {};
}

Result<void> parse_prefix(Reader& reader, LogRecord& out) {
  const std::string_view from = reader.sized();
  const std::string_view to = reader.sized();
  const bool ok = reader.ok() && out.clone_source != kNoNode && from.size() <= kMaxKeyBytes &&
                  to.size() <= kMaxKeyBytes;
  if (!ok) return malformed("prefix");
  if (!out.clone_prefixes.empty()) {
    const std::string& before = out.clone_prefixes.back().second;
    if (to <= before || to.starts_with(before)) return malformed("prefix order");
  }
  out.clone_prefixes.emplace_back(from, to);
  return {};
}

Result<void> parse_message(Reader& reader, Item item, LogRecord& out) {
  LogRecord::Op op;
  op.tree = CAW_TRY(parse_tree(reader));
  const std::string_view key = reader.sized();
  const std::string_view body = reader.sized();
  if (!reader.ok() || !valid_key(key)) return malformed("key");
  op.key = key;
  op.message = CAW_TRY(decode_message(kind_of(item), body));
  out.ops.push_back(std::move(op));
  return {};
}

Result<void> parse_range(Reader& reader, LogRecord& out) {
  LogRecord::Op op;
  op.tree = CAW_TRY(parse_tree(reader));
  op.key = reader.sized();
  op.range_end = reader.sized();
  const uint64_t dead_bytes = reader.varint();
  const bool ok = reader.ok() && op.key.size() <= kMaxKeyBytes &&
                  op.range_end.size() <= kMaxKeyBytes && op.key < op.range_end;
  if (!ok) return malformed("range");
  op.message = Message::erase(dead_bytes);
  out.ops.push_back(std::move(op));
  return {};
}

Result<void> parse_item(Reader& reader, LogRecord& out) {
  const auto item = static_cast<Item>(reader.fixed<uint8_t>());
  switch (item) {
    case Item::clone:
      return parse_clone(reader, out);
    case Item::prefix:
      return parse_prefix(reader, out);
    case Item::new_tree:
      out.new_trees.push_back(CAW_TRY(parse_tree(reader)));
      return {};
    case Item::put:
    case Item::erase:
    case Item::patch:
      return parse_message(reader, item, out);
    case Item::range_erase:
      return parse_range(reader, out);
  }
  return malformed("item");
}

}  // namespace

LogRecordBuilder::LogRecordBuilder() : out_(kLogRecordHead, '\0') {}

void LogRecordBuilder::add_clone(NodeId source, NodeId id) {
  put_item(out_, Item::clone);
  put_varint(out_, raw(source));
  put_varint(out_, raw(id));
}

void LogRecordBuilder::add_clone_prefix(std::string_view from, std::string_view to) {
  put_item(out_, Item::prefix);
  put_sized(out_, from);
  put_sized(out_, to);
}

void LogRecordBuilder::add_new_tree(NodeId id) {
  put_item(out_, Item::new_tree);
  put_varint(out_, raw(id));
}

void LogRecordBuilder::add_message(NodeId tree, std::string_view key, const Message& message) {
  put_item(out_, item_of(message.kind));
  put_varint(out_, raw(tree));
  put_sized(out_, key);
  std::string body;
  encode_message(body, message);
  put_sized(out_, body);
}

void LogRecordBuilder::add_range_erase(NodeId tree, std::string_view lo, std::string_view hi,
                                       uint64_t dead_bytes) {
  put_item(out_, Item::range_erase);
  put_varint(out_, raw(tree));
  put_sized(out_, lo);
  put_sized(out_, hi);
  put_varint(out_, dead_bytes);
}

std::string LogRecordBuilder::finish() {
  store_fixed(out_.data(), static_cast<uint32_t>(out_.size() - sizeof(uint32_t)));
  return std::move(out_);
}

void set_record_seq(std::string& record, Seq seq) {
  store_fixed(record.data() + sizeof(uint32_t), seq);
}

size_t log_record_bytes(std::string_view bytes) {
  if (bytes.size() < kLogRecordHead) return 0;
  const size_t whole = sizeof(uint32_t) + size_t{load_fixed<uint32_t>(bytes.data())};
  return whole < kLogRecordHead || whole > bytes.size() ? 0 : whole;
}

Result<LogRecord> decode_log_record(std::string_view bytes) {
  Reader reader(bytes);
  LogRecord out;
  const auto length = reader.fixed<uint32_t>();
  out.seq = reader.fixed<Seq>();
  if (!reader.ok() || sizeof(uint32_t) + size_t{length} != bytes.size()) return malformed("length");
  for (size_t items = 0; !reader.at_end(); ++items) {
    if (items == kMaxRecordItems) return malformed("too many items");
    CAW_TRY(parse_item(reader, out));
  }
  if (out.clone_source != kNoNode && out.clone_prefixes.empty()) return malformed("prefix");
  return out;
}

}  // namespace caw
