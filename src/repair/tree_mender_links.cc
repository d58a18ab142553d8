// TreeMender: names of linked files, and the index of them, within one tree.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "check/describe.h"
#include "repair/tree_mender.h"

namespace caw {

void TreeMender::put_link_name(const std::string& path, const LinkName& name, uint64_t entry) {
  context_.fixes.add(use_.root, dirent_key(path, name.name),
                     Message::put(inline_value(
                         encode_dirent({entry, name.type, name.scope, name.group}))));
  context_.fixes.add(use_.root, record_key(path, entry),
                     Message::put(inline_value(encode_link_name(name))));
}

void TreeMender::note_link_name(const std::string& path, const LinkName& name, uint64_t entry) {
  context_.draft.note_used(Counter::entry, std::max(entry, name.group));
  const LinkEntry link{name.scope, name.group};
  links().names.push_back({path, entry, link, name.name});
  unindexed_[link_key(path, entry)] = link;
}

void TreeMender::take_link_name(std::string_view key, const ParsedKey& parsed,
                                std::string_view bytes) {
  Result<LinkName> name = decode_link_name(bytes);
  if (!name || is_system_top() || among_orphans() || among_linked()) {
    return erase(key, "damaged link name");
  }
  Level& level = levels_.back();
  level.records.push_back(parsed.entry);
  const auto found = names_.find(name->name);
  const Dirent dirent{parsed.entry, name->type, name->scope, name->group};
  if (found != names_.end() && !found->second.is_matched && found->second.dirent == dirent) {
    found->second.is_matched = true;
    return note_link_name(level.path, *name, parsed.entry);
  }
  const bool is_free = found == names_.end() || (!found->second.is_matched &&
                                                 found->second.dirent.entry == parsed.entry);
  if (is_free) {
    context_.notes.say(fmt::format("{}: the name \"{}\" was lost; put back", here(),
                                   quoted(name->name)));
  } else {
    const std::string old = std::exchange(name->name, fmt::format("#{}", parsed.entry));
    context_.notes.say(fmt::format("{}: a second \"{}\" is called \"{}\" now", here(), quoted(old),
                                   name->name));
    note_stray(level, parsed.entry);
  }
  names_[name->name] = Name{dirent, true};
  put_link_name(level.path, *name, parsed.entry);
  note_link_name(level.path, *name, parsed.entry);
}

/// The dirent of a linked name says all that its record did.
void TreeMender::put_lost_link_name(const std::string& name, const Dirent& dirent) {
  const Level& level = levels_.back();
  const LinkName linked{dirent.type, dirent.scope, dirent.group, name};
  put_link_name(level.path, linked, dirent.entry);
  note_link_name(level.path, linked, dirent.entry);
  context_.notes.say(fmt::format("{}: the record of the name \"{}\" was lost; put back", here(),
                                 quoted(name)));
}

/// The links directory of a root or clone, or, in the system tree, the global one.
void TreeMender::take_reserved(std::string_view key, const ParsedKey& parsed,
                               const InodeRecord& record, NodeId tree) {
  const bool is_here = parsed.path.empty() && (use_.is_top || is_system_top());
  if (!is_here || !record.fields.is_directory() || tree == kNoNode) {
    return erase(key, "not the record of a links directory");
  }
  context_.note_used(record);
  links().links = tree;
  links().is_uncounted = (record.fields.flags & kInodeUncounted) != 0;
  TreeUse use{.root = tree, .owner = use_.root, .key = std::string(key)};
  use.is_links = true;
  context_.edges.emplace_back(use_.root, tree);
  if (context_.uses.emplace(tree, std::move(use)).second) context_.pending.push_back(tree);
}

Result<void> TreeMender::take_link(std::string_view key, const ParsedKey& parsed,
                                   const Value& value) {
  CAW_TRY(leave_names());
  const Result<std::string> bytes = value_bytes(context_.draft.device(), value);
  const Result<LinkEntry> link = bytes ? decode_link_entry(*bytes) : fail(Code::record_malformed);
  if (link && link->is_mark() && value.tree == kNoNode) {
    const std::string path = key_path(parsed.path);
    const auto owned = std::ranges::find_if(links().owned, [&](const LinkedTree::Owned& there) {
      return there.entry == parsed.entry && there.path == path;
    });
    if (owned == links().owned.end()) return erase(key, "marks no tree"), Result<void>{};
    owned->is_marked = true;
    return {};
  }
  const auto expected = unindexed_.find(std::string(key));
  if (link && value.tree == kNoNode && expected != unindexed_.end() && expected->second == *link) {
    unindexed_.erase(expected);
  } else if (expected == unindexed_.end()) {
    erase(key, "stands for no linked name");
  }
  return {};
}

void TreeMender::mend_index() {
  for (const auto& [key, link] : unindexed_) {
    context_.fixes.add(use_.root, key, Message::put(inline_value(encode_link_entry(link))));
  }
  if (unindexed_.empty()) return;
  context_.notes.say(fmt::format("{}: {} linked names were not in the index",
                                 context_.path_of(use_.root, {}), unindexed_.size()));
}

}  // namespace caw
