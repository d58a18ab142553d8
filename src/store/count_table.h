// CountTable: reference counts of nodes, or of blobs, as deltas per epoch over what the metadata
// tree holds.
//
// count = base (the metadata tree's; 1 if it says nothing) + delta of the sealing epoch + delta of
// the open one.  settle() fixes the base of an entry of the sealing epoch; from then on readers of
// that entry do not ask the metadata tree, so that it may change under them while the checkpoint
// applies its batch.  bump() is called before and after that batch, before the deltas are
// forgotten: a reader that began before starts again.
//
// All methods may be called from any thread; what concerns the sealing epoch after it was closed
// only by the checkpointer.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <optional>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "base/error.h"
#include "base/ids.h"
#include "meta/meta_store.h"

namespace caw {

class CountTable {
 public:
  CountTable(MetaStore& meta, MetaSpace space) : meta_(meta), space_(space) {}

  /// `blocks`: size of the blob; 0 for nodes.  False, and nothing done: the object was freed,
  /// though somebody still referred to it; on a damaged volume only.
  [[nodiscard]] bool add(uint64_t id, int64_t delta, Epoch epoch, uint64_t blocks);

  /// The count of everything up to now; below zero on a damaged volume.
  Result<int64_t> count(uint64_t id);

  /// Count in the metadata tree; 1 if it says nothing.
  Result<int64_t> base(uint64_t id);
  /// The count, given the base read at a moment when generation() was what it is now.
  int64_t count_over(int64_t base, uint64_t id);
  uint64_t generation() const { return generation_.load(); }
  void bump() { generation_.fetch_add(1); }

  /// Up to `max` objects whose count sank in `epoch`, to be looked at; each once until it sinks
  /// again.
  std::vector<uint64_t> take_candidates(Epoch epoch, size_t max);
  bool has_candidates(Epoch epoch) const;
  /// Puts them back.
  void return_candidates(const std::vector<uint64_t>& ids, Epoch epoch);

  /// True for the first caller, if the object has a delta in `epoch`; sets `blocks`.
  bool mark_freed(uint64_t id, Epoch epoch, uint64_t* blocks);

  struct Settled {
    uint64_t id = 0;
    int64_t base = 1;
    int64_t count = 1;
    bool freed = false;
  };
  /// Base and count at the end of `epoch` (the sealing one).
  Result<Settled> settle(uint64_t id, Epoch epoch);
  /// Objects with a delta in `epoch`; `sunk_only`: with a negative one.
  std::vector<uint64_t> changed(Epoch epoch, bool sunk_only);

  /// Checkpoint `epoch` is in the metadata tree: forgets its deltas.
  void forget(Epoch epoch);
  /// Checkpoint `epoch` failed for want of space: its deltas belong to epoch + 1 now.
  void merge_into_next(Epoch epoch);

 private:
  struct Entry {
    int64_t delta = 0;
    int64_t base = 0;          ///< valid if based
    uint32_t blocks = 0;
    bool based = false;
    bool freed = false;
    bool queued = false;
  };
  struct Side {
    absl::flat_hash_map<uint64_t, Entry> entries;
    std::vector<uint64_t> candidates;
  };
  struct alignas(64) Shard {
    mutable std::mutex mutex;
    std::array<Side, 2> sides;           ///< by epoch, modulo 2
  };
  static constexpr size_t kShards = 16;

  static size_t shard_index(uint64_t id) {
    return static_cast<size_t>((id * 0x9e3779b97f4a7c15ULL) >> 60U);
  }
  Shard& shard(uint64_t id) { return shards_[shard_index(id)]; }
  static Side& side(Shard& shard, Epoch epoch) { return shard.sides[epoch & 1U]; }

  MetaStore& meta_;
  MetaSpace space_;
  std::atomic<uint64_t> generation_{0};
  std::array<Shard, kShards> shards_;
};

}  // namespace caw
