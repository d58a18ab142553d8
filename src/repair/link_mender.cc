#include "repair/link_mender.h"

#include <fmt/format.h>

#include <set>

#include "check/describe.h"
#include "repair/file_mender.h"
#include "schema/keys.h"

namespace caw {

Result<void> LinkMender::run() {
  CAW_TRY(mend_global());
  std::map<NodeId, unsigned> users;
  for (auto& [tree, links] : context_.linked) {
    if (tree != system_) mark(tree, links);
    if (links.is_top && links.links != kNoNode) ++users[links.links];
  }
  for (auto& [tree, links] : context_.linked) {
    if (!links.is_top) continue;
    const bool is_shared = links.links != kNoNode && users[links.links] > 1;
    if (is_shared || links.is_orphan || links.is_uncounted) {
      CAW_TRY(leave_uncounted(tree));
    } else {
      CAW_TRY(mend(tree, LinkScope::local, links.links));
    }
  }
  const NodeId global = context_.linked[system_].links;
  return global == kNoNode ? Result<void>{} : mend(root_, LinkScope::global, global);
}

/// Where there are links, there is a global links directory, which says so.
Result<void> LinkMender::mend_global() {
  LinkedTree& system = context_.linked[system_];
  bool any = false;
  for (const auto& [tree, links] : context_.linked) {
    any = any || !links.names.empty() || (tree != system_ && links.links != kNoNode);
  }
  if (!any || system.links != kNoNode) return {};
  Draft& draft = context_.draft;
  const NodeId tree{draft.draw(Counter::node_id)};
  CAW_TRY(draft.write_node({tree, NodeKind::interior, 1, false, 0, 0},
                           empty_payload(NodeKind::interior, 1)));
  system.links = tree;
  context_.fixes.add(system_, record_key({}, kLinksEntry),
                     Message::put(inline_value(
                         encode_inode(context_.new_record(S_IFDIR | 0700, "")), tree)));
  context_.notes.say("the directory of files linked between clones was lost; it is empty now");
  return {};
}

/// Names in inner trees must be found from the outer one.  Further out it comes with the next run.
void LinkMender::mark(NodeId tree, LinkedTree& links) {
  for (LinkedTree::Owned& owned : links.owned) {
    const auto inner = context_.linked.find(owned.tree);
    if (owned.is_marked || inner == context_.linked.end()) continue;
    bool is_needed = false;
    for (const LinkedTree::Name& name : inner->second.names) {
      is_needed = is_needed || !owned.is_top || name.link.scope == LinkScope::global;
    }
    for (const LinkedTree::Owned& next : inner->second.owned) is_needed |= next.is_marked;
    if (!is_needed) continue;
    owned.is_marked = true;
    context_.fixes.add(tree, link_key(owned.path, owned.entry),
                       Message::put(inline_value(encode_link_entry({}))));
    context_.notes.say(fmt::format("{}: linked names below entry {} were not marked",
                                   context_.path_of(tree, {}), owned.entry));
  }
}

/// Names with `scope` in the domain of `top`, for global ones also in the domains within.
std::vector<LinkMender::Found> LinkMender::find(NodeId top, LinkScope scope) const {
  std::vector<Found> out;
  std::set<NodeId> seen;
  std::vector<NodeId> pending{top};
  while (!pending.empty()) {
    const NodeId at = pending.back();
    pending.pop_back();
    const auto tree = context_.linked.find(at);
    if (tree == context_.linked.end() || !seen.insert(at).second) continue;
    for (const LinkedTree::Name& name : tree->second.names) {
      if (name.link.scope == scope) out.push_back({at, &name});
    }
    for (const LinkedTree::Owned& owned : tree->second.owned) {
      if (owned.is_marked && (!owned.is_top || scope == LinkScope::global)) {
        pending.push_back(owned.tree);
      }
    }
  }
  return out;
}

Result<void> LinkMender::mend(NodeId top, LinkScope scope, NodeId files) {
  static const std::map<uint64_t, LinkedTree::File> none;
  const auto tree = context_.linked.find(files);
  const auto& known = tree == context_.linked.end() ? none : tree->second.files;
  std::map<uint64_t, uint32_t> counts;
  for (const Found& found : find(top, scope)) {
    const uint64_t group = found.name->link.group;
    if (known.contains(group)) {
      ++counts[group];
    } else {
      drop(found);
    }
  }
  for (const auto& [group, file] : known) {
    const auto counted = counts.find(group);
    const uint32_t count = counted == counts.end() ? 1 : counted->second;
    if (counted == counts.end()) name(top, scope, files, group);
    if (count == file.nlink) continue;
    context_.fixes.add(files, record_key({}, group),
                       Message::make_patch(link_count_patch(count)));
    context_.notes.say(fmt::format("{}: linked file {}: link count {} instead of {}",
                                   context_.path_of(top, {}), group, file.nlink, count));
  }
  return {};
}

/// Of a clone whose links directory others share: it is counted when it is used next.
Result<void> LinkMender::leave_uncounted(NodeId top) {
  LinkedTree& links = context_.linked.at(top);
  std::map<uint64_t, uint32_t> counts;
  for (const Found& found : find(top, LinkScope::local)) {
    if (context_.linked[links.links].files.contains(found.name->link.group)) {
      ++counts[found.name->link.group];
    } else {
      drop(found);
    }
  }
  if (links.links == kNoNode || links.is_uncounted) return {};
  bool is_right = true;
  for (const auto& [group, file] : context_.linked[links.links].files) {
    const auto counted = counts.find(group);
    is_right = is_right && counted != counts.end() && counted->second == file.nlink;
  }
  if (is_right) return {};
  const std::string key = record_key({}, kLinksEntry);
  const std::optional<Value> value = CAW_TRY(context_.value_at(top, key));
  std::optional<InodeRecord> record = CAW_TRY(context_.record_at(top, key));
  if (!value || !record) return {};
  record->fields.flags |= kInodeUncounted;
  links.is_uncounted = true;
  context_.fixes.add(top, key, Message::make_patch(all_fields_patch(record->fields)));
  context_.notes.say(fmt::format("{}: links are counted again when they are next used",
                                 context_.path_of(top, {})));
  return {};
}

void LinkMender::drop(const Found& found) {
  const LinkedTree::Name& name = *found.name;
  context_.fixes.add(found.tree, dirent_key(name.path, name.name), Message::erase(0));
  context_.fixes.add(found.tree, record_key(name.path, name.entry), Message::erase(0));
  context_.fixes.add(found.tree, link_key(name.path, name.entry), Message::erase(0));
  context_.notes.say(fmt::format("{}: \"{}\": the linked file it named is lost; dropped",
                                 context_.path_of(found.tree, {}), quoted(name.name)));
}

/// A file that has lost all its names gets one in the topmost directory that may have it.
void LinkMender::name(NodeId top, LinkScope scope, NodeId files, uint64_t group) {
  const uint64_t entry = context_.draft.draw(Counter::entry);
  const std::string name = fmt::format("#{}", entry);
  const uint32_t type = context_.linked.at(files).files.at(group).type;
  const auto put = [&](const std::string& key, std::string bytes) {
    context_.fixes.add(top, key, Message::put(inline_value(std::move(bytes))));
  };
  put(dirent_key({}, name), encode_dirent({entry, type, scope, group}));
  put(record_key({}, entry), encode_link_name({type, scope, group, name}));
  put(link_key({}, entry), encode_link_entry({scope, group}));
  context_.strays.push_back({context_.names_of(top, {}), name});
  context_.notes.say(fmt::format("{}: a linked file without a name is called \"{}\" now",
                                 context_.path_of(top, {}), name));
}

}  // namespace caw
