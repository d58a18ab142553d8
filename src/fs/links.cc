#include "fs/links.h"

#include <utility>

#include "fs/values.h"
#include "schema/keys.h"

namespace caw {

namespace {

/// Trees that contain themselves, on a hostile image, end here.
constexpr size_t kMostTrees = 1'000'000;
constexpr size_t kMostNested = 20'000;

struct Pending {
  Place place;
  std::vector<uint64_t> route;
  bool inner = false;  ///< of another domain
  size_t depth = 0;    ///< trees above it
};

/// The tree that a marked directory owns; one without a tree any more is passed over.
Result<void> follow_mark(Forest& forest, const LinkedName& marked, const Pending& at,
                         bool inner_tops, std::vector<Pending>& pending) {
  if (at.depth == kMostNested) return fail(Code::record_malformed, at.depth, "links index");
  const std::optional<Value> value =
      CAW_TRY(forest.get(marked.place.tree, record_key(marked.place.path, marked.entry)));
  if (!value || value->tree == kNoNode) return {};
  const std::string bytes = CAW_TRY(read_record(forest, *value));
  if (is_link_name(bytes)) return fail(Code::record_malformed, marked.entry, "links mark");
  const InodeRecord record = CAW_TRY(decode_inode(bytes));
  const bool is_top = (record.fields.flags & kInodeClone) != 0;
  if (is_top && !inner_tops) return {};
  Pending next{
      {forest.open_tree(value->tree), {}}, marked.route, at.inner || is_top, at.depth + 1};
  next.route.push_back(marked.entry);
  pending.push_back(std::move(next));
  return {};
}

}  // namespace

Result<void> scan_links(Forest& forest, const Place& top, bool inner_tops,
                        const std::function<Result<void>(const LinkedName&)>& visit) {
  std::vector<Pending> pending{{top, {}, false, 0}};
  for (size_t trees = 0; !pending.empty(); ++trees) {
    if (trees == kMostTrees) return fail(Code::record_malformed, trees, "links index");
    const Pending at = std::move(pending.back());
    pending.pop_back();
    const std::string prefix = links_prefix(at.place.path);
    const auto cursor = forest.scan(at.place.tree, prefix, after_prefix(prefix));
    while (CAW_TRY(cursor->next())) {
      // What follows the prefix has the form of a whole key.
      const std::string key = links_prefix({}) + std::string(cursor->key().substr(prefix.size()));
      const ParsedKey parsed = CAW_TRY(parse_key(key, TreeKind::directory));
      LinkedName name;
      name.link = CAW_TRY(decode_link_entry(CAW_TRY(read_record(forest, cursor->value()))));
      name.entry = parsed.entry;
      name.route = at.route;
      name.place = at.place;
      for (const uint64_t component : parsed.path) {
        name.route.push_back(component);
        name.place.path = body_path(name.place.path, component);
      }
      if (name.link.is_mark()) {
        CAW_TRY(follow_mark(forest, name, at, inner_tops, pending));
      } else if (!at.inner || name.link.scope == LinkScope::global) {
        CAW_TRY(visit(name));
      }
    }
  }
  return {};
}

Result<bool> has_links(Forest& forest, const Place& place) {
  const std::string prefix = links_prefix(place.path);
  return forest.scan(place.tree, prefix, after_prefix(prefix))->next();
}

Result<bool> has_links_of(Forest& forest, const Place& place, LinkScope scope) {
  bool any = false;
  const bool inner_tops = scope == LinkScope::global;
  CAW_TRY(scan_links(forest, place, inner_tops, [&](const LinkedName& name) -> Result<void> {
    any = any || name.link.scope == scope;
    return {};
  }));
  return any;
}

void put_linked_name(Batch& batch, const Place& place, std::string_view name,
                     const Dirent& dirent) {
  batch.put(place.tree, dirent_key(place.path, name), inline_value(encode_dirent(dirent)));
  batch.put(place.tree, record_key(place.path, dirent.entry),
            inline_value(encode_link_name(
                {dirent.type, dirent.scope, dirent.group, std::string(name)})));
  batch.put(place.tree, link_key(place.path, dirent.entry),
            inline_value(encode_link_entry({dirent.scope, dirent.group})));
}

void erase_linked_name(Batch& batch, const Place& place, std::string_view name, uint64_t entry) {
  batch.erase(place.tree, dirent_key(place.path, name), 0);
  batch.erase(place.tree, record_key(place.path, entry), 0);
  batch.erase(place.tree, link_key(place.path, entry), 0);
}

Result<LinkCounts> count_local_links(Forest& forest, const Place& top) {
  LinkCounts counts;
  CAW_TRY(scan_links(forest, top, false, [&](const LinkedName& name) -> Result<void> {
    if (name.link.scope == LinkScope::local) ++counts[name.link.group];
    return {};
  }));
  return counts;
}

}  // namespace caw
