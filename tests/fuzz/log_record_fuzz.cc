// decode_log_record; what it accepts comes out the same when written again.
#include "format/log_record.h"

#include "base/bytes.h"
#include "fuzz/fuzz.h"

namespace {

std::string encode(const caw::LogRecord& record) {
  caw::LogRecordBuilder builder;
  if (record.clone_source != caw::kNoNode) {
    builder.add_clone(record.clone_source, record.clone_id);
    for (const auto& [from, to] : record.clone_prefixes) builder.add_clone_prefix(from, to);
  }
  for (const caw::NodeId id : record.new_trees) builder.add_new_tree(id);
  for (const caw::LogRecord::Op& op : record.ops) {
    if (op.range_end.empty()) {
      builder.add_message(op.tree, op.key, op.message);
    } else {
      builder.add_range_erase(op.tree, op.key, op.range_end, op.message.dead_bytes);
    }
  }
  std::string bytes = builder.finish();
  caw::set_record_seq(bytes, record.seq);
  return bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(caw::as_input(data, size));
  FUZZ_CHECK(caw::log_record_bytes(bytes) <= bytes.size());
  if (bytes.size() < caw::kLogRecordHead) return 0;
  caw::store_fixed(bytes.data(), static_cast<uint32_t>(bytes.size() - sizeof(uint32_t)));
  FUZZ_CHECK(caw::log_record_bytes(bytes) == bytes.size());
  const caw::Result<caw::LogRecord> record = caw::decode_log_record(bytes);
  if (!record) return 0;
  const std::string again = encode(*record);
  const caw::Result<caw::LogRecord> decoded = caw::decode_log_record(again);
  FUZZ_CHECK(decoded && encode(*decoded) == again && decoded->seq == record->seq);
  return 0;
}
