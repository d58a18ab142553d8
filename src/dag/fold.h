// Folding: large values become blobs; a blob whose overlay is abundant (α) is written anew.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "dag/merge.h"
#include "format/superblock.h"
#include "store/node_store.h"

namespace caw {

/// Collects the blobs it writes; the caller commits them with what refers to them, or cancels.
class ValueFolder {
 public:
  ValueFolder(NodeStore& store, const TreeShape& shape) : store_(store), shape_(shape) {}
  ~ValueFolder();
  ValueFolder(const ValueFolder&) = delete;
  ValueFolder& operator=(const ValueFolder&) = delete;

  /// Folds `record`, a put, if the rule asks for it.  Reads and writes blobs.
  Result<void> fold(Merged& record);
  Result<void> fold(Value& value);
  /// The rule, from sizes alone.
  bool wants_fold(const Value& value) const;

  /// Under the gate: the blobs are referred to from `epoch` on, by images whose references the
  /// caller adds (add_image_refs).
  void commit(Epoch epoch);
  /// The caller has taken over the blobs written so far.
  void release() { blobs_.clear(); }
  /// True if some value no longer refers to the blob it had.
  bool replaced() const { return replaced_; }

 private:
  NodeStore& store_;
  const TreeShape& shape_;
  std::vector<BlobRef> blobs_;
  bool replaced_ = false;
};

}  // namespace caw
