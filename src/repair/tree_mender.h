// TreeMender: one tree of a FileMender, whose records it gets in key order: for each directory its
// names, its records and then (depth first) its subdirectories; after all of them the data.
#pragma once

#include <absl/container/flat_hash_set.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "repair/file_mender.h"

namespace caw {

class TreeMender {
 public:
  TreeMender(MendContext& context, const TreeUse& use);

  Result<void> run();

 private:
  /// One directory on the path to where we are.
  struct Level {
    uint64_t entry = 0;
    std::string path;
    std::vector<uint64_t> components;
    std::vector<uint64_t> records;         ///< entries, ascending
    std::vector<uint64_t> subdirectories;  ///< of them: without a tree of their own
    std::vector<uint64_t> with_xattrs;     ///< of them: those that may have some
    std::map<uint64_t, uint64_t> domains;  ///< of subdirectories with one of their own: its mark
    uint64_t domain = 0;                   ///< mark of its own, or of what it is in
    bool is_stray = false;                 ///< below what is no directory: nothing here can stay
  };
  struct Name {
    Dirent dirent;
    bool is_matched = false;
  };
  struct Missing {
    std::string name;
    std::vector<uint64_t> directory;
    uint64_t entry = 0;
  };
  struct FileState {
    uint64_t place = 0;  ///< hash of path and entry
    uint64_t size = 0;
    bool is_sparse = false;
    bool is_seen = false;
  };
  /// The file whose data we are in.
  struct Current {
    std::string prefix;              ///< of its chunks' keys
    NodeId owner = kNoNode;          ///< tree and key of its record
    std::string key;
    FileState* known = nullptr;      ///< null: of another tree, or made now
    std::optional<InodeRecord> made;
    uint64_t size = 0, end = 0;      ///< as recorded, as found
    uint64_t next_chunk = 0;
    bool is_sparse = false;
    bool became_sparse = false;
  };

  // tree_mender.cc
  Result<void> take(std::string_view key, const Value& value);
  void tell_lost(NodeId node, std::string_view lo, std::string_view hi);
  Result<void> go_to(const std::vector<uint64_t>& path);
  Result<void> enter(uint64_t entry);
  Result<void> adopt_directory(const Level& parent, uint64_t entry);
  Result<void> leave_names();
  void name_record(const InodeRecord& record, uint64_t entry);
  void settle_name(const std::string& name, const Name& what);
  Result<void> take_dirent(std::string_view key, const ParsedKey& parsed, const Value& value);
  Result<void> take_record(std::string_view key, const ParsedKey& parsed, const Value& value);
  Result<void> take_xattr(std::string_view key, const ParsedKey& parsed, const Value& value);
  bool mend_record(InodeRecord* record, Value* value, uint64_t entry);
  uint64_t domain_of(const InodeRecord& record) const;
  bool mend_number(InodeRecord* record, uint64_t entry);
  void take_kind(std::string_view key, const ParsedKey& parsed, const InodeRecord& record,
                 NodeId tree);
  Result<void> take_map(std::string_view key, const ParsedKey& parsed, const Value& value);
  Result<void> finish();

  // tree_mender_data.cc
  Result<void> take_data(std::string_view key, const ParsedKey& parsed, const Value& value);
  Result<bool> start_file(const ParsedKey& parsed, std::string prefix);
  Result<bool> adopt_file(const ParsedKey& parsed, Current* file);
  Result<void> ensure_directories(const std::vector<uint64_t>& path);
  Result<void> take_chunk(std::string_view key, uint64_t chunk, const Value& value);
  Result<void> fill_gap(std::string_view key, uint64_t chunk, const Value& value);
  Result<void> lose_chunks(uint64_t first, uint64_t end);
  Result<void> end_file();
  Result<void> find_unseen();
  void tell_range(uint64_t from, uint64_t to, std::string_view what);

  // tree_mender_links.cc
  LinkedTree& links() { return context_.linked[use_.root]; }
  void put_link_name(const std::string& path, const LinkName& name, uint64_t entry);
  void note_link_name(const std::string& path, const LinkName& name, uint64_t entry);
  void take_link_name(std::string_view key, const ParsedKey& parsed, std::string_view bytes);
  void put_lost_link_name(const std::string& name, const Dirent& dirent);
  void take_reserved(std::string_view key, const ParsedKey& parsed, const InodeRecord& record,
                     NodeId tree);
  Result<void> take_link(std::string_view key, const ParsedKey& parsed, const Value& value);
  void mend_index();


  bool is_system_top() const {
    return use_.kind == TreeKind::system && levels_.size() == 1;
  }
  /// Where records stand that names elsewhere lead to.
  bool among_linked() const {
    return use_.is_links && levels_.size() == 1;
  }
  bool among_orphans() const {
    return use_.kind == TreeKind::system && levels_.size() == 2 &&
           levels_[1].entry == kOrphansEntry;
  }
  std::string here();
  void erase(std::string_view key, std::string_view why);
  void put(const std::string& key, const InodeRecord& record, NodeId tree = kNoNode);
  void put_name(const std::string& path, const std::string& name, uint64_t entry, uint32_t mode);
  void note_stray(const Level& level, uint64_t entry);

  MendContext& context_;
  const TreeUse use_;
  std::vector<Level> levels_;
  std::map<std::string, Name> names_;  ///< of the directory at hand
  std::vector<std::pair<uint64_t, InodeRecord>> unnamed_;  ///< in it: whose names do not lead there
  /// Names whose records are lost, by the path or chunk prefix of what they named.
  std::map<std::string, Missing> missing_;
  std::map<std::string, LinkEntry> unindexed_;  ///< linked names by key in the index, not met there
  absl::flat_hash_set<uint64_t> numbers_;
  std::vector<FileState> files_;
  std::optional<Current> current_;
  bool in_data_ = false;
  bool has_root_ = false;
};

}  // namespace caw
