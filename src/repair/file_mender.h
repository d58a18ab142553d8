// FileMender: puts the file systems on a structurally sound volume right: every name gets its
// record and every record its name, directories whose records are lost are made again, data that
// are missing are marked as lost.
//
// What still has its directory stays there, under the name it knows; what does not know its name,
// or whose name is taken, is called "#ENTRY", and listed in strays().  A record that is made anew
// belongs to root and is closed to others.  All changes are gathered and then laid over the trees
// (tree_fixes.h).
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "check/tree_reader.h"
#include "repair/draft.h"
#include "repair/link_mender.h"
#include "repair/node_mender.h"
#include "repair/notes.h"
#include "repair/tree_fixes.h"
#include "schema/keys.h"
#include "schema/records.h"

namespace caw {

/// A tree as the record that owns it describes it.
struct TreeUse {
  NodeId root = kNoNode;
  TreeKind kind = TreeKind::directory;
  uint64_t size = 0;       ///< of a file that owns its data
  bool is_sparse = false;  ///< likewise
  bool is_orphan = false;
  bool is_top = false;     ///< of the root, or of a clone
  bool is_links = false;   ///< of a links directory
  NodeId owner = kNoNode;  ///< tree of that record
  std::string key;         ///< of that record
};

/// A record without the name it should have; it got "#ENTRY" in its directory.
struct Stray {
  std::vector<std::string> directory;  ///< names from "/" on
  std::string name;
};

/// The directory that finds go to.
struct FindsPlace {
  NodeId tree = kNoNode;
  std::string path;
};

/// What all trees share while they are put right.
struct MendContext {
  Draft& draft;
  const LostNodes& lost;
  RepairNotes& notes;
  TreeFixes& fixes;
  Timestamp now;
  std::map<NodeId, TreeUse> uses{};  ///< trees seen, or to be looked at
  std::vector<NodeId> pending{};     ///< of them
  std::vector<std::pair<NodeId, NodeId>> edges{};  ///< (tree of a record, tree that it owns)
  std::vector<Stray> strays{};
  std::map<NodeId, LinkedTree> linked{};
  std::set<std::pair<NodeId, NodeId>> told{};  ///< (tree, lost node)
  std::set<uint64_t> chunk_numbers{};          ///< in the map of the system tree
  bool is_full = false;  ///< so much was found that it is better applied first

  /// As it is with the fixes; nothing if there is none.
  Result<std::optional<Value>> value_at(NodeId tree, const std::string& key);
  Result<std::optional<InodeRecord>> record_at(NodeId tree, const std::string& key);
  /// Of a directory in a tree: the names that lead to it.
  std::vector<std::string> names_of(NodeId tree, const std::vector<uint64_t>& path);
  /// The same as one can show it.
  std::string path_of(NodeId tree, const std::vector<uint64_t>& path);
  /// The entries are used.
  void note_used(const InodeRecord& record);
  InodeRecord new_record(uint32_t mode, std::string name);
};

/// `path` of keys for these components.
std::string key_path(const std::vector<uint64_t>& path);
class FileMender {
 public:
  /// All outlive it.
  FileMender(Draft& draft, const LostNodes& lost, RepairNotes& notes, Timestamp now)
      : context_{draft, lost, notes, fixes_, now} {}

  /// Looks at all trees and writes what puts them right.  To be called again until nothing changes.
  /// Fails: no_space, device_write, ...
  Result<void> run();
  /// Gives nodes that nothing leads to names in lost+found, each as a tree.  Returns those for
  /// which that cannot be: they hold nothing, or lead back to "/".  Requires: run() before.
  Result<std::vector<NodeId>> attach(const std::vector<NodeId>& orphans);
  const std::vector<Stray>& strays() const { return context_.strays; }

 private:
  Result<void> break_cycles();
  Result<void> break_cycle(NodeId owner, NodeId tree);
  Result<void> mend_root();
  NodeId root_tree() const;
  Result<FindsPlace> find_finds_place();
  Result<bool> reaches(NodeId from, NodeId to, std::set<NodeId>& known_not_to);
  Result<NodeId> wrapped(NodeId orphan);
  struct Kind {
    bool is_empty = true;
    bool is_system = false;
    bool is_file = true;
    uint64_t file_bytes = 0;
  };
  Result<Kind> look_at(NodeId root);
  Result<void> put_find(const FindsPlace& place, NodeId orphan, NodeId root, const Kind& kind);

  TreeFixes fixes_;
  MendContext context_;
};

}  // namespace caw
