#include "repair/tree_fixes.h"

#include <algorithm>
#include <utility>

#include "format/interior.h"
#include "format/sorted_block.h"

namespace caw {
namespace {

/// Writes runs, each of some 64 KiB, and refers to them.
class RunWriter {
 public:
  RunWriter(Draft& draft, Interior& root, Seq max_seq)
      : draft_(draft), root_(root), max_seq_(max_seq) {}

  Result<void> add(const std::string& key, const Message& message) {
    builder_.add(key, message);
    return builder_.size_bytes() < draft_.superblock().shape.run_bytes ? Result<void>{} : finish();
  }
  Result<void> finish() {
    if (builder_.empty()) return {};
    RunRef run;
    run.run = NodeId{draft_.draw(Counter::node_id)};
    run.hi = std::string(kKeyEnd);
    run.pos = root_.next_pos++;
    run.max_seq = max_seq_;
    const bool owns_refs = builder_.owns_refs();
    const std::string payload = builder_.finish();
    run.bytes = static_cast<uint32_t>(payload.size());
    run.weight = run.bytes;
    root_.runs.insert(root_.runs.begin(), run);
    return draft_.write_node({run.run, NodeKind::run, 0, owns_refs, 0, max_seq_}, payload);
  }

 private:
  Draft& draft_;
  Interior& root_;
  const Seq max_seq_;
  SortedBlockBuilder builder_;
};

}  // namespace

void TreeFixes::add(NodeId tree, const std::string& key, Message message) {
  const auto [at, added] = trees_[tree].try_emplace(key, message);
  if (added) {
    ++count_;
  } else {
    combine(at->second, std::move(message));
  }
}

const Message* TreeFixes::find(NodeId tree, const std::string& key) const {
  const auto messages = trees_.find(tree);
  if (messages == trees_.end()) return nullptr;
  const auto found = messages->second.find(key);
  return found == messages->second.end() ? nullptr : &found->second;
}

Result<void> TreeFixes::apply(Draft& draft) {
  for (const auto& [tree, messages] : trees_) CAW_TRY(apply(draft, tree, messages));
  trees_.clear();
  count_ = 0;
  return {};
}

Result<void> TreeFixes::apply(Draft& draft, NodeId tree, const Messages& messages) {
  const NodeRow* found = draft.find(tree);
  if (found == nullptr) return fail(Code::node_absent, raw(tree), "TreeFixes");
  const NodeRow row = *found;
  const OpenedNode opened = CAW_TRY(read_node(draft.device(), row));
  Interior root = CAW_TRY(decode_interior(opened.payload));
  RunWriter writer(draft, root, row.max_seq);
  for (const auto& [key, message] : messages) CAW_TRY(writer.add(key, message));
  CAW_TRY(writer.finish());
  return draft.write_node({tree, row.kind, row.height, row.owns_refs, 0, row.max_seq},
                          encode_interior(root));
}

}  // namespace caw
