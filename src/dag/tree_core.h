// TreeCore: one tree in memory: open memtable, sealed runs not yet in the root, the root's image.
//
// Locks (docs/locking.md): `mutex` guards the memtable and the pointer to the view, for moments;
// `maintenance` is held by whoever changes the tree's structure.  A view is immutable, so a reader
// takes a Ref to it together with the memtable's messages and goes on without locks.
#pragma once

#include <atomic>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <utility>
#include <vector>

#include "base/gate.h"
#include "dag/memtable.h"
#include "dag/merge.h"
#include "format/interior.h"
#include "format/key_filter.h"
#include "format/superblock.h"
#include "store/node_store.h"

namespace caw {

/// A sealed memtable: an immutable run that may not have been encoded yet.
///
/// It has a node id from the start, so that clones can refer to it.  Whoever first absorbs it
/// encodes and publishes it, in the epoch it was sealed in.
class FrozenRun : public RefCounted {
 public:
  FrozenRun(NodeId id, Memtable table, Seq max_seq, Epoch epoch)
      : id_(id), table_(std::move(table)), max_seq_(max_seq), epoch_(epoch) {}

  NodeId id() const { return id_; }
  const Memtable& table() const { return table_; }
  Seq max_seq() const { return max_seq_; }
  Epoch epoch() const { return epoch_; }
  /// False: there is no message for this key (range erases are not meant).
  bool may_contain(uint64_t key_hash) const;
  bool shared() const { return sharers_.load(std::memory_order_relaxed) > 1; }

  /// Encodes (once), writing large values as blobs.  Off the gate.
  Result<Ref<const BlockImage>> encode(NodeStore& store, const TreeShape& shape);
  /// Makes it a node of the store (once).  Under the gate, after encode().
  void publish(NodeStore& store);
  /// One more reference, by a clone in `epoch`.  Under the exclusive gate.
  void add_reference(NodeStore& store, Epoch epoch);

 private:
  NodeId id_;
  Memtable table_;
  Seq max_seq_;
  Epoch epoch_;
  LazyKeyFilter filter_;
  std::atomic<uint32_t> sharers_{1};
  std::mutex encode_mutex_;  ///< held through I/O; never under the gate
  std::mutex mutex_;         ///< guards what follows, for moments
  Ref<const BlockImage> image_;
  std::vector<BlobRef> new_blobs_;  ///< written by encode(), committed by publish()
  bool published_ = false;
  std::vector<Epoch> early_references_;  ///< taken before publish()
};

/// A FrozenRun as one tree sees it.
struct FrozenRef {
  Ref<FrozenRun> run;
  std::string lo;
  std::string hi;
  Translation translation;
  Epoch epoch = 0;  ///< of the tree's state that refers to it
};

/// What a tree is below its memtable.
class TreeView : public RefCounted {
 public:
  std::vector<FrozenRef> frozen;  ///< newest first
  Ref<const InteriorImage> root;  ///< null until first needed
};

class TreeCore : public RefCounted {
 public:
  explicit TreeCore(NodeId root_id) : id(root_id), view(make_ref<TreeView>()) {}

  const NodeId id;
  mutable std::shared_mutex mutex;
  Memtable mem;        ///< guarded by mutex
  Seq mem_seq = 0;     ///< guarded by mutex; newest operation in mem
  Ref<TreeView> view;  ///< the pointer is guarded by mutex
  std::mutex maintenance;
  std::atomic<uint32_t> wanted{0};  ///< operations that wait for `maintenance`
  std::atomic<bool> torn{false};    ///< damage: readers found that another tree changes the root
  std::atomic<bool> active{false};  ///< on the volume's list of trees with work
  /// Sealed runs and runs of the root: what a clone made now would hand on.
  std::atomic<uint32_t> backlog{0};

  /// Requires: `mutex` held exclusively.
  void show(Ref<TreeView> next) {
    const size_t runs = next->root ? next->root->node().runs.size() : 0;
    backlog.store(static_cast<uint32_t>(next->frozen.size() + runs), std::memory_order_relaxed);
    view = std::move(next);
  }
  Ref<TreeView> current_view() const {
    std::shared_lock lock(mutex);
    return view;
  }
};

/// The root's image, loading it if need be.
Result<Ref<const InteriorImage>> load_root(NodeStore& store, TreeCore& core);

/// Moves the memtable, if not empty, to the front of the frozen list.  Requires: gate held
/// exclusively, or shared with `mutex` taken here.  Returns the sealed run or null.
Ref<FrozenRun> seal_memtable(TreeCore& core, NodeStore& store, Epoch epoch);

}  // namespace caw
