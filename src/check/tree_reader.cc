#include "check/tree_reader.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace caw {
namespace {

/// Of each node by one tree, on average; with a step for each edge.
constexpr uint64_t kMostVisits = 1000;

/// First key above all that start with `prefix`.
std::string above(std::string_view prefix) {
  std::string out(prefix);
  while (!out.empty() && out.back() == '\xff') out.pop_back();
  if (out.empty()) return std::string(kKeyEnd);
  out.back() = static_cast<char>(static_cast<unsigned char>(out.back()) + 1);
  return out;
}

/// A bound where keys lose `strip` and get `prepend`.
std::string move_bound(std::string_view strip, std::string_view prepend, std::string_view bound) {
  if (bound.starts_with(strip)) return std::string(prepend).append(bound.substr(strip.size()));
  return bound < strip ? std::string(prepend) : above(prepend);
}

/// First `outer`, then `inner`; nothing if no key passes both.
std::optional<Translation> joined(const Translation& outer, const Translation& inner) {
  const std::string& between = outer.prepend;
  const size_t common = std::min(between.size(), inner.strip.size());
  if (between.compare(0, common, inner.strip, 0, common) != 0) return std::nullopt;
  return Translation{outer.strip + inner.strip.substr(common),
                     inner.prepend + between.substr(common)};
}

/// The points of a block that a view selects, with their keys in the tree's coordinates.
class Points {
 public:
  Points(const SortedBlock& block, const Translation& down, std::string_view lo,
         std::string_view hi)
      : it_(block), down_(down), end_(move_bound(down.strip, down.prepend, hi)) {
    it_.seek(move_bound(down.strip, down.prepend, lo));
    settle();
  }
  bool valid() const { return valid_; }
  const std::string& key() const { return key_; }
  Result<Message> message() const { return decode_message(it_.kind(), it_.body()); }
  void next() {
    it_.next();
    settle();
  }

 private:
  void settle() {
    valid_ = it_.valid() && it_.key() < end_ && it_.key().starts_with(down_.prepend);
    if (valid_) key_ = down_.strip + std::string(it_.key().substr(down_.prepend.size()));
  }
  SortedBlock::Iterator it_;
  const Translation& down_;
  std::string end_;
  std::string key_;
  bool valid_ = false;
};

bool is_erased(const std::vector<RangeErase>& ranges, const Translation& down,
               std::string_view key) {
  if (ranges.empty() || !key.starts_with(down.strip)) return false;
  const std::string inner = down.prepend + std::string(key.substr(down.strip.size()));
  return std::ranges::any_of(
      ranges, [&](const RangeErase& range) { return range.lo <= inner && inner < range.hi; });
}

}  // namespace

Result<OpenedNode> TreeReader::open(NodeId id) const {
  const std::optional<size_t> row = table_.find(id);
  if (!row) return fail(Code::node_absent, raw(id), "TreeReader");
  return read_node(device_, table_.nodes[*row]);
}

Result<void> TreeReader::scan(NodeId root, std::string_view lo, std::string_view hi,
                              const Visit& visit) {
  steps_.clear();
  layers_.clear();
  Step first;
  first.child = root;
  first.parent_height = 0xff;
  first.view.lo = lo;
  first.view.hi = hi;
  steps_.push_back(std::move(first));
  // Nodes shared within a tree are rare; damage can make any number of paths of a few.
  uint64_t left = kMostVisits * (table_.nodes.size() + 1);
  while (!steps_.empty()) {
    if (left-- == 0) return fail(Code::interior_malformed, raw(root), "more paths than nodes");
    const Step step = std::move(steps_.back());
    steps_.pop_back();
    if (step.leave) {
      layers_.resize(step.layers_before);
    } else if (step.child == kNoNode) {
      CAW_TRY(merge(step, nullptr, visit));
    } else {
      CAW_TRY(enter(step, visit));
    }
  }
  return {};
}

Result<void> TreeReader::enter(const Step& step, const Visit& visit) {
  if (enter_) enter_(step.child, step.view.lo, step.view.hi);
  OpenedNode node = CAW_TRY(open(step.child));
  if (node.info.height >= step.parent_height) {
    return fail(Code::node_height, raw(step.child), "TreeReader");
  }
  if (node.info.kind == NodeKind::interior) {
    return enter_interior(step, CAW_TRY(decode_interior(node.payload)));
  }
  Layer leaf{std::move(node.payload), {}, step.view, 0};
  leaf.block = CAW_TRY(SortedBlock::open(leaf.bytes));
  return merge(step, &leaf, visit);
}

Result<const TreeReader::Layer*> TreeReader::add_layer(std::string bytes, View view, uint64_t pos) {
  auto layer = std::make_unique<Layer>(Layer{std::move(bytes), {}, std::move(view), pos});
  layer->block = CAW_TRY(SortedBlock::open(layer->bytes));
  layers_.push_back(std::move(layer));
  return layers_.back().get();
}

/// The node's own layers, newest first.
Result<void> TreeReader::load_layers(const Step& step, const Interior& node,
                                     std::vector<const Layer*>* layers) {
  const Translation& down = step.view.down;
  for (const RunRef& run : node.runs) {
    std::optional<Translation> through = joined(down, run.translation);
    if (!through) continue;
    View view{*std::move(through),
              std::max(step.view.lo, move_bound(down.prepend, down.strip, run.lo)),
              std::min(step.view.hi, move_bound(down.prepend, down.strip, run.hi))};
    if (view.lo >= view.hi) continue;
    if (enter_) enter_(run.run, view.lo, view.hi);
    OpenedNode opened = CAW_TRY(open(run.run));
    layers->push_back(CAW_TRY(add_layer(std::move(opened.payload), std::move(view), run.pos)));
  }
  if (!node.inline_block.empty()) {
    layers->push_back(CAW_TRY(add_layer(node.inline_block, step.view, node.inline_pos)));
  }
  std::ranges::sort(*layers, std::greater<>(), &Layer::pos);
  return {};
}

Result<void> TreeReader::enter_interior(const Step& step, const Interior& node) {
  Step leave;
  leave.leave = true;
  leave.layers_before = layers_.size();
  std::vector<const Layer*> layers;
  CAW_TRY(load_layers(step, node, &layers));
  steps_.push_back(std::move(leave));
  const Translation& down = step.view.down;
  // Keys that have no image in the node (they lack the prefix it is seen through) are only in
  // newer layers: those before its first edge, and after its last.
  const auto add_beyond = [&](const std::string& lo, const std::string& hi) {
    Step beyond = step;
    beyond.view.lo = lo;
    beyond.view.hi = hi;
    beyond.child = kNoNode;
    if (lo < hi) steps_.push_back(std::move(beyond));
  };
  // Popped in key order.
  add_beyond(std::max(step.view.lo, move_bound(down.prepend, down.strip, node.hi)), step.view.hi);
  for (size_t i = node.edges.size(); i-- > 0;) {
    const Edge& edge = node.edges[i];
    const std::string& end = i + 1 < node.edges.size() ? node.edges[i + 1].lo : node.hi;
    Step child;
    child.view.lo = std::max(step.view.lo, move_bound(down.prepend, down.strip, edge.lo));
    child.view.hi = std::min(step.view.hi, move_bound(down.prepend, down.strip, end));
    if (child.view.lo >= child.view.hi) continue;
    std::optional<Translation> through = joined(down, edge.translation);
    if (through) child.view.down = *std::move(through);
    child.child = through ? edge.child : kNoNode;
    child.parent_height = node.height;
    child.newer = step.newer;
    for (const Layer* layer : layers) {
      if (layer->pos > edge.applied_pos) child.newer.push_back(layer);
    }
    steps_.push_back(std::move(child));
  }
  add_beyond(step.view.lo, std::min(step.view.hi, move_bound(down.prepend, down.strip,
                                                             node.edges.front().lo)));
  return {};
}

/// Every key of the leaf and the newer layers within the step's bounds, oldest message first.
Result<void> TreeReader::merge(const Step& step, const Layer* leaf, const Visit& visit) const {
  std::vector<const Layer*> layers;
  if (leaf != nullptr) layers.push_back(leaf);
  layers.insert(layers.end(), step.newer.rbegin(), step.newer.rend());
  std::vector<Points> points;
  points.reserve(layers.size());
  for (const Layer* layer : layers) {
    points.emplace_back(layer->block, layer->view.down, std::max(step.view.lo, layer->view.lo),
                        std::min(step.view.hi, layer->view.hi));
  }
  while (true) {
    const std::string* least = nullptr;
    for (const Points& at : points) {
      if (at.valid() && (least == nullptr || at.key() < *least)) least = &at.key();
    }
    if (least == nullptr) return {};
    const std::string key = *least;
    Message state = Message::erase(0);
    for (size_t i = 0; i < layers.size(); ++i) {
      const View& view = layers[i]->view;
      if (key >= view.lo && key < view.hi &&
          is_erased(layers[i]->block.range_erases(), view.down, key)) {
        state = Message::erase(0);
      }
      if (!points[i].valid() || points[i].key() != key) continue;
      combine(state, CAW_TRY(points[i].message()));
      points[i].next();
    }
    if (state.kind == MessageKind::put) CAW_TRY(visit(key, state.value));
  }
}

}  // namespace caw
