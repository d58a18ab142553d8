// An operation of a volume as a record of the log.
#pragma once

#include "format/log_record.h"
#include "volume/forest.h"

namespace caw {

inline void add_batch(LogRecordBuilder& record, const Batch& batch) {
  for (const NodeId id : batch.new_trees) record.add_new_tree(id);
  for (const Batch::Op& op : batch.ops) {
    const NodeId tree = op.tree->root();
    if (op.range_end.empty()) {
      record.add_message(tree, op.key, op.message);
    } else {
      record.add_range_erase(tree, op.key, op.range_end, op.message.dead_bytes);
    }
  }
}

inline void add_clone(LogRecordBuilder& record, NodeId source, NodeId id,
                      std::span<const ClonePrefix> prefixes) {
  record.add_clone(source, id);
  for (const ClonePrefix& prefix : prefixes) record.add_clone_prefix(prefix.from, prefix.to);
}

}  // namespace caw
