// One record of the log: what one operation puts into the trees, or a clone and what follows it in
// the same instant.  Physical to the tree, logical in it: keys are those of a tree, trees are
// named by their root's id.  Pure; no I/O.
//
// Layout (docs/format.md): u32 length of what follows, u64 sequence number, then items, each a tag
// and its fields, to the end.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "format/value.h"

namespace caw {

/// Writes a record item by item, in the order in which they are to be done again.
class LogRecordBuilder {
 public:
  LogRecordBuilder();
  /// The record begins with a clone of `source`, or ranges of it, into the new tree `id`.
  void add_clone(NodeId source, NodeId id);
  void add_clone_prefix(std::string_view from, std::string_view to);
  void add_new_tree(NodeId id);
  void add_message(NodeId tree, std::string_view key, const Message& message);
  void add_range_erase(NodeId tree, std::string_view lo, std::string_view hi, uint64_t dead_bytes);
  /// The record, still without its number (set_record_seq).
  std::string finish();

 private:
  std::string out_;
};

/// Requires: `record` from LogRecordBuilder::finish().
void set_record_seq(std::string& record, Seq seq);

struct LogRecord {
  struct Op {
    NodeId tree = kNoNode;
    std::string key;
    std::string range_end;  ///< not empty: a range erase
    Message message;
  };
  Seq seq = 0;
  NodeId clone_source = kNoNode;  ///< not kNoNode: a clone
  NodeId clone_id = kNoNode;
  std::vector<std::pair<std::string, std::string>> clone_prefixes;
  std::vector<NodeId> new_trees;
  std::vector<Op> ops;
};

inline constexpr size_t kLogRecordHead = 12;  ///< length and number
/// In one record: an op takes six bytes on the device at least, hundreds in memory.
inline constexpr size_t kMaxRecordItems = 65'536;

/// Bytes of the record at the front of `bytes`, its length field included; 0 if it is not all
/// there.
size_t log_record_bytes(std::string_view bytes);
/// Requires: log_record_bytes(bytes) == bytes.size().  Fails: log_malformed.
Result<LogRecord> decode_log_record(std::string_view bytes);

}  // namespace caw
