// Volume: recovery.  What the log holds beyond the last checkpoint is done again, in order, through
// the ordinary path, without a log and without reclaim.  Nothing is made durable before the
// checkpoint that follows, so recovery may be interrupted and begun again.
#include <absl/container/flat_hash_set.h>

#include <algorithm>

#include "log/log_reader.h"
#include "volume/tree_handle.h"
#include "volume/volume.h"

namespace caw {

class Volume::Recovery {
 public:
  Recovery(Volume& volume, const LogContents& contents) : volume_(volume), contents_(contents) {}

  /// Takes the places of all new blobs that the log names, before anything else can be put there.
  /// A record that was not flushed with its blobs counts only if they are whole; there the log
  /// ends.
  Result<void> claim_blobs(Seq first) {
    LogCursor cursor(contents_);
    while (CAW_TRY(cursor.next())) {
      const LogRecord& record = cursor.record();
      if (record.seq != first + usable_) return fail(Code::log_malformed, record.seq, "number");
      const bool flushed = cursor.end_offset() <= contents_.flushed_bytes;
      if (!CAW_TRY(claim_blobs_of(record, flushed))) return {};
      ++usable_;
    }
    return {};
  }

  Result<void> replay() {
    LogCursor cursor(contents_);
    for (uint64_t i = 0; i < usable_; ++i) {
      CAW_TRY(cursor.next());
      CAW_TRY(replay(cursor.record()));
    }
    return {};
  }

  uint64_t usable() const { return usable_; }

 private:
  Result<bool> claim_blobs_of(const LogRecord& record, bool flushed) {
    for (const LogRecord::Op& op : record.ops) {
      const BlobRef blob = refs_of(op.message).blob;
      if (!blob || claimed_.contains(raw(blob.addr))) continue;
      if (!CAW_TRY(volume_.store_->claim_blob(blob))) continue;  // an old one
      if (!flushed && !CAW_TRY(volume_.store_->blob_is_whole(blob))) {
        volume_.store_->cancel_blob(blob);
        return false;
      }
      claimed_.insert(raw(blob.addr));
    }
    return true;
  }

  /// A tree that a record makes cannot be there yet, and its number is not given out again.
  Result<void> check_new(NodeId id) {
    if (raw(id) >= kMaxNumber) return fail(Code::log_malformed, raw(id), "new tree");
    const Result<ImageRef> there = volume_.store_->get(id);
    if (there || there.error().code != Code::node_absent) {
      return fail(Code::log_malformed, raw(id), "new tree");
    }
    volume_.store_->keep_number(Counter::node_id, raw(id));
    return {};
  }

  /// Who put trees into others made sure that none came to own itself, by way of records that a
  /// clone refers to and does not show.  Which records these are depends on what was flushed when,
  /// and that differs now: here a tree keeps none of them.
  void slim(NodeId id) {
    if (volume_.options_.read_only) return;
    const TreeRef tree = volume_.open_tree(id);
    static_cast<Handle&>(*tree).fat = true;
    ignore_error(volume_.maintain_tree(tree), "damage shows when it is read");
  }

  /// Trees of the record that exist already and get one more owner.
  void slim_moved(const LogRecord& record) {
    for (const LogRecord::Op& op : record.ops) {
      const NodeId tree = refs_of(op.message).tree;
      const bool is_new = tree == record.clone_id ||
                          std::ranges::find(record.new_trees, tree) != record.new_trees.end();
      if (tree != kNoNode && !is_new) slim(tree);
    }
  }

  Result<void> replay(LogRecord& record) {
    for (const NodeId id : record.new_trees) CAW_TRY(check_new(id));
    if (record.clone_source != kNoNode) CAW_TRY(check_new(record.clone_id));
    slim_moved(record);
    Batch batch;
    batch.generation = volume_.share_generation();
    batch.new_trees = std::move(record.new_trees);
    for (LogRecord::Op& op : record.ops) {
      // New is what no record has put before: a value that moved may carry a blob that no record
      // made, maintenance did.
      const BlobRef blob = refs_of(op.message).blob;
      if (blob && claimed_.erase(raw(blob.addr)) > 0) batch.new_blobs.push_back(blob);
      batch.ops.push_back({volume_.open_tree(op.tree), std::move(op.key), std::move(op.range_end),
                           std::move(op.message)});
    }
    CAW_TRY(volume_.load_roots(batch, record.clone_id));
    if (record.clone_source != kNoNode) {
      std::vector<ClonePrefix> prefixes;
      for (auto& [from, to] : record.clone_prefixes) {
        prefixes.push_back({std::move(from), std::move(to)});
      }
      CAW_TRY(volume_.clone_admitted(volume_.open_tree(record.clone_source), prefixes,
                                     record.clone_id, batch, record.seq));
      slim(record.clone_id);
    } else {
      Gate::Shared gate(volume_.store_->gate());
      volume_.apply_locked(batch, kNoNode, volume_.store_->open_epoch(), record.seq);
    }
    return volume_.relieve_memory();
  }

  Volume& volume_;
  const LogContents& contents_;
  uint64_t usable_ = 0;  ///< records
  absl::flat_hash_set<uint64_t> claimed_;
};

/// Returns where a new log may begin: behind every frame that may lie in the ring.
Result<uint64_t> Volume::recover(Seq& next_seq) {
  const Superblock& superblock = store_->superblock();
  const LogRing ring(superblock.log_segments);
  if (ring.blocks() == 0) return superblock.log_position;
  const LogContents contents =
      CAW_TRY(read_log(store_->device(), ring, superblock.uuid, superblock.log_position));
  Recovery recovery(*this, contents);
  CAW_TRY(recovery.claim_blobs(superblock.next_seq));
  CAW_TRY(recovery.replay());
  replayed_ = recovery.usable();
  next_seq = superblock.next_seq + replayed_;
  return contents.end + ring.blocks();
}

}  // namespace caw
