// Volume: the Forest on a block device: trees in memory, clone, commit, maintenance, recovery.
//
// Owns the device and the store, and with background work on two threads: the maintainer (absorb,
// merge, flush, split, reclaim) and the checkpointer (a cut every commit interval, on demand, and
// when memory asks for it).  Lock order: docs/locking.md.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <array>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "dag/restrict.h"
#include "dag/slim.h"
#include "dag/tree_core.h"
#include "dev/block_device.h"
#include "format/superblock.h"
#include "log/log.h"
#include "store/node_store.h"
#include "volume/forest.h"

namespace caw {

struct LogContents;
struct LogRecord;

struct MakeOptions {
  std::string label;
  Compression compression = Compression::lz4;
  TreeShape shape;
  std::array<uint8_t, 16> uuid{};
};

struct VolumeOptions {
  uint64_t cache_bytes = 256U << 20;
  std::chrono::milliseconds commit_interval{5000};
  bool read_only = false;
  /// Told of what the volume cannot tell a caller: the failure that makes it read-only, damage met
  /// in the background; each once.  From any thread, perhaps under locks.
  std::function<void(const Error&)> on_trouble = [](const Error&) {};
  /// For tests: see StoreOptions.
  std::function<std::unique_ptr<Allocator>(std::unique_ptr<Allocator>)> wrap_allocator = {};
  /// Off: nothing happens but in maintain(), sync() and close(); for tests that replay.
  bool background = true;
};

struct VolumeFigures {
  StoreCounters store;
  LogFigures log;
  uint64_t replayed = 0;          ///< operations found in the log when the volume was opened
  ForestSpace space;
  Epoch epoch = 0;
  uint64_t trees_in_memory = 0;
  uint64_t memtable_bytes = 0;
  uint64_t clones = 0;
  uint64_t throttled = 0;         ///< times a writer was made to wait
  uint64_t throttled_us_max = 0;  ///< the longest of them
};

/// F·α·s <= B, α <= 1/6 unless `tests` shapes; see docs/adr.  Fails: invalid_argument.
Result<void> check_shape(const TreeShape& shape);

class Volume final : public Forest {
 public:
  /// Makes an empty volume that fills the device.
  static Result<void> make(BlockDevice& device, const MakeOptions& options);
  static Result<std::unique_ptr<Volume>> open(std::unique_ptr<BlockDevice> device,
                                              const VolumeOptions& options);
  /// Stops background work; without close() before it, as if the machine had stopped.
  ~Volume() override;
  /// Makes everything durable and marks the volume clean.  Nothing may be called after.
  Result<void> close();

  TreeRef system_tree() override;
  TreeRef open_tree(NodeId root) override;
  NodeId new_tree_id() override { return store_->new_id(); }
  uint64_t draw(Counter counter, uint64_t n) override { return store_->draw(counter, n); }

  Result<std::optional<Value>> get(const TreeRef& tree, std::string_view key) override;
  std::unique_ptr<Cursor> scan(const TreeRef& tree, std::string lo, std::string hi) override;
  Result<void> read(const Value& value, uint32_t offset, std::span<char> out) override;
  void prefetch(std::span<const BlobRef> blobs) override { store_->prefetch_blobs(blobs); }

  uint64_t share_generation() const override { return generation_.load(std::memory_order_acquire); }
  Result<void> apply(Batch& batch) override;
  void pace() override;
  Result<BlobRef> write_blob(std::string_view raw) override;
  void cancel_blob(const BlobRef& blob) override { store_->cancel_blob(blob); }
  Result<bool> is_private(const TreeRef& outer, std::string_view key) override;
  Result<void> clone(const TreeRef& source, std::span<const ClonePrefix> prefixes, NodeId id,
                     Batch& then) override;

  Result<void> sync() override;
  Result<void> checkpoint() override { return commit(/*force=*/true); }
  ForestSpace space() const override;
  bool read_only() const override { return options_.read_only; }

  /// Does all pending maintenance and reclaim on the caller's thread; returns the units of work
  /// done.  Requires: background off.
  Result<uint64_t> maintain();
  VolumeFigures figures() const;
  NodeStore& store() { return *store_; }

 private:
  class Handle;
  class ScanCursor;

  Volume(std::unique_ptr<NodeStore> store, const VolumeOptions& options);
  void start_threads();
  Result<void> settle_after_open();
  Result<void> begin_log();
  Result<void> reserve_numbers();
  void stop_threads();

  // recovery.cc
  class Recovery;
  Result<uint64_t> recover(Seq& next_seq);
  Result<void> relieve_memory();

  // volume.cc
  static TreeCore& core_of(const TreeRef& tree);
  Ref<Handle> handle_for(NodeId root);
  static bool adds_edges(const Batch& batch);
  Result<void> check_writable(const Batch& batch);
  Result<void> admit(const Batch& batch, NodeId cloned = kNoNode);
  /// But of the trees that the operation makes: its own, and `cloned`.
  Result<void> load_roots(const Batch& batch, NodeId cloned = kNoNode);
  void apply_locked(Batch& batch, NodeId cloned, Epoch epoch, Seq seq);
  /// True if the memtable has grown enough to be sealed.
  bool insert(const Batch::Op& op, Seq seq, DroppedRefs& dropped);
  void activate(const TreeRef& tree);

  // clone.cc
  Result<void> absorb_cut(TreeCore& core);
  Result<void> gather_sealed(TreeCore& core);
  /// Without a log (recovery) the operation has the number `replayed`.
  Result<void> clone_admitted(const TreeRef& source, std::span<const ClonePrefix> prefixes,
                              NodeId id, Batch& then, Seq replayed);
  Result<bool> try_clone(const TreeRef& source, std::span<const ClonePrefix> prefixes, NodeId id,
                         Batch& then, Seq replayed);
  void clone_locked(TreeCore& source, std::span<const ClonePrefix> prefixes,
                    Interior node, NodeId id, Epoch epoch);

  // background.cc
  void enqueue(const TreeRef& tree);
  void enqueue_quietly(const TreeRef& tree);
  Result<bool> maintain_tree(const TreeRef& tree);
  bool may_drop(NodeId id);
  void settle_crowded();
  Result<void> write_checkpoint(bool clean);
  Result<void> commit(bool force);
  void maintainer_loop();
  void checkpointer_loop();
  void committer_loop();
  void wake_committer();
  bool checkpoint_is_due() const;
  TreeRef next_tree();
  void hold_back();
  void note_cloned(const Ref<TreeCore>& source);
  void throttle(int times);
  void request_checkpoint();
  bool wants_checkpoint() const;
  void forget_idle_trees();
  void note_error(const Error& error);

  VolumeOptions options_;
  std::unique_ptr<NodeStore> store_;
  TreeShape shape_;
  TreeRef system_tree_;
  std::atomic<uint64_t> generation_{1};
  std::unique_ptr<Log> log_;              ///< null until recovery is done, and if read-only
  uint64_t replayed_ = 0;
  std::atomic<uint64_t> clones_{0};
  std::atomic<uint64_t> throttled_{0};
  std::atomic<uint64_t> throttled_us_max_{0};
  std::atomic<int64_t> memtable_bytes_{0};  ///< open and sealed, until absorbed
  uint64_t memtable_limit_ = 0;
  uint64_t dirty_limit_ = 0;

  RestrictionCache restrictions_;
  SlimCache slim_cache_;                        ///< of the thread that maintains
  mutable std::mutex trees_mutex_;
  absl::flat_hash_map<uint64_t, Ref<Handle>> trees_;

  std::mutex active_mutex_;
  std::vector<TreeRef> active_;  ///< trees with messages not yet in their root

  std::mutex work_mutex_;
  std::condition_variable work_ready_;
  std::deque<TreeRef> queue_;        ///< trees to maintain
  std::deque<TreeRef> quiet_queue_;  ///< clones to look after
  unsigned turns_ = 0;
  std::mutex last_cloned_mutex_;
  Ref<TreeCore> last_cloned_;
  std::atomic<int64_t> last_clone_ms_{-1'000'000};
  bool stopping_ = false;      ///< guarded by work_mutex_

  std::mutex checkpoint_mutex_;  ///< one checkpoint at a time
  mutable std::mutex commit_mutex_;
  std::condition_variable commit_wanted_;
  std::condition_variable commit_done_;
  bool commit_requested_ = false;     ///< guarded by commit_mutex_
  uint64_t commit_round_ = 0;         ///< checkpoints finished; guarded by commit_mutex_
  Result<void> commit_result_;        ///< of the last checkpoint
  std::atomic<bool> changed_{false};  ///< something happened since the last cut
  std::thread maintainer_;
  std::thread checkpointer_;

  std::mutex noted_mutex_;
  std::set<std::pair<Code, uint64_t>> noted_;   // guarded by noted_mutex_
  std::mutex committer_mutex_;
  std::condition_variable committer_wanted_;
  bool write_wanted_ = false;             ///< guarded by committer_mutex_
  std::atomic<uint64_t> blob_bytes_{0};   ///< written since the log was last flushed
  std::atomic<int64_t> last_checkpoint_ms_{0};
  std::thread committer_;
  bool closed_ = false;
};

}  // namespace caw
