// LinkCounts: which names lead to which linked files, gathered while the trees are read, and
// compared when all have been (docs/adr/0013-hard-links.md).
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "base/ids.h"
#include "check/findings.h"
#include "schema/records.h"

namespace caw {

/// One tree's part.
struct TreeLinks {
  struct Owned {
    uint64_t entry = 0;
    NodeId tree = kNoNode;
    bool is_top = false;  ///< made by a clone
    bool is_marked = false;
  };
  std::vector<LinkEntry> names;  ///< of its links index
  std::vector<Owned> owned;      ///< directories with trees of their own
  bool is_top = false;           ///< of the root, or of a clone
  NodeId links = kNoNode;   ///< of its links directory; of the system tree: the global one
  bool is_uncounted = false;
};

class LinkCounts {
 public:
  TreeLinks& of_tree(NodeId tree) { return trees_[tree]; }
  /// The record of a linked file in the links directory with this tree.
  void add_file(NodeId tree, uint64_t group, uint32_t nlink) { files_[tree][group] = nlink; }
  /// After all trees.  `system` and `root` are the system tree and that of "/".
  void compare(NodeId system, NodeId root, Findings& findings) const;

 private:
  using Counts = std::unordered_map<uint64_t, uint32_t>;
  Counts count(NodeId top, LinkScope scope) const;
  void compare_top(NodeId top, const TreeLinks& links, Findings& findings) const;
  void compare_files(NodeId where, const Counts& names, bool exact, Findings& findings) const;
  void check_marks(NodeId tree, const TreeLinks& links, Findings& findings) const;

  std::map<NodeId, TreeLinks> trees_;
  std::map<NodeId, std::map<uint64_t, uint32_t>> files_;
};

}  // namespace caw
