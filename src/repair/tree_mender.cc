#include "repair/tree_mender.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "check/describe.h"
#include "format/compression.h"

namespace caw {
namespace {

constexpr uint64_t kManyFixes = 200'000;

uint64_t mark_of(uint64_t a, uint64_t b, uint64_t c) {
  std::string bytes;
  put_fixed(bytes, a);
  put_fixed(bytes, b);
  put_fixed(bytes, c);
  return checksum64(bytes);
}

std::string entry_name(uint64_t entry) { return fmt::format("#{}", entry); }

}  // namespace

TreeMender::TreeMender(MendContext& context, const TreeUse& use) : context_(context), use_(use) {
  levels_.emplace_back();
  if (!use.is_top) return;
  links().is_top = true;
  links().is_orphan = use.is_orphan;
}

Result<void> TreeMender::run() {
  TreeReader reader(context_.draft.device(), context_.draft.table());
  if (context_.lost.any()) {
    reader.on_enter([this](NodeId node, std::string_view lo, std::string_view hi) {
      tell_lost(node, lo, hi);
    });
  }
  CAW_TRY(reader.scan(use_.root, [this](std::string_view key, const Value& value) -> Result<void> {
    if (context_.fixes.count() > kManyFixes) context_.is_full = true;
    if (context_.is_full) return fail(Code::interrupted);
    return take(key, value);
  }));
  return finish();
}

/// Says where in the tree something is missing.
void TreeMender::tell_lost(NodeId node, std::string_view lo, std::string_view hi) {
  const bool is_run = context_.lost.runs.contains(node);
  if (!is_run && !context_.lost.leaves.contains(node) && !context_.lost.interiors.contains(node)) {
    return;
  }
  if (!context_.told.emplace(use_.root, node).second) return;
  context_.notes.say(fmt::format(
      "{}: {} from {} to {} {}", context_.path_of(use_.root, {}),
      is_run ? "the latest changes" : "what was", key_text(lo),
      hi == kKeyEnd ? "the end" : key_text(hi),
      is_run ? "are lost; what is there may be older than it was" : "is lost"));
}

std::string TreeMender::here() { return context_.path_of(use_.root, levels_.back().components); }

void TreeMender::erase(std::string_view key, std::string_view why) {
  context_.fixes.add(use_.root, std::string(key), Message::erase(0));
  context_.notes.say(fmt::format("{}: {}: {}; dropped", here(), key_text(key), why));
}

void TreeMender::put(const std::string& key, const InodeRecord& record, NodeId tree) {
  context_.fixes.add(use_.root, key, Message::put(inline_value(encode_inode(record), tree)));
}

void TreeMender::put_name(const std::string& path, const std::string& name, uint64_t entry,
                          uint32_t mode) {
  context_.fixes.add(use_.root, dirent_key(path, name),
                     Message::put(inline_value(encode_dirent({entry, mode & S_IFMT}))));
}

void TreeMender::note_stray(const Level& level, uint64_t entry) {
  context_.strays.push_back(
      {context_.names_of(use_.root, level.components), entry_name(entry)});
}

Result<void> TreeMender::take(std::string_view key, const Value& value) {
  const Result<ParsedKey> parsed = parse_key(key, use_.kind);
  if (!parsed) return erase(key, "not a key"), Result<void>{};
  switch (parsed->kind) {
    case KeyKind::dirent:
    case KeyKind::record:
    case KeyKind::xattr:
      CAW_TRY(go_to(parsed->path));
      if (levels_.back().is_stray) return erase(key, "below what is no directory"), Result<void>{};
      if (parsed->kind == KeyKind::dirent) return take_dirent(key, *parsed, value);
      if (parsed->kind == KeyKind::record) return take_record(key, *parsed, value);
      return take_xattr(key, *parsed, value);
    case KeyKind::chunk:
    case KeyKind::owned_chunk:
      return take_data(key, *parsed, value);
    case KeyKind::link:
      return take_link(key, *parsed, value);
    case KeyKind::domain_map:
    case KeyKind::chunk_map:
      return take_map(key, *parsed, value);
  }
  return {};
}

// ---- directories

Result<void> TreeMender::go_to(const std::vector<uint64_t>& path) {
  size_t common = 0;
  while (common < path.size() && common + 1 < levels_.size() &&
         levels_[common + 1].entry == path[common]) {
    ++common;
  }
  if (common + 1 == levels_.size() && common == path.size()) return {};
  CAW_TRY(leave_names());
  levels_.resize(common + 1);
  for (; common < path.size(); ++common) CAW_TRY(enter(path[common]));
  return {};
}

Result<void> TreeMender::enter(uint64_t entry) {
  const Level& parent = levels_.back();
  Level level;
  level.entry = entry;
  level.path = body_path(parent.path, entry);
  level.components = parent.components;
  level.components.push_back(entry);
  level.domain = parent.domain;
  if (const auto own = parent.domains.find(entry); own != parent.domains.end()) {
    level.domain = own->second;
  }
  level.is_stray = parent.is_stray;
  const bool orphans = is_system_top() && entry == kOrphansEntry;
  const bool known = std::ranges::binary_search(parent.subdirectories, entry);
  if (!orphans && !known && !parent.is_stray) {
    const bool is_other = std::ranges::binary_search(parent.records, entry);
    level.is_stray = is_other || use_.kind == TreeKind::system || use_.is_links;
    if (!level.is_stray) CAW_TRY(adopt_directory(parent, entry));
  }
  levels_.push_back(std::move(level));
  return {};
}

/// Its contents are there, its record is not.
Result<void> TreeMender::adopt_directory(const Level& parent, uint64_t entry) {
  const auto missing = missing_.find(body_path(parent.path, entry));
  const bool has_name = missing != missing_.end();
  const std::string name = has_name ? missing->second.name : entry_name(entry);
  put(record_key(parent.path, entry), context_.new_record(S_IFDIR | 0700, name));
  context_.draft.note_used(Counter::entry, entry);
  const std::string path = context_.path_of(use_.root, parent.components);
  context_.notes.say(fmt::format("{}: directory \"{}\": its attributes are lost; it got new ones",
                                 path, quoted(name)));
  if (has_name) {
    missing_.erase(missing);
  } else {
    put_name(parent.path, name, entry, S_IFDIR);
    note_stray(parent, entry);
  }
  return {};
}

/// After all names and records of a directory.
Result<void> TreeMender::leave_names() {
  for (const auto& [entry, record] : unnamed_) name_record(record, entry);
  unnamed_.clear();
  for (const auto& [name, what] : names_) {
    if (!what.is_matched) settle_name(name, what);
  }
  names_.clear();
  return {};
}

/// A record to which its own name does not lead.
void TreeMender::name_record(const InodeRecord& record, uint64_t entry) {
  const Level& level = levels_.back();
  const auto found = names_.find(record.name);
  if (!record.name.empty() && (found == names_.end() || !found->second.is_matched)) {
    put_name(level.path, record.name, entry, record.fields.mode);
    if (found != names_.end()) found->second.is_matched = true;
    context_.notes.say(fmt::format("{}: the name \"{}\" was lost; put back", here(),
                                   quoted(record.name)));
    return;
  }
  InodeRecord renamed = record;
  renamed.name = entry_name(entry);
  Patch patch = rename_patch(renamed.fields, renamed.name, renamed.target);
  context_.fixes.add(use_.root, record_key(level.path, entry), Message::make_patch(patch));
  put_name(level.path, renamed.name, entry, renamed.fields.mode);
  context_.notes.say(fmt::format("{}: a second \"{}\" is called \"{}\" now", here(),
                                 quoted(record.name), renamed.name));
  note_stray(level, entry);
}

/// A name that no record agrees with.
void TreeMender::settle_name(const std::string& name, const Name& what) {
  const Level& level = levels_.back();
  const uint64_t entry = what.dirent.entry;
  const bool has_record = std::ranges::binary_search(level.records, entry);
  Missing missing{name, level.components, entry};
  if (!has_record && what.dirent.is_linked()) {
    put_lost_link_name(name, what.dirent);
  } else if (!has_record && what.dirent.type == S_IFDIR) {
    missing_[body_path(level.path, entry)] = std::move(missing);
  } else if (!has_record && what.dirent.type == S_IFREG) {
    missing_[chunk_prefix(level.path, entry)] = std::move(missing);
  } else {
    erase(dirent_key(level.path, name), has_record ? "its file has another name"
                                                   : "what it named is lost");
  }
}

Result<void> TreeMender::take_dirent(std::string_view key, const ParsedKey& parsed,
                                     const Value& value) {
  const Result<std::string> bytes = value_bytes(context_.draft.device(), value);
  const Result<Dirent> dirent = bytes ? decode_dirent(*bytes) : fail(Code::record_malformed);
  if (!dirent || value.tree != kNoNode || is_system_top() || among_orphans() || among_linked()) {
    erase(key, "damaged name");
    return {};
  }
  context_.draft.note_used(Counter::entry, dirent->entry);
  names_.emplace(parsed.name, Name{*dirent});
  return {};
}

// ---- records

Result<void> TreeMender::take_record(std::string_view key, const ParsedKey& parsed,
                                     const Value& value) {
  const Result<std::string> bytes = value_bytes(context_.draft.device(), value);
  if (bytes && is_link_name(*bytes) && value.tree == kNoNode) {
    return take_link_name(key, parsed, *bytes), Result<void>{};
  }
  Result<InodeRecord> record = bytes ? decode_inode(*bytes) : fail(Code::record_malformed);
  if (record && parsed.entry == kLinksEntry) {
    return take_reserved(key, parsed, *record, value.tree), Result<void>{};
  }
  const bool is_root = is_system_top() && parsed.entry == kRootEntry;
  const bool fits = record && (!is_system_top() || (is_root && record->fields.is_directory()));
  if (!fits || (among_linked() && record->fields.is_directory())) {
    erase(key, "damaged record");
    return {};
  }
  context_.draft.note_used(Counter::entry, parsed.entry);
  context_.note_used(*record);
  Value mended = value;
  if (is_root) {
    has_root_ = true;
    if (mended.tree == kNoNode) return {};  // FileMender::mend_root
  }
  if (mend_record(&*record, &mended, parsed.entry)) {
    put(std::string(key), *record, mended.tree);
  }
  Level& level = levels_.back();
  level.records.push_back(parsed.entry);
  if ((record->fields.flags & kInodeXattrs) != 0) level.with_xattrs.push_back(parsed.entry);
  take_kind(key, parsed, *record, mended.tree);
  if (among_linked()) {
    links().files[parsed.entry] = {record->fields.nlink, record->fields.mode & S_IFMT};
  }
  if (is_root || among_orphans() || among_linked()) return {};
  const auto name = names_.find(record->name);
  if (name == names_.end() || name->second.dirent.entry != parsed.entry ||
      name->second.is_matched) {
    unnamed_.emplace_back(parsed.entry, *record);
    return {};
  }
  name->second.is_matched = true;
  if (name->second.dirent.is_linked() ||
      name->second.dirent.type != (record->fields.mode & S_IFMT)) {
    put_name(level.path, record->name, parsed.entry, record->fields.mode);
    context_.notes.say(fmt::format("{}: the name \"{}\" said the wrong type", here(),
                                   quoted(record->name)));
  }
  return {};
}

/// Its file's record, which came before, must say that there are some.
Result<void> TreeMender::take_xattr(std::string_view key, const ParsedKey& parsed,
                                    const Value& value) {
  Level& level = levels_.back();
  if (!std::ranges::binary_search(level.records, parsed.entry)) {
    return erase(key, "extended attribute of no file"), Result<void>{};
  }
  if (value.tree != kNoNode || value.length > kMaxXattrBytes) {
    return erase(key, "damaged extended attribute"), Result<void>{};
  }
  if (value.blob && context_.draft.is_lost(value.blob)) {
    return erase(key, "the value of an extended attribute is lost"), Result<void>{};
  }
  const auto known = std::ranges::lower_bound(level.with_xattrs, parsed.entry);
  if (known != level.with_xattrs.end() && *known == parsed.entry) return {};
  level.with_xattrs.insert(known, parsed.entry);
  const std::string record_at = record_key(level.path, parsed.entry);
  const auto record = CAW_TRY(context_.record_at(use_.root, record_at));
  if (!record) return {};
  std::string flags;
  put_fixed(flags, record->fields.flags | kInodeXattrs);
  context_.fixes.add(use_.root, record_at,
                     Message::make_patch(write_patch(kInodeFlagsOffset, flags)));
  context_.notes.say(fmt::format("{}: \"{}\": was said to have no extended attributes", here(),
                                 quoted(record->name)));
  return {};
}

/// True if something had to change.
bool TreeMender::mend_record(InodeRecord* record, Value* value, uint64_t entry) {
  bool changed = mend_number(record, entry);
  const auto say = [&](std::string_view what) {
    context_.notes.say(fmt::format("{}: \"{}\": {}", here(), quoted(record->name), what));
    changed = true;
  };
  const bool is_nameless = is_system_top() || among_orphans() || among_linked();
  if (is_nameless && !record->name.empty()) {
    say("had a name where there are none");
    record->name.clear();
  }
  if (is_system_top() && record->domain != 0) {
    say("the root directory was said to be of another origin");
    record->home = record->domain = 0;
  }
  if (record->fields.nlink != 1 && !among_linked()) {
    say(fmt::format("link count {} instead of 1", record->fields.nlink));
    record->fields.nlink = 1;
  }
  if (record->fields.is_directory() && value->tree == kNoNode &&
      (record->fields.flags & kInodeClone) != 0) {
    say("a clone without a tree of its own");
    record->fields.flags &= ~kInodeClone;
  }
  if (value->tree != kNoNode && !record->fields.is_directory() && !record->fields.is_regular()) {
    say("owned a tree, but is neither directory nor file");
    value->tree = kNoNode;
  }
  return changed;
}

/// Relative to that of the directory it is in.
uint64_t TreeMender::domain_of(const InodeRecord& record) const {
  const uint64_t outer = levels_.back().domain;
  return record.domain == 0 ? outer : mark_of(outer, record.home, record.domain);
}

/// Within a tree, two files with one number would show as one.
bool TreeMender::mend_number(InodeRecord* record, uint64_t /*entry*/) {
  const uint64_t domain = domain_of(*record);
  if (numbers_.insert(mark_of(domain, record->number, 0)).second) return false;
  const uint64_t before = record->number;
  record->number = context_.draft.draw(Counter::file);
  numbers_.insert(mark_of(domain, record->number, 0));
  context_.notes.say(fmt::format("{}: \"{}\": number {} belongs to another file; it got {}", here(),
                                 quoted(record->name), before, record->number));
  return true;
}

/// What is expected below the record.
void TreeMender::take_kind(std::string_view key, const ParsedKey& parsed, const InodeRecord& record,
                           NodeId tree) {
  Level& level = levels_.back();
  const InodeFields& fields = record.fields;
  if (tree != kNoNode) {
    TreeUse use{.root = tree,
                .kind = fields.is_directory() ? TreeKind::directory : TreeKind::file,
                .size = fields.size,
                .is_sparse = (fields.flags & kInodeSparse) != 0,
                .is_orphan = among_orphans(),
                .is_top = fields.is_directory() &&
                          (is_system_top() || (fields.flags & kInodeClone) != 0),
                .owner = use_.root,
                .key = std::string(key)};
    if (fields.is_directory()) {
      links().owned.push_back({level.path, parsed.entry, tree, use.is_top});
    }
    context_.edges.emplace_back(use_.root, tree);
    if (context_.uses.emplace(tree, std::move(use)).second) context_.pending.push_back(tree);
  } else if (fields.is_directory()) {
    level.subdirectories.push_back(parsed.entry);
    if (record.domain != 0) {
      level.domains[parsed.entry] = domain_of(record);
    }
  } else if (fields.is_regular()) {
    files_.push_back({checksum64(chunk_prefix(level.path, parsed.entry)), fields.size,
                      (fields.flags & kInodeSparse) != 0, false});
  }
}

Result<void> TreeMender::take_map(std::string_view key, const ParsedKey& parsed,
                                  const Value& value) {
  CAW_TRY(leave_names());
  const Result<std::string> bytes = value_bytes(context_.draft.device(), value);
  const Result<uint64_t> number = bytes ? decode_number(*bytes) : fail(Code::record_malformed);
  const bool is_chunk = parsed.kind == KeyKind::chunk_map;
  if (!number || value.tree != kNoNode) {
    erase(key, "damaged number; files may show other inode numbers");
  } else if (is_chunk && !context_.chunk_numbers.insert(*number).second) {
    erase(key, "a range of inode numbers given out twice; files may show other ones");
  } else {
    context_.draft.note_used(is_chunk ? Counter::chunk : Counter::domain, *number);
  }
  return {};
}

Result<void> TreeMender::finish() {
  CAW_TRY(leave_names());
  levels_.resize(1);
  CAW_TRY(end_file());
  if (use_.kind == TreeKind::file) return {};
  CAW_TRY(find_unseen());
  mend_index();
  for (const auto& [prefix, missing] : missing_) {
    context_.fixes.add(use_.root, dirent_key(key_path(missing.directory), missing.name),
                       Message::erase(0));
    context_.notes.say(fmt::format("{}: \"{}\": nothing of it is left but its name; dropped",
                                   context_.path_of(use_.root, missing.directory),
                                   quoted(missing.name)));
  }
  return {};
}

}  // namespace caw
