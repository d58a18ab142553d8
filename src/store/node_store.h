// NodeStore: node id -> current image; cache, dirty set, reference counts, reclaim, checkpoints.
//
// Epochs.  Everything that changes (images, counts, allocation) belongs to the open epoch E.
// begin_checkpoint(), under the exclusive gate, closes E: its changes become the *sealing* set and
// E+1 opens; write_checkpoint() then writes the sealing set while work goes on.  Reads see
// open over sealing over disk.  Functions that change state take the epoch they belong to: the open
// one, or the sealing one while its checkpoint is being prepared (absorbing memtables sealed by the
// cut); they are called under the shared gate (or, for the sealing epoch, by the checkpointer).
//
// Counts.  A count is the number of references to a node or blob: edges, run references and
// records, and in memory messages in memtables.  An object that is published holds one count for
// each reference inside it (the caller adds them: retain_refs); an object that is dropped gives
// them back.  Counts are deltas over what the node table holds (1 if it says nothing); a new object
// starts at 1 in the epoch it is created in.  Within an epoch order does not matter: an object is
// dead when, at reclaim, its count is zero.
//
// Reclaim.  Nodes whose count reached zero are on the dead list (persistent at each checkpoint).
// reclaim() frees them one by one: gives back what they refer to, forgets the table entry, frees
// the extent; each is atomic within an epoch.  Leaves and runs without references are never read.
//
// Memory.  Clean images are a cache bounded by options.cache_bytes (interior images leave last);
// dirty ones stay until written; the caller checks dirty_bytes() and starts a checkpoint.
//
// Threads: everything may be called from any thread unless said otherwise.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "base/gate.h"
#include "base/error.h"
#include "base/ids.h"
#include "dev/block_device.h"
#include "format/superblock.h"
#include "format/value.h"
#include "space/allocator.h"
#include "store/image.h"

namespace caw {

struct StoreOptions {
  uint64_t cache_bytes = 256U << 20;   ///< images, decoded blobs and table pages together
  bool read_only = false;
  /// For tests: what stands between the store and its allocator.
  std::function<std::unique_ptr<Allocator>(std::unique_ptr<Allocator>)> wrap_allocator = {};
  /// Told once, when the store fails; from any thread, perhaps under locks.
  std::function<void(const Error&)> on_failure = [](const Error&) {};
};

/// Counts of what was done, for tests of the nimble properties and `caw info`.
struct StoreCounters {
  uint64_t node_reads = 0, node_read_bytes = 0;
  uint64_t node_writes = 0, node_write_bytes = 0;
  uint64_t blob_reads = 0, blob_read_bytes = 0;
  uint64_t blob_writes = 0, blob_write_bytes = 0;
  uint64_t checkpoints = 0;
  uint64_t cache_bytes = 0, dirty_bytes = 0;
  uint64_t dead_nodes = 0;             ///< waiting for reclaim
};

/// Where a scrub goes on; all zero: at the beginning.
struct ScrubCursor {
  uint64_t node = 0;           ///< first id that was not looked at
  uint64_t blob = 0;           ///< of its blobs, so many were
  uint64_t node_checksum = 0;  ///< as it was then
};
struct ScrubError {
  Code code = Code::unknown;
  NodeId node = kNoNode;         ///< damaged, or refers to the blob
  BlockAddr blob = kNoBlock;     ///< none: the node itself
};
struct ScrubSlice {
  ScrubCursor next;
  bool done = false;
  uint64_t bytes = 0, nodes = 0, blobs = 0, lost_blobs = 0;
  std::vector<ScrubError> errors;
};

class NodeStore {
 public:
  /// Empties the device and makes a volume without nodes: tables, both superblocks; flushed.
  static Result<void> format(BlockDevice& device, Superblock superblock);
  /// Reads the newer valid superblock and opens the tables.  Fails: not_a_volume,
  /// superblock_damaged, volume_truncated, format_version, …
  static Result<std::unique_ptr<NodeStore>> open(std::unique_ptr<BlockDevice> device,
                                                 const StoreOptions& options);
  virtual ~NodeStore() = default;
  NodeStore() = default;
  NodeStore(const NodeStore&) = delete;
  NodeStore& operator=(const NodeStore&) = delete;

  virtual Gate& gate() = 0;
  virtual const Superblock& superblock() const = 0;   ///< as read at open; immutable
  virtual Epoch open_epoch() const = 0;               ///< stable while any side of the gate is held
  /// Draws `n` consecutive numbers, never handed out before, not even before a crash.
  virtual uint64_t draw(Counter counter, uint64_t n) = 0;
  /// draw() gives only numbers above `number` from now on.
  virtual void keep_number(Counter counter, uint64_t number) = 0;
  NodeId new_id() { return NodeId{draw(Counter::node_id, 1)}; }

  /// The epoch that what was sealed in `epoch` belongs to by now: a later one where the checkpoint
  /// was given up.  Under the gate.
  virtual Epoch live_epoch(Epoch epoch) const = 0;

  // ---- images

  /// The current image.  Fails: node_absent (dropped or never there), node_checksum, device_read.
  virtual Result<ImageRef> get(NodeId id) = 0;
  /// Without I/O; null if not in memory.
  virtual ImageRef get_cached(NodeId id) = 0;
  /// Starts reading these in one batch, if not in memory; a hint, returns when submitted or done.
  virtual void prefetch(std::span<const NodeId> ids) = 0;
  /// Makes `image` the current image of `id`, dirty in `epoch`; the one before is superseded.
  /// Does not touch counts.
  virtual void publish(NodeId id, ImageRef image, Epoch epoch) = 0;

  // ---- counts (see above)

  /// One more, or one fewer, reference to an object that exists.
  virtual void add_node_ref(NodeId id, int64_t delta, Epoch epoch) = 0;
  virtual void add_blob_ref(const BlobRef& blob, int64_t delta, Epoch epoch) = 0;
  /// +1 or -1 for each reference that `image` owns.
  virtual void add_image_refs(const Image& image, int64_t delta, Epoch epoch) = 0;
  /// The count now; may read table pages.
  virtual Result<uint64_t> node_count(NodeId id) = 0;

  // ---- blobs

  /// Writes `raw` to a place of its own (reserved; no reference yet).  The caller publishes a
  /// reference and then calls commit_blob, or gives up with cancel_blob.
  virtual Result<BlobRef> write_blob(std::string_view raw, SpaceClass space_class) = 0;
  /// The blob now has one reference, since `epoch`.
  virtual void commit_blob(const BlobRef& blob, Epoch epoch) = 0;
  virtual void cancel_blob(const BlobRef& blob) = 0;
  /// Bytes [offset, offset + out.size()) of the raw blob, through the decoded-blob cache.
  /// Requires: within raw_bytes.  Fails: blob_checksum, device_read, decompress.
  virtual Result<void> read_blob(const BlobRef& blob, uint32_t offset, std::span<char> out) = 0;
  /// What was written at the blob's place is the blob.  Fails: device_read.
  virtual Result<bool> blob_is_whole(const BlobRef& blob) = 0;
  /// For recovery: takes the place of a blob that a log names, as write_blob() did.  False: it is
  /// no new blob, the last checkpoint has it.
  virtual Result<bool> claim_blob(const BlobRef& blob) = 0;
  /// A hint that these will be read soon; asynchronous.
  virtual void prefetch_blobs(std::span<const BlobRef> blobs) = 0;

  // ---- checkpoints: one at a time, by one thread

  /// Closes the open epoch and returns its number.  Requires: exclusive gate held, no
  /// write_checkpoint() under way.  If the one before was begun but never written (its preparation
  /// failed), its changes are taken into this one first.
  virtual Epoch begin_checkpoint() = 0;
  /// True from begin_checkpoint() until what it sealed is durable, or given up.  Under the gate.
  virtual bool is_sealing() const = 0;
  /// Writes everything of the sealing epoch and makes it durable.  `seq` is the first operation
  /// not contained, `log_position` that of the first frame with it.  Fails: no_space, device_full
  /// (the sealing set went back into the open epoch; try again with a new begin_checkpoint() when
  /// there is space); anything else: the store fails for good, volume_failed from then on.
  virtual Result<void> write_checkpoint(Seq seq, bool clean, uint64_t log_position) = 0;
  /// Takes about `blocks` blocks for the log, if it has none; the next checkpoint names them.
  /// Without space for them there is no log.  Call before work starts.
  virtual Result<void> make_log(uint64_t blocks) = 0;
  virtual std::span<const LogSegment> log_segments() const = 0;

  // ---- background

  /// Frees up to `max_nodes` dead nodes (takes both sides of the gate itself, briefly).  Returns
  /// how many; 0 where all must wait for a checkpoint, though has_dead() is true.
  virtual Result<uint64_t> reclaim(uint64_t max_nodes) = 0;
  virtual bool has_dead() const = 0;
  /// True if the node has been found dead and waits to be dropped.  Its count says so no longer
  /// once a checkpoint has it on the dead list.  Of nodes that died since the volume was opened.
  virtual bool is_dying(NodeId id) const = 0;
  /// reclaim() asks before it drops a dead node (perhaps a tree's root, whose memtable still holds
  /// references): false = leave it for a later call.  write_checkpoint() does not ask.
  /// Set once, before work starts; called from reclaim() without the gate and without locks held.
  virtual void set_reclaim_filter(std::function<bool(NodeId)> may_drop) = 0;

  /// Reads about `max_bytes` of the nodes and blobs of the last checkpoint from the device and
  /// verifies them; stops after `max_errors`.  No lock is held meanwhile: what fails and is no
  /// longer what the node table says was freed or rewritten, and is no error.
  /// Fails: meta_page, device_read (of the table).
  virtual Result<ScrubSlice> scrub(const ScrubCursor& from, uint64_t max_bytes,
                                   size_t max_errors) = 0;

  virtual uint64_t dirty_bytes() const = 0;
  /// True when so many numbers were drawn that a checkpoint should make new ones safe.
  virtual bool needs_checkpoint() const = 0;
  virtual bool failed() const = 0;
  /// What was promised could not be written, for this reason: volume_failed from now on.
  virtual void mark_failed(const Error& reason) = 0;
  /// The first reason; none while !failed().
  virtual std::optional<Error> failure() const = 0;
  virtual StoreCounters counters() const = 0;
  virtual SpaceFigures space() const = 0;
  virtual BlockDevice& device() = 0;
};

}  // namespace caw
