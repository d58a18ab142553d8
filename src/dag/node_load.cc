#include "dag/node_load.h"

#include <algorithm>

#include "dag/lookup.h"

namespace caw {

Result<std::vector<LoadedRun>> load_runs(NodeStore& store, const Ref<const InteriorImage>& image,
                                         uint64_t oldest, uint64_t newest) {
  const Interior& node = image->node();
  std::vector<LoadedRun> out;
  const auto wanted = [&](uint64_t pos) { return oldest <= pos && pos <= newest; };
  bool inline_left = !node.inline_block.empty() && wanted(node.inline_pos);
  auto add_inline = [&] {
    RunRef ref;
    ref.hi = std::string(kKeyEnd);
    ref.pos = node.inline_pos;
    ref.bytes = static_cast<uint32_t>(node.inline_block.size());
    ref.max_seq = node.max_seq;
    out.push_back({std::move(ref), ImageRef(image), &image->inline_block()});
    inline_left = false;
  };
  uint64_t bytes = 0;
  std::vector<NodeId> absent;
  for (const RunRef& run : node.runs) {
    if (wanted(run.pos) && !store.get_cached(run.run)) absent.push_back(run.run);
  }
  if (absent.size() > 1) store.prefetch(absent);
  for (const RunRef& run : node.runs) {
    if (!wanted(run.pos)) continue;
    if (inline_left && node.inline_pos > run.pos) add_inline();
    ImageRef held = CAW_TRY(store.get(run.run));
    if (held->kind() != NodeKind::run) return fail(Code::interior_malformed, raw(run.run), "run");
    const SortedBlock& block = static_cast<const BlockImage&>(*held).block();
    bytes += block.size_bytes();
    if (bytes > kMaxPendingBytes) return fail(Code::interior_malformed, raw(run.run), "load_runs");
    out.push_back({run, std::move(held), &block});
  }
  if (inline_left) add_inline();
  return out;
}

std::string_view edge_end(const Interior& node, size_t index) {
  return index + 1 < node.edges.size() ? std::string_view(node.edges[index + 1].lo)
                                       : std::string_view(node.hi);
}

bool run_is_live(const Interior& node, const RunRef& run) {
  for (size_t i = edge_index(node, run.lo); i < node.edges.size(); ++i) {
    if (node.edges[i].lo >= run.hi && i > 0) break;
    if (node.edges[i].applied_pos < run.pos && run.lo < edge_end(node, i)) return true;
  }
  return false;
}

std::vector<Layer> pending_layers(const Interior& node, const std::vector<LoadedRun>& runs,
                                  size_t index) {
  const Edge& edge = node.edges[index];
  const std::string_view end = edge_end(node, index);
  std::vector<Layer> out;
  for (const LoadedRun& run : runs) {
    if (run.ref.pos <= edge.applied_pos) break;
    const std::string_view lo = max_bound(edge.lo, run.ref.lo);
    const std::string_view hi = min_bound(end, run.ref.hi);
    if (lo < hi) out.emplace_back(run.holder, *run.block, run.ref.translation, lo, hi);
  }
  return out;
}

std::vector<Layer> live_layers(const Interior& node, const std::vector<LoadedRun>& runs) {
  std::vector<Layer> out;
  for (const LoadedRun& run : runs) {
    std::string lo;
    bool open = false;
    auto close = [&](std::string_view hi) {
      if (open && lo < hi) out.emplace_back(run.holder, *run.block, run.ref.translation, lo, hi);
      open = false;
    };
    for (size_t i = 0; i < node.edges.size(); ++i) {
      const std::string_view a = max_bound(node.edges[i].lo, run.ref.lo);
      const std::string_view b = min_bound(edge_end(node, i), run.ref.hi);
      const bool live = a < b && node.edges[i].applied_pos < run.ref.pos;
      if (live && !open) {
        lo = std::string(a);
        open = true;
      } else if (!live) {
        close(node.edges[i].lo);
      }
    }
    close(run.ref.hi);
  }
  return out;
}

namespace {

uint64_t point_weight(std::string_view key, MessageKind kind, std::string_view body) {
  const uint64_t own = key.size() + body.size() + 8;
  return kind == MessageKind::erase ? std::max(own, peek_dead_bytes(body)) : own;
}

/// Adds one run's points and ranges to the loads of the edges it is live for.
void measure_run(const Interior& node, const LoadedRun& run, NodeLoad& load,
                 std::vector<uint64_t>& mine) {
  Layer layer(run.holder, *run.block, run.ref.translation, run.ref.lo, run.ref.hi);
  for (const RangeErase& range : layer.ranges()) {
    std::vector<size_t> hit;
    for (size_t i = edge_index(node, range.lo); i < node.edges.size(); ++i) {
      if (i > 0 && node.edges[i].lo >= range.hi) break;
      if (node.edges[i].applied_pos < run.ref.pos) hit.push_back(i);
    }
    for (size_t i : hit) {
      const uint64_t own = range.lo.size() + range.hi.size() + 8;
      mine[i] += std::max(own, range.dead_bytes / hit.size());
      load.edges[i].bytes += own;
    }
  }
  size_t at = 0;
  for (; layer.valid(); layer.next()) {
    while (at + 1 < node.edges.size() && layer.key() >= node.edges[at + 1].lo) ++at;
    if (node.edges[at].applied_pos >= run.ref.pos) continue;
    mine[at] += point_weight(layer.key(), layer.kind(), *layer.body());
    load.edges[at].bytes += layer.key().size() + layer.body()->size() + 8;
  }
}

}  // namespace

NodeLoad measure_load(const Interior& node, const std::vector<LoadedRun>& runs) {
  NodeLoad load;
  load.edges.resize(node.edges.size());
  for (const LoadedRun& run : runs) {
    std::vector<uint64_t> mine(node.edges.size());
    measure_run(node, run, load, mine);
    for (size_t i = 0; i < mine.size(); ++i) load.edges[i].weight += mine[i];
    load.per_run.push_back(std::move(mine));
  }
  for (const EdgeLoad& edge : load.edges) {
    load.weight += edge.weight;
    load.bytes += edge.bytes;
  }
  return load;
}

uint64_t block_weight(const SortedBlock& block) {
  uint64_t total = 0;
  for (const RangeErase& range : block.range_erases()) {
    total += std::max<uint64_t>(range.lo.size() + range.hi.size() + 8, range.dead_bytes);
  }
  SortedBlock::Iterator it(block);
  for (it.seek_to_first(); it.valid(); it.next()) {
    total += point_weight(it.key(), it.kind(), it.body());
  }
  return total;
}

RunRef run_ref(NodeId id, uint64_t pos, const BlockImage& image) {
  const SortedBlock& block = image.block();
  RunRef run;
  run.run = id;
  run.pos = pos;
  run.bytes = static_cast<uint32_t>(image.bytes().size());
  run.weight = block_weight(block);
  run.max_seq = image.max_seq();
  run.lo = std::string(kKeyEnd);
  for (const RangeErase& range : block.range_erases()) {
    run.lo = std::min(run.lo, range.lo);
    run.hi = std::max(run.hi, range.hi);
  }
  SortedBlock::Iterator it(block);
  it.seek_to_first();
  if (it.valid()) run.lo = std::min(run.lo, std::string(it.key()));
  std::string last;
  for (; it.valid(); it.next()) last.assign(it.key());
  const bool longest = last.size() == kMaxKeyBytes;  // no key stands right above it
  if (block.count() > 0) {
    run.hi = std::max(run.hi, longest ? key_after_prefix(last) : last + std::string(1, '\0'));
  }
  return run;
}

void insert_run(Interior& node, RunRef run) {
  auto at = std::find_if(node.runs.begin(), node.runs.end(),
                         [&](const RunRef& r) { return r.pos < run.pos; });
  node.runs.insert(at, std::move(run));
}

bool covers_wholly(const std::vector<Layer>& layers, std::string_view lo, std::string_view hi) {
  for (const Layer& layer : layers) {
    for (const RangeErase& range : layer.ranges()) {
      if (range.lo <= lo && hi <= range.hi) return true;
    }
  }
  return false;
}

}  // namespace caw
