#include "check/link_counts.h"

#include <fmt/format.h>

#include <set>
#include <string>

namespace caw {

/// Names with `scope` in the domain of a top, for global ones also in the domains within.
LinkCounts::Counts LinkCounts::count(NodeId top, LinkScope scope) const {
  Counts counts;
  std::set<NodeId> seen;
  std::vector<NodeId> pending{top};
  while (!pending.empty()) {
    const NodeId at = pending.back();
    pending.pop_back();
    const auto tree = trees_.find(at);
    if (tree == trees_.end() || !seen.insert(at).second) continue;
    for (const LinkEntry& name : tree->second.names) {
      if (name.scope == scope) ++counts[name.group];
    }
    for (const TreeLinks::Owned& owned : tree->second.owned) {
      if (owned.is_marked && (!owned.is_top || scope == LinkScope::global)) {
        pending.push_back(owned.tree);
      }
    }
  }
  return counts;
}

void LinkCounts::compare_files(NodeId where, const Counts& names, bool exact,
                               Findings& findings) const {
  static const std::map<uint64_t, uint32_t> none;
  const auto found = files_.find(where);
  const auto& files = found == files_.end() ? none : found->second;
  const auto say = [&](uint64_t group, const std::string& what) {
    findings.add(Code::check_files, raw(where),
                 fmt::format("tree {}, linked file {}: {}", raw(where), group, what));
  };
  for (const auto& [group, count] : names) {
    if (!files.contains(group)) say(group, fmt::format("{} names, but no record", count));
  }
  if (!exact) return;
  for (const auto& [group, nlink] : files) {
    const auto counted = names.find(group);
    const uint32_t count = counted == names.end() ? 0 : counted->second;
    if (count != nlink) say(group, fmt::format("link count {} instead of {}", nlink, count));
  }
}

void LinkCounts::compare_top(NodeId top, const TreeLinks& links, Findings& findings) const {
  const Counts names = count(top, LinkScope::local);
  if (links.links == kNoNode && !names.empty()) {
    findings.add(Code::check_files, raw(top),
                 fmt::format("tree {}: linked names, but no links directory", raw(top)));
  } else if (links.links != kNoNode) {
    compare_files(links.links, names, !links.is_uncounted, findings);
  }
}

/// What is in the index of an inner tree must be found from the outer one.
void LinkCounts::check_marks(NodeId tree, const TreeLinks& links, Findings& findings) const {
  for (const TreeLinks::Owned& owned : links.owned) {
    const auto inner = trees_.find(owned.tree);
    if (owned.is_marked || inner == trees_.end()) continue;
    bool is_needed = false;
    for (const LinkEntry& name : inner->second.names) {
      is_needed = is_needed || !owned.is_top || name.scope == LinkScope::global;
    }
    if (!is_needed) continue;
    findings.add(Code::check_files, raw(tree),
                 fmt::format("tree {}, entry {}: linked names in it are not marked", raw(tree),
                             owned.entry));
  }
}

void LinkCounts::compare(NodeId system, NodeId root, Findings& findings) const {
  bool any = false;
  for (const auto& [tree, links] : trees_) {
    any = any || !links.names.empty() || (tree != system && links.links != kNoNode);
    if (tree != system) check_marks(tree, links, findings);
    if (links.is_top) compare_top(tree, links, findings);
  }
  const auto of_system = trees_.find(system);
  const NodeId global = of_system == trees_.end() ? kNoNode : of_system->second.links;
  if (global != kNoNode) {
    compare_files(global, count(root, LinkScope::global), true, findings);
  } else if (any) {
    findings.add(Code::check_files, raw(system), "hard links without a global links directory");
  }
}

}  // namespace caw
