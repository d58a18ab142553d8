// Log: records of operations, in order, on a ring of blocks, with group commit.
//
// append() gives each record its number and keeps it in memory; commit() makes all records up to a
// number durable with one write and one flush for everybody who waits.  A checkpoint makes a cut:
// what is before it need not stay in the log once the checkpoint is durable (trim).  The next
// frame after a cut begins with a record, and its position goes into the superblock.
//
// A full ring refuses commits (log_full) until a checkpoint has made room; the caller takes one,
// which makes the same records durable.  Records that a cut left without room are never written;
// until the checkpoint of that cut is durable nothing else is either (the log has a hole).  This
// holds, too, for records that could not be written because the host is full.
//
// Threads: all methods from any thread; cut() under the exclusive gate, append() under either side.
#pragma once

#include <array>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "dev/block_device.h"
#include "format/log_frame.h"
#include "log/log_ring.h"

namespace caw {

struct LogFigures {
  uint64_t capacity_bytes = 0, used_bytes = 0;
  uint64_t pending_bytes = 0;  ///< in memory only
  uint64_t frames = 0, written_bytes = 0, flushes = 0;
};

class Log {
 public:
  using Uuid = std::array<uint8_t, 16>;

  /// Begins at `position` of the ring, with the record `next_seq`.  Without blocks in the ring
  /// every commit is refused with log_full.
  Log(BlockDevice& device, LogRing ring, const Uuid& uuid, uint64_t position, Seq next_seq);
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  /// First number that the last durable checkpoint does not hold.
  Seq checkpointed() const;
  /// Number of the record that comes next.
  Seq next_seq() const;
  /// Takes a record from LogRecordBuilder and gives it its number.
  Seq append(std::string record);

  /// All records below `before` are on the medium when it returns.
  /// Fails: log_full (a checkpoint must do it), device_write, device_flush (for good).
  Result<void> commit(Seq before);
  /// Writes what is in memory, without a flush; nothing happens if there is no room.
  Result<void> write_behind();

  /// The first number after the cut.
  Seq cut();
  /// Position of the first frame after the last cut; writes what is before it, if there is room.
  Result<uint64_t> position_after_cut();
  /// A checkpoint with the cut at `seq`, position `position`, is durable.
  void trim(uint64_t position, Seq seq);
  /// What comes next may not be written before a checkpoint is durable, which the log on the
  /// medium does not belong to.
  void hold_until_trim();

  /// Room is getting short: a checkpoint would be good.
  bool is_filling() const { return filling_.load(std::memory_order_relaxed); }
  /// Of records that are in memory only.
  uint64_t pending_bytes() const { return pending_bytes_.load(std::memory_order_relaxed); }
  LogFigures figures() const;

 private:
  struct Chunk {
    std::string bytes;
    Seq through = 0;  ///< first number after it
  };
  struct Frame {
    uint64_t position = 0;
    std::string_view records;
  };
  struct Writing {
    std::deque<Chunk> chunks;
    std::vector<Frame> frames;  ///< views of the chunks
    uint64_t flushed = 0;
    uint64_t end = 0;
    std::optional<uint64_t> cut;  ///< position after the chunk that ends at the cut
    Seq cut_seq = 0;
    Seq through = 0;
  };

  void seal_pending();
  void note_filling();
  bool plan(Writing& writing) const;
  Result<void> write(std::unique_lock<std::mutex>& lock, bool flush);
  Result<void> write_frames(const Writing& writing);
  void take_back(Writing& writing);
  void drop_chunks(Seq before);

  BlockDevice& device_;
  const LogRing ring_;
  const Uuid uuid_;

  mutable std::mutex mutex_;
  std::condition_variable written_;
  Seq next_seq_;
  std::string pending_;       ///< records since the last chunk
  std::deque<Chunk> chunks_;  ///< older, not written
  uint64_t head_;             ///< position of the oldest frame still needed
  uint64_t tail_;             ///< position of the next frame
  uint64_t flushed_;
  Seq durable_;               ///< first number that may not be on the medium
  Seq checkpointed_;
  std::atomic<uint64_t> pending_bytes_{0};  ///< changed under mutex_
  std::atomic<bool> filling_{false};        ///< changed under mutex_; asked before each operation
  Seq cut_seq_ = 0;           ///< of the last cut
  std::optional<uint64_t> cut_position_;
  bool writing_ = false;
  /// Records were dropped, or the medium's log is not ours yet: nothing is written before a
  /// checkpoint begins the log here or later.
  std::optional<uint64_t> hole_end_;
  std::optional<Error> failed_;
  LogFigures figures_;
};

}  // namespace caw
