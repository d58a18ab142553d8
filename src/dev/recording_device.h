// For crash tests: a device that keeps every write and flush, and the images a crash may leave.
//
// A crash at a point of the log leaves: every write that had returned before a completed flush
// began (durable), and of the others that had begun (in flight) any subset, each whole, absent or
// torn.  Use:
//
//   WriteLog log(base->clone());                       // outlives the device
//   auto device = std::make_unique<RecordingDevice>(make_memory_device(base), log);
//   ... run, note log.point() where the program was promised something ...
//   CrashExplorer crash(log);
//   do {
//     for (fates of crash.cases(9, random)) check(crash.image(fates, seed));
//   } while (crash.advance());
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <utility>
#include <vector>

#include "base/random.h"
#include "dev/block_device.h"
#include "dev/memory_device.h"

namespace caw {

/// What happened to a write that was in flight at the crash.  Torn: some of its 512-byte sectors
/// are new, some old.
enum class Fate : uint8_t { absent, whole, torn };

enum class LoggedKind : uint8_t { write, discard, flush };

/// One operation.  `begin` and `end` are points of the log; operations of different threads may
/// overlap.  A failed write stays in flight, as part of it may have reached the medium.
struct LoggedOperation {
  static constexpr uint64_t kNever = UINT64_MAX;
  LoggedKind kind = LoggedKind::write;
  uint64_t begin = 0;
  uint64_t end = kNever;
  BlockAddr first{0};
  std::vector<BlockContentRef> contents;  ///< null = zeros: a discard
};

/// Every operation begins and ends at a point of its own: 1, 2, 3, …  Any thread may call.
class WriteLog {
 public:
  /// `base`: what the medium held before the first operation; must not change any more.
  explicit WriteLog(Ref<MemoryImage> base) : base_(std::move(base)) {}

  /// The last point: everything that happened by now happened at or before it.
  uint64_t point() const;
  const Ref<MemoryImage>& base() const { return base_; }

  /// For RecordingDevice.  begin() returns the number to give to end().
  size_t begin(LoggedKind kind, BlockAddr first, std::vector<BlockContentRef> contents);
  void end(size_t number);

  /// A copy of what was logged so far, in order of `begin`.
  std::vector<LoggedOperation> operations() const;

 private:
  const Ref<MemoryImage> base_;
  mutable std::mutex mutex_;
  uint64_t point_ = 0;                       // guarded by mutex_
  std::vector<LoggedOperation> operations_;  // guarded by mutex_
};

class RecordingDevice final : public BlockDevice {
 public:
  RecordingDevice(std::unique_ptr<BlockDevice> inner, WriteLog& log)
      : inner_(std::move(inner)), log_(log) {}

  uint64_t block_count() const override { return inner_->block_count(); }
  bool read_only() const override { return inner_->read_only(); }
  Result<void> read(BlockAddr first, std::span<std::byte> out) override;
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override;
  Result<void> read_batch(std::span<const ReadRequest> requests) override;
  Result<void> write_batch(std::span<const WriteRequest> requests) override;
  Result<void> flush() override;
  Result<void> ensure_backed(BlockAddr first, uint64_t blocks) override;
  Result<void> discard(BlockAddr first, uint64_t blocks) override;

 private:
  std::unique_ptr<BlockDevice> inner_;
  WriteLog& log_;
};

/// Walks the points of a log that is complete.  One thread.
class CrashExplorer {
 public:
  /// Stands at point 0: nothing has happened yet.
  explicit CrashExplorer(const WriteLog& log);
  CrashExplorer(const CrashExplorer&) = delete;
  CrashExplorer& operator=(const CrashExplorer&) = delete;

  uint64_t point() const { return point_; }
  /// Goes to the next point.  False at the end of the log.
  bool advance();
  /// The writes in flight here, oldest first.
  const std::vector<const LoggedOperation*>& in_flight() const { return in_flight_; }
  /// Whether the last step brought images that were not possible before it.
  bool has_new_images() const { return has_new_images_; }
  /// What may have befallen the writes in flight: every case if there are at most `most`,
  /// else none, all, and a sample.  One case where the last step brought no new image.
  std::vector<std::vector<Fate>> cases(size_t most, Random& random) const;
  /// The medium after a crash here, where fates[i] befell in_flight()[i].  `seed` chooses the
  /// sectors of torn writes.  A new image, the caller's to change.
  Ref<MemoryImage> image(std::span<const Fate> fates, uint64_t seed) const;

 private:
  void settle(const LoggedOperation& flush);

  const std::vector<LoggedOperation> operations_;
  std::vector<std::pair<const LoggedOperation*, bool>> events_;  ///< [point - 1]: {what, ended}
  Ref<MemoryImage> durable_;
  std::vector<const LoggedOperation*> in_flight_;
  uint64_t point_ = 0;
  bool has_new_images_ = true;
};

}  // namespace caw
