// A volume taken apart, so that a test can change it in one place and put it together again with
// all checksums right: damage as a fault of a program or of memory makes it.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "dev/block_device.h"
#include "format/interior.h"
#include "format/value.h"
#include "repair/draft.h"

namespace caw {

class DamageTool {
 public:
  using Messages = std::vector<std::pair<std::string, Message>>;

  /// `device` holds a sound volume and outlives the tool.  Aborts where something fails.
  explicit DamageTool(BlockDevice& device);

  Draft& draft() { return draft_; }
  Superblock& superblock() { return draft_.superblock(); }
  std::map<uint64_t, uint64_t> node_counts, blob_counts;  ///< above one
  std::vector<uint64_t> leaked;                           ///< blocks marked, though free
  std::vector<uint64_t> unmarked;                         ///< blocks not marked, though in use
  std::vector<BlobRef> blobs;                             ///< all that messages refer to

  /// Nodes of a kind, by id.
  std::vector<NodeId> nodes(NodeKind kind);
  NodeRow& row(NodeId id) { return *draft_.find(id); }
  std::string payload(NodeId id);
  Interior interior(NodeId id);
  void put_interior(NodeId id, const Interior& node);
  /// Of a leaf or run, or of the run embedded in an interior.
  Messages messages(NodeId id);
  void put_messages(NodeId id, const Messages& messages);
  void put_payload(NodeId id, std::string_view payload, bool owns_refs);

  /// Writes tables and superblock.  Nothing may be called after.
  void close();

 private:
  Draft draft_;
};

/// Changes one bit.
void flip_bit(BlockDevice& device, uint64_t block, size_t offset, unsigned bit = 0);
/// Changes the newest superblock, its checksum right.
template <typename Change>
void change_superblock(BlockDevice& device, const Change& change) {
  const FoundSuperblock found = find_superblock(device).value();
  Superblock superblock = found.superblock;
  change(superblock);
  CAW_ASSERT(device.write(BlockAddr{found.slot}, encode_superblock(superblock).span()).has_value());
}

}  // namespace caw
