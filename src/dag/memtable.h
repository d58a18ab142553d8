// Memtable: the open messages of one tree, newest state of its buffer, in memory.
//
// RULE (as for a sorted block): range erases are older than all points; a range erase drops the
// points it covers at once.  Not synchronised: TreeCore's lock guards it while it is open, and
// nothing changes it once it is sealed.
#pragma once

#include <absl/container/btree_map.h>

#include <string>
#include <string_view>
#include <vector>

#include "format/sorted_block.h"
#include "format/value.h"

namespace caw {

/// References that stopped being held.
struct DroppedRefs {
  std::vector<NodeId> trees;
  std::vector<BlobRef> blobs;
  void add(const OwnedRefs& refs) {
    if (refs.tree != kNoNode) trees.push_back(refs.tree);
    if (refs.blob) blobs.push_back(refs.blob);
  }
};

/// Adds `range` to a sorted, disjoint list, joining what it overlaps.
void add_range(std::vector<RangeErase>& ranges, RangeErase range);
/// True if a range of the sorted, disjoint list covers `key`.
bool covered(const std::vector<RangeErase>& ranges, std::string_view key);

class Memtable {
 public:
  using Points = absl::btree_map<std::string, Message, std::less<>>;

  void insert(std::string_view key, Message message, DroppedRefs& dropped);
  void erase_range(std::string_view lo, std::string_view hi, uint64_t dead_bytes,
                   DroppedRefs& dropped);

  const Points& points() const { return points_; }
  const std::vector<RangeErase>& ranges() const { return ranges_; }
  bool empty() const { return points_.empty() && ranges_.empty(); }
  /// Memory held, about; and the weight for the flusher.
  uint64_t bytes() const { return bytes_; }
  uint64_t weight() const { return weight_; }

  /// Bytes of the messages in [lo, hi), counted up to `limit` and not beyond.
  uint64_t slice_bytes(std::string_view lo, std::string_view hi, uint64_t limit) const;

 private:
  Points points_;
  std::vector<RangeErase> ranges_;
  uint64_t bytes_ = 0;
  uint64_t weight_ = 0;
};

}  // namespace caw
