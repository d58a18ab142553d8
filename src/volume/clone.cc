// Volume: the clone.  What is read is read before the gate is closed; under it only pointers move.
#include <algorithm>
#include <optional>

#include "dag/maintainer.h"
#include "dag/restrict.h"
#include "volume/operation_record.h"
#include "volume/tree_handle.h"
#include "volume/volume.h"

namespace caw {
namespace {

constexpr int kMostAttempts = 1000;  ///< with maintenance kept out; only damage needs more
constexpr size_t kSealedHandedOn = 4;  // sealed runs a clone may inherit unabsorbed
constexpr uint64_t kGatheredAtOnce = 256 * 1024;  ///< more is left to maintenance

/// Asks maintenance of the tree to step aside.
class Waiting {
 public:
  explicit Waiting(TreeCore& core) : core_(core) { core_.wanted.fetch_add(1); }
  ~Waiting() { core_.wanted.fetch_sub(1); }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  TreeCore& core_;
};

/// Part of a memtable as the clone will see it: bounds and translation in the clone's coordinates.
struct Slice {
  const Memtable* table = nullptr;
  std::string lo;
  std::string hi;
  Translation down;  ///< clone -> table

  std::string table_lo() const { return down_bound(down, lo); }
  std::string table_hi() const { return down_bound(down, hi); }
  uint64_t bytes(uint64_t limit) const {
    return lo < hi ? table->slice_bytes(table_lo(), table_hi(), limit) : 0;
  }
};

/// What prefix `map` selects of a table seen through [lo, hi) and `translation` (source -> table).
Slice slice_of(const Memtable& table, const ClonePrefix& map, std::string_view lo,
               std::string_view hi, const Translation& translation) {
  const Translation to_source{map.to, map.from};
  Slice out;
  out.table = &table;
  auto down = compose(to_source, translation);
  if (!down) return out;
  out.down = *std::move(down);
  const std::string first = up_bound(to_source, lo);
  const std::string last = up_bound(to_source, hi);
  out.lo = std::string(max_bound(max_bound(map.to, first), out.down.strip));
  out.hi = std::string(
      min_bound(min_bound(key_after_prefix(map.to), last), key_after_prefix(out.down.strip)));
  if (!(out.lo < out.hi)) out.lo = out.hi;
  return out;
}

/// Puts the slice's messages on top of `mem`, counting the references it takes.
void copy_slice(const Slice& slice, Memtable& mem, NodeStore& store, Epoch epoch,
                DroppedRefs& dropped) {
  const std::string lo = slice.table_lo();
  const std::string hi = slice.table_hi();
  const Translation up = inverse(slice.down);
  for (const RangeErase& range : slice.table->ranges()) {
    const std::string_view a = max_bound(range.lo, lo);
    const std::string_view b = min_bound(range.hi, hi);
    if (a < b) mem.erase_range(down_bound(up, a), down_bound(up, b), range.dead_bytes, dropped);
  }
  const auto& points = slice.table->points();
  for (auto it = points.lower_bound(lo); it != points.end() && it->first < hi; ++it) {
    auto key = down_key(up, it->first);
    if (!key || key->size() > kMaxKeyBytes) continue;  // only a damaged log makes keys longer
    const OwnedRefs refs = refs_of(it->second);
    if (refs.tree != kNoNode) store.add_node_ref(refs.tree, +1, epoch);
    if (refs.blob) store.add_blob_ref(refs.blob, +1, epoch);
    mem.insert(*key, it->second, dropped);
  }
}

}  // namespace

/// Pending messages of the source: copied where they are few, else shared as sealed runs.
void Volume::clone_locked(TreeCore& source, std::span<const ClonePrefix> prefixes,
                          Interior node, NodeId id, Epoch epoch) {
  const uint64_t limit = shape_.inline_bytes;
  uint64_t open_bytes = 0;
  for (const ClonePrefix& map : prefixes) {
    open_bytes += slice_of(source.mem, map, "", kKeyEnd, {}).bytes(limit);
  }
  if (open_bytes > limit) seal_memtable(source, *store_, epoch);
  std::vector<std::vector<Slice>> copies;  // newest first; one entry per table
  auto view = make_ref<TreeView>();
  uint64_t budget = limit;
  bool copying = true;
  auto consider = [&](const Memtable& table, const FrozenRef* frozen) {
    std::vector<Slice> slices;
    uint64_t bytes = 0;
    for (const ClonePrefix& map : prefixes) {
      Slice slice = frozen != nullptr
                        ? slice_of(table, map, frozen->lo, frozen->hi, frozen->translation)
                        : slice_of(table, map, "", kKeyEnd, {});
      const uint64_t here = slice.bytes(limit);
      if (here == 0) continue;
      bytes += here;
      slices.push_back(std::move(slice));
    }
    if (slices.empty()) return;
    if (copying && bytes <= budget) {
      budget -= bytes;
      copies.push_back(std::move(slices));
      return;
    }
    CAW_ASSERT(frozen != nullptr);
    copying = false;
    for (const Slice& slice : slices) {
      frozen->run->add_reference(*store_, epoch);
      memtable_bytes_ += static_cast<int64_t>(frozen->run->table().bytes());
      view->frozen.push_back({frozen->run, slice.lo, slice.hi, slice.down, epoch});
    }
  };
  consider(source.mem, nullptr);
  for (const FrozenRef& frozen : source.view->frozen) consider(frozen.run->table(), &frozen);

  auto root = make_ref<const InteriorImage>(std::move(node));
  store_->publish(id, root, epoch);
  store_->add_image_refs(*root, +1, epoch);
  view->root = root;
  Ref<Handle> handle = handle_for(id);
  TreeCore& clone = *handle->core;
  DroppedRefs dropped;
  {
    std::unique_lock lock(clone.mutex);
    for (auto it = copies.rbegin(); it != copies.rend(); ++it) {
      for (const Slice& slice : *it) copy_slice(slice, clone.mem, *store_, epoch, dropped);
    }
    clone.mem_seq = source.mem_seq;
    clone.show(view);
    memtable_bytes_ += static_cast<int64_t>(clone.mem.bytes());
  }
  for (NodeId tree : dropped.trees) store_->add_node_ref(tree, -1, epoch);
  for (const BlobRef& blob : dropped.blobs) store_->add_blob_ref(blob, -1, epoch);
  if (!clone.mem.empty() || !view->frozen.empty()) activate(handle);
  handle->fat = true;
  enqueue_quietly(handle);
}

/// False: the source changed between reading and the gate; try again.
Result<bool> Volume::try_clone(const TreeRef& source, std::span<const ClonePrefix> prefixes,
                               NodeId id, Batch& then, Seq replayed) {
  TreeCore& core = core_of(source);
  Ref<const InteriorImage> root = CAW_TRY(load_root(*store_, core));
  std::vector<PrefixMap> maps;
  for (const ClonePrefix& prefix : prefixes) maps.push_back({prefix.from, prefix.to});
  Ref<const RestrictionCache::Entry> known = restrictions_.find(root, maps);
  if (!known) {
    auto made = restrict_tree(*store_, root, maps);
    if (!made && made.error().code == Code::node_superseded) return false;
    auto entry = make_ref<RestrictionCache::Entry>();
    entry->restriction = CAW_TRY(std::move(made));
    entry->root = root;
    entry->prefixes = std::move(maps);
    known = entry;
    restrictions_.keep(known);
  }
  const Restriction& restriction = known->restriction;
  Interior node = restriction.node;
  std::string bytes;
  if (log_) {
    LogRecordBuilder record;
    add_clone(record, source->root(), id, prefixes);
    add_batch(record, then);
    bytes = record.finish();
  }
  Gate::Exclusive gate(store_->gate());
  // While the log is done again nobody else changes anything: what was private then, is.
  if (log_ && then.generation != share_generation()) {
    return fail(Code::tree_not_private, then.generation, "Volume::clone");
  }
  if (!(core.view->root == root) || !restriction.current()) return false;
  const Epoch epoch = store_->open_epoch();
  if (!core.view->frozen.empty() && core.view->frozen.back().epoch < epoch) return false;
  clone_locked(core, prefixes, std::move(node), id, epoch);
  generation_.fetch_add(1, std::memory_order_release);
  apply_locked(then, id, epoch, log_ ? log_->append(std::move(bytes)) : replayed);
  return true;
}

/// What a cut sealed goes into the source's root first, in its own epoch: absorbing it drops
/// references, perhaps the last ones of that epoch, and a clone of the next epoch may not count
/// on what is gone then.  Requires: core.maintenance held.
Result<void> Volume::absorb_cut(TreeCore& core) {
  Maintainer maintainer(*store_, shape_, core, generation_);
  const Result<void> absorbed = maintainer.absorb(store_->open_epoch() - 1);
  memtable_bytes_ -= static_cast<int64_t>(maintainer.absorbed_bytes());
  return absorbed;
}

/// A chain of clones made faster than maintenance would hand on ever more small sealed runs, for
/// each of them to merge by itself.  So they are merged, once, before they are shared; where that
/// is more than a moment's work, maintenance is at it anyway.
Result<void> Volume::gather_sealed(TreeCore& core) {
  const Ref<TreeView> view = core.current_view();
  const auto small = std::ranges::count_if(view->frozen, [this](const FrozenRef& frozen) {
    return frozen.run->table().bytes() < shape_.run_bytes / 4;
  });
  if (static_cast<size_t>(small) < kSealedHandedOn) return {};
  uint64_t pending = 0;
  for (const FrozenRef& frozen : view->frozen) pending += frozen.run->table().bytes();
  if (view->root) {
    for (const RunRef& run : view->root->node().runs) pending += run.bytes;
  }
  if (pending > kGatheredAtOnce) return {};
  std::unique_lock lock(core.maintenance, std::try_to_lock);
  if (!lock.owns_lock()) return {};
  Maintainer maintainer(*store_, shape_, core, generation_);
  const Result<void> gathered = maintainer.gather();
  memtable_bytes_ -= static_cast<int64_t>(maintainer.absorbed_bytes());
  return gathered;
}

Result<void> Volume::clone(const TreeRef& source, std::span<const ClonePrefix> prefixes, NodeId id,
                           Batch& then) {
  CAW_TRY(admit(then, id));
  return clone_admitted(source, prefixes, id, then, /*replayed=*/0);
}

Result<void> Volume::clone_admitted(const TreeRef& source, std::span<const ClonePrefix> prefixes,
                                    NodeId id, Batch& then, Seq replayed) {
  TreeCore& core = core_of(source);
  note_cloned(static_cast<Handle&>(*source).core);
  CAW_TRY(gather_sealed(core));
  std::optional<Waiting> waiting;
  for (int attempt = 0; attempt < 8; ++attempt) {
    if (attempt > 0 && !waiting) waiting.emplace(core);
    const Ref<TreeView> view = core.current_view();
    if (!view->frozen.empty() && view->frozen.back().epoch < store_->open_epoch()) {
      if (!waiting) waiting.emplace(core);
      std::lock_guard lock(core.maintenance);
      CAW_TRY(absorb_cut(core));
    }
    if (CAW_TRY(try_clone(source, prefixes, id, then, replayed))) {
      ++clones_;
      return {};
    }
  }
  // Maintenance keeps changing the path: exclude it for once.
  if (!waiting) waiting.emplace(core);
  std::lock_guard lock(core.maintenance);
  for (int attempt = 0; attempt < kMostAttempts; ++attempt) {
    if (CAW_TRY(try_clone(source, prefixes, id, then, replayed))) {
      ++clones_;
      return {};
    }
    CAW_TRY(absorb_cut(core));
  }
  return fail(Code::interior_malformed, raw(source->root()), "clone: a node in two trees");
}

}  // namespace caw
