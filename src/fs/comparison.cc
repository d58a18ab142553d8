#include "fs/comparison.h"

#include "fs/values.h"
#include "schema/keys.h"

namespace caw {

struct Comparison::Entry {
  std::string name;
  InodeRecord record;  ///< of the file, however it is named
  NodeId tree = kNoNode;
  uint64_t entry = 0;
};

Result<Comparison::Entry> Comparison::read_entry(const Side& in,
                                                                     const Cursor& cursor,
                                                                     size_t prefix_bytes) {
  Entry out;
  out.entry = CAW_TRY(chunk_of_key(cursor.key(), prefix_bytes));
  out.tree = cursor.value().tree;
  const std::string bytes = CAW_TRY(read_record(forest_, cursor.value()));
  if (!is_link_name(bytes)) {
    out.record = CAW_TRY(decode_inode(bytes));
    out.name = out.record.name;
    return out;
  }
  LinkName name = CAW_TRY(decode_link_name(bytes));
  out.name = std::move(name.name);
  const bool is_global = name.scope == LinkScope::global;
  const Place links = is_global ? CAW_TRY(links_of({forest_.system_tree(), {}})) : in.links;
  if (!links.tree) return fail(Code::record_malformed, name.group, "links directory");
  const std::optional<Value> value =
      CAW_TRY(forest_.get(links.tree, record_key(links.path, name.group)));
  if (!value) return fail(Code::record_malformed, name.group, "inode record is missing");
  out.record = CAW_TRY(decode_inode(CAW_TRY(read_record(forest_, *value))));
  return out;
}

/// The links directory in the contents of a top.
Result<Place> Comparison::links_of(const Place& top) {
  const std::optional<Value> value =
      CAW_TRY(forest_.get(top.tree, record_key(top.path, kLinksEntry)));
  if (!value || value->tree == kNoNode) return Place{};
  return Place{forest_.open_tree(value->tree), {}};
}

Result<Comparison::Side> Comparison::below(const Side& in,
                                                                const Entry& entry) {
  Side out = in;
  out.place = entry.tree == kNoNode
                  ? Place{in.place.tree, body_path(in.place.path, entry.entry)}
                  : Place{forest_.open_tree(entry.tree), {}};
  const bool is_top = (entry.record.fields.flags & kInodeClone) != 0;
  if (is_top && has_links_) out.links = CAW_TRY(links_of(out.place));
  return out;
}

Result<bool> Comparison::same_contents(const Side& in_a, const Side& in_b) {
  const Place& a = in_a.place;
  const Place& b = in_b.place;
  const std::string end_a = records_end(a.path);
  const std::string end_b = records_end(b.path);
  const auto cursor_a = forest_.scan(a.tree, record_key(a.path, kFirstEntry), end_a);
  const auto cursor_b = forest_.scan(b.tree, record_key(b.path, kFirstEntry), end_b);
  while (true) {
    const bool more_a = CAW_TRY(cursor_a->next());
    const bool more_b = CAW_TRY(cursor_b->next());
    if (more_a != more_b) return false;
    if (!more_a) return true;
    if (left_-- == 0) return false;
    const Entry entry_a = CAW_TRY(read_entry(in_a, *cursor_a, end_a.size()));
    const Entry entry_b = CAW_TRY(read_entry(in_b, *cursor_b, end_b.size()));
    const InodeRecord& record_a = entry_a.record;
    const InodeRecord& record_b = entry_b.record;
    if (entry_a.name != entry_b.name || record_a.target != record_b.target ||
        record_a.fields.content_seq != record_b.fields.content_seq ||
        (record_a.fields.mode & S_IFMT) != (record_b.fields.mode & S_IFMT)) {
      return false;
    }
    if (!record_a.fields.is_directory()) continue;
    // With the same tree its linked names are the same; their files may be others.
    if (entry_a.tree != kNoNode && entry_a.tree == entry_b.tree && !has_links_) {
      continue;
    }
    pending_.emplace_back(CAW_TRY(below(in_a, entry_a)),
                                    CAW_TRY(below(in_b, entry_b)));
  }
}

Result<bool> Comparison::same(const Side& a, const Side& b) {
  pending_.emplace_back(a, b);
  while (!pending_.empty()) {
    const auto next = std::move(pending_.back());
    pending_.pop_back();
    if (!CAW_TRY(same_contents(next.first, next.second))) return false;
  }
  return true;
}

}  // namespace caw
