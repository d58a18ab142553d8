#include "support/map_forest.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"

namespace caw {
namespace {

constexpr uint64_t kTotalBytes = uint64_t{64} << 30;

/// One byte after the other, unlike the pieces of the engine: a reference of its own.
class Overlay {
 public:
  explicit Overlay(const Value& value) : shown_(value.length), bytes_(value.length, '\0') {
    write(value.pieces);
  }
  void resize(uint32_t length) {
    shown_.resize(length, false);
    bytes_.resize(length, '\0');
  }
  uint32_t length() const { return static_cast<uint32_t>(bytes_.size()); }
  void write(const Pieces& pieces) {
    for (const Piece& piece : pieces) {
      CAW_ASSERT(!piece.bytes.empty() && piece.end() <= bytes_.size());
      for (size_t i = 0; i < piece.bytes.size(); ++i) {
        shown_[piece.offset + i] = true;
        bytes_[piece.offset + i] = piece.bytes[i];
      }
    }
  }
  Pieces pieces() const {
    Pieces out;
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (!shown_[i]) continue;
      if (i == 0 || !shown_[i - 1]) out.push_back({static_cast<uint32_t>(i), {}});
      out.back().bytes.push_back(bytes_[i]);
    }
    return out;
  }

 private:
  std::vector<bool> shown_;
  std::string bytes_;
};

void patch_plainly(Value& value, const Patch& patch, bool ignore_cut) {
  Overlay overlay(value);
  const uint32_t cut = ignore_cut ? value.length : std::min(value.length, patch.cut);
  overlay.resize(cut);
  value.blob_length = std::min(value.blob_length, cut);
  overlay.resize(std::max(cut, patch.extend));
  overlay.write(patch.pieces);
  value.length = overlay.length();
  value.pieces = overlay.pieces();
}

bool valid_key(std::string_view key) {
  return !key.empty() && key.size() <= kMaxKeyBytes && key.front() != '\xff';
}

std::string after_prefix(std::string_view prefix) {
  std::string end(prefix);
  while (!end.empty() && end.back() == '\xff') end.pop_back();
  if (end.empty()) return "\xff";
  end.back() = static_cast<char>(static_cast<unsigned char>(end.back()) + 1);
  return end;
}

}  // namespace

class MapForest::MapCursor final : public Cursor {
 public:
  MapCursor(MapForest& forest, NodeId tree, std::string lo, std::string hi)
      : forest_(forest), tree_(tree), key_(std::move(lo)), hi_(std::move(hi)) {}

  Result<bool> next() override {
    std::lock_guard lock(forest_.mutex_);
    const TreeState* tree = forest_.find_tree(tree_);
    if (tree == nullptr) return fail(Code::tree_absent, raw(tree_), "MapForest::scan");
    auto at = started_ ? tree->records.upper_bound(key_) : tree->records.lower_bound(key_);
    if (at == tree->records.end() || at->first >= hi_) return false;
    started_ = true;
    key_ = at->first;
    value_ = at->second;
    return true;
  }
  std::string_view key() const override { return key_; }
  const Value& value() const override { return value_; }

 private:
  MapForest& forest_;
  NodeId tree_;
  std::string key_;
  std::string hi_;
  Value value_;
  bool started_ = false;
};

MapForest::MapForest(const MapForestOptions& options) : options_(options), random_(options.seed) {
  counters_.fill(1);
  system_tree_ = new_tree_id();
  trees_[system_tree_];
}

MapForest::~MapForest() = default;

TreeRef MapForest::system_tree() { return open_tree(system_tree_); }

TreeRef MapForest::open_tree(NodeId root) {
  std::lock_guard lock(mutex_);
  TreeRef& handle = handles_[root];
  if (!handle) handle = make_ref<Tree>(root);
  return handle;
}

NodeId MapForest::new_tree_id() { return NodeId{draw(Counter::node_id, 1)}; }

uint64_t MapForest::draw(Counter counter, uint64_t n) {
  std::lock_guard lock(mutex_);
  return std::exchange(counters_[static_cast<size_t>(counter)],
                       counters_[static_cast<size_t>(counter)] + n);
}

// ---- reads

Result<std::optional<Value>> MapForest::get(const TreeRef& tree, std::string_view key) {
  std::lock_guard lock(mutex_);
  const TreeState* state = find_tree(tree->root());
  if (state == nullptr) return fail(Code::tree_absent, raw(tree->root()), "MapForest::get");
  const auto at = state->records.find(key);
  if (at == state->records.end()) return std::nullopt;
  return at->second;
}

std::unique_ptr<Cursor> MapForest::scan(const TreeRef& tree, std::string lo, std::string hi) {
  return std::make_unique<MapCursor>(*this, tree->root(), std::move(lo), std::move(hi));
}

Result<void> MapForest::read(const Value& value, uint32_t offset, std::span<char> out) {
  std::lock_guard lock(mutex_);
  std::string bytes(value.length, '\0');
  if (value.blob) {
    const auto at = blobs_.find(value.blob.addr);
    // A reader may hold the value of a record that was overwritten meanwhile.
    if (at == blobs_.end()) return fail(Code::blob_checksum, raw(value.blob.addr), "MapForest");
    CAW_ASSERT(value.blob_length <= at->second.bytes.size() && value.blob_length <= value.length);
    std::copy_n(at->second.bytes.begin(), value.blob_length, bytes.begin());
  }
  for (const Piece& piece : value.pieces) {
    std::copy(piece.bytes.begin(), piece.bytes.end(), bytes.begin() + piece.offset);
  }
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = offset + i < bytes.size() ? bytes[offset + i] : '\0';
  }
  return {};
}

void MapForest::prefetch(std::span<const BlobRef> blobs) { static_cast<void>(blobs); }

// ---- writes

uint64_t MapForest::share_generation() const {
  std::lock_guard lock(mutex_);
  return generation_;
}

Result<void> MapForest::apply(Batch& batch) {
  std::lock_guard lock(mutex_);
  CAW_TRY(check_batch(batch, kNoNode));
  std::set<NodeId> touched;
  const bool moves = std::ranges::any_of(batch.ops, [&batch](const Batch::Op& op) {
    const NodeId tree = refs_of(op.message).tree;
    return tree != kNoNode && std::ranges::find(batch.new_trees, tree) == batch.new_trees.end();
  });
  apply_ops(batch, touched);
  drop_unowned(touched);
  if (moves) ++generation_;
  return {};
}

Result<BlobRef> MapForest::write_blob(std::string_view raw) {
  std::lock_guard lock(mutex_);
  if (options_.read_only) return fail(Code::read_only, 0, "MapForest::write_blob");
  if (raw.size() > kMaxBlobBytes) return fail(Code::value_too_large, raw.size(), "write_blob");
  BlobRef blob;
  blob.addr = BlockAddr{next_blob_};
  blob.stored_bytes = blob.raw_bytes = static_cast<uint32_t>(raw.size());
  next_blob_ += std::max<uint64_t>(1, blob.blocks());
  blobs_[blob.addr].bytes = std::string(raw);
  return blob;
}

void MapForest::cancel_blob(const BlobRef& blob) {
  std::lock_guard lock(mutex_);
  const auto at = blobs_.find(blob.addr);
  CAW_ASSERT(at != blobs_.end() && at->second.pending);
  blobs_.erase(at);
}

Result<bool> MapForest::is_private(const TreeRef& outer, std::string_view key) {
  std::lock_guard lock(mutex_);
  const TreeState* state = find_tree(outer->root());
  if (state == nullptr) return fail(Code::tree_absent, raw(outer->root()), "is_private");
  const auto at = state->records.find(key);
  if (at == state->records.end() || at->second.tree == kNoNode) {
    return fail(Code::tree_absent, 0, "is_private: the record owns no tree");
  }
  if (inject(options_.lie_one_in)) return false;
  return find_tree(at->second.tree)->owners.size() == 1;
}

Result<void> MapForest::clone(const TreeRef& source, std::span<const ClonePrefix> prefixes,
                              NodeId id, Batch& then) {
  std::lock_guard lock(mutex_);
  const TreeState* from = find_tree(source->root());
  if (from == nullptr) return fail(Code::tree_absent, raw(source->root()), "MapForest::clone");
  CAW_ASSERT(find_tree(id) == nullptr);
  CAW_TRY(check_batch(then, id));

  TreeState made;
  if (options_.bug == ForestBug::clone_shares_record) made.clone_source = source->root();
  for (const ClonePrefix& prefix : prefixes) {
    const std::string end = after_prefix(prefix.from);
    auto at = from->records.lower_bound(prefix.from);
    for (; at != from->records.end() && at->first < end; ++at) {
      const std::string key = prefix.to + at->first.substr(prefix.from.size());
      CAW_ASSERT(valid_key(key));
      CAW_ASSERT(made.records.emplace(key, at->second).second);
    }
    if (options_.bug == ForestBug::clone_open_end && at != from->records.end()) {
      made.records.emplace(prefix.to + at->first, at->second);
    }
  }
  for (const auto& [key, value] : made.records) retain(id, value);
  trees_.emplace(id, std::move(made));
  // Where the clone has come to share a tree that `then` writes to (a destination below the
  // source, in a nested tree), the write would show in the clone: go by way of another tree.
  for (const Batch::Op& op : then.ops) {
    const NodeId target = op.tree->root();
    const bool is_new = std::count(then.new_trees.begin(), then.new_trees.end(), target) != 0;
    CAW_ASSERT(is_new || target == id || writable(target));
    // Where an engine shares nodes, their other records come along: see Forest::clone().
    if (refs_of(op.message).tree == id && !is_new) {
      CAW_ASSERT(target == source->root() || !hangs_from(target, source->root()));
    }
  }

  std::set<NodeId> touched{id};
  apply_ops(then, touched);
  CAW_ASSERT(!trees_.at(id).owners.empty());
  drop_unowned(touched);
  ++generation_;
  return {};
}

Result<void> MapForest::sync() {
  std::lock_guard lock(mutex_);
  ++syncs_;
  return {};
}

ForestSpace MapForest::space() const {
  std::lock_guard lock(mutex_);
  ForestSpace space;
  space.total_bytes = kTotalBytes;
  space.reserve_bytes = kTotalBytes / 64;
  for (const auto& [id, tree] : trees_) {
    for (const auto& [key, value] : tree.records) {
      space.used_bytes += key.size() + 16;
      for (const Piece& piece : value.pieces) space.used_bytes += piece.bytes.size();
    }
  }
  for (const auto& [addr, blob] : blobs_) space.used_bytes += blob.bytes.size();
  return space;
}

bool MapForest::read_only() const {
  std::lock_guard lock(mutex_);
  return options_.read_only;
}

// ---- for tests

void MapForest::set_options(const MapForestOptions& options) {
  std::lock_guard lock(mutex_);
  options_ = options;
  random_ = Random(options.seed);
}
size_t MapForest::tree_count() const {
  std::lock_guard lock(mutex_);
  return trees_.size();
}
size_t MapForest::blob_count() const {
  std::lock_guard lock(mutex_);
  return blobs_.size();
}
size_t MapForest::pending_blob_count() const {
  std::lock_guard lock(mutex_);
  return static_cast<size_t>(std::count_if(blobs_.begin(), blobs_.end(),
                                           [](const auto& blob) { return blob.second.pending; }));
}
uint64_t MapForest::sync_count() const {
  std::lock_guard lock(mutex_);
  return syncs_;
}

// ---- inside

MapForest::TreeState* MapForest::find_tree(NodeId id) {
  const auto at = trees_.find(id);
  return at == trees_.end() ? nullptr : &at->second;
}

bool MapForest::writable(NodeId id) const {
  while (id != system_tree_) {
    const auto at = trees_.find(id);
    if (at == trees_.end() || at->second.owners.size() != 1) return false;
    id = *at->second.owners.begin();
  }
  return true;
}

/// Requires: writable(id).
bool MapForest::hangs_from(NodeId id, NodeId ancestor) const {
  while (id != ancestor) {
    if (id == system_tree_) return false;
    id = *trees_.at(id).owners.begin();
  }
  return true;
}

bool MapForest::inject(uint64_t one_in) { return one_in != 0 && random_.one_in(one_in); }

Result<void> MapForest::check_batch(const Batch& batch, NodeId also_new) const {
  if (options_.read_only) return fail(Code::read_only, 0, "MapForest::apply");
  if (batch.generation != generation_) {
    return fail(Code::tree_not_private, generation_, "MapForest::apply");
  }
  auto* self = const_cast<MapForest*>(this);  // only the generator of injected faults changes
  if (!batch.essential && self->inject(options_.no_space_one_in)) {
    return fail(Code::no_space, 0, "MapForest::apply");
  }
  for (const Batch::Op& op : batch.ops) {
    CAW_ASSERT(valid_key(op.key));
    CAW_ASSERT(op.range_end.empty() || op.message.kind == MessageKind::erase);
    const NodeId id = op.tree->root();
    const bool is_new = id == also_new || std::count(batch.new_trees.begin(),
                                                     batch.new_trees.end(), id) != 0;
    if (is_new) continue;
    if (!trees_.contains(id)) return fail(Code::tree_absent, raw(id), "MapForest::apply");
    CAW_ASSERT(writable(id));
  }
  return {};
}

void MapForest::apply_ops(Batch& batch, std::set<NodeId>& touched) {
  for (const NodeId id : batch.new_trees) {
    CAW_ASSERT(trees_.emplace(id, TreeState{}).second);
    touched.insert(id);
  }
  for (const BlobRef& blob : batch.new_blobs) {
    const auto at = blobs_.find(blob.addr);
    CAW_ASSERT(at != blobs_.end() && at->second.pending);
    at->second.pending = false;
    released_blobs_.push_back(blob.addr);   // looked at when the batch is through
  }
  for (Batch::Op& op : batch.ops) {
    const NodeId id = op.tree->root();
    Records& records = trees_.at(id).records;
    if (!op.range_end.empty()) {
      auto at = records.lower_bound(op.key);
      while (at != records.end() && at->first < op.range_end) erase_record(id, at++, touched);
      if (options_.bug == ForestBug::erase_range_closed && at != records.end() &&
          at->first == op.range_end) {
        erase_record(id, at, touched);
      }
      continue;
    }
    const auto at = records.find(op.key);
    switch (op.message.kind) {
      case MessageKind::put:
        put_record(id, op.key, op.message.value, touched);
        break;
      case MessageKind::erase:
        if (at != records.end()) erase_record(id, at, touched);
        break;
      case MessageKind::patch:
        patch_plainly(at == records.end() ? records[op.key] : at->second, op.message.patch,
                      options_.bug == ForestBug::patch_ignores_cut);
        break;
    }
  }
}

void MapForest::put_record(NodeId tree_id, const std::string& key, Value value,
                           std::set<NodeId>& touched) {
  CAW_ASSERT(value.length <= kMaxValueBytes && value.blob_length <= value.length);
  CAW_ASSERT(!value.blob || value.blob_length <= value.blob.raw_bytes);
  retain(tree_id, value);
  TreeState& tree = trees_.at(tree_id);
  Value& slot = tree.records[key];
  release(tree_id, slot, touched);
  slot = std::move(value);
  if (slot.tree != kNoNode || slot.blob) return;
  TreeState* source = find_tree(tree.clone_source);
  if (source != nullptr) source->records.insert_or_assign(key, slot);
}

void MapForest::erase_record(NodeId tree_id, Records::iterator at, std::set<NodeId>& touched) {
  release(tree_id, at->second, touched);
  trees_.at(tree_id).records.erase(at);
}

void MapForest::retain(NodeId holder, const Value& value) {
  if (value.tree != kNoNode) {
    TreeState* tree = find_tree(value.tree);
    CAW_ASSERT(tree != nullptr);
    tree->owners.insert(holder);
  }
  if (value.blob) {
    const auto at = blobs_.find(value.blob.addr);
    CAW_ASSERT(at != blobs_.end() && !at->second.pending);
    ++at->second.refs;
  }
}

void MapForest::release(NodeId holder, const Value& value, std::set<NodeId>& touched) {
  if (value.tree != kNoNode) {
    std::multiset<NodeId>& owners = trees_.at(value.tree).owners;
    const auto at = owners.find(holder);
    CAW_ASSERT(at != owners.end());
    owners.erase(at);
    touched.insert(value.tree);
  }
  if (value.blob) {
    --blobs_.at(value.blob.addr).refs;
    released_blobs_.push_back(value.blob.addr);
  }
}

/// Only at the end of a batch: within one, a record may move (put here, erased there).
void MapForest::drop_unowned(std::set<NodeId>& touched) {
  while (!touched.empty()) {
    const NodeId id = *touched.begin();
    touched.erase(touched.begin());
    const auto at = trees_.find(id);
    if (id == system_tree_ || at == trees_.end() || !at->second.owners.empty()) continue;
    for (const auto& [key, value] : at->second.records) release(id, value, touched);
    trees_.erase(id);
  }
  for (const BlockAddr addr : released_blobs_) {
    const auto at = blobs_.find(addr);
    if (at != blobs_.end() && at->second.refs == 0) blobs_.erase(at);
  }
  released_blobs_.clear();
}

}  // namespace caw
