// Volume: maintenance, checkpoints, throttling.
#include <algorithm>

#include "dag/maintainer.h"
#include "volume/tree_handle.h"
#include "volume/volume.h"

namespace caw {
namespace {

constexpr auto kIdleWait = std::chrono::milliseconds(200);
constexpr uint64_t kReclaimBatch = 64;
constexpr size_t kIdleTreesKept = 1024;
constexpr int kTreesSettledAtOpen = 64;
}  // namespace

void Volume::start_threads() {
  maintainer_ = std::thread([this] { maintainer_loop(); });
  checkpointer_ = std::thread([this] { checkpointer_loop(); });
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

/// The run before may have handed out every number below the stored marks; so may this one, once
/// the marks are above what it hands out.  A full volume does without.
Result<void> Volume::reserve_numbers() {
  const Result<void> written = checkpoint(/*clean=*/false);
  if (!written && written.error().code != Code::no_space &&
      written.error().code != Code::device_full) {
    return written;
  }
  return {};
}

void Volume::stop_threads() {
  {
    std::scoped_lock lock(work_mutex_, commit_mutex_);
    stopping_ = true;
  }
  work_ready_.notify_all();
  commit_wanted_.notify_all();
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
  if (result && !handle.dying) result = maintainer.settle();
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

/// A dead interior node may be dropped unless it is a root whose memtables hold references still.
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
      if (!queue_.empty()) {
        tree = queue_.front();
        queue_.pop_front();
      }
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
    if (freed == 0 && queue_.empty()) return done;
  }
}

/// The cut and what follows: see docs/locking.md and docs/durability.md.
Result<void> Volume::checkpoint(bool clean) {
  std::lock_guard one(checkpoint_mutex_);
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
    seq = next_seq_.load();
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
  CAW_TRY(store_->write_checkpoint(seq, clean));
  {
    std::lock_guard lock(commit_mutex_);
    durable_seq_ = seq;
  }
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
      if (queue_.empty() && !store_->has_dead()) {
        work_ready_.wait_for(lock, kIdleWait, [&] { return stopping_ || !queue_.empty(); });
      }
      if (stopping_) return;
      if (!queue_.empty()) {
        tree = queue_.front();
        queue_.pop_front();
      }
    }
    if (tree) {
      auto result = maintain_tree(tree);
      if (!result) note_error(result.error());
    } else if (store_->has_dead()) {
      auto freed = store_->reclaim(kReclaimBatch);
      if (freed && *freed > 0) {
        changed_ = true;
      } else {
        std::unique_lock lock(work_mutex_);
        work_ready_.wait_for(lock, kIdleWait, [&] { return stopping_ || !queue_.empty(); });
      }
    }
    if (wants_checkpoint()) request_checkpoint();
  }
}

bool Volume::wants_checkpoint() const {
  return store_->dirty_bytes() > dirty_limit_ || store_->needs_checkpoint() ||
         memtable_bytes_.load() > static_cast<int64_t>(memtable_limit_) * 2;
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
      const bool needed = commit_requested_ || changed_;
      commit_requested_ = false;
      if (!needed) continue;
    }
    Result<void> result = checkpoint(/*clean=*/false);
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
void Volume::note_error(const Error& error) {
  std::this_thread::sleep_for(std::chrono::milliseconds(10));
  static_cast<void>(error);
}

Result<void> Volume::sync() { return commit(/*force=*/false); }

/// Everything so far durable; `force`: a checkpoint even if no operation asks for it, so that freed
/// space becomes usable.
Result<void> Volume::commit(bool force) {
  if (options_.read_only) return {};
  if (store_->failed()) return fail(Code::volume_failed, 0, "Volume::sync");
  if (!checkpointer_.joinable()) return checkpoint(/*clean=*/false);
  const Seq wanted = next_seq_.load();
  std::unique_lock lock(commit_mutex_);
  bool again = force;
  // Two rounds at most: the one under way may have cut before us.
  while (durable_seq_ < wanted || again) {
    again = false;
    const uint64_t round = commit_round_;
    commit_requested_ = true;
    commit_wanted_.notify_one();
    commit_done_.wait(lock, [&] { return stopping_ || commit_round_ != round; });
    if (stopping_) return fail(Code::volume_failed, 0, "Volume::sync");
    if (!commit_result_) return commit_result_;
  }
  return {};
}

/// Makes a writer wait a little when memory fills faster than the background empties it.
void Volume::throttle() {
  if (!maintainer_.joinable()) return;
  const auto over = [&] {
    return memtable_bytes_.load() > static_cast<int64_t>(memtable_limit_) * 2 ||
           store_->dirty_bytes() > dirty_limit_ * 2;
  };
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
