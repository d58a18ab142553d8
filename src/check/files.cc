#include "check/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "check/describe.h"
#include "check/tree_reader.h"
#include "format/compression.h"
#include "schema/keys.h"
#include "schema/records.h"

namespace caw {
namespace {

struct PendingTree {
  NodeId root = kNoNode;
  TreeKind kind = TreeKind::directory;
  uint64_t size = 0;  ///< of a file that owns its data
  bool is_orphan = false;
};

/// Checks the keys of one tree, which come in order: for each directory its names, its records, and
/// then (depth first) its subdirectories; after all of them the data.
class TreeCheck {
 public:
  TreeCheck(BlockDevice& device, Findings& findings, FileFigures& figures, const PendingTree& tree,
            std::vector<PendingTree>& found)
      : device_(device), findings_(findings), figures_(figures), tree_(tree), found_(found) {}

  Result<void> take(std::string_view key, const Value& value);
  void finish();

 private:
  /// One directory on the path to where we are.
  struct Level {
    uint64_t entry = 0;
    std::vector<uint64_t>
        subdirectories;  ///< entries, ascending: those without a tree of their own
  };
  struct FileSize {
    uint64_t place = 0;  ///< hash of path and entry
    uint64_t size = 0;
  };

  void wrong(std::string_view key, std::string_view what);
  Result<std::string> bytes_of(const Value& value) const;
  void go_to(std::string_view key, const std::vector<uint64_t>& path);
  void leave_names();
  Result<void> take_dirent(std::string_view key, const ParsedKey& parsed, const Value& value);
  Result<void> take_record(std::string_view key, const ParsedKey& parsed, const Value& value);
  void take_name(std::string_view key, const ParsedKey& parsed, const InodeRecord& record);
  void take_tree(std::string_view key, const InodeRecord& record, NodeId root);
  void take_chunk(std::string_view key, const ParsedKey& parsed, const Value& value);
  void check_extent(std::string_view key, uint64_t chunk, const Value& value, uint64_t size);
  bool is_system_top() const { return tree_.kind == TreeKind::system && levels_.size() == 1; }
  bool among_orphans() const {
    return tree_.kind == TreeKind::system && levels_.size() == 2 &&
           levels_[1].entry == kOrphansEntry;
  }
  static uint64_t place_of(const std::vector<uint64_t>& path, uint64_t entry);

  BlockDevice& device_;
  Findings& findings_;
  FileFigures& figures_;
  const PendingTree& tree_;
  std::vector<PendingTree>& found_;
  std::vector<Level> levels_{Level{}};
  std::map<std::string, Dirent> names_;  ///< of the directory at hand, without a record so far
  std::vector<FileSize> sizes_;
  bool in_data_ = false;
};

void TreeCheck::wrong(std::string_view key, std::string_view what) {
  findings_.add(Code::check_files, raw(tree_.root),
                fmt::format("tree {}, {}: {}", raw(tree_.root), key_text(key), what));
}

Result<std::string> TreeCheck::bytes_of(const Value& value) const {
  Value whole = value;
  if (whole.blob) {
    const std::string blob = CAW_TRY(read_blob(device_, whole.blob));
    Value base = inline_value(std::string_view(blob).substr(0, whole.blob_length));
    Patch rest;
    rest.extend = whole.length;
    rest.pieces = whole.pieces;
    apply_patch(base, rest);
    whole = std::move(base);
  }
  return inline_bytes(whole);
}

uint64_t TreeCheck::place_of(const std::vector<uint64_t>& path, uint64_t entry) {
  std::string bytes;
  for (const uint64_t component : path) put_ordered(bytes, component);
  put_ordered(bytes, entry);
  return checksum64(bytes);
}

void TreeCheck::leave_names() {
  for (const auto& [name, dirent] : names_) {
    wrong(dirent_key("", name), fmt::format("names entry {}, which has no record", dirent.entry));
  }
  names_.clear();
}

/// Keys come in order, so each directory is entered once, after the records of the one it is in.
void TreeCheck::go_to(std::string_view key, const std::vector<uint64_t>& path) {
  size_t common = 0;
  while (common < path.size() && common + 1 < levels_.size() &&
         levels_[common + 1].entry == path[common]) {
    ++common;
  }
  if (common + 1 == levels_.size() && common == path.size()) return;
  leave_names();
  levels_.resize(common + 1);
  for (; common < path.size(); ++common) {
    const std::vector<uint64_t>& known = levels_.back().subdirectories;
    const bool orphans = is_system_top() && path[common] == kOrphansEntry;
    if (!orphans && !std::ranges::binary_search(known, path[common])) {
      wrong(key, fmt::format("below entry {}, which is no directory here", path[common]));
    }
    levels_.push_back(Level{path[common], {}});
  }
}

Result<void> TreeCheck::take(std::string_view key, const Value& value) {
  const Result<ParsedKey> parsed = parse_key(key, tree_.kind);
  if (!parsed) return wrong(key, "not a key"), Result<void>{};
  switch (parsed->kind) {
    case KeyKind::dirent:
      go_to(key, parsed->path);
      return take_dirent(key, *parsed, value);
    case KeyKind::record:
      go_to(key, parsed->path);
      return take_record(key, *parsed, value);
    case KeyKind::xattr:
      go_to(key, parsed->path);
      return {};
    case KeyKind::chunk:
      take_chunk(key, *parsed, value);
      return {};
    case KeyKind::owned_chunk:
      check_extent(key, parsed->chunk, value, tree_.size);
      return {};
    case KeyKind::domain_map:
    case KeyKind::chunk_map:
      if (!decode_number(CAW_TRY(bytes_of(value)))) wrong(key, "damaged number");
      return {};
  }
  return {};
}

Result<void> TreeCheck::take_dirent(std::string_view key, const ParsedKey& parsed,
                                    const Value& value) {
  const Result<Dirent> dirent = decode_dirent(CAW_TRY(bytes_of(value)));
  if (!dirent || value.tree != kNoNode) {
    wrong(key, "damaged name");
  } else {
    names_.emplace(parsed.name, *dirent);
  }
  return {};
}

Result<void> TreeCheck::take_record(std::string_view key, const ParsedKey& parsed,
                                    const Value& value) {
  const Result<InodeRecord> record = decode_inode(CAW_TRY(bytes_of(value)));
  if (!record) return wrong(key, "damaged record"), Result<void>{};
  const InodeFields& fields = record->fields;
  take_name(key, parsed, *record);
  if (fields.is_directory()) {
    ++figures_.directories;
  } else if (fields.is_regular()) {
    ++figures_.files;
    figures_.file_bytes += fields.size;
  } else {
    ++(fields.is_symlink() ? figures_.symlinks : figures_.others);
  }
  if (value.tree != kNoNode) {
    take_tree(key, *record, value.tree);
  } else if (fields.is_directory()) {
    levels_.back().subdirectories.push_back(parsed.entry);
  } else if (fields.is_regular()) {
    sizes_.push_back({place_of(parsed.path, parsed.entry), fields.size});
  }
  return {};
}

/// Every record but those of "/" and of orphans has one name, which says the same.
void TreeCheck::take_name(std::string_view key, const ParsedKey& parsed,
                          const InodeRecord& record) {
  if (is_system_top() || among_orphans()) {
    if (among_orphans()) ++figures_.orphans;
    return;
  }
  const auto found = names_.find(record.name);
  if (found == names_.end() || found->second.entry != parsed.entry) {
    return wrong(key, fmt::format("record of \"{}\", which no name leads to", quoted(record.name)));
  }
  if (found->second.type != (record.fields.mode & S_IFMT)) {
    wrong(key, fmt::format("\"{}\" is of another type than its name says", quoted(record.name)));
  }
  names_.erase(found);
}

void TreeCheck::take_tree(std::string_view key, const InodeRecord& record, NodeId root) {
  if (record.fields.is_directory()) {
    found_.push_back({root, TreeKind::directory, 0, among_orphans()});
  } else if (record.fields.is_regular()) {
    found_.push_back({root, TreeKind::file, record.fields.size, among_orphans()});
  } else {
    wrong(key, "owns a tree, but is neither directory nor file");
  }
}

void TreeCheck::take_chunk(std::string_view key, const ParsedKey& parsed, const Value& value) {
  if (!in_data_) {
    in_data_ = true;
    std::ranges::sort(sizes_, {}, &FileSize::place);
  }
  const uint64_t place = place_of(parsed.path, parsed.entry);
  const auto found = std::ranges::lower_bound(sizes_, place, {}, &FileSize::place);
  if (found == sizes_.end() || found->place != place) return wrong(key, "data of no file");
  check_extent(key, parsed.chunk, value, found->size);
}

void TreeCheck::check_extent(std::string_view key, uint64_t chunk, const Value& value,
                             uint64_t size) {
  if (value.tree != kNoNode) return wrong(key, "data that own a tree");
  if (value.length == 0) return;
  if (value.length > kChunkBytes) return wrong(key, "longer than a chunk");
  const uint64_t start = chunk << kChunkShift;
  if (chunk > kMaxFileBytes >> kChunkShift || start + value.length > size) {
    wrong(key, fmt::format("data through {}, the file ends at {}", start + value.length, size));
  }
}

void TreeCheck::finish() { leave_names(); }

/// Trees that visible records own, by the tree that the record is in.
using TreeEdges = std::map<NodeId, std::vector<NodeId>>;

/// Reports each tree that is found within itself.
void check_nesting(const TreeEdges& edges, NodeId root, Findings& findings) {
  struct Step {
    NodeId tree;
    bool leave = false;
  };
  std::map<NodeId, bool> open;  // false: left again
  std::vector<Step> steps{{root}};
  while (!steps.empty()) {
    const Step step = steps.back();
    steps.pop_back();
    if (step.leave) {
      open[step.tree] = false;
      continue;
    }
    if (!open.emplace(step.tree, true).second) continue;
    steps.push_back({step.tree, true});
    const auto below = edges.find(step.tree);
    if (below == edges.end()) continue;
    for (const NodeId tree : below->second) {
      const auto state = open.find(tree);
      if (state == open.end()) {
        steps.push_back({tree});
      } else if (state->second) {
        findings.add(
            Code::check_cycle, raw(tree),
            fmt::format("tree {} contains itself, through tree {}", raw(tree), raw(step.tree)));
      }
    }
  }
}

}  // namespace

FileFigures check_files(BlockDevice& device, const Superblock& superblock, const NodeTable& table,
                        Findings& findings) {
  FileFigures figures;
  TreeReader reader(device, table);
  std::set<NodeId> seen;
  TreeEdges edges;
  std::vector<PendingTree> pending;
  if (superblock.system_tree != kNoNode) {
    pending.push_back({superblock.system_tree, TreeKind::system, 0, false});
  }
  while (!pending.empty()) {
    const PendingTree tree = pending.back();
    pending.pop_back();
    if (!seen.insert(tree.root).second) continue;
    ++figures.trees;
    const size_t known = pending.size();
    TreeCheck check(device, findings, figures, tree, pending);
    const Result<void> read = reader.scan(tree.root, [&](std::string_view key, const Value& value) {
      return check.take(key, value);
    });
    if (read) {
      check.finish();
    } else {
      findings.add(read.error(), raw(tree.root), fmt::format("reading tree {}", raw(tree.root)));
    }
    for (size_t i = known; i < pending.size(); ++i) edges[tree.root].push_back(pending[i].root);
  }
  check_nesting(edges, superblock.system_tree, findings);
  return figures;
}

}  // namespace caw
