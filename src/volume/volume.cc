#include "volume/volume.h"

#include <algorithm>
#include <cstring>

#include "dag/lookup.h"
#include "dag/restrict.h"
#include "dev/borrowed_device.h"
#include "volume/operation_record.h"
#include "volume/tree_handle.h"

namespace caw {
namespace {

constexpr NodeId kSystemTree{1};
/// In a row; more than the leaves of a terabyte that was removed.  On a damaged volume nodes that
/// are shared within a tree can look like any number of them.
constexpr uint64_t kMostEmptyChunks = 1U << 18;
constexpr uint64_t kUnflushedBlobBytes = 128U << 20;

}  // namespace

std::string prefix_end(std::string_view prefix) { return key_after_prefix(prefix); }

Result<void> check_shape(const TreeShape& s) {
  const bool positive = s.leaf_bytes > 0 && s.fanout >= 4 && s.buffer_bytes > 0 &&
                        s.alpha_num > 0 && s.run_bytes > 0 && s.max_runs >= 2 &&
                        s.inline_value_bytes > 0;
  const bool bounded = s.leaf_bytes <= kMaxNodePayload / 4 && s.fanout <= 1024 &&
                       s.buffer_bytes <= kMaxNodePayload && s.inline_value_bytes <= kMaxValueBytes;
  if (!positive || !bounded) return fail(Code::invalid_argument, 0, "tree shape");
  // No jam: a full buffer always has a child with enough pending (docs/adr).
  const uint64_t needed = uint64_t{s.fanout} * s.leaf_bytes * s.alpha_num / s.alpha_den;
  if (needed > s.buffer_bytes) return fail(Code::invalid_argument, needed, "tree shape: F·α·s > B");
  return {};
}

Result<void> Volume::make(BlockDevice& device, const MakeOptions& options) {
  CAW_TRY(check_shape(options.shape));
  if (device.block_count() < kMinVolumeBlocks) {
    return fail(Code::device_size, device.block_count(), "Volume::make");
  }
  Superblock superblock;
  superblock.uuid = options.uuid;
  superblock.label = options.label.substr(0, 64);
  superblock.block_count = device.block_count();
  superblock.counters.fill(1);
  superblock.counters[static_cast<size_t>(Counter::node_id)] = raw(kSystemTree) + 1;
  superblock.system_tree = kSystemTree;
  superblock.compression = options.compression;
  superblock.shape = options.shape;
  CAW_TRY(NodeStore::format(device, superblock));
  StoreOptions store_options;
  auto store = CAW_TRY(NodeStore::open(std::make_unique<BorrowedDevice>(device), store_options));
  Epoch epoch = 0;
  {
    Gate::Exclusive gate(store->gate());
    store->publish(kSystemTree, make_ref<const InteriorImage>(empty_root()), store->open_epoch());
    epoch = store->begin_checkpoint();
  }
  static_cast<void>(epoch);
  return store->write_checkpoint(1, /*clean=*/true, /*log_position=*/0);
}

Result<std::unique_ptr<Volume>> Volume::open(std::unique_ptr<BlockDevice> device,
                                             const VolumeOptions& options) {
  StoreOptions store_options;
  store_options.cache_bytes = options.cache_bytes;
  store_options.read_only = options.read_only;
  store_options.on_failure = options.on_trouble;
  store_options.wrap_allocator = options.wrap_allocator;
  auto store = CAW_TRY(NodeStore::open(std::move(device), store_options));
  CAW_TRY(check_shape(store->superblock().shape));
  std::unique_ptr<Volume> volume(new Volume(std::move(store), options));
  auto root = load_root(*volume->store_, core_of(volume->system_tree_));
  if (!root) return std::unexpected(root.error());
  CAW_TRY(volume->begin_log());
  if (options.background && !options.read_only) {
    volume->start_threads();
    ignore_error(volume->settle_after_open(), "an economy; damage shows when the tree is used");
  }
  return volume;
}

Volume::Volume(std::unique_ptr<NodeStore> store, const VolumeOptions& options)
    : options_(options), store_(std::move(store)), shape_(store_->superblock().shape) {
  system_tree_ = handle_for(store_->superblock().system_tree);
  memtable_limit_ = std::max<uint64_t>(options.cache_bytes / 16, 2U << 20);
  dirty_limit_ = std::max<uint64_t>(options.cache_bytes / 4, 4U << 20);
  store_->set_reclaim_filter([this](NodeId id) { return may_drop(id); });
}

Volume::~Volume() { stop_threads(); }

Result<void> Volume::close() {
  stop_threads();
  if (closed_) return {};
  closed_ = true;
  if (options_.read_only) return {};
  if (store_->failed()) return fail(Code::volume_failed, 0, "Volume::close");
  return write_checkpoint(/*clean=*/true);
}

TreeCore& Volume::core_of(const TreeRef& tree) { return *static_cast<Handle&>(*tree).core; }

Ref<Volume::Handle> Volume::handle_for(NodeId root) {
  std::lock_guard lock(trees_mutex_);
  Ref<Handle>& slot = trees_[raw(root)];
  if (!slot) slot = make_ref<Handle>(root);
  return slot;
}

TreeRef Volume::system_tree() { return system_tree_; }
TreeRef Volume::open_tree(NodeId root) { return handle_for(root); }

Result<std::optional<Value>> Volume::get(const TreeRef& tree, std::string_view key) {
  return lookup(*store_, core_of(tree), key);
}

class Volume::ScanCursor final : public Cursor {
 public:
  ScanCursor(NodeStore& store, TreeRef tree, std::string lo, std::string hi)
      : store_(store), tree_(std::move(tree)), next_(std::move(lo)), hi_(std::move(hi)) {
    if (hi_ > kKeyEnd) hi_ = std::string(kKeyEnd);
  }
  Result<bool> next() override {
    ++index_;
    uint64_t empty_chunks = 0;
    while (index_ >= chunk_.entries.size()) {
      if (chunk_.end || next_ >= hi_) return false;
      if (++empty_chunks > kMostEmptyChunks) {
        return fail(Code::interior_malformed, raw(tree_->root()), "scan: nothing but empty nodes");
      }
      chunk_ = CAW_TRY(scan_chunk(store_, core_of(tree_), next_, hi_, limit_));
      limit_ = std::min<size_t>(limit_ * 4, 256);
      next_ = chunk_.next;
      index_ = 0;
    }
    return true;
  }
  std::string_view key() const override { return chunk_.entries[index_].first; }
  const Value& value() const override { return chunk_.entries[index_].second; }

 private:
  NodeStore& store_;
  TreeRef tree_;
  std::string next_;
  std::string hi_;
  ScanChunk chunk_;
  size_t index_ = 0;
  size_t limit_ = 16;
};

std::unique_ptr<Cursor> Volume::scan(const TreeRef& tree, std::string lo, std::string hi) {
  return std::make_unique<ScanCursor>(*store_, tree, std::move(lo), std::move(hi));
}

Result<void> Volume::read(const Value& value, uint32_t offset, std::span<char> out) {
  std::memset(out.data(), 0, out.size());
  const uint64_t end = uint64_t{offset} + out.size();
  if (value.blob && offset < value.blob_length) {
    const uint64_t stop = std::min<uint64_t>(end, value.blob_length);
    CAW_TRY(store_->read_blob(value.blob, offset, out.first(stop - offset)));
  }
  for (const Piece& piece : value.pieces) {
    const uint64_t a = std::max<uint64_t>(piece.offset, offset);
    const uint64_t b = std::min<uint64_t>(piece.end(), end);
    if (a < b)
      std::memcpy(out.data() + (a - offset), piece.bytes.data() + (a - piece.offset), b - a);
  }
  return {};
}

Result<void> Volume::check_writable(const Batch& batch) {
  if (options_.read_only) return fail(Code::read_only, 0, "Volume");
  if (store_->failed()) return fail(Code::volume_failed, 0, "Volume");
  if (batch.ops.size() + batch.new_trees.size() > kMaxRecordItems / 2) {
    return fail(Code::invalid_argument, batch.ops.size(), "batch");
  }
  for (const Batch::Op& op : batch.ops) {
    const bool key_ok = !op.key.empty() && op.key.size() <= kMaxKeyBytes && op.key < kKeyEnd;
    const bool range_ok =
        op.range_end.empty() || (op.key < op.range_end && op.range_end <= kKeyEnd);
    if (!op.range_end.empty() ? !range_ok : !key_ok) {
      return fail(Code::invalid_argument, op.key.size(), "key");
    }
  }
  return {};
}

/// Refuses early what may not fit: everything in memory has to find a place, too.
Result<void> Volume::admit(const Batch& batch, NodeId cloned) {
  CAW_TRY(check_writable(batch));
  CAW_TRY(load_roots(batch, cloned));
  if (batch.essential) return {};
  for (int attempt = 0; attempt < 2; ++attempt) {
    const SpaceFigures space = store_->space();
    const uint64_t held = static_cast<uint64_t>(std::max<int64_t>(memtable_bytes_.load(), 0));
    const uint64_t pending = 2 * (held + store_->dirty_bytes()) + (256U << 10);
    const uint64_t kept = space.used_blocks + space.reserve_blocks + blocks_for(pending);
    if (kept <= space.total_blocks) return {};
    if (attempt == 0) CAW_TRY(commit(/*force=*/true));
  }
  return fail(Code::no_space, 0, "Volume");
}

/// A tree whose root cannot be read takes no messages: they could never be absorbed.
Result<void> Volume::load_roots(const Batch& batch, NodeId cloned) {
  const Tree* last = nullptr;
  for (const Batch::Op& op : batch.ops) {
    if (op.tree.get() == last) continue;
    last = op.tree.get();
    const bool fresh = (cloned != kNoNode && op.tree->root() == cloned) ||
                       std::find(batch.new_trees.begin(), batch.new_trees.end(),
                                 op.tree->root()) != batch.new_trees.end();
    if (!fresh) CAW_TRY(load_root(*store_, core_of(op.tree)));
  }
  return {};
}

void Volume::activate(const TreeRef& tree) {
  if (core_of(tree).active.exchange(true)) return;
  std::lock_guard lock(active_mutex_);
  active_.push_back(tree);
}

bool Volume::insert(const Batch::Op& op, Seq seq, DroppedRefs& dropped) {
  TreeCore& core = core_of(op.tree);
  std::unique_lock lock(core.mutex);
  const uint64_t before = core.mem.bytes();
  if (op.range_end.empty()) {
    core.mem.insert(op.key, op.message, dropped);
  } else {
    core.mem.erase_range(op.key, op.range_end, op.message.dead_bytes, dropped);
  }
  core.mem_seq = seq;
  memtable_bytes_ += static_cast<int64_t>(core.mem.bytes()) - static_cast<int64_t>(before);
  return core.mem.bytes() > shape_.run_bytes || core.mem.weight() > 8 * shape_.buffer_bytes;
}

/// Requires: gate held.  `cloned` is a tree that exists without a reference yet.
void Volume::apply_locked(Batch& batch, NodeId cloned, Epoch epoch, Seq seq) {
  std::vector<NodeId> new_trees = batch.new_trees;
  for (NodeId id : new_trees) {
    store_->publish(id, make_ref<const InteriorImage>(empty_root()), epoch);
  }
  if (cloned != kNoNode) new_trees.push_back(cloned);
  std::vector<BlobRef> new_blobs = batch.new_blobs;
  for (const BlobRef& blob : new_blobs) store_->commit_blob(blob, epoch);
  DroppedRefs dropped;
  std::vector<TreeRef> full;
  for (const Batch::Op& op : batch.ops) {
    const OwnedRefs refs = refs_of(op.message);
    if (refs.tree != kNoNode) {
      auto at = std::find(new_trees.begin(), new_trees.end(), refs.tree);
      if (at != new_trees.end()) {
        new_trees.erase(at);
      } else {
        store_->add_node_ref(refs.tree, +1, epoch);
      }
    }
    if (refs.blob) {
      auto at = std::find(new_blobs.begin(), new_blobs.end(), refs.blob);
      if (at != new_blobs.end()) {
        new_blobs.erase(at);
      } else {
        store_->add_blob_ref(refs.blob, +1, epoch);
      }
    }
    if (insert(op, seq, dropped)) full.push_back(op.tree);
    activate(op.tree);
  }
  for (NodeId id : new_trees) store_->add_node_ref(id, -1, epoch);
  for (const BlobRef& blob : new_blobs) store_->add_blob_ref(blob, -1, epoch);
  for (NodeId id : dropped.trees) store_->add_node_ref(id, -1, epoch);
  for (const BlobRef& blob : dropped.blobs) store_->add_blob_ref(blob, -1, epoch);
  for (const TreeRef& tree : full) {
    if (seal_memtable(core_of(tree), *store_, epoch)) enqueue(tree);
  }
  changed_ = true;
}

/// True if some put refers to a tree that exists: it moves, or is put once more.
bool Volume::adds_edges(const Batch& batch) {
  return std::ranges::any_of(batch.ops, [&batch](const Batch::Op& op) {
    const NodeId tree = refs_of(op.message).tree;
    return tree != kNoNode && std::ranges::find(batch.new_trees, tree) == batch.new_trees.end();
  });
}

Result<void> Volume::apply(Batch& batch) {
  CAW_TRY(admit(batch));
  throttle(4);  // callers have waited in pace(), without locks; this is for who did not
  LogRecordBuilder record;
  add_batch(record, batch);
  std::string bytes = record.finish();
  const auto apply_now = [&]() -> Result<void> {
    if (batch.generation != share_generation()) {
      return fail(Code::tree_not_private, batch.generation, "Volume::apply");
    }
    apply_locked(batch, kNoNode, store_->open_epoch(), log_->append(std::move(bytes)));
    return {};
  };
  if (!adds_edges(batch)) {
    Gate::Shared gate(store_->gate());
    return apply_now();
  }
  // Until the record at its old place is gone for good, the tree has two references.
  Gate::Exclusive gate(store_->gate());
  CAW_TRY(apply_now());
  generation_.fetch_add(1, std::memory_order_release);
  return {};
}

Result<BlobRef> Volume::write_blob(std::string_view raw_bytes) {
  if (options_.read_only) return fail(Code::read_only, 0, "Volume::write_blob");
  if (store_->failed()) return fail(Code::volume_failed, 0, "Volume::write_blob");
  // The more of them are not flushed, the longer recovery takes to look at them.
  if (blob_bytes_.fetch_add(raw_bytes.size()) > kUnflushedBlobBytes) wake_committer();
  auto blob = store_->write_blob(raw_bytes, SpaceClass::ordinary);
  if (blob || blob.error().code != Code::no_space) return blob;
  CAW_TRY(commit(/*force=*/true));  // what was freed becomes usable
  return store_->write_blob(raw_bytes, SpaceClass::ordinary);
}

Result<bool> Volume::is_private(const TreeRef& outer, std::string_view key) {
  return record_is_private(*store_, core_of(outer), key);
}

ForestSpace Volume::space() const {
  const SpaceFigures s = store_->space();
  return {s.total_blocks * kBlockSize, s.used_blocks * kBlockSize, s.reserve_blocks * kBlockSize,
          s.reclaiming_blocks * kBlockSize};
}

VolumeFigures Volume::figures() const {
  VolumeFigures out;
  out.store = store_->counters();
  if (log_) out.log = log_->figures();
  out.replayed = replayed_;
  out.space = space();
  out.epoch = store_->open_epoch();
  {
    std::lock_guard lock(trees_mutex_);
    out.trees_in_memory = trees_.size();
  }
  out.memtable_bytes = static_cast<uint64_t>(std::max<int64_t>(memtable_bytes_.load(), 0));
  out.clones = clones_;
  out.throttled = throttled_;
  out.throttled_us_max = throttled_us_max_;
  return out;
}

}  // namespace caw
