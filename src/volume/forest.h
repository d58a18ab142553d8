// Forest: the key-value face of a volume: trees of ordered keys, cloned by prefix in one step.
//
// Keys are byte strings of 1 to kMaxKeyBytes bytes that never start with 0xff.  Values are
// format/value.h.  A tree is named by the id of its root, which never changes.  A tree is *owned*
// by a record (a value whose `tree` is set) in another tree; the system tree is owned by the
// superblock and is the way in.
//
// Privacy.  A record may lie in a node that several trees share; then the tree it owns is shared
// too.  Before a tree is written to, the caller checks with is_private() that the record which owns
// it is reached by one path only (outermost tree first) and, if not, makes a private root for it
// (privatize).  Whatever adds an edge to an existing node raises share_generation(), a put of a
// tree that exists (a record that moves) as well; apply() fails with tree_not_private if the batch
// was prepared under another generation.  The system tree and
// trees whose record lies in it are always private.
//
// References.  A put with `tree` or `blob` set holds one reference, dropped when the message or
// record is overwritten or erased (whenever that reaches it).  A new object (create_tree, clone,
// write_blob) has no reference yet: the batch that first refers to it lists it (add_new_*).
// References form no cycles, not even through records that nobody sees any more, as long as two
// rules are kept (docs/adr/0018-no-cycles.md): what owns a tree is put into private trees only, and
// never into one that the owned tree leads to; for clone() see there.
//
// Threads: all methods from any thread.  Reads never wait for flushes, checkpoints or clones.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/ref.h"
#include "format/superblock.h"
#include "format/value.h"

namespace caw {

/// A tree in memory; opaque.  Cheap to copy and compare.
class Tree : public RefCounted {
 public:
  explicit Tree(NodeId root) : root_(root) {}
  NodeId root() const { return root_; }

 private:
  NodeId root_;
};
using TreeRef = Ref<Tree>;

/// Messages for any number of trees that take effect together: a clone or checkpoint has all of
/// them or none.  Readers may see them one after the other.
class Batch {
 public:
  struct Op {
    TreeRef tree;
    std::string key;
    std::string range_end;  ///< not empty: a range erase [key, range_end)
    Message message;        ///< range erase: kind erase with dead_bytes
  };
  void put(const TreeRef& tree, std::string key, Value value) {
    ops.push_back({tree, std::move(key), {}, Message::put(std::move(value))});
  }
  void patch(const TreeRef& tree, std::string key, Patch patch) {
    ops.push_back({tree, std::move(key), {}, Message::make_patch(std::move(patch))});
  }
  /// `dead_bytes`: about how many stored bytes this makes dead (file data, blobs, trees).
  void erase(const TreeRef& tree, std::string key, uint64_t dead_bytes) {
    ops.push_back({tree, std::move(key), {}, Message::erase(dead_bytes)});
  }
  void erase_range(const TreeRef& tree, std::string lo, std::string hi, uint64_t dead_bytes) {
    ops.push_back({tree, std::move(lo), std::move(hi), Message::erase(dead_bytes)});
  }
  /// A put in this batch is the first reference to a blob from write_blob.
  void add_new_blob(const BlobRef& blob) { new_blobs.push_back(blob); }
  /// Makes an empty tree with this id (from new_tree_id); a put in this batch refers to it.
  void create_tree(NodeId id) { new_trees.push_back(id); }

  std::vector<Op> ops;  ///< in order: later ones win on the same key
  std::vector<BlobRef> new_blobs;
  std::vector<NodeId> new_trees;
  uint64_t generation = 0;  ///< share_generation() under which privacy was checked
  /// Removals may use the space kept in reserve.
  bool essential = false;
};

/// One range of the source and where its keys go in the new tree: source keys that start with
/// `from` appear with `to` in its place.
struct ClonePrefix {
  std::string from;
  std::string to;
};

/// Ordered walk over [lo, hi); sees each key's value at some moment between the step before and
/// the step itself.
class Cursor {
 public:
  virtual ~Cursor() = default;
  /// Moves to the next key (the first call: to the first).  False: at the end.
  virtual Result<bool> next() = 0;
  virtual std::string_view key() const = 0;
  virtual const Value& value() const = 0;
};

struct ForestSpace {
  uint64_t total_bytes = 0, used_bytes = 0, reserve_bytes = 0, reclaiming_bytes = 0;
};

class Forest {
 public:
  virtual ~Forest() = default;

  virtual TreeRef system_tree() = 0;
  /// The tree with this root.  Does no I/O; a root that is not there shows at the first read.
  virtual TreeRef open_tree(NodeId root) = 0;
  virtual NodeId new_tree_id() = 0;
  virtual uint64_t draw(Counter counter, uint64_t n) = 0;

  // ---- reads

  virtual Result<std::optional<Value>> get(const TreeRef& tree, std::string_view key) = 0;
  virtual std::unique_ptr<Cursor> scan(const TreeRef& tree, std::string lo, std::string hi) = 0;
  /// Bytes [offset, offset + out.size()) of a value, zeros past its length.
  virtual Result<void> read(const Value& value, uint32_t offset, std::span<char> out) = 0;
  virtual void prefetch(std::span<const BlobRef> blobs) = 0;

  // ---- writes

  virtual uint64_t share_generation() const = 0;
  /// Fails: tree_not_private (nothing happened; check again), no_space, read_only, volume_failed.
  /// On failure new_blobs stay the caller's (cancel_blob).
  virtual Result<void> apply(Batch& batch) = 0;
  /// Waits while changes come faster than they can be worked in.  To be called before a change,
  /// with no lock held; apply() waits only where that was not done.
  virtual void pace() {}
  virtual Result<BlobRef> write_blob(std::string_view raw) = 0;
  virtual void cancel_blob(const BlobRef& blob) = 0;

  /// True if `key` in `outer` (itself private) is reached by this one path only and the tree it
  /// owns has one reference.  Reads what it needs.
  virtual Result<bool> is_private(const TreeRef& outer, std::string_view key) = 0;

  /// In one instant: makes tree `id` (from new_tree_id) a clone of the ranges of `source`, then
  /// applies `then` (which refers to `id` and must have been prepared under then.generation, as in
  /// apply; it may also erase the ranges from the source: extraction; and put more into `id`
  /// itself, over what the ranges bring).  `prefixes` are disjoint on
  /// both sides and sorted by `to`.  An empty `from` and `to` clones a whole tree.  Raises
  /// share_generation().  Cost: independent of the size of the ranges.
  /// Requires: the tree that `then` puts the record of `id` into is `source`, or one that is not
  /// owned, directly or further down, by a record in `source`, wherever that stands: the clone
  /// shares the nodes such records lie in.  (Put it elsewhere first, then move it.)
  virtual Result<void> clone(const TreeRef& source, std::span<const ClonePrefix> prefixes,
                             NodeId id, Batch& then) = 0;

  // ---- durability and figures

  /// All that returned before is durable.
  virtual Result<void> sync() = 0;
  /// The same by way of a checkpoint: what was freed before becomes usable.
  virtual Result<void> checkpoint() = 0;
  virtual ForestSpace space() const = 0;
  virtual bool read_only() const = 0;
};

/// First key after all keys that start with `prefix`; kKeyEnd for an empty or all-0xff prefix.
std::string prefix_end(std::string_view prefix);

}  // namespace caw
