#include "dag/lookup.h"

#include <algorithm>
#include <chrono>
#include <thread>

#include "dag/node_load.h"

namespace caw {
namespace {

constexpr int kMaxRestarts = 10000;
constexpr int kRestartsAtOnce = 16;
constexpr int kMaxWaits = 1000;  ///< of a millisecond, between two stores of a thread at work

/// Messages for one key, given newest first.
class Resolver {
 public:
  bool done() const { return done_; }
  void add(Message older) {
    if (have_) {
      combine(older, std::move(message_));
    }
    message_ = std::move(older);
    have_ = true;
    done_ = message_.kind != MessageKind::patch;
  }
  std::optional<Value> finish() && {
    if (!have_) return std::nullopt;
    if (!done_) add(Message::erase(0));
    if (message_.kind == MessageKind::erase) return std::nullopt;
    return std::move(message_.value);
  }

 private:
  Message message_;
  bool have_ = false;
  bool done_ = false;
};

/// A key on its way down, in the coordinates of the node at hand, with its hash once needed.
class Probe {
 public:
  explicit Probe(std::string_view key) : key_(key) {}
  const std::string& key() const { return key_; }
  uint64_t hash() const {
    if (!hash_) hash_ = KeyFilter::hash(key_);
    return *hash_;
  }
  /// As seen below `translation`; nothing if that leads elsewhere.
  std::optional<Probe> below(const Translation& translation) const {
    auto inner = down_key(translation, key_);
    if (!inner) return std::nullopt;
    return Probe(*std::move(inner));
  }
  /// Calls visit(probe) below `translation`, if that leads there.
  template <typename Visit>
  Result<void> below(const Translation& translation, const Visit& visit) const {
    if (translation.is_identity()) return visit(*this);
    const std::optional<Probe> inner = below(translation);
    return inner ? visit(*inner) : Result<void>{};
  }

 private:
  explicit Probe(std::string&& key) : key_(std::move(key)) {}
  std::string key_;
  mutable std::optional<uint64_t> hash_;
};

/// Points of a table or block: what there is for the key.
std::optional<Message> find_in(const Memtable& table, const Probe& probe) {
  const auto it = table.points().find(probe.key());
  if (it == table.points().end()) return std::nullopt;
  return it->second;
}
std::optional<Message> find_in(const FrozenRun& run, const Probe& probe) {
  if (!run.may_contain(probe.hash())) return std::nullopt;
  return find_in(run.table(), probe);
}
Result<std::optional<Message>> find_in(const SortedBlock& block, const Probe& probe) {
  SortedBlock::Iterator it(block);
  it.seek(probe.key());
  if (!it.valid() || it.key() != probe.key()) return std::nullopt;
  return CAW_TRY(decode_message(it.kind(), it.body()));
}
/// `holder` is the image that holds `block`: a run, a leaf, or a root with an embedded run.
Result<std::optional<Message>> find_in(const Image& holder, const SortedBlock& block,
                                       const Probe& probe) {
  if (holder.kind() == NodeKind::run &&
      !static_cast<const BlockImage&>(holder).may_contain(probe.hash())) {
    return std::nullopt;
  }
  return find_in(block, probe);
}

void add_to(Resolver& out, std::optional<Message> message, const std::vector<RangeErase>& ranges,
            const Probe& probe) {
  if (message) out.add(*std::move(message));
  if (!out.done() && covered(ranges, probe.key())) out.add(Message::erase(0));
}

const BlockImage& as_block(const ImageRef& image) { return static_cast<const BlockImage&>(*image); }
const InteriorImage& as_interior(const ImageRef& image) {
  return static_cast<const InteriorImage&>(*image);
}

bool has_inline(const InteriorImage& image) {
  return image.inline_block().count() > 0 || !image.inline_block().range_erases().empty();
}

/// Fetches `id` for a reader that came through `parent`; node_superseded if it must start again.
Result<ImageRef> follow(NodeStore& store, NodeId id, const Image& parent) {
  auto image = store.get(id);
  if (parent.superseded()) return fail(Code::node_superseded, raw(id));
  return image;
}

Result<ImageRef> follow_run(NodeStore& store, const RunRef& run, const Image& parent) {
  ImageRef image = CAW_TRY(follow(store, run.run, parent));
  if (image->kind() != NodeKind::run) return fail(Code::interior_malformed, raw(run.run), "run");
  return image;
}

Result<ImageRef> follow_edge(NodeStore& store, const Edge& edge, const Interior& node,
                             const Image& parent) {
  ImageRef child = CAW_TRY(follow(store, edge.child, parent));
  if (child->kind() == NodeKind::run) {
    return fail(Code::interior_malformed, raw(edge.child), "edge to a run");
  }
  const Height height =
      child->kind() == NodeKind::leaf ? Height{0} : as_interior(child).node().height;
  if (height >= node.height) return fail(Code::node_height, raw(edge.child), "follow_edge");
  return child;
}

/// Calls `visit(block, translation, lo, hi, holder)` for each run and embedded run with a position
/// above `applied`, newest first, until it returns false.  `run_wanted(run)` filters before I/O.
template <typename Wanted, typename Visit>
Result<void> for_each_run(NodeStore& store, const InteriorImage& image, uint64_t applied,
                          const Wanted& wanted, const Visit& visit) {
  const Interior& node = image.node();
  bool inline_left = has_inline(image) && node.inline_pos > applied;
  auto visit_inline = [&]() -> Result<bool> {
    inline_left = false;
    const RunRef whole{kNoNode, "", std::string(kKeyEnd), {}, node.inline_pos, 0, 0, 0};
    return visit(image.inline_block(), whole, ImageRef(&image));
  };
  for (const RunRef& run : node.runs) {
    if (run.pos <= applied) break;
    if (inline_left && node.inline_pos > run.pos) {
      if (!CAW_TRY(visit_inline())) return {};
    }
    if (!wanted(run)) continue;
    ImageRef held = CAW_TRY(follow_run(store, run, image));
    if (!CAW_TRY(visit(as_block(held).block(), run, held))) return {};
  }
  if (inline_left) CAW_TRY(visit_inline());
  return {};
}

bool leads_to(const RunRef& run, const Probe& probe) {
  return run.lo <= probe.key() && probe.key() < run.hi &&
         probe.key().starts_with(run.translation.strip);
}

/// Adds what lies at and below `root` for `key`.
Result<void> descend(NodeStore& store, const Ref<const InteriorImage>& root, std::string_view key,
                     Resolver& out) {
  ImageRef at = root;
  Probe probe(key);
  while (true) {
    const InteriorImage& image = as_interior(at);
    const Interior& node = image.node();
    const Edge& edge = node.edges[edge_index(node, probe.key())];
    CAW_TRY(for_each_run(
        store, image, edge.applied_pos, [&](const RunRef& run) { return leads_to(run, probe); },
        [&](const SortedBlock& block, const RunRef& run, const ImageRef& held) -> Result<bool> {
          CAW_TRY(probe.below(run.translation, [&](const Probe& inner) -> Result<void> {
            add_to(out, CAW_TRY(find_in(*held, block, inner)), block.range_erases(), inner);
            return {};
          }));
          return !out.done();
        }));
    if (out.done() || edge.child == kNoNode) return {};
    std::optional<Probe> inner = probe.below(edge.translation);
    if (!inner) return {};
    ImageRef child = CAW_TRY(follow_edge(store, edge, node, image));
    probe = *std::move(inner);
    if (child->kind() == NodeKind::leaf) {
      const SortedBlock& block = as_block(child).block();
      add_to(out, CAW_TRY(find_in(block, probe)), block.range_erases(), probe);
      return {};
    }
    at = std::move(child);
  }
}

/// Before a reader starts again at the root: lets whoever is about to show a newer root do so.
/// Fails if nobody will: the tree was dropped (node_absent), or another tree, on a damaged volume,
/// changes its root.  `waits` counts since the root was last seen to be current.
Result<void> wait_for_root(NodeStore& store, TreeCore& core, int& waits) {
  const Ref<TreeView> view = core.current_view();
  if (!view->root || !view->root->superseded()) {
    waits = 0;
    std::this_thread::yield();
    return {};
  }
  CAW_TRY(store.get(core.id));
  if (core.torn || ++waits > kMaxWaits) {
    core.torn = true;
    return fail(Code::interior_malformed, raw(core.id), "a node in two trees");
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return {};
}

/// Runs `attempt` until it does not ask for a restart.
template <typename Attempt>
auto with_restarts(NodeStore& store, TreeCore& core, const Attempt& attempt)
    -> decltype(attempt()) {
  int waits = 0;
  for (int i = 0;; ++i) {
    auto result = attempt();
    if (result || result.error().code != Code::node_superseded) return result;
    if (i >= kMaxRestarts) return fail(Code::node_absent, result.error().detail, "restarts");
    if (i > kRestartsAtOnce) CAW_TRY(wait_for_root(store, core, waits));
  }
}

/// Copies the messages of `table` in [lo, hi) (table coordinates), translated by `up`; lowers
/// `limit` (outer coordinates) if it stops early.
MessageSlice copy_slice(const Memtable& table, std::string_view lo, std::string_view hi,
                        const Translation& up, size_t max_entries, std::string& limit) {
  MessageSlice slice;
  for (const RangeErase& range : table.ranges()) {
    const std::string_view a = max_bound(range.lo, lo);
    const std::string_view b = min_bound(range.hi, hi);
    if (a < b) slice.ranges.push_back({up_bound(inverse(up), a), up_bound(inverse(up), b), 0});
  }
  for (auto it = table.points().lower_bound(lo); it != table.points().end() && it->first < hi;
       ++it) {
    auto outer = down_key(up, it->first);
    if (!outer) break;
    if (slice.points.size() >= max_entries) {
      limit = std::min(limit, *outer);
      break;
    }
    slice.points.emplace_back(*std::move(outer), it->second);
  }
  return slice;
}

/// Collects the layers that matter for the first leaf of [from, limit).
class ChunkBuilder {
 public:
  ChunkBuilder(NodeStore& store, std::string_view from, std::string_view hi)
      : store_(store), from_(from), limit_(hi) {}

  const std::string& limit() const { return limit_; }
  std::vector<Layer> take_layers() { return std::move(layers_); }

  void add_table(const Memtable& table, const Translation& down, std::string_view lo,
                 std::string_view hi, size_t max_entries) {
    const std::string first(max_bound(max_bound(from_, lo), down.strip));
    const std::string last(min_bound(min_bound(limit_, hi), key_after_prefix(down.strip)));
    if (!(first < last)) return;
    MessageSlice slice = copy_slice(table, down_bound(down, first), down_bound(down, last),
                                    inverse(down), max_entries, limit_);
    if (slice.points.empty() && slice.ranges.empty()) return;
    layers_.emplace_back(std::move(slice), first, last);
  }

  Result<void> descend(const Ref<const InteriorImage>& root);

 private:
  void prefetch_after(const Interior& node, size_t index);
  NodeStore& store_;
  std::string from_;
  std::string limit_;
  uint64_t held_bytes_ = 0;  ///< of the runs among layers_
  std::vector<Layer> layers_;
};

void ChunkBuilder::prefetch_after(const Interior& node, size_t index) {
  if (node.height != 1) return;
  std::vector<NodeId> ids;
  for (size_t i = index + 1; i < node.edges.size() && ids.size() < 3; ++i) {
    if (node.edges[i].child != kNoNode) ids.push_back(node.edges[i].child);
  }
  if (!ids.empty()) store_.prefetch(ids);
}

Result<void> ChunkBuilder::descend(const Ref<const InteriorImage>& root) {
  ImageRef at = root;
  Translation down;  // outer -> node at hand
  std::string k(from_);
  while (true) {
    const InteriorImage& image = as_interior(at);
    const Interior& node = image.node();
    const size_t index = edge_index(node, k);
    const Edge& edge = node.edges[index];
    if (index + 1 < node.edges.size()) {
      limit_ = std::min(limit_, up_bound(down, node.edges[index + 1].lo));
    }
    const std::string node_limit = down_bound(down, limit_);
    CAW_TRY(for_each_run(
        store_, image, edge.applied_pos,
        [&](const RunRef& run) { return k < run.hi && run.lo < node_limit; },
        [&](const SortedBlock& block, const RunRef& run, const ImageRef& held) -> Result<bool> {
          const std::string lo(max_bound(from_, up_bound(down, run.lo)));
          const std::string hi(min_bound(limit_, up_bound(down, run.hi)));
          auto t = compose(down, run.translation);
          held_bytes_ += block.size_bytes();
          if (held_bytes_ > kMaxPendingBytes) {
            return fail(Code::interior_malformed, raw(run.run), "scan");
          }
          if (t && lo < hi) layers_.emplace_back(held, block, *std::move(t), lo, hi);
          return true;
        }));
    if (edge.child == kNoNode) return {};
    auto inner = compose(down, edge.translation);
    if (!inner || key_after_prefix(inner->strip) <= from_) return {};
    ImageRef child = CAW_TRY(follow_edge(store_, edge, node, image));
    prefetch_after(node, index);
    k = down_bound(edge.translation, k);
    down = *std::move(inner);
    if (child->kind() == NodeKind::leaf) {
      const SortedBlock& block = as_block(child).block();
      layers_.emplace_back(std::move(child), block, down, from_, limit_);
      return {};
    }
    at = std::move(child);
  }
}

Result<ScanChunk> try_scan_chunk(NodeStore& store, TreeCore& core, std::string_view from,
                                 std::string_view hi, size_t max_entries) {
  CAW_TRY(load_root(store, core));
  ChunkBuilder builder(store, from, hi);
  Ref<TreeView> view;
  {
    std::shared_lock lock(core.mutex);
    builder.add_table(core.mem, {}, "", kKeyEnd, max_entries);
    view = core.view;
  }
  for (const FrozenRef& frozen : view->frozen) {
    builder.add_table(frozen.run->table(), frozen.translation, frozen.lo, frozen.hi, max_entries);
  }
  CAW_TRY(builder.descend(view->root));
  ScanChunk chunk;
  chunk.next = builder.limit();
  MergeCursor cursor(builder.take_layers(), /*complete=*/true);
  Merged merged;
  while (cursor.next(merged)) {
    if (merged.key >= chunk.next) break;
    if (chunk.entries.size() == max_entries) {
      chunk.next = merged.key;
      return chunk;
    }
    Message message = merged.take();
    chunk.entries.emplace_back(std::move(merged.key), std::move(message.value));
  }
  chunk.end = chunk.next >= hi;
  return chunk;
}

Result<std::optional<Value>> try_lookup(NodeStore& store, TreeCore& core, std::string_view key) {
  Resolver out;
  const Probe probe(key);
  Ref<TreeView> view;
  {
    std::shared_lock lock(core.mutex);
    add_to(out, find_in(core.mem, probe), core.mem.ranges(), probe);
    view = core.view;
  }
  for (const FrozenRef& frozen : view->frozen) {
    if (out.done()) break;
    if (key < frozen.lo || key >= frozen.hi) continue;
    CAW_TRY(probe.below(frozen.translation, [&](const Probe& inner) -> Result<void> {
      add_to(out, find_in(*frozen.run, inner), frozen.run->table().ranges(), inner);
      return {};
    }));
  }
  if (!out.done()) {
    if (!view->root) {
      CAW_TRY(load_root(store, core));
      return fail(Code::node_superseded, raw(core.id));
    }
    CAW_TRY(descend(store, view->root, key, out));
  }
  return std::move(out).finish();
}

}  // namespace

size_t edge_index(const Interior& node, std::string_view key) {
  auto after = std::upper_bound(node.edges.begin(), node.edges.end(), key,
                                [](std::string_view k, const Edge& e) { return k < e.lo; });
  return after == node.edges.begin() ? 0 : static_cast<size_t>(after - node.edges.begin()) - 1;
}

Result<std::optional<Value>> lookup(NodeStore& store, TreeCore& core, std::string_view key) {
  return with_restarts(store, core, [&] { return try_lookup(store, core, key); });
}

Result<ScanChunk> scan_chunk(NodeStore& store, TreeCore& core, std::string_view from,
                             std::string_view hi, size_t max_entries) {
  return with_restarts(store, core,
                       [&] { return try_scan_chunk(store, core, from, hi, max_entries); });
}

namespace {

/// Where the put of a record was found, and whether by one path only.
struct Found {
  bool found = false;
  bool erased = false;
  bool sole = true;
  NodeId tree = kNoNode;
};

void note(const std::optional<Message>& message, bool ranged, bool sole, Found& out) {
  if (message && message->kind == MessageKind::put) {
    out = {true, false, sole, message->value.tree};
  } else if ((message && message->kind == MessageKind::erase) || (!message && ranged)) {
    out.erased = true;
  }
}


Result<void> find_path(NodeStore& store, const Ref<const InteriorImage>& root, std::string_view key,
                       Found& out) {
  ImageRef at = root;
  Probe probe(key);
  bool sole = true;
  while (true) {
    const InteriorImage& image = as_interior(at);
    const Interior& node = image.node();
    const Edge& edge = node.edges[edge_index(node, probe.key())];
    CAW_TRY(for_each_run(
        store, image, edge.applied_pos, [&](const RunRef& run) { return leads_to(run, probe); },
        [&](const SortedBlock& block, const RunRef& run, const ImageRef& held) -> Result<bool> {
          CAW_TRY(probe.below(run.translation, [&](const Probe& inner) -> Result<void> {
            const std::optional<Message> message = CAW_TRY(find_in(*held, block, inner));
            const bool ranged = covered(block.range_erases(), inner.key());
            if (!message && !ranged) return {};
            const bool run_sole =
                sole && (run.run == kNoNode || CAW_TRY(store.node_count(run.run)) == 1);
            note(message, ranged, run_sole, out);
            return {};
          }));
          return !out.found && !out.erased;
        }));
    if (out.found || out.erased || edge.child == kNoNode) return {};
    std::optional<Probe> inner = probe.below(edge.translation);
    if (!inner) return {};
    ImageRef child = CAW_TRY(follow_edge(store, edge, node, image));
    sole = sole && CAW_TRY(store.node_count(edge.child)) == 1;
    probe = *std::move(inner);
    if (child->kind() == NodeKind::leaf) {
      const SortedBlock& block = as_block(child).block();
      note(CAW_TRY(find_in(block, probe)), covered(block.range_erases(), probe.key()), sole, out);
      return {};
    }
    at = std::move(child);
  }
}

Result<bool> try_record_is_private(NodeStore& store, TreeCore& core, std::string_view key) {
  CAW_TRY(load_root(store, core));
  Found found;
  const Probe probe(key);
  Ref<TreeView> view;
  {
    std::shared_lock lock(core.mutex);
    note(find_in(core.mem, probe), covered(core.mem.ranges(), key), /*sole=*/true, found);
    view = core.view;
  }
  for (const FrozenRef& frozen : view->frozen) {
    if (found.found || found.erased) break;
    if (key < frozen.lo || key >= frozen.hi) continue;
    CAW_TRY(probe.below(frozen.translation, [&](const Probe& inner) -> Result<void> {
      note(find_in(*frozen.run, inner), covered(frozen.run->table().ranges(), inner.key()),
           !frozen.run->shared(), found);
      return {};
    }));
  }
  if (!found.found && !found.erased) CAW_TRY(find_path(store, view->root, key, found));
  if (!found.found || !found.sole) return false;
  return found.tree == kNoNode || CAW_TRY(store.node_count(found.tree)) == 1;
}

}  // namespace

Result<bool> record_is_private(NodeStore& store, TreeCore& core, std::string_view key) {
  return with_restarts(store, core, [&] { return try_record_is_private(store, core, key); });
}

}  // namespace caw
