// NodeMender: walks the forest from the superblock, as the checker does, and puts right what it
// meets, so that the walk ends in a forest without damage.
//
// A node that cannot be read is replaced, under its own id, by an empty one of the same kind and
// height; so nothing that refers to it has to change, and only what it held is lost.  What refers
// to the wrong kind of node, or says something wrong of it, is written anew.  The counts are those
// of the forest as it is after the walk.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "check/block_map.h"
#include "format/interior.h"
#include "format/sorted_block.h"
#include "repair/blob_book.h"
#include "repair/draft.h"
#include "repair/notes.h"

namespace caw {

/// What was lost for good, for naming the files.
struct LostNodes {
  std::set<NodeId> interiors, leaves, runs;
  bool any() const { return !interiors.empty() || !leaves.empty() || !runs.empty(); }
};

class NodeMender {
 public:
  /// Asked for a node that is not in the table; adds its row if it is found elsewhere.
  using Search = std::function<bool(NodeId)>;

  /// All outlive it.
  NodeMender(Draft& draft, BlobBook& blobs, LostNodes& lost, RepairNotes& notes)
      : draft_(draft),
        blobs_(blobs),
        lost_(lost),
        notes_(notes),
        claimed_(draft.layout().block_count) {}

  void search_with(Search search) { search_ = std::move(search); }

  /// Fails: no_space, device_write, ...: what was begun is of no use then.
  Result<void> walk();

  /// What nothing leads to, with all below it: the upper ends, readable, not empty.
  const std::vector<NodeId>& orphans() const { return orphans_; }
  /// Blocks of nodes and blobs, and of the log.
  const BlockMap& used() const { return claimed_; }
  /// References to each node, above one.
  CountRows counts() const;

 private:
  enum class RefKind : uint8_t { edge, run, tree };
  enum class Walk : uint8_t { unseen, open, done };
  struct NodeState {
    uint32_t refs = 0;
    Walk walk = Walk::unseen;
    bool is_child = false;
    bool has_inline = false;
    bool is_misplaced = false;  ///< its blocks belong to something else
  };

  void claim_rows();
  void claim(const NodeRow& row);
  Result<void> walk_from(NodeId root);
  Result<void> walk_dead();
  Result<void> walk_orphans();
  void drop_if_useless(NodeId id);
  Result<void> enter(NodeId id);
  Result<void> mend_interior(const NodeRow& row, std::string_view payload);
  Result<void> mend_block(const NodeRow& row, std::string_view payload);
  Result<bool> mend_edges(const NodeRow& row, Interior* node);
  Result<bool> mend_runs(const NodeRow& row, Interior* node);
  struct Mended {
    std::optional<std::string> bytes;  ///< set: to be written
    bool owns_refs = false;
  };
  Result<Mended> mend_messages(const NodeRow& row, const SortedBlock& block, bool is_leaf);
  Result<bool> mend_value(const NodeRow& row, Value* value);
  Result<void> replace_lost(const NodeRow& row, const Error& error);
  Result<void> keep_or_write(const NodeRow& row, bool owns_refs, std::string_view payload,
                             bool changed);
  Result<void> write(const NodeInfo& info, std::string_view payload);
  Result<void> refer(NodeId to, RefKind kind);
  /// The row of what is referred to, made if it is not there.  Null: it is of the wrong kind.
  Result<const NodeRow*> target(NodeId from, NodeId to, RefKind kind, Height height);
  Result<void> make_empty(NodeId id, NodeKind kind, Height height, Seq max_seq);
  Result<void> part_embedded_runs();
  Result<void> part_embedded_run(NodeId id);

  Draft& draft_;
  BlobBook& blobs_;
  LostNodes& lost_;
  RepairNotes& notes_;
  Search search_;
  BlockMap claimed_;
  absl::flat_hash_map<uint64_t, NodeState> states_;
  struct Step {
    NodeId node;
    bool leave = false;
  };
  std::vector<Step> stack_;
  std::vector<NodeId> orphans_;
  std::vector<NodeId> dropped_;
};

/// The nodes that a readable node refers to.  Fails: as reading it does.
Result<std::vector<NodeId>> references_of(BlockDevice& device, const NodeRow& row);
/// What an empty node of this kind holds.
std::string empty_payload(NodeKind kind, Height height);

}  // namespace caw
