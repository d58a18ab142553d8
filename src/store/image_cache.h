// ImageCache: node id -> current image, in memory; clean images within a bound, dirty ones and
// tombstones of dropped nodes until the checkpoint that holds them is in the node table.
//
// A slot may hold two images: the current one, dirty in the open epoch, and the older one that the
// checkpoint under way still has to write.  Epochs are told by the caller, under the gate.
//
// All methods may be called from any thread; those of a checkpoint by one at a time.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <vector>

#include <absl/container/flat_hash_map.h>

#include "base/error.h"
#include "base/ids.h"
#include "store/image.h"

namespace caw {

class ImageCache {
 public:
  /// `budget_bytes` bounds the clean images.
  explicit ImageCache(uint64_t budget_bytes) : budget_bytes_(budget_bytes) {}

  enum class Found : uint8_t {
    image,      ///< here it is
    dropped,    ///< the node was dropped
    claimed,    ///< not in memory: the caller loads it and calls finish_load()
    busy,       ///< somebody else is loading it
    missing,    ///< not in memory (find only)
  };
  /// Without loading: image, dropped or missing.
  Found find(NodeId id, ImageRef* image);
  /// As find(), but claims a missing one; waits while another thread loads it, if `wait`.
  Found find_or_claim(NodeId id, bool wait, ImageRef* image);
  /// Ends a claim.  Returns what readers see: an image published meanwhile rather than the loaded
  /// one; node_absent if it was dropped meanwhile.
  Result<ImageRef> finish_load(NodeId id, Result<ImageRef> loaded);

  /// False, and nothing done: the node was dropped, or changes in two epochs at once; on a damaged
  /// volume only, where counts are wrong or two trees hold the same node.
  [[nodiscard]] bool publish(NodeId id, ImageRef image, Epoch epoch);

  /// The node is gone as of `epoch`.  False as above.
  [[nodiscard]] bool drop(NodeId id, Epoch epoch);

  struct State {
    ImageRef image;                 ///< current, or null
    Epoch dirty = 0;                ///< epoch the current image is dirty in; 0: clean or none
    bool has_sealing = false;       ///< an older image waits for the checkpoint
    bool dropped = false;
    Epoch dropped_epoch = 0;
  };
  State state(NodeId id);

  // ---- checkpoints

  struct DirtyImage {
    NodeId id = kNoNode;
    ImageRef image;
  };
  /// The images of `epoch` (the sealing one), sorted by id; without nodes dropped in it.
  std::vector<DirtyImage> dirty_images(Epoch epoch);
  /// Nodes dropped in `epoch`, sorted.
  std::vector<NodeId> dropped(Epoch epoch);
  /// Checkpoint `epoch` is in the node table: its images are clean, its tombstones go.
  void finish(Epoch epoch);
  /// Checkpoint `epoch` failed for want of space: what it held is dirty in epoch + 1 now.
  void merge_into_next(Epoch epoch);

  /// Brings the clean images down to the bound; interior ones go last.
  void evict();

  uint64_t dirty_bytes() const { return dirty_bytes_.load(std::memory_order_relaxed); }
  uint64_t clean_bytes() const { return clean_bytes_.load(std::memory_order_relaxed); }

 private:
  struct Slot {
    ImageRef image;
    ImageRef sealing;
    Epoch dirty = 0;
    Epoch dropped = 0;
    bool loading = false;
    bool used = false;            ///< since the clock's hand passed
    bool in_ring = false;
  };
  struct Ring {
    std::vector<NodeId> ids;      ///< may hold ids that are gone or dirty again
    size_t hand = 0;
  };
  struct alignas(64) Shard {
    std::mutex mutex;
    std::condition_variable loaded;
    absl::flat_hash_map<NodeId, Slot> slots;
    std::array<std::vector<NodeId>, 2> dirty_ids;      ///< by epoch, modulo 2
    std::array<std::vector<NodeId>, 2> dropped_ids;
    std::array<Ring, 2> rings;                         ///< leaves and runs; interiors
  };
  static constexpr size_t kShards = 16;
  static constexpr size_t kVisitsPerTurn = 8;          ///< of the clock's hand, so all shards share

  Shard& shard(NodeId id) {
    return shards_[static_cast<size_t>((raw(id) * 0x9e3779b97f4a7c15ULL) >> 60U)];
  }
  static Ring& ring_of(Shard& shard, const Image& image) {
    return shard.rings[image.kind() == NodeKind::interior ? 1 : 0];
  }
  void make_clean(Shard& shard, NodeId id, Slot& slot);
  void forget_image(Slot& slot);
  static bool is_empty(const Slot& slot) {
    return !slot.image && !slot.sealing && slot.dropped == 0 && !slot.loading;
  }
  void finish_shard(Shard& shard, Epoch epoch);
  void merge_shard(Shard& shard, Epoch epoch);
  void evict_ring(Shard& shard, Ring& ring);

  const uint64_t budget_bytes_;
  std::atomic<uint64_t> dirty_bytes_{0};
  std::atomic<uint64_t> clean_bytes_{0};
  std::atomic<Epoch> finished_epoch_{0};
  std::atomic<size_t> next_shard_{0};
  std::array<Shard, kShards> shards_;
};

}  // namespace caw
