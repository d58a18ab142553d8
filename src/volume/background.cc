// Volume: maintenance, checkpoints, throttling.
#include <algorithm>
#include <iterator>

#include "dag/maintainer.h"
#include "volume/tree_handle.h"
#include "volume/volume.h"

namespace caw {
namespace {

constexpr auto kIdleWait = std::chrono::milliseconds(200);
constexpr uint64_t kReclaimBatch = 64;
constexpr size_t kIdleTreesKept = 1024;
constexpr size_t kMostNoted = 100;
constexpr int kTreesSettledAtOpen = 64;
constexpr auto kCheckpointInterval = std::chrono::milliseconds(30'000);
constexpr uint64_t kWriteBehindBytes = 1U << 20;   // of records, in memory
constexpr uint64_t kMostPendingBytes = 16U << 20;
constexpr uint32_t kMostHandedOn = 64;  // runs, sealed or the root's, of a tree that is cloned
constexpr size_t kCrowdedTimes = 16;    // what settling leaves: more is crowded

/// A 256th of the volume, 256 KiB to 16 MiB: the host must really hold it.
uint64_t log_blocks(uint64_t volume_blocks) {
  return std::clamp<uint64_t>(volume_blocks / 256, 64, kMaxLogSegmentBlocks);
}

}  // namespace

void Volume::start_threads() {
  maintainer_ = std::thread([this] { maintainer_loop(); });
  checkpointer_ = std::thread([this] { checkpointer_loop(); });
  committer_ = std::thread([this] { committer_loop(); });
}

/// A removal whose messages had not come to rest when the volume was last used goes on now, in the
/// trees that most see: the system tree and those it owns.
Result<void> Volume::settle_after_open() {
  enqueue(system_tree_);
  auto cursor = scan(system_tree_, "", std::string(kKeyEnd));
  for (int i = 0; i < kTreesSettledAtOpen && CAW_TRY(cursor->next()); ++i) {
    const NodeId owned = cursor->value().tree;
    if (owned != kNoNode) enqueue(open_tree(owned));
  }
  return {};
}

/// Does again what the log holds, and begins a new one.
Result<void> Volume::begin_log() {
  Seq next_seq = store_->superblock().next_seq;
  const uint64_t position = CAW_TRY(recover(next_seq));
  if (options_.read_only) return {};
  CAW_TRY(store_->make_log(log_blocks(store_->superblock().block_count)));
  log_ = std::make_unique<Log>(store_->device(), LogRing(store_->log_segments()),
                               store_->superblock().uuid, position, next_seq);
  log_->hold_until_trim();  // the superblock names the old one
  return reserve_numbers();
}

/// During recovery: takes what is in memtables into the trees when it is much.
Result<void> Volume::relieve_memory() {
  if (options_.read_only || memtable_bytes_.load() < static_cast<int64_t>(memtable_limit_)) {
    return {};
  }
  std::vector<TreeRef> trees;
  {
    std::lock_guard lock(active_mutex_);
    trees.swap(active_);
  }
  for (const TreeRef& tree : trees) {
    core_of(tree).active = false;
    {
      Gate::Shared gate(store_->gate());
      seal_memtable(core_of(tree), *store_, store_->open_epoch());
    }
    CAW_TRY(maintain_tree(tree));
  }
  return {};
}

/// The run before may have handed out every number below the stored marks; so may this one, once
/// the marks are above what it hands out.  A full volume does without.
Result<void> Volume::reserve_numbers() {
  const Result<void> written = write_checkpoint(/*clean=*/false);
  if (!written && written.error().code != Code::no_space &&
      written.error().code != Code::device_full) {
    return written;
  }
  return {};
}

void Volume::stop_threads() {
  {
    std::scoped_lock lock(work_mutex_, commit_mutex_, committer_mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  commit_wanted_.notify_all();
  committer_wanted_.notify_all();
  if (committer_.joinable()) committer_.join();
  if (maintainer_.joinable()) maintainer_.join();
  if (checkpointer_.joinable()) checkpointer_.join();
}

void Volume::enqueue(const TreeRef& tree) {
  if (static_cast<Handle&>(*tree).queued.exchange(true)) return;
  {
    std::lock_guard lock(work_mutex_);
    queue_.push_back(tree);
  }
  work_ready_.notify_one();
}

/// As enqueue(), but work begins when the maintainer next looks.
void Volume::enqueue_quietly(const TreeRef& tree) {
  if (static_cast<Handle&>(*tree).queued.exchange(true)) return;
  std::lock_guard lock(work_mutex_);
  quiet_queue_.push_back(tree);
}

/// Requires: work_mutex_.  Null: nothing to do.  Trees that are written to go first, but not only.
TreeRef Volume::next_tree() {
  constexpr unsigned kQuietTurn = 4;
  const bool quiet = queue_.empty() || (++turns_ % kQuietTurn == 0 && !quiet_queue_.empty());
  std::deque<TreeRef>& from = quiet ? quiet_queue_ : queue_;
  if (from.empty()) return {};
  TreeRef tree = std::move(from.front());
  from.pop_front();
  return tree;
}

/// Absorbs what is sealed and brings the tree into shape.  True if there was something to absorb.
Result<bool> Volume::maintain_tree(const TreeRef& tree) {
  auto& handle = static_cast<Handle&>(*tree);
  TreeCore& core = *handle.core;
  handle.queued = false;
  if (handle.dying) {
    Gate::Shared gate(store_->gate());
    seal_memtable(core, *store_, store_->open_epoch());
  }
  std::lock_guard lock(core.maintenance);
  Maintainer maintainer(*store_, shape_, core, generation_);
  Result<void> result = maintainer.absorb(~Epoch{0});
  // A clone that was not written to since looks after its bounds only: its source settles the runs
  // that both have, once for all.
  const bool settles = !handle.fat || core.backlog > kMostHandedOn;
  if (result && !handle.dying && settles) result = maintainer.settle();
  if (result && !handle.dying && !maintainer.interrupted() && handle.fat.exchange(false)) {
    result = maintainer.slim(slim_cache_);
  }
  if (!result && result.error().code == Code::node_absent) {
    const Result<ImageRef> root = store_->get(core.id);
    const bool dropped = !root && root.error().code == Code::node_absent;
    if (dropped) result = {};  // removed while it stood in the queue
  }
  memtable_bytes_ -= static_cast<int64_t>(maintainer.absorbed_bytes());
  changed_ = true;
  if (!result) return std::unexpected(result.error());
  if (maintainer.interrupted()) enqueue(tree);
  return maintainer.absorbed_bytes() > 0;
}

/// A dead interior node may be dropped unless it is a root whose memtables hold references still,
/// or one that is being changed: whoever does it found it alive and is about to publish it.  Who
/// begins later finds its count zero, or the node gone.
bool Volume::may_drop(NodeId id) {
  Ref<Handle> handle;
  {
    std::lock_guard lock(trees_mutex_);
    auto it = trees_.find(raw(id));
    if (it == trees_.end()) return true;
    handle = it->second;
  }
  TreeCore& core = *handle->core;
  {
    const std::unique_lock maintenance(core.maintenance, std::try_to_lock);
    if (!maintenance.owns_lock()) return false;
    std::shared_lock lock(core.mutex);
    if (core.mem.empty() && core.view->frozen.empty()) return true;
  }
  handle->dying = true;
  enqueue(handle);
  return false;
}

Result<uint64_t> Volume::maintain() {
  CAW_ASSERT(!maintainer_.joinable());
  uint64_t done = 0;
  while (true) {
    TreeRef tree;
    {
      std::lock_guard lock(work_mutex_);
      tree = next_tree();
    }
    if (tree) {
      CAW_TRY(maintain_tree(tree));
      ++done;
      continue;
    }
    const uint64_t freed = CAW_TRY(store_->reclaim(kReclaimBatch));
    if (freed > 0) changed_ = true;
    done += freed;
    std::lock_guard lock(work_mutex_);
    if (freed == 0 && queue_.empty() && quiet_queue_.empty()) return done;
  }
}

/// A root takes in one run for each memtable sealed, and what clones hand on; a node may hold so
/// many and no more.  So trees that maintenance has not come to for long are settled before a cut,
/// here: what the cut seals must go into their roots as they are then.
void Volume::settle_crowded() {
  const size_t most = std::min<size_t>(kCrowdedTimes * shape_.max_runs, kMaxRuns / 8);
  std::vector<TreeRef> crowded;
  {
    std::lock_guard lock(active_mutex_);
    std::ranges::copy_if(active_, std::back_inserter(crowded), [most](const TreeRef& tree) {
      return core_of(tree).backlog > most && !static_cast<Handle&>(*tree).dying;
    });
  }
  for (const TreeRef& tree : crowded) {
    TreeCore& core = core_of(tree);
    std::lock_guard lock(core.maintenance);
    if (core.backlog <= most) continue;  // maintenance has come to it meanwhile
    Maintainer maintainer(*store_, shape_, core, generation_);
    Result<void> settled = maintainer.absorb(~Epoch{0});
    if (settled) settled = maintainer.settle();
    memtable_bytes_ -= static_cast<int64_t>(maintainer.absorbed_bytes());
    ignore_error(settled, "maintenance tells; a root that holds too much is not written");
  }
}

/// The cut and what follows: see docs/locking.md and docs/durability.md.
Result<void> Volume::write_checkpoint(bool clean) {
  std::lock_guard one(checkpoint_mutex_);
  settle_crowded();
  std::vector<TreeRef> trees;
  Epoch epoch = 0;
  Seq seq = 0;
  {
    Gate::Exclusive gate(store_->gate());
    {
      std::lock_guard lock(active_mutex_);
      trees.swap(active_);
    }
    const Epoch open = store_->open_epoch();
    for (const TreeRef& tree : trees) {
      core_of(tree).active = false;
      seal_memtable(core_of(tree), *store_, open);
    }
    changed_ = false;
    seq = log_->cut();
    epoch = store_->begin_checkpoint();
  }
  for (const TreeRef& tree : trees) {
    TreeCore& core = core_of(tree);
    {
      std::lock_guard lock(core.maintenance);
      Maintainer maintainer(*store_, shape_, core, generation_);
      CAW_TRY(maintainer.absorb(epoch));
      memtable_bytes_ -= static_cast<int64_t>(maintainer.absorbed_bytes());
    }
    enqueue(tree);
  }
  trees.clear();
  const Result<uint64_t> position = log_->position_after_cut();
  if (!position) {
    store_->mark_failed(position.error());
    return std::unexpected(position.error());
  }
  CAW_TRY(store_->write_checkpoint(seq, clean, *position));
  log_->trim(*position, seq);
  last_checkpoint_ms_ = steady_ms();
  forget_idle_trees();
  return {};
}

void Volume::forget_idle_trees() {
  std::vector<Ref<Handle>> dropped;
  std::lock_guard lock(trees_mutex_);
  if (trees_.size() <= kIdleTreesKept) return;
  for (auto it = trees_.begin(); it != trees_.end();) {
    Handle& handle = *it->second;
    const bool idle = handle.ref_count() == 1 && !handle.core->active && !handle.queued;
    if (idle) {
      std::shared_lock core_lock(handle.core->mutex);
      if (!handle.core->mem.empty() || !handle.core->view->frozen.empty()) {
        ++it;
        continue;
      }
    }
    if (idle) {
      dropped.push_back(it->second);
      trees_.erase(it++);
    } else {
      ++it;
    }
  }
}

void Volume::maintainer_loop() {
  while (true) {
    TreeRef tree;
    {
      std::unique_lock lock(work_mutex_);
      if (queue_.empty() && quiet_queue_.empty() && !store_->has_dead()) {
        work_ready_.wait_for(lock, kIdleWait, [&] { return stopping_ || !queue_.empty(); });
      }
      if (stopping_) return;
      tree = next_tree();
    }
    if (tree) {
      auto result = maintain_tree(tree);
      if (!result) note_error(result.error());
    } else if (store_->has_dead()) {
      auto freed = store_->reclaim(kReclaimBatch);
      if (freed && *freed > 0) {
        changed_ = true;
      } else {
        if (!freed) note_error(freed.error());
        std::unique_lock lock(work_mutex_);
        work_ready_.wait_for(lock, kIdleWait, [&] { return stopping_ || !queue_.empty(); });
      }
    }
    if (wants_checkpoint()) request_checkpoint();
  }
}

bool Volume::wants_checkpoint() const {
  return store_->dirty_bytes() > dirty_limit_ || store_->needs_checkpoint() ||
         memtable_bytes_.load() > static_cast<int64_t>(memtable_limit_) * 2 || log_->is_filling();
}

void Volume::request_checkpoint() {
  {
    std::lock_guard lock(commit_mutex_);
    if (commit_requested_) return;
    commit_requested_ = true;
  }
  commit_wanted_.notify_one();
}

void Volume::checkpointer_loop() {
  while (true) {
    {
      std::unique_lock lock(commit_mutex_);
      commit_wanted_.wait_for(lock, options_.commit_interval,
                              [&] { return stopping_ || commit_requested_; });
      if (stopping_) return;
      const bool needed = commit_requested_ || checkpoint_is_due();
      commit_requested_ = false;
      if (!needed) continue;
    }
    Result<void> result = write_checkpoint(/*clean=*/false);
    if (!result) note_error(result.error());
    {
      std::lock_guard lock(commit_mutex_);
      commit_result_ = std::move(result);
      ++commit_round_;
    }
    commit_done_.notify_all();
  }
}

/// A failure in the background: what it concerned stays as it was; the next try may do better.
/// Want of space passes; whatever else is told once.
void Volume::note_error(const Error& error) {
  const bool passes = error.code == Code::no_space || error.code == Code::device_full ||
                      error.code == Code::volume_failed;
  bool is_new = false;
  {
    std::lock_guard lock(noted_mutex_);
    is_new = noted_.size() < kMostNoted && noted_.insert({error.code, error.detail}).second;
  }
  if (is_new && !passes) options_.on_trouble(error);
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
}

/// What the log holds need not be in a checkpoint soon; space that waits for one should.
bool Volume::checkpoint_is_due() const {
  if (!changed_) return false;
  const bool space_waits = store_->has_dead() || store_->space().reclaiming_blocks > 0;
  return space_waits || steady_ms() - last_checkpoint_ms_ >= kCheckpointInterval.count();
}

void Volume::wake_committer() {
  {
    std::lock_guard lock(committer_mutex_);
    if (write_wanted_) return;
    write_wanted_ = true;
  }
  committer_wanted_.notify_one();
}

/// Makes everything durable each commit interval; meanwhile writes what is much.
void Volume::committer_loop() {
  auto next = std::chrono::steady_clock::now() + options_.commit_interval;
  while (true) {
    {
      std::unique_lock lock(committer_mutex_);
      committer_wanted_.wait_until(lock, next, [&] { return stopping_ || write_wanted_; });
      if (stopping_) return;
      write_wanted_ = false;
    }
    const bool due = std::chrono::steady_clock::now() >= next;
    if (due) next = std::chrono::steady_clock::now() + options_.commit_interval;
    if (due || blob_bytes_ > 0) {
      ignore_error(sync(), "sync notes a device that fails");
    } else {
      const Result<void> written = log_->write_behind();
      if (!written) store_->mark_failed(written.error());
    }
  }
}

/// One write and one flush; a checkpoint only where the log has no room.
Result<void> Volume::sync() {
  if (options_.read_only) return {};
  if (store_->failed()) return fail(Code::volume_failed, 0, "Volume::sync");
  blob_bytes_ = 0;
  const Result<void> committed = log_->commit(log_->next_seq());
  if (committed) return {};
  if (committed.error().code == Code::log_full) return commit(/*force=*/false);
  store_->mark_failed(committed.error());
  return committed;
}

/// A checkpoint that holds everything so far; `force`: even if no operation asks for it, so that
/// freed space becomes usable.
Result<void> Volume::commit(bool force) {
  if (options_.read_only) return {};
  if (store_->failed()) return fail(Code::volume_failed, 0, "Volume::commit");
  if (!checkpointer_.joinable()) return write_checkpoint(/*clean=*/false);
  const Seq wanted = log_->next_seq();
  std::unique_lock lock(commit_mutex_);
  bool again = force;
  // Two rounds at most: the one under way may have cut before us.
  while (log_->checkpointed() < wanted || again) {
    again = false;
    const uint64_t round = commit_round_;
    commit_requested_ = true;
    commit_wanted_.notify_one();
    commit_done_.wait(lock, [&] { return stopping_ || commit_round_ != round; });
    if (stopping_) return fail(Code::volume_failed, 0, "Volume::commit");
    if (!commit_result_) return commit_result_;
  }
  return {};
}

/// Makes a writer wait a little when memory fills faster than the background empties it.
void Volume::pace() {
  if (!maintainer_.joinable()) return;
  hold_back();
  throttle(2);
}

/// While a tree is cloned again and again, its writers wait for maintenance: what is pending is
/// handed on to each of the clones.
void Volume::hold_back() {
  constexpr int kMostWaits = 10;
  constexpr int64_t kLatelyMs = 500;
  if (steady_ms() - last_clone_ms_.load(std::memory_order_relaxed) > kLatelyMs) return;
  Ref<TreeCore> source;
  {
    std::lock_guard lock(last_cloned_mutex_);
    source = last_cloned_;
  }
  for (int i = 0; i < kMostWaits && source && source->backlog > kMostHandedOn; ++i) {
    work_ready_.notify_one();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

void Volume::note_cloned(const Ref<TreeCore>& source) {
  std::lock_guard lock(last_cloned_mutex_);
  last_cloned_ = source;
  last_clone_ms_ = steady_ms();
}

/// Waits a little while more than `times` what memory should hold is not written yet.
void Volume::throttle(int times) {
  if (!maintainer_.joinable()) return;
  const auto over = [&] {
    return memtable_bytes_.load() > static_cast<int64_t>(memtable_limit_) * times ||
           store_->dirty_bytes() > dirty_limit_ * static_cast<uint64_t>(times) ||
           log_->pending_bytes() > kMostPendingBytes;
  };
  if (log_->pending_bytes() > kWriteBehindBytes) wake_committer();
  if (!over()) {
    if (wants_checkpoint()) request_checkpoint();
    return;
  }
  const auto start = std::chrono::steady_clock::now();
  request_checkpoint();
  for (int i = 0; i < 25 && over(); ++i) {
    work_ready_.notify_one();
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  const auto us = static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                            std::chrono::steady_clock::now() - start)
                                            .count());
  ++throttled_;
  uint64_t most = throttled_us_max_.load();
  while (us > most && !throttled_us_max_.compare_exchange_weak(most, us)) {
  }
}

}  // namespace caw
