#include "check/files.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "check/describe.h"
#include "check/link_counts.h"
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
  bool is_sparse = false;
  bool is_orphan = false;
  bool is_top = false;    ///< of the root, or of a clone
  bool is_links = false;  ///< of a links directory
};

/// Bytes of the value that were written, as far as one can tell.
uint64_t covered_bytes(const Value& value) {
  uint64_t covered = value.blob_length;
  for (const Piece& piece : value.pieces) {
    covered += piece.end() - std::min(piece.end(), std::max(piece.offset, value.blob_length));
  }
  return covered;
}

uint64_t mark_of(uint64_t a, uint64_t b) {
  std::string bytes;
  put_ordered(bytes, a);
  put_ordered(bytes, b);
  return checksum64(bytes);
}

/// Checks the keys of one tree, which come in order: for each directory its names, its records, and
/// then (depth first) its subdirectories; after all of them the data.
class TreeCheck {
 public:
  TreeCheck(BlockDevice& device, Findings& findings, FileFigures& figures, const PendingTree& tree,
            std::vector<PendingTree>& found, LinkCounts& counts)
      : device_(device),
        findings_(findings),
        figures_(figures),
        tree_(tree),
        found_(found),
        counts_(counts),
        links_(tree.kind == TreeKind::file ? no_links_ : counts.of_tree(tree.root)) {
    links_.is_top = tree.is_top;
  }

  Result<void> take(std::string_view key, const Value& value);
  void finish();
  /// Of the system tree: it holds something, "/" above all.
  bool is_empty() const { return is_empty_; }
  bool has_root() const { return has_root_; }

 private:
  /// One directory on the path to where we are.
  struct Level {
    uint64_t entry = 0;
    std::vector<uint64_t>
        subdirectories;  ///< entries, ascending: those without a tree of their own
    uint64_t domain = 0;  ///< mark of its domain: 0 as the tree's top
    std::map<uint64_t, uint64_t> domains;  ///< of subdirectories that differ: entry, mark
    std::vector<uint64_t> with_xattrs;     ///< entries, ascending: those that may have some
  };
  struct FileSize {
    uint64_t place = 0;  ///< hash of path and entry
    uint64_t size = 0;
    uint64_t covered = 0;  ///< bytes found
    uint64_t entry = 0;    ///< 0: holes are allowed
  };
  struct NumberUse {
    uint64_t mark = 0;  ///< hash of number and domain
    uint64_t number = 0;
    friend auto operator<=>(const NumberUse&, const NumberUse&) = default;
  };

  void wrong(std::string_view key, std::string_view what);
  void go_to(std::string_view key, const std::vector<uint64_t>& path);
  void leave_names();
  Result<void> take_dirent(std::string_view key, const ParsedKey& parsed, const Value& value);
  Result<void> take_record(std::string_view key, const ParsedKey& parsed, const Value& value);
  void take_xattr(std::string_view key, const ParsedKey& parsed, const Value& value);
  void take_name(std::string_view key, const ParsedKey& parsed, const InodeRecord& record);
  void take_link_name(std::string_view key, const ParsedKey& parsed, std::string_view bytes);
  void take_reserved(std::string_view key, const ParsedKey& parsed, const InodeRecord& record,
                     NodeId root);
  Result<void> take_link(std::string_view key, const ParsedKey& parsed, const Value& value);
  void take_tree(std::string_view key, const ParsedKey& parsed, const InodeRecord& record,
                 NodeId root);
  void take_chunk(std::string_view key, const ParsedKey& parsed, const Value& value);
  void check_extent(std::string_view key, uint64_t chunk, const Value& value, uint64_t size);
  void take_number(const ParsedKey& parsed, const InodeRecord& record);
  void take_map(std::string_view key, KeyKind kind, uint64_t number);
  void check_numbers();
  void check_complete(uint64_t entry, uint64_t covered, uint64_t size);
  bool is_system_top() const { return tree_.kind == TreeKind::system && levels_.size() == 1; }
  /// Where records stand that names elsewhere lead to.
  bool among_linked() const {
    return tree_.is_links && levels_.size() == 1;
  }
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
  LinkCounts& counts_;
  TreeLinks no_links_;
  TreeLinks& links_;
  std::map<uint64_t, LinkEntry> linked_;  ///< by hash of path and entry: not in the index so far
  std::map<uint64_t, size_t> owned_;      ///< likewise, directories: into links_.owned
  std::vector<Level> levels_{Level{}};
  std::map<std::string, Dirent> names_;  ///< of the directory at hand, without a record so far
  std::vector<FileSize> sizes_;
  std::vector<NumberUse> numbers_;
  std::set<uint64_t> chunk_numbers_;
  uint64_t covered_ = 0;  ///< of a file that owns its data
  bool in_data_ = false;
  bool has_root_ = false;
  bool is_empty_ = true;
};

void TreeCheck::wrong(std::string_view key, std::string_view what) {
  findings_.add(Code::check_files, raw(tree_.root),
                fmt::format("tree {}, {}: {}", raw(tree_.root), key_text(key), what));
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
    const auto own = levels_.back().domains.find(path[common]);
    const uint64_t domain =
        own != levels_.back().domains.end() ? own->second : levels_.back().domain;
    levels_.push_back(Level{path[common], {}, domain, {}, {}});
  }
}

Result<void> TreeCheck::take(std::string_view key, const Value& value) {
  is_empty_ = false;
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
      take_xattr(key, *parsed, value);
      return {};
    case KeyKind::chunk:
      take_chunk(key, *parsed, value);
      return {};
    case KeyKind::link:
      return take_link(key, *parsed, value);
    case KeyKind::owned_chunk:
      check_extent(key, parsed->chunk, value, tree_.size);
      covered_ += covered_bytes(value);
      return {};
    case KeyKind::domain_map:
    case KeyKind::chunk_map:
      if (const Result<uint64_t> number = decode_number(CAW_TRY(value_bytes(device_, value)))) {
        take_map(key, parsed->kind, *number);
      } else {
        wrong(key, "damaged number");
      }
      return {};
  }
  return {};
}

void TreeCheck::take_map(std::string_view key, KeyKind kind, uint64_t number) {
  if (kind == KeyKind::chunk_map && !chunk_numbers_.insert(number).second) {
    wrong(key, fmt::format("inode numbers {} were given out twice", number));
  }
}

Result<void> TreeCheck::take_dirent(std::string_view key, const ParsedKey& parsed,
                                    const Value& value) {
  const Result<Dirent> dirent = decode_dirent(CAW_TRY(value_bytes(device_, value)));
  if (!dirent || value.tree != kNoNode) {
    wrong(key, "damaged name");
  } else {
    names_.emplace(parsed.name, *dirent);
  }
  return {};
}

Result<void> TreeCheck::take_record(std::string_view key, const ParsedKey& parsed,
                                    const Value& value) {
  const std::string bytes = CAW_TRY(value_bytes(device_, value));
  if (is_link_name(bytes) && value.tree == kNoNode) {
    return take_link_name(key, parsed, bytes), Result<void>{};
  }
  const Result<InodeRecord> record = decode_inode(bytes);
  if (!record) return wrong(key, "damaged record"), Result<void>{};
  const InodeFields& fields = record->fields;
  if (parsed.entry == kLinksEntry) {
    return take_reserved(key, parsed, *record, value.tree), Result<void>{};
  }
  if (is_system_top()) {
    has_root_ = parsed.entry == kRootEntry && fields.is_directory() && value.tree != kNoNode &&
                record->domain == 0;
    if (!has_root_) wrong(key, "not the record of a root directory");
  }
  take_name(key, parsed, *record);
  take_number(parsed, *record);
  if ((fields.flags & kInodeXattrs) != 0) levels_.back().with_xattrs.push_back(parsed.entry);
  if (among_linked()) {
    counts_.add_file(tree_.root, parsed.entry, fields.nlink);
  } else if (fields.nlink != 1) {
    wrong(key, fmt::format("link count {} instead of 1", fields.nlink));
  }
  if (fields.is_directory()) {
    ++figures_.directories;
  } else if (fields.is_regular()) {
    ++figures_.files;
    figures_.file_bytes += fields.size;
  } else {
    ++(fields.is_symlink() ? figures_.symlinks : figures_.others);
  }
  if (value.tree != kNoNode) {
    take_tree(key, parsed, *record, value.tree);
  } else if (fields.is_directory()) {
    levels_.back().subdirectories.push_back(parsed.entry);
    if ((fields.flags & kInodeClone) != 0) wrong(key, "a clone without a tree of its own");
  } else if (fields.is_regular()) {
    const bool is_sparse = (fields.flags & kInodeSparse) != 0;
    sizes_.push_back({place_of(parsed.path, parsed.entry), fields.size, 0,
                      is_sparse ? 0 : parsed.entry});
  }
  return {};
}

/// The record, which comes before, says that there may be some.
void TreeCheck::take_xattr(std::string_view key, const ParsedKey& parsed, const Value& value) {
  if (!std::ranges::binary_search(levels_.back().with_xattrs, parsed.entry)) {
    return wrong(key, "extended attribute of no file, or of one that is said to have none");
  }
  if (value.tree != kNoNode) return wrong(key, "an extended attribute that owns a tree");
  if (value.length > kMaxXattrBytes) wrong(key, "an extended attribute that is too long");
  if (!value.blob) return;
  // Damage of blobs is told elsewhere; what a repair has given up may go.
  const Result<std::string> bytes = value_bytes(device_, value);
  const bool is_lost = !bytes && bytes.error().code == Code::decompress;
  if (is_lost) wrong(key, "an extended attribute whose value is lost");
}

/// A record's domain is relative to that of its directory; a directory hands its own down.
void TreeCheck::take_number(const ParsedKey& parsed, const InodeRecord& record) {
  Level& level = levels_.back();
  uint64_t domain = level.domain;
  if (record.domain != 0) domain = mark_of(domain, mark_of(record.home, record.domain));
  numbers_.push_back({mark_of(domain, record.number), record.number});
  if (record.domain != 0 && record.fields.is_directory()) level.domains[parsed.entry] = domain;
}

void TreeCheck::check_numbers() {
  std::ranges::sort(numbers_);
  for (size_t i = 1; i < numbers_.size(); ++i) {
    if (numbers_[i] == numbers_[i - 1]) {
      findings_.add(Code::check_files, raw(tree_.root),
                    fmt::format("tree {}: two files have the number {}", raw(tree_.root),
                                numbers_[i].number));
    }
  }
}

/// One of several names of a file: the dirent says the same, and so will the index.
void TreeCheck::take_link_name(std::string_view key, const ParsedKey& parsed,
                               std::string_view bytes) {
  const Result<LinkName> name = decode_link_name(bytes);
  if (!name || is_system_top() || among_orphans() || among_linked()) {
    return wrong(key, "damaged link name");
  }
  const auto found = names_.find(name->name);
  const Dirent expected{parsed.entry, name->type, name->scope, name->group};
  if (found == names_.end() || !(found->second == expected)) {
    return wrong(key, fmt::format("link name \"{}\", which no name agrees with",
                                  quoted(name->name)));
  }
  names_.erase(found);
  linked_[place_of(parsed.path, parsed.entry)] = {name->scope, name->group};
}

/// The links directory of a root or clone, or of the volume.
void TreeCheck::take_reserved(std::string_view key, const ParsedKey& parsed,
                              const InodeRecord& record, NodeId root) {
  const bool is_here = parsed.path.empty() && (tree_.is_top || is_system_top());
  if (!is_here || !record.fields.is_directory() || root == kNoNode) {
    return wrong(key, "not the record of a links directory");
  }
  links_.links = root;
  links_.is_uncounted = (record.fields.flags & kInodeUncounted) != 0;
  PendingTree tree{root};
  tree.is_links = true;
  found_.push_back(tree);
}

Result<void> TreeCheck::take_link(std::string_view key, const ParsedKey& parsed,
                                  const Value& value) {
  const Result<LinkEntry> link = decode_link_entry(CAW_TRY(value_bytes(device_, value)));
  if (!link || value.tree != kNoNode) return wrong(key, "damaged links index"), Result<void>{};
  const uint64_t place = place_of(parsed.path, parsed.entry);
  if (link->is_mark()) {
    const auto owned = owned_.find(place);
    if (owned == owned_.end()) return wrong(key, "marks no tree"), Result<void>{};
    links_.owned[owned->second].is_marked = true;
    return {};
  }
  const auto linked = linked_.find(place);
  if (linked == linked_.end() || !(linked->second == *link)) {
    return wrong(key, "stands for no linked name"), Result<void>{};
  }
  linked_.erase(linked);
  links_.names.push_back(*link);
  return {};
}

/// Every record but those of "/", of orphans and of linked files has one name, which says the same.
void TreeCheck::take_name(std::string_view key, const ParsedKey& parsed,
                          const InodeRecord& record) {
  if (among_linked()) {
    if (record.fields.is_directory()) wrong(key, "a directory among linked files");
    return;
  }
  if (is_system_top() || among_orphans()) {
    if (among_orphans()) ++figures_.orphans;
    return;
  }
  const auto found = names_.find(record.name);
  if (found == names_.end() || found->second.entry != parsed.entry ||
      found->second.is_linked()) {
    return wrong(key, fmt::format("record of \"{}\", which no name leads to", quoted(record.name)));
  }
  if (found->second.type != (record.fields.mode & S_IFMT)) {
    wrong(key, fmt::format("\"{}\" is of another type than its name says", quoted(record.name)));
  }
  names_.erase(found);
}

void TreeCheck::take_tree(std::string_view key, const ParsedKey& parsed,
                          const InodeRecord& record, NodeId root) {
  if (record.fields.is_directory()) {
    PendingTree tree{root, TreeKind::directory, 0, false, among_orphans()};
    tree.is_top = is_system_top() || (record.fields.flags & kInodeClone) != 0;
    owned_[place_of(parsed.path, parsed.entry)] = links_.owned.size();
    links_.owned.push_back({parsed.entry, root, tree.is_top});
    found_.push_back(tree);
  } else if (record.fields.is_regular()) {
    const bool is_sparse = (record.fields.flags & kInodeSparse) != 0;
    found_.push_back({root, TreeKind::file, record.fields.size, is_sparse, among_orphans()});
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
  found->covered += covered_bytes(value);
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

/// A file without holes has all its bytes.
void TreeCheck::check_complete(uint64_t entry, uint64_t covered, uint64_t size) {
  if (covered >= size) return;
  findings_.add(Code::check_files, raw(tree_.root),
                fmt::format("tree {}, file of entry {}: {} of its {} bytes are missing",
                            raw(tree_.root), entry, size - covered, size));
}

void TreeCheck::finish() {
  leave_names();
  for (const auto& [place, link] : linked_) {
    findings_.add(Code::check_files, raw(tree_.root),
                  fmt::format("tree {}: a name of linked file {} is not in the links index",
                              raw(tree_.root), link.group));
  }
  check_numbers();
  for (const FileSize& file : sizes_) {
    if (file.entry != 0) check_complete(file.entry, file.covered, file.size);
  }
  if (tree_.kind == TreeKind::file && !tree_.is_sparse) check_complete(0, covered_, tree_.size);
}

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
  LinkCounts counts;
  NodeId root = kNoNode;
  bool all_read = true;
  std::vector<PendingTree> pending;
  if (superblock.system_tree != kNoNode) {
    pending.push_back({superblock.system_tree, TreeKind::system});
  }
  while (!pending.empty()) {
    const PendingTree tree = pending.back();
    pending.pop_back();
    if (!seen.insert(tree.root).second) continue;
    ++figures.trees;
    const size_t known = pending.size();
    TreeCheck check(device, findings, figures, tree, pending, counts);
    const Result<void> read = reader.scan(tree.root, [&](std::string_view key, const Value& value) {
      return check.take(key, value);
    });
    // A new volume has "/" in its log at first.
    const bool is_new = check.is_empty() && table.nodes.size() == 1;
    if (read && tree.kind == TreeKind::system && !check.has_root() && !is_new) {
      findings.add(Code::check_files, raw(tree.root), "there is no root directory");
    }
    if (read) {
      check.finish();
    } else {
      all_read = false;
      findings.add(read.error(), raw(tree.root), fmt::format("reading tree {}", raw(tree.root)));
    }
    for (size_t i = known; i < pending.size(); ++i) {
      edges[tree.root].push_back(pending[i].root);
      const bool of_system = tree.kind == TreeKind::system;
      if (of_system && pending[i].is_top && !pending[i].is_orphan) root = pending[i].root;
    }
  }
  if (all_read) counts.compare(superblock.system_tree, root, findings);
  check_nesting(edges, superblock.system_tree, findings);
  return figures;
}

}  // namespace caw
