#include "repair/repair.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "check/log_frames.h"
#include "dev/borrowed_device.h"
#include "fs/file_system.h"
#include "log/log_reader.h"
#include "repair/file_mender.h"
#include "repair/node_mender.h"
#include "repair/node_search.h"
#include "repair/notes.h"
#include "repair/stray_mover.h"
#include "volume/volume.h"

namespace caw {
namespace {

/// Walks until one finds nothing to do; damage in what was just written would be ours.
constexpr int kMostRounds = 1000;
constexpr uint64_t kEngineCacheBytes = 64U << 20;

struct LogState {
  LogContents contents;
  uint64_t records = 0;
  uint64_t cut_off = 0;  ///< frames behind a damaged place
  uint64_t ring_blocks = 0;
};

class Repair {
 public:
  Repair(BlockDevice& device, const RepairOptions& options)
      : device_(device), options_(options), notes_(options.max_notes) {}

  Result<RepairReport> run();

 private:
  /// A draft, and who looks after its nodes.
  struct Work {
    Draft draft;
    BlobBook blobs;
    std::unique_ptr<NodeMender> mender;
    std::unique_ptr<NodeSearch> search;  ///< where the node table is not complete

    Work(Draft start, RepairNotes& notes) : draft(std::move(start)), blobs(draft, notes) {}
  };

  Result<std::unique_ptr<Work>> start();
  Result<void> mend_nodes(Work& work);
  Result<void> commit(Work& work);
  Result<LogState> read_log_state() const;
  void keep_data(Draft& draft, const std::vector<NodeRow>& rows) const;
  void keep_logged_blobs(Draft& draft, const LogState& log) const;
  Result<void> mend_structure();
  Result<void> replay_log();
  Result<void> drop_log(const LogState& log);
  Result<void> mend_files();
  Result<bool> attach_orphans(Work& work, FileMender& files);
  Result<void> move_strays();

  BlockDevice& device_;
  const RepairOptions options_;
  RepairNotes notes_;
  LostNodes lost_;
  std::vector<BlobRef> lost_blobs_;
  std::vector<Stray> strays_;
};

Result<RepairReport> Repair::run() {
  CAW_TRY(mend_structure());
  CAW_TRY(replay_log());
  CAW_TRY(mend_files());
  CAW_TRY(move_strays());
  RepairReport report;
  report.note_count = notes_.count();
  report.notes = notes_.take();
  return report;
}

Result<std::unique_ptr<Repair::Work>> Repair::start() {
  const FoundSuperblock found = CAW_TRY(find_superblock(device_));
  auto work = std::make_unique<Work>(CAW_TRY(Draft::open(device_, found)), notes_);
  work->draft.note_lost(lost_blobs_);
  const Result<LogState> log = read_log_state();
  if (log) keep_logged_blobs(work->draft, *log);
  if (!work->draft.table().complete) {
    work->search = std::make_unique<NodeSearch>(work->draft, notes_);
    CAW_TRY(work->search->run());
  }
  if (!work->draft.bitmaps_complete()) {
    keep_data(work->draft, work->draft.table().nodes);
    if (work->search) keep_data(work->draft, work->search->rows());
  }
  return work;
}

Result<void> Repair::mend_nodes(Work& work) {
  for (int round = 0; round < kMostRounds; ++round) {
    const uint64_t before = work.draft.changes();
    work.mender = std::make_unique<NodeMender>(work.draft, work.blobs, lost_, notes_);
    if (work.search) {
      work.mender->search_with([&](NodeId id) { return work.search->add(id); });
    }
    CAW_TRY(work.mender->walk());
    if (work.draft.changes() != before) continue;
    if (!work.search || !work.search->add_others(work.mender->used())) return {};
    work.search.reset();
  }
  return fail(Code::check_found, 0, "repair comes to no end");
}

Result<void> Repair::commit(Work& work) {
  lost_blobs_ = work.draft.all_lost();
  return work.draft.commit(
      {work.mender->counts(), work.blobs.counts(), &work.mender->used()});
}

// ---- structure

Result<void> Repair::mend_structure() {
  const std::unique_ptr<Work> work = CAW_TRY(start());
  CAW_TRY(mend_nodes(*work));
  return commit(*work);
}

// ---- the log

Result<LogState> Repair::read_log_state() const {
  const FoundSuperblock found = CAW_TRY(find_superblock(device_));
  const Superblock& superblock = found.superblock;
  const LogRing ring(superblock.log_segments);
  LogState log;
  log.ring_blocks = ring.blocks();
  log.contents.end = superblock.log_position;
  if (ring.blocks() == 0) return log;
  log.contents = CAW_TRY(read_log(device_, ring, superblock.uuid, superblock.log_position));
  log.cut_off = CAW_TRY(read_log_frames(device_, superblock)).cut_off;
  LogCursor cursor(log.contents);
  while (true) {
    const Result<bool> more = cursor.next();
    if (!more || !*more) break;
    ++log.records;
  }
  return log;
}

/// Where a bitmap is lost, only what refers to blocks can say that they are in use.
void Repair::keep_data(Draft& draft, const std::vector<NodeRow>& rows) const {
  const auto keep_blobs = [&](const SortedBlock& block) {
    SortedBlock::Iterator it(block);
    for (it.seek_to_first(); it.valid(); it.next()) {
      const BlobRef blob = peek_refs(it.kind(), it.body()).blob;
      if (blob) draft.keep(blob.addr, blob.blocks());
    }
  };
  for (const NodeRow& row : rows) {
    draft.keep(row.addr, blocks_for(row.stored_bytes));
    const Result<OpenedNode> node = read_node(device_, row);
    if (!node) continue;
    if (row.kind != NodeKind::interior) {
      if (const Result<SortedBlock> block = SortedBlock::open(node->payload)) keep_blobs(*block);
    } else if (const Result<Interior> interior = decode_interior(node->payload)) {
      if (!interior->inline_block.empty()) keep_blobs(SortedBlock::trust(interior->inline_block));
    }
  }
}

/// File data that only the log names lie in blocks that are free as yet.
void Repair::keep_logged_blobs(Draft& draft, const LogState& log) const {
  LogCursor cursor(log.contents);
  for (uint64_t i = 0; i < log.records; ++i) {
    if (!cursor.next()) return;
    for (const LogRecord::Op& op : cursor.record().ops) {
      const BlobRef blob = refs_of(op.message).blob;
      if (blob) draft.keep(blob.addr, blob.blocks());
    }
  }
}

Result<void> Repair::replay_log() {
  const LogState log = CAW_TRY(read_log_state());
  if (log.cut_off > 0) {
    notes_.say(fmt::format("the log: damaged; what its last {} frames held is lost", log.cut_off));
  }
  if (log.records == 0 && log.cut_off == 0) return {};
  VolumeOptions options;
  options.cache_bytes = kEngineCacheBytes;
  options.background = false;
  auto volume = Volume::open(std::make_unique<BorrowedDevice>(device_), options);
  const Result<void> closed =
      volume ? (*volume)->close() : std::unexpected<Error>(volume.error());
  if (closed) {
    const uint64_t replayed = (*volume)->figures().replayed;
    if (replayed > 0) notes_.say(fmt::format("the log: {} operations done again", replayed));
    return {};
  }
  return drop_log(log);
}

Result<void> Repair::drop_log(const LogState& log) {
  const std::unique_ptr<Work> work = CAW_TRY(start());
  CAW_TRY(mend_nodes(*work));
  work->draft.superblock().log_position = log.contents.end + log.ring_blocks;
  work->draft.superblock().next_seq += log.records;
  notes_.say(fmt::format("the log: {} operations cannot be done again; dropped", log.records));
  return commit(*work);
}

// ---- file systems

Result<void> Repair::mend_files() {
  const std::unique_ptr<Work> work = CAW_TRY(start());
  CAW_TRY(mend_nodes(*work));
  FileMender files(work->draft, lost_, notes_, options_.clock->now());
  for (int round = 0; round < kMostRounds; ++round) {
    const uint64_t before = work->draft.changes();
    CAW_TRY(files.run());
    if (work->draft.changes() == before && !CAW_TRY(attach_orphans(*work, files))) {
      return commit(*work);
    }
    for (const Stray& stray : files.strays()) strays_.push_back(stray);
    CAW_TRY(mend_nodes(*work));
  }
  return fail(Code::check_found, 0, "repair of files comes to no end");
}

/// True if something changed.
Result<bool> Repair::attach_orphans(Work& work, FileMender& files) {
  const std::vector<NodeId> orphans = work.mender->orphans();
  if (orphans.empty()) return false;
  work.draft.remove_nodes(CAW_TRY(files.attach(orphans)));
  return true;
}

/// By way of the engine, which knows how to rename.  What cannot be moved keeps the name it has.
Result<void> Repair::move_strays() {
  if (strays_.empty()) return {};
  VolumeOptions options;
  options.cache_bytes = kEngineCacheBytes;
  options.background = false;
  const auto volume =
      CAW_TRY(Volume::open(std::make_unique<BorrowedDevice>(device_), options));
  FsOptions fs_options;
  fs_options.clock = options_.clock;
  auto fs = CAW_TRY(FileSystem::open(*volume, fs_options));
  StrayMover mover(*fs, notes_);
  std::ranges::sort(strays_, {}, [](const Stray& stray) { return stray.directory.size(); });
  for (const Stray& stray : strays_) CAW_TRY(mover.move(stray));
  mover.close();
  fs.reset();
  return volume->close();
}

}  // namespace

Result<RepairReport> repair_volume(BlockDevice& device, const RepairOptions& options) {
  return Repair(device, options).run();
}

}  // namespace caw
