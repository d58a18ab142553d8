// LinkMender: makes names and files of hard links agree, after all trees were put right by
// themselves (tree_mender_links.cc): every name has its file, every file its names and their
// number.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "schema/records.h"

namespace caw {

struct MendContext;

/// What one tree has of linked names and files.
struct LinkedTree {
  struct Name {
    std::string path;  ///< of its directory
    uint64_t entry = 0;
    LinkEntry link;
    std::string name;
  };
  struct Owned {
    std::string path;
    uint64_t entry = 0;
    NodeId tree = kNoNode;
    bool is_top = false;
    bool is_marked = false;
  };
  struct File {
    uint32_t nlink = 0;
    uint32_t type = 0;
  };
  std::vector<Name> names;
  std::vector<Owned> owned;         ///< directories with trees of their own
  std::map<uint64_t, File> files;   ///< of a links directory, by entry
  bool is_top = false;              ///< of the root, or of a clone
  bool is_orphan = false;
  NodeId links = kNoNode;  ///< tree of its links directory; of the system tree: of the global one
  bool is_uncounted = false;
};

class LinkMender {
 public:
  /// `system` and `root` are the system tree and that of "/".
  LinkMender(MendContext& context, NodeId system, NodeId root)
      : context_(context), system_(system), root_(root) {}
  Result<void> run();

 private:
  struct Found {
    NodeId tree = kNoNode;
    const LinkedTree::Name* name = nullptr;
  };
  std::vector<Found> find(NodeId top, LinkScope scope) const;
  Result<void> mend_global();
  void mark(NodeId tree, LinkedTree& links);
  Result<void> mend(NodeId top, LinkScope scope, NodeId files);
  void drop(const Found& found);
  void name(NodeId top, LinkScope scope, NodeId files, uint64_t group);
  Result<void> leave_uncounted(NodeId top);

  MendContext& context_;
  const NodeId system_, root_;
};

}  // namespace caw
