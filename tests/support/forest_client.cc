#include "support/forest_runner.h"

#include <algorithm>

namespace caw {
namespace {

constexpr int kTriesMax = 10000;

Value inline_of(std::string_view bytes, NodeId tree = kNoNode) {
  Value value;
  value.tree = tree;
  value.length = static_cast<uint32_t>(bytes.size());
  if (!bytes.empty()) value.pieces.push_back({0, std::string(bytes)});
  return value;
}

}  // namespace

Result<TreeRef> ForestClient::find(const TreePath& path) {
  TreeRef tree = forest_.system_tree();
  for (const std::string& key : path) {
    const std::optional<Value> value = CAW_TRY(forest_.get(tree, key));
    if (!value || value->tree == kNoNode) return fail(Code::tree_absent, 0, "ForestClient::find");
    tree = forest_.open_tree(value->tree);
  }
  return tree;
}

Result<TreeRef> ForestClient::find_private(const TreePath& path) {
  TreeRef tree = forest_.system_tree();
  for (const std::string& key : path) {
    const std::optional<Value> value = CAW_TRY(forest_.get(tree, key));
    if (!value || value->tree == kNoNode) return fail(Code::tree_absent, 1, "find_private");
    if (!CAW_TRY(forest_.is_private(tree, key))) {
      CAW_TRY(privatize(tree, key));
      return TreeRef();
    }
    tree = forest_.open_tree(value->tree);
  }
  return tree;
}

/// Requires: `outer` was found private under generation_; if that has moved on, nothing happens.
Result<bool> ForestClient::privatize(const TreeRef& outer, const std::string& key) {
  Batch then;
  then.generation = generation_;
  then.essential = essential_;
  const std::optional<Value> value = CAW_TRY(forest_.get(outer, key));
  if (!value || value->tree == kNoNode) return fail(Code::tree_absent, 2, "privatize");
  const NodeId id = forest_.new_tree_id();
  const TreeRef shared = forest_.open_tree(value->tree);
  Value mine = *value;
  mine.tree = id;
  then.put(outer, key, mine);
  const ClonePrefix everything;
  const Result<void> done = forest_.clone(shared, {&everything, 1}, id, then);
  if (!done && done.error().code == Code::tree_not_private) return false;
  CAW_TRY(done);
  ++privatized_count_;
  return true;
}

Result<void> ForestClient::apply(const ForestOp& op) {
  if (op.empty()) return {};
  essential_ = std::all_of(op.begin(), op.end(), [](const Action& action) {
    return action.kind == ActionKind::erase || action.kind == ActionKind::erase_range;
  });
  for (int i = 0; i < kTriesMax; ++i) {
    const bool is_clone = op.front().kind == ActionKind::clone;
    if (CAW_TRY(is_clone ? try_clone(op.front()) : try_batch(op))) return {};
  }
  return fail(Code::tree_not_private, kTriesMax, "ForestClient::apply: no attempt succeeds");
}

Result<bool> ForestClient::try_batch(const ForestOp& op) {
  Batch batch;
  batch.generation = generation_ = forest_.share_generation();
  batch.essential = essential_;
  for (const Action& action : op) {
    const Result<bool> added = add_action(action, batch);
    if (!added || !*added) {
      cancel(batch);
      return added;
    }
  }
  const Result<void> done = forest_.apply(batch);
  if (done) return true;
  cancel(batch);
  if (done.error().code == Code::tree_not_private) return false;
  return std::unexpected(done.error());
}

void ForestClient::cancel(const Batch& batch) {
  for (const BlobRef& blob : batch.new_blobs) forest_.cancel_blob(blob);
}

Result<bool> ForestClient::add_action(const Action& action, Batch& batch) {
  const TreeRef tree = CAW_TRY(find_private(action.path));
  if (!tree) return false;
  switch (action.kind) {
    case ActionKind::put:
      CAW_TRY(add_put(action, tree, batch));
      return true;
    case ActionKind::patch:
      batch.patch(tree, action.key, patch_of(action));
      return true;
    case ActionKind::erase:
      batch.erase(tree, action.key, 50);
      return true;
    case ActionKind::erase_range:
      batch.erase_range(tree, action.key, action.other_key, 500);
      return true;
    case ActionKind::make_tree: {
      const NodeId id = forest_.new_tree_id();
      const TreeRef made = forest_.open_tree(id);
      batch.create_tree(id);
      batch.put(tree, action.key, inline_of(fill_bytes(action.n[3], action.n[1]), id));
      for (uint32_t i = 0; i < action.n[0]; ++i) {
        batch.put(made, initial_key(i), inline_of(fill_bytes(action.n[2], action.n[1] + i)));
      }
      return true;
    }
    default: {
      const TreeRef to = CAW_TRY(find_private(action.other_path));
      if (!to) return false;
      const std::optional<Value> value = CAW_TRY(forest_.get(tree, action.key));
      if (!value) return fail(Code::not_found, 0, "ForestClient: the record to move is not there");
      batch.put(to, action.other_key, *value);
      if (action.kind == ActionKind::move) batch.erase(tree, action.key, 0);
      return true;
    }
  }
}

Result<void> ForestClient::add_put(const Action& action, const TreeRef& tree, Batch& batch) {
  const std::string bytes = fill_bytes(action.n[0], action.n[1]);
  if (action.n[2] == 0 || bytes.empty()) {
    batch.put(tree, action.key, inline_of(bytes));
    return {};
  }
  const BlobRef blob = CAW_TRY(forest_.write_blob(bytes));
  Value value;
  value.blob = blob;
  value.length = value.blob_length = static_cast<uint32_t>(bytes.size());
  batch.add_new_blob(blob);
  batch.put(tree, action.key, value);
  return {};
}

Result<bool> ForestClient::try_clone(const Action& action) {
  Batch then;
  then.generation = generation_ = forest_.share_generation();
  const TreeRef to = CAW_TRY(find_private(action.other_path));
  if (!to) return false;
  const bool extract = action.n[0] != 0;
  const TreeRef source = CAW_TRY(extract ? find_private(action.path) : find(action.path));
  if (!source) return false;
  const NodeId id = forest_.new_tree_id();
  then.put(to, action.other_key, inline_of(fill_bytes(action.n[1], action.n[2]), id));
  if (extract) {
    for (const ClonePrefix& prefix : action.prefixes) {
      then.erase_range(source, prefix.from, prefix_end(prefix.from), 0);
    }
  }
  const Result<void> done = forest_.clone(source, action.prefixes, id, then);
  if (done) return true;
  if (done.error().code == Code::tree_not_private) return false;
  return std::unexpected(done.error());
}

}  // namespace caw
