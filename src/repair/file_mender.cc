#include "repair/file_mender.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "check/describe.h"
#include "repair/tree_mender.h"

namespace caw {
namespace {

constexpr std::string_view kFinds = "lost+found";
constexpr size_t kMostSteps = 1000;  ///< from a directory up to "/"
constexpr uint64_t kRootFile = 1;    ///< number of "/"

}  // namespace

std::string key_path(const std::vector<uint64_t>& path) {
  std::string out;
  for (const uint64_t entry : path) out = body_path(out, entry);
  return out;
}

// ---- MendContext

Result<std::optional<Value>> MendContext::value_at(NodeId tree, const std::string& key) {
  std::optional<Value> value;
  TreeReader reader(draft.device(), draft.table());
  CAW_TRY(reader.scan(tree, key, key + '\0', [&](std::string_view, const Value& found) {
    value = found;
    return Result<void>{};
  }));
  if (const Message* fix = fixes.find(tree, key)) {
    Message state = value ? Message::put(*value) : Message::erase(0);
    combine(state, Message(*fix));
    value.reset();
    if (state.kind == MessageKind::put) value = state.value;
  }
  return value;
}

Result<std::optional<InodeRecord>> MendContext::record_at(NodeId tree, const std::string& key) {
  const std::optional<Value> value = CAW_TRY(value_at(tree, key));
  if (!value) return std::nullopt;
  const Result<std::string> bytes = value_bytes(draft.device(), *value);
  const Result<InodeRecord> record = bytes ? decode_inode(*bytes) : fail(Code::record_malformed);
  if (!record) return std::nullopt;
  return *record;
}

std::vector<std::string> MendContext::names_of(NodeId tree, const std::vector<uint64_t>& path) {
  std::vector<std::string> out;
  std::vector<uint64_t> rest = path;
  for (size_t steps = 0; steps < kMostSteps; ++steps) {
    while (!rest.empty()) {
      const uint64_t entry = rest.back();
      rest.pop_back();
      const auto record = record_at(tree, record_key(key_path(rest), entry));
      const bool has_name = record && *record && !(*record)->name.empty();
      out.push_back(has_name ? (*record)->name : fmt::format("#{}", entry));
    }
    const auto use = uses.find(tree);
    if (use == uses.end() || use->second.owner == kNoNode) break;
    const Result<ParsedKey> owner = parse_key(use->second.key, TreeKind::system);
    if (!owner || owner->entry == kRootEntry) break;
    rest = owner->path;
    rest.push_back(owner->entry);
    tree = use->second.owner;
  }
  std::ranges::reverse(out);
  return out;
}

std::string MendContext::path_of(NodeId tree, const std::vector<uint64_t>& path) {
  std::string out;
  for (const std::string& name : names_of(tree, path)) out += fmt::format("/{}", quoted(name));
  return out.empty() ? "/" : out;
}

void MendContext::note_used(const InodeRecord& record) {
  draft.note_used(Counter::file, record.number);
  draft.note_used(Counter::domain, std::max(record.home, record.domain));
  draft.note_used(Counter::change,
                  std::max(record.fields.content_seq, record.fields.attribute_seq));
}

InodeRecord MendContext::new_record(uint32_t mode, std::string name) {
  InodeRecord record;
  record.fields.mode = mode;
  record.fields.mtime = record.fields.ctime = record.fields.atime = record.fields.btime = now;
  record.fields.content_seq = draft.draw(Counter::change);
  record.fields.attribute_seq = record.fields.content_seq;
  record.number = draft.draw(Counter::file);
  record.name = std::move(name);
  return record;
}

// ---- FileMender

Result<void> FileMender::run() {
  context_.uses.clear();
  context_.pending.clear();
  context_.edges.clear();
  context_.strays.clear();
  context_.linked.clear();
  context_.chunk_numbers.clear();
  context_.is_full = false;
  context_.draft.note_used(Counter::entry, kFirstEntry - 1);
  context_.draft.note_used(Counter::file, 1);
  context_.draft.note_used(Counter::domain, 1);
  context_.draft.note_used(Counter::chunk, 0);
  context_.draft.note_used(Counter::change, 0);
  const NodeId system = context_.draft.superblock().system_tree;
  context_.uses[system] = TreeUse{.root = system, .kind = TreeKind::system, .key = {}};
  context_.pending.push_back(system);
  while (!context_.pending.empty() && !context_.is_full) {
    const TreeUse use = context_.uses[context_.pending.back()];
    context_.pending.pop_back();
    const Result<void> mended = TreeMender(context_, use).run();
    if (!mended && !context_.is_full) return mended;
    if (use.kind == TreeKind::system) CAW_TRY(mend_root());
  }
  if (!context_.is_full) {
    CAW_TRY(break_cycles());
    CAW_TRY(LinkMender(context_, system, root_tree()).run());
  }
  return fixes_.apply(context_.draft);
}

NodeId FileMender::root_tree() const {
  const NodeId system = context_.draft.superblock().system_tree;
  const std::string key = record_key({}, kRootEntry);
  for (const auto& [tree, use] : context_.uses) {
    if (use.owner == system && use.key == key) return tree;
  }
  return kNoNode;
}

/// "/" must be there, a directory with a tree of its own.
Result<void> FileMender::mend_root() {
  if (root_tree() != kNoNode) return {};
  Draft& draft = context_.draft;
  const NodeId system = draft.superblock().system_tree;
  const std::string key = record_key({}, kRootEntry);
  std::optional<InodeRecord> record = CAW_TRY(context_.record_at(system, key));
  if (!record) {
    record = context_.new_record(S_IFDIR | 0755, "");
    record->number = kRootFile;
    context_.notes.say("/: the record of the root directory was lost; it got a new one");
  }
  const NodeId tree{draft.draw(Counter::node_id)};
  CAW_TRY(draft.write_node({tree, NodeKind::interior, 1, false, 0, 0},
                           empty_payload(NodeKind::interior, 1)));
  context_.notes.say("/: the tree of the root directory was lost; it got an empty one");
  fixes_.add(system, key, Message::put(inline_value(encode_inode(*record), tree)));
  TreeUse use{.root = tree, .kind = TreeKind::directory, .owner = system, .key = key};
  context_.uses[tree] = std::move(use);
  return {};
}

// ---- trees within themselves

/// Depth first; a tree that is met while it is open is left out there.
Result<void> FileMender::break_cycles() {
  struct Step {
    NodeId tree;
    bool leave = false;
  };
  std::ranges::sort(context_.edges);
  std::map<NodeId, bool> open;  // false: left again
  std::vector<Step> steps{{context_.draft.superblock().system_tree}};
  while (!steps.empty()) {
    const Step step = steps.back();
    steps.pop_back();
    if (step.leave) {
      open[step.tree] = false;
      continue;
    }
    if (!open.emplace(step.tree, true).second) continue;
    steps.push_back({step.tree, true});
    const auto from = std::ranges::lower_bound(context_.edges, std::pair{step.tree, kNoNode});
    for (auto edge = from; edge != context_.edges.end() && edge->first == step.tree; ++edge) {
      const auto state = open.find(edge->second);
      if (state == open.end()) {
        steps.push_back({edge->second});
      } else if (state->second) {
        CAW_TRY(break_cycle(step.tree, edge->second));
      }
    }
  }
  return {};
}

Result<void> FileMender::break_cycle(NodeId owner, NodeId tree) {
  TreeReader reader(context_.draft.device(), context_.draft.table());
  return reader.scan(owner, [&](std::string_view key, const Value& value) -> Result<void> {
    if (value.tree != tree) return {};
    std::optional<InodeRecord> record = CAW_TRY(context_.record_at(owner, std::string(key)));
    if (!record) return {};
    record->fields.flags &= ~kInodeClone;  // a clone has a tree of its own
    fixes_.add(owner, std::string(key), Message::put(inline_value(encode_inode(*record))));
    context_.notes.say(fmt::format("{}: {}: contained itself; it is empty now",
                                   context_.path_of(owner, {}), key_text(key)));
    return {};
  });
}

// ---- what nothing leads to

Result<std::vector<NodeId>> FileMender::attach(const std::vector<NodeId>& orphans) {
  std::vector<NodeId> rejected;
  std::set<NodeId> known_not_to;
  std::optional<FindsPlace> place;
  for (const NodeId orphan : orphans) {
    const NodeId root = CAW_TRY(wrapped(orphan));
    const Result<Kind> kind = look_at(root);
    if (!kind || kind->is_empty || CAW_TRY(reaches(orphan, root_tree(), known_not_to))) {
      if (root != orphan) context_.draft.remove_nodes({root});
      const bool is_empty = kind && kind->is_empty;
      context_.notes.say(fmt::format("node {}: nothing leads to it, and it {}; dropped",
                                     raw(orphan), is_empty ? "holds nothing" : "has no place"));
      rejected.push_back(orphan);
      continue;
    }
    if (!place) place = CAW_TRY(find_finds_place());
    CAW_TRY(put_find(*place, orphan, root, *kind));
  }
  CAW_TRY(fixes_.apply(context_.draft));
  std::ranges::sort(rejected);
  return rejected;
}

/// The node as the root of a tree, or a root above it.
Result<NodeId> FileMender::wrapped(NodeId orphan) {
  Draft& draft = context_.draft;
  const NodeRow row = *draft.find(orphan);
  const OpenedNode opened = CAW_TRY(read_node(draft.device(), row));
  Interior root;
  root.height = static_cast<Height>(row.height + 1);
  root.next_pos = 2;
  root.edges.resize(1);
  Edge edge;
  edge.child = orphan;
  edge.child_height = row.height;
  edge.child_bytes = static_cast<uint32_t>(opened.payload.size());
  edge.max_seq = row.max_seq;
  if (row.kind == NodeKind::run) {
    RunRef run{.run = orphan, .lo = "", .hi = std::string(kKeyEnd), .translation = {}, .pos = 1};
    run.bytes = static_cast<uint32_t>(opened.payload.size());
    run.weight = run.bytes;
    run.max_seq = row.max_seq;
    root.runs.push_back(run);
  } else if (row.kind == NodeKind::leaf) {
    root.edges[0] = edge;
  } else {
    const Interior node = CAW_TRY(decode_interior(opened.payload));
    if (node.edges.front().lo.empty() && node.hi == kKeyEnd) return orphan;
    edge.lo = node.edges.front().lo;
    if (edge.lo.empty()) root.edges.clear();
    root.edges.push_back(edge);
    if (node.hi != kKeyEnd) {
      root.edges.emplace_back();
      root.edges.back().lo = node.hi;
    }
  }
  const NodeId id{draft.draw(Counter::node_id)};
  CAW_TRY(draft.write_node({id, NodeKind::interior, root.height, false, 0, row.max_seq},
                           encode_interior(root)));
  return id;
}

/// What its keys say that it was.
Result<FileMender::Kind> FileMender::look_at(NodeId root) {
  Kind kind;
  TreeReader reader(context_.draft.device(), context_.draft.table());
  CAW_TRY(reader.scan(root, [&](std::string_view key, const Value& value) -> Result<void> {
    const Result<ParsedKey> chunk = parse_key(key, TreeKind::file);
    if (!chunk && !parse_key(key, TreeKind::directory)) return {};
    kind.is_empty = false;
    kind.is_file = kind.is_file && chunk;
    if (chunk && chunk->chunk < kMaxFileBytes >> kChunkShift) {
      kind.file_bytes = std::max(kind.file_bytes, (chunk->chunk << kChunkShift) + value.length);
    }
    return {};
  }));
  return kind;
}

/// References lead from `from` to `to`: its record must not be put below that.
Result<bool> FileMender::reaches(NodeId from, NodeId to, std::set<NodeId>& known_not_to) {
  Draft& draft = context_.draft;
  std::set<NodeId> seen;
  std::vector<NodeId> steps{from};
  while (!steps.empty()) {
    const NodeId id = steps.back();
    steps.pop_back();
    if (id == to) return true;
    const NodeRow* row = draft.find(id);
    if (row == nullptr || (row->kind != NodeKind::interior && !row->owns_refs)) continue;
    for (const NodeId next : CAW_TRY(references_of(draft.device(), *row))) {
      if (!known_not_to.contains(next) && seen.insert(next).second) steps.push_back(next);
    }
  }
  known_not_to.insert(seen.begin(), seen.end());
  return false;
}

/// lost+found in "/", made if it is not there.
Result<FindsPlace> FileMender::find_finds_place() {
  const NodeId root = root_tree();
  for (unsigned attempt = 0;; ++attempt) {
    const std::string name =
        attempt == 0 ? std::string(kFinds) : fmt::format("{}.{}", kFinds, attempt);
    const std::optional<Value> named = CAW_TRY(context_.value_at(root, dirent_key({}, name)));
    if (!named) {
      const uint64_t entry = context_.draft.draw(Counter::entry);
      fixes_.add(root, dirent_key({}, name),
                 Message::put(inline_value(encode_dirent({entry, S_IFDIR}))));
      fixes_.add(root, record_key({}, entry),
                 Message::put(inline_value(
                     encode_inode(context_.new_record(S_IFDIR | 0700, name)))));
      return FindsPlace{root, body_path({}, entry)};
    }
    const Result<std::string> bytes = value_bytes(context_.draft.device(), *named);
    const Result<Dirent> dirent = bytes ? decode_dirent(*bytes) : fail(Code::record_malformed);
    if (!dirent || dirent->type != S_IFDIR) continue;
    const std::string key = record_key({}, dirent->entry);
    const std::optional<Value> value = CAW_TRY(context_.value_at(root, key));
    if (!value) continue;
    if (value->tree != kNoNode) return FindsPlace{value->tree, {}};
    return FindsPlace{root, body_path({}, dirent->entry)};
  }
}

Result<void> FileMender::put_find(const FindsPlace& place, NodeId orphan, NodeId root,
                                  const Kind& kind) {
  std::string name = fmt::format("#{}", raw(orphan));
  while (CAW_TRY(context_.value_at(place.tree, dirent_key(place.path, name)))) name += "+";
  const uint32_t mode = kind.is_file ? S_IFREG | 0600 : S_IFDIR | 0700;
  InodeRecord record = context_.new_record(mode, name);
  if (kind.is_file) {
    record.fields.size = kind.file_bytes;
    record.fields.flags = kInodeSparse;
  }
  const uint64_t entry = context_.draft.draw(Counter::entry);
  fixes_.add(place.tree, dirent_key(place.path, name),
             Message::put(inline_value(encode_dirent({entry, mode & S_IFMT}))));
  fixes_.add(place.tree, record_key(place.path, entry),
             Message::put(inline_value(encode_inode(record), root)));
  context_.notes.say(fmt::format("node {}: nothing led to it; it is /{}/{} now", raw(orphan),
                                 kFinds, name));
  return {};
}

}  // namespace caw
