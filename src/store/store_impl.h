// The store behind node_store.h.  Private to this module.
//
// Lock order: reclaim_mutex_, gate, then one shard of ImageCache, CountTable, BlobCache or DeadList
// at a time; none of these shards is held across I/O.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "meta/meta_store.h"
#include "store/blob_cache.h"
#include "store/count_table.h"
#include "store/dead_list.h"
#include "store/image_cache.h"
#include "store/node_entry.h"
#include "store/node_store.h"
#include "store/prefetcher.h"

namespace caw {

/// Numbers that a checkpoint makes safe beyond those drawn.
uint64_t number_slack(size_t counter);

class NodeStoreImpl final : public NodeStore {
 public:
  struct Parts {
    std::unique_ptr<BlockDevice> device;
    std::unique_ptr<Allocator> allocator;
    std::unique_ptr<MetaStore> meta;
    Superblock superblock;
    unsigned superblock_slot = 0;       ///< block that holds `superblock`
    StoreOptions options;
  };
  explicit NodeStoreImpl(Parts parts);

  Gate& gate() override { return gate_; }
  const Superblock& superblock() const override { return superblock_; }
  Epoch open_epoch() const override { return open_epoch_.load(); }
  uint64_t draw(Counter counter, uint64_t n) override;
  void keep_number(Counter counter, uint64_t number) override;
  Epoch live_epoch(Epoch epoch) const override;

  Result<ImageRef> get(NodeId id) override;
  ImageRef get_cached(NodeId id) override;
  void prefetch(std::span<const NodeId> ids) override;
  void publish(NodeId id, ImageRef image, Epoch epoch) override;

  void add_node_ref(NodeId id, int64_t delta, Epoch epoch) override;
  void add_blob_ref(const BlobRef& blob, int64_t delta, Epoch epoch) override;
  void add_image_refs(const Image& image, int64_t delta, Epoch epoch) override;
  Result<uint64_t> node_count(NodeId id) override;

  Result<BlobRef> write_blob(std::string_view raw_bytes, SpaceClass space_class) override;
  void commit_blob(const BlobRef& blob, Epoch epoch) override;
  void cancel_blob(const BlobRef& blob) override;
  Result<void> read_blob(const BlobRef& blob, uint32_t offset, std::span<char> out) override;
  Result<bool> blob_is_whole(const BlobRef& blob) override;
  Result<bool> claim_blob(const BlobRef& blob) override;
  void prefetch_blobs(std::span<const BlobRef> blobs) override;

  Epoch begin_checkpoint() override;
  bool is_sealing() const override { return sealing_epoch_ != 0; }
  Result<void> write_checkpoint(Seq seq, bool clean, uint64_t log_position) override;
  Result<void> make_log(uint64_t blocks) override;
  std::span<const LogSegment> log_segments() const override { return log_segments_; }

  Result<uint64_t> reclaim(uint64_t max_nodes) override;
  bool has_dead() const override;
  bool is_dying(NodeId id) const override { return dead_.contains(id); }
  Result<ScrubSlice> scrub(const ScrubCursor& from, uint64_t max_bytes,
                           size_t max_errors) override;
  void set_reclaim_filter(std::function<bool(NodeId)> may_drop) override {
    may_drop_ = std::move(may_drop);
  }

  uint64_t dirty_bytes() const override { return images_.dirty_bytes(); }
  bool needs_checkpoint() const override;
  bool failed() const override { return failed_.load(); }
  void mark_failed(const Error& reason) override;
  std::optional<Error> failure() const override;
  StoreCounters counters() const override;
  SpaceFigures space() const override { return allocator_->figures(); }
  BlockDevice& device() override { return *device_; }

  /// Reads the first part of the dead list, and with it the way to the table's root.
  Result<void> load_dead();
  /// Fails (node_entry) if the table knows a number that is still to be drawn.
  Result<void> check_numbers();

 private:
  friend class CheckpointWriter;

  // ---- node_store.cc
  Result<void> check_writable() const;
  Result<std::optional<NodeEntry>> find_entry(NodeId id);
  Result<ImageRef> decode_image(NodeId id, const NodeEntry& entry, std::string_view stored);
  Result<ImageRef> load_image(NodeId id);
  void load_images(std::span<const NodeId> ids);
  Result<BlobDataRef> load_blob(const BlobRef& blob);
  void load_blobs(std::span<const BlobRef> blobs);
  void free_blob(BlockAddr addr, uint64_t blocks, Epoch epoch);

  // ---- scrub.cc
  Result<std::optional<std::pair<NodeId, NodeEntry>>> next_entry(uint64_t from);
  Result<bool> is_current(NodeId id, const NodeEntry& entry);
  Result<std::optional<OpenedNode>> scrub_node(NodeId id, const NodeEntry& entry,
                                               ScrubSlice& slice);
  Result<void> scrub_blob(NodeId id, const NodeEntry& entry, const BlobRef& blob,
                          ScrubSlice& slice);

  // ---- checkpoint.cc
  void give_up_sealing(Epoch epoch);

  // ---- reclaim.cc
  Result<void> load_dead_batch();
  Result<bool> judge_candidates();
  Result<void> judge(const std::vector<uint64_t>& nodes, const std::vector<uint64_t>& blobs,
                     Epoch epoch);
  enum class Drop : uint8_t { done, gone, postponed };
  Result<Drop> drop_dead(NodeId id);
  Result<std::optional<Drop>> try_drop_dead(NodeId id);
  void drop_node(NodeId id, const Image* image, const NodeEntry* entry, Epoch epoch);

  struct Figures {
    std::atomic<uint64_t> node_reads{0}, node_read_bytes{0}, node_writes{0}, node_write_bytes{0};
    std::atomic<uint64_t> blob_reads{0}, blob_read_bytes{0}, blob_writes{0}, blob_write_bytes{0};
    std::atomic<uint64_t> checkpoints{0};
  };

  std::unique_ptr<BlockDevice> device_;
  std::unique_ptr<Allocator> allocator_;
  std::unique_ptr<MetaStore> meta_;
  const Superblock superblock_;
  const StoreOptions options_;

  Gate gate_;
  std::atomic<Epoch> open_epoch_;
  std::atomic<Epoch> sealing_epoch_{0};         ///< 0: no checkpoint under way
  std::atomic<bool> sealing_closed_{false};     ///< write_checkpoint() has begun
  std::atomic<bool> failed_{false};
  mutable std::mutex failure_mutex_;
  std::optional<Error> failure_;                // guarded by failure_mutex_
  Superblock durable_;                          ///< the newest on the device; checkpointer only
  unsigned durable_slot_;
  std::array<LogSegment, kLogSegments> log_segments_;

  std::array<std::atomic<uint64_t>, kCounters> next_numbers_;
  std::array<std::atomic<uint64_t>, kCounters> safe_numbers_;   ///< durable high-water marks

  ImageCache images_;
  BlobCache blob_cache_;
  CountTable node_counts_;
  CountTable blob_counts_;
  DeadList dead_;
  std::mutex reclaim_mutex_;                    ///< one reclaimer at a time
  std::function<bool(NodeId)> may_drop_;        ///< set before work starts; empty: all
  uint64_t dead_scan_from_ = 0;                 ///< guarded by reclaim_mutex_
  std::atomic<bool> dead_scanned_{false};       ///< the stored dead list was read to its end
  Figures figures_;
  Prefetcher prefetcher_;                       ///< last: its jobs use everything above
};

}  // namespace caw
