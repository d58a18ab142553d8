#include "repair/node_mender.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "check/describe.h"
#include "format/value.h"

namespace caw {

std::string empty_payload(NodeKind kind, Height height) {
  if (kind != NodeKind::interior) return SortedBlockBuilder().finish();
  Interior node;
  node.height = height;
  node.edges.resize(1);
  return encode_interior(node);
}

Result<std::vector<NodeId>> references_of(BlockDevice& device, const NodeRow& row) {
  std::vector<NodeId> out;
  const auto take_block = [&](const SortedBlock& block) {
    SortedBlock::Iterator it(block);
    for (it.seek_to_first(); it.valid(); it.next()) {
      const NodeId tree = peek_refs(it.kind(), it.body()).tree;
      if (tree != kNoNode) out.push_back(tree);
    }
  };
  const OpenedNode opened = CAW_TRY(read_node(device, row));
  if (row.kind != NodeKind::interior) {
    take_block(CAW_TRY(SortedBlock::open(opened.payload)));
    return out;
  }
  const Interior node = CAW_TRY(decode_interior(opened.payload));
  for (const Edge& edge : node.edges) {
    if (edge.child != kNoNode) out.push_back(edge.child);
  }
  for (const RunRef& run : node.runs) out.push_back(run.run);
  if (!node.inline_block.empty()) take_block(SortedBlock::trust(node.inline_block));
  return out;
}

Result<void> NodeMender::walk() {
  claim_rows();
  blobs_.start(claimed_);
  Superblock& superblock = draft_.superblock();
  if (superblock.system_tree == kNoNode) superblock.system_tree = NodeId{1};
  const NodeRow* system =
      CAW_TRY(target(kNoNode, superblock.system_tree, RefKind::tree, 1));
  if (system == nullptr) {
    superblock.system_tree = NodeId{draft_.draw(Counter::node_id)};
    notes_.say("the system tree has no root; it got an empty one");
    CAW_TRY(make_empty(superblock.system_tree, NodeKind::interior, 1, 0));
  }
  CAW_TRY(refer(superblock.system_tree, RefKind::tree));
  CAW_TRY(walk_from(superblock.system_tree));
  CAW_TRY(walk_dead());
  CAW_TRY(walk_orphans());
  std::ranges::sort(dropped_);
  draft_.remove_nodes(dropped_);
  return part_embedded_runs();
}

/// Two nodes in one place: the second one is read with distrust, and moved.
void NodeMender::claim_rows() {
  for (const LogSegment& segment : draft_.superblock().log_segments) {
    if (segment.blocks > 0 && draft_.is_place(segment.first, segment.blocks)) {
      claimed_.mark(raw(segment.first), segment.blocks);
    }
  }
  for (const NodeRow& row : draft_.table().nodes) claim(row);
}

void NodeMender::claim(const NodeRow& row) {
  const uint64_t blocks = blocks_for(row.stored_bytes);
  if (!draft_.is_place(row.addr, blocks) || claimed_.mark(raw(row.addr), blocks)) {
    states_[raw(row.id)].is_misplaced = true;
  }
}

Result<void> NodeMender::walk_dead() {
  std::vector<uint64_t>& dead = draft_.table().dead;
  std::vector<uint64_t> kept;
  for (const uint64_t id : dead) {
    if (draft_.find(NodeId{id}) == nullptr) {
      notes_.say(fmt::format("node {} is on the list of dead nodes, but does not exist", id));
      continue;
    }
    CAW_TRY(walk_from(NodeId{id}));
    kept.push_back(id);
  }
  std::erase_if(kept, [&](uint64_t id) {
    const bool alive = states_[id].refs != 0;
    if (alive) notes_.say(fmt::format("node {} is not dead: something refers to it", id));
    return alive;
  });
  dead = std::move(kept);
  return {};
}

/// First what nothing refers to, then what only refers to itself.
Result<void> NodeMender::walk_orphans() {
  std::vector<NodeId> unseen;
  std::set<NodeId> referred;
  for (const NodeRow& row : draft_.table().nodes) {
    if (states_[raw(row.id)].walk != Walk::unseen) continue;
    unseen.push_back(row.id);
    const Result<std::vector<NodeId>> references = references_of(draft_.device(), row);
    if (references) referred.insert(references->begin(), references->end());
  }
  for (const bool tops : {true, false}) {
    for (const NodeId id : unseen) {
      if (tops == referred.contains(id)) continue;
      if (tops) drop_if_useless(id);
      if (states_[raw(id)].walk != Walk::unseen) continue;
      orphans_.push_back(id);
      CAW_TRY(walk_from(id));
    }
  }
  return {};
}

/// What nothing at all refers to, and cannot be read or is empty.
void NodeMender::drop_if_useless(NodeId id) {
  const NodeRow& row = *draft_.find(id);
  const Result<OpenedNode> opened = read_node(draft_.device(), row);
  if (opened && opened->payload != empty_payload(row.kind, row.height)) return;
  if (!opened) {
    notes_.say(fmt::format("node {}: cannot be read, and nothing leads to it; dropped", raw(id)));
  }
  states_[raw(id)].walk = Walk::done;
  dropped_.push_back(id);
}

Result<void> NodeMender::walk_from(NodeId root) {
  stack_.push_back({root, false});
  while (!stack_.empty()) {
    const Step step = stack_.back();
    stack_.pop_back();
    Walk& walk = states_[raw(step.node)].walk;
    if (step.leave) {
      walk = Walk::done;
    } else if (walk == Walk::unseen) {
      walk = Walk::open;
      stack_.push_back({step.node, true});
      CAW_TRY(enter(step.node));
    }
  }
  return {};
}

Result<void> NodeMender::enter(NodeId id) {
  const NodeRow row = *draft_.find(id);
  const Result<OpenedNode> opened = read_node(draft_.device(), row);
  if (!opened) return replace_lost(row, opened.error());
  if (row.kind != NodeKind::interior) return mend_block(row, opened->payload);
  return mend_interior(row, opened->payload);
}

// ---- what a node holds

Result<void> NodeMender::mend_interior(const NodeRow& row, std::string_view payload) {
  Result<Interior> node = decode_interior(payload);
  if (!node) return replace_lost(row, node.error());
  if (node->height != row.height) {
    return replace_lost(row, Error{Code::node_height, 0, raw(row.id), "repair"});
  }
  const bool edges = CAW_TRY(mend_edges(row, &*node));
  const bool runs = CAW_TRY(mend_runs(row, &*node));
  Mended mended;
  if (!node->inline_block.empty()) {
    states_[raw(row.id)].has_inline = true;
    const SortedBlock block = SortedBlock::trust(node->inline_block);
    mended = CAW_TRY(mend_messages(row, block, /*is_leaf=*/false));
    if (mended.bytes) node->inline_block = *mended.bytes;
  }
  const bool owns_refs = row.owns_refs || mended.owns_refs;
  if (!edges && !runs && !mended.bytes) return keep_or_write(row, owns_refs, payload, false);
  return keep_or_write(row, owns_refs, encode_interior(*node), true);
}

Result<bool> NodeMender::mend_edges(const NodeRow& row, Interior* node) {
  bool changed = false;
  for (Edge& edge : node->edges) {
    if (edge.child == kNoNode) continue;
    const NodeRow* child = CAW_TRY(target(row.id, edge.child, RefKind::edge, edge.child_height));
    if (child == nullptr || child->height >= row.height) {
      notes_.say(fmt::format("node {}: its child {} cannot be below it; the range from {} is empty",
                             raw(row.id), raw(edge.child), quoted(edge.lo)));
      edge.child = kNoNode;
      edge.child_bytes = 0;
      edge.child_height = 0;
      changed = true;
      continue;
    }
    if (child->height != edge.child_height) {
      notes_.say(fmt::format("node {}: said the wrong height of its child {}", raw(row.id),
                             raw(edge.child)));
      edge.child_height = child->height;
      changed = true;
    }
    CAW_TRY(refer(edge.child, RefKind::edge));
  }
  return changed;
}

Result<bool> NodeMender::mend_runs(const NodeRow& row, Interior* node) {
  std::vector<RunRef> kept;
  for (RunRef& run : node->runs) {
    if (CAW_TRY(target(row.id, run.run, RefKind::run, 0)) == nullptr) {
      notes_.say(fmt::format("node {}: {} is no run of pending changes; left out", raw(row.id),
                             raw(run.run)));
      continue;
    }
    CAW_TRY(refer(run.run, RefKind::run));
    kept.push_back(std::move(run));
  }
  const bool changed = kept.size() != node->runs.size();
  node->runs = std::move(kept);
  return changed;
}

Result<void> NodeMender::mend_block(const NodeRow& row, std::string_view payload) {
  const Result<SortedBlock> block = SortedBlock::open(payload);
  if (!block) return replace_lost(row, block.error());
  const Mended mended = CAW_TRY(mend_messages(row, *block, row.kind == NodeKind::leaf));
  if (mended.owns_refs && !row.owns_refs) {
    notes_.say(fmt::format("node {}: its header denied that it refers to something", raw(row.id)));
  }
  const bool owns_refs = row.owns_refs || mended.owns_refs;
  return keep_or_write(row, owns_refs, mended.bytes ? std::string_view(*mended.bytes) : payload,
                       mended.bytes.has_value());
}

Result<NodeMender::Mended> NodeMender::mend_messages(const NodeRow& row, const SortedBlock& block,
                                                     bool is_leaf) {
  Mended out;
  bool changed = is_leaf && !block.range_erases().empty();
  bool only_puts = !changed;
  SortedBlockBuilder builder;
  if (!is_leaf) {
    for (const RangeErase& range : block.range_erases()) builder.add_range_erase(range);
  }
  SortedBlock::Iterator it(block);
  for (it.seek_to_first(); it.valid(); it.next()) {
    if (is_leaf && it.kind() != MessageKind::put) {
      only_puts = false;
      changed = true;
      continue;
    }
    const OwnedRefs refs = peek_refs(it.kind(), it.body());
    out.owns_refs = out.owns_refs || refs.any();
    if (!refs.any()) {
      builder.add(it.key(), it.kind(), it.body());
      continue;
    }
    Message message = CAW_TRY(decode_message(it.kind(), it.body()));
    changed = CAW_TRY(mend_value(row, &message.value)) || changed;
    builder.add(it.key(), message);
  }
  if (!only_puts) {
    notes_.say(fmt::format("leaf {}: held more than records; the rest is dropped", raw(row.id)));
  }
  if (changed) out.bytes = builder.finish();
  return out;
}

Result<bool> NodeMender::mend_value(const NodeRow& row, Value* value) {
  bool changed = false;
  if (value->tree != kNoNode) {
    if (CAW_TRY(target(row.id, value->tree, RefKind::tree, 1)) == nullptr) {
      notes_.say(fmt::format("a record in node {} names node {} as its tree, which is none",
                             raw(row.id), raw(value->tree)));
      value->tree = kNoNode;
      changed = true;
    } else {
      CAW_TRY(refer(value->tree, RefKind::tree));
    }
  }
  if (value->blob) {
    const BlobRef blob = CAW_TRY(blobs_.use(value->blob));
    changed = changed || blob != value->blob;
    value->blob = blob;
  }
  return changed;
}

// ---- nodes

Result<const NodeRow*> NodeMender::target(NodeId from, NodeId to, RefKind kind, Height height) {
  const NodeRow* row = draft_.find(to);
  if (row == nullptr && search_ && search_(to)) {
    row = draft_.find(to);
    claim(*row);
  }
  if (row == nullptr) {
    const NodeKind missing = kind == RefKind::run                    ? NodeKind::run
                             : kind == RefKind::edge && height == 0 ? NodeKind::leaf
                                                                     : NodeKind::interior;
    notes_.say(fmt::format("node {} refers to {} {}, which does not exist; it is empty now",
                           raw(from), kind_text(missing), raw(to)));
    CAW_TRY(make_empty(to, missing, missing == NodeKind::interior ? height : Height{0}, 0));
    row = draft_.find(to);
  }
  const bool fits = kind == RefKind::edge  ? row->kind != NodeKind::run
                    : kind == RefKind::run ? row->kind == NodeKind::run
                                           : row->kind == NodeKind::interior;
  return fits ? row : nullptr;
}

Result<void> NodeMender::refer(NodeId to, RefKind kind) {
  NodeState& state = states_[raw(to)];
  ++state.refs;
  if (kind == RefKind::edge) state.is_child = true;
  if (state.walk == Walk::unseen) stack_.push_back({to, false});
  return {};
}

Result<void> NodeMender::replace_lost(const NodeRow& row, const Error& error) {
  notes_.say(fmt::format("{} {}: {}; what it held is lost", kind_text(row.kind), raw(row.id),
                         text_of(error.code)));
  return make_empty(row.id, row.kind, row.height, row.max_seq);
}

Result<void> NodeMender::make_empty(NodeId id, NodeKind kind, Height height, Seq max_seq) {
  auto& lost = kind == NodeKind::interior ? lost_.interiors
               : kind == NodeKind::leaf   ? lost_.leaves
                                          : lost_.runs;
  lost.insert(id);
  states_[raw(id)].is_misplaced = false;
  return write({id, kind, height, false, 0, max_seq}, empty_payload(kind, height));
}

/// Writes the node if something changes, or if it cannot stay where it is.
Result<void> NodeMender::keep_or_write(const NodeRow& row, bool owns_refs,
                                       std::string_view payload, bool changed) {
  NodeState& state = states_[raw(row.id)];
  if (state.is_misplaced) {
    notes_.say(fmt::format("{} {}: moved, its blocks are in use for something else",
                           kind_text(row.kind), raw(row.id)));
    state.is_misplaced = false;
    changed = true;
  }
  if (!changed && owns_refs == row.owns_refs && row.birth <= draft_.epoch()) return {};
  return write({row.id, row.kind, row.height, owns_refs, 0, row.max_seq}, payload);
}

Result<void> NodeMender::write(const NodeInfo& info, std::string_view payload) {
  CAW_TRY(draft_.write_node(info, payload));
  const NodeRow& row = *draft_.find(info.id);
  claimed_.mark(raw(row.addr), blocks_for(row.stored_bytes));
  return {};
}

// ---- embedded runs

Result<void> NodeMender::part_embedded_runs() {
  std::vector<NodeId> wrong;
  for (const auto& [id, state] : states_) {
    if (state.is_child && state.has_inline) wrong.push_back(NodeId{id});
  }
  std::ranges::sort(wrong);
  for (const NodeId id : wrong) CAW_TRY(part_embedded_run(id));
  return {};
}

/// Only roots have embedded runs.
Result<void> NodeMender::part_embedded_run(NodeId id) {
  const NodeRow row = *draft_.find(id);
  const OpenedNode opened = CAW_TRY(read_node(draft_.device(), row));
  Interior node = CAW_TRY(decode_interior(opened.payload));
  RunRef run;
  run.run = NodeId{draft_.draw(Counter::node_id)};
  run.lo = node.edges.front().lo;
  run.hi = node.hi;
  run.pos = node.inline_pos;
  run.bytes = static_cast<uint32_t>(node.inline_block.size());
  run.weight = run.bytes;
  run.max_seq = node.max_seq;
  CAW_TRY(write({run.run, NodeKind::run, 0, row.owns_refs, 0, row.max_seq}, node.inline_block));
  states_[raw(run.run)].refs = 1;
  node.inline_block.clear();
  const auto older = [&](const RunRef& other) { return other.pos < run.pos; };
  node.runs.insert(std::ranges::find_if(node.runs, older), run);
  notes_.say(fmt::format("node {}: had an embedded run, though it is below another", raw(id)));
  return write({id, row.kind, row.height, false, 0, row.max_seq}, encode_interior(node));
}

CountRows NodeMender::counts() const {
  CountRows out;
  for (const auto& [id, state] : states_) {
    if (state.refs > 1) out.push_back({id, state.refs});
  }
  std::ranges::sort(out, {}, &CountRow::id);
  return out;
}

}  // namespace caw
