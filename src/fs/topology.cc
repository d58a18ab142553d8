#include "fs/topology.h"

#include <array>
#include <chrono>
#include <optional>
#include <thread>
#include <vector>

#include "base/assert.h"
#include "fs/links.h"
#include "schema/keys.h"

namespace caw {

namespace {

/// For contents of unknown size: make the flusher act soon.
constexpr uint64_t kManyDeadBytes = uint64_t{1} << 30;

/// Path of `directory` below the nearest owner of a tree, which goes to `owner`.
std::string path_below_owner(const Inode& directory, const Inode*& owner) {
  std::vector<uint64_t> entries;
  const Inode* at = &directory;
  for (; !at->tree(); at = at->parent) entries.push_back(at->entry);
  owner = at;
  std::string path;
  for (size_t i = entries.size(); i-- > 0;) path = body_path(path, entries[i]);
  return path;
}

}  // namespace

bool ReadTries::again(const Error& error) {
  constexpr int kTriesAtOnce = 3;
  // A block that was freed may hold something else already.
  const bool may_be_replaced = error.code == Code::tree_absent || error.code == Code::node_absent ||
                               error.code == Code::node_checksum ||
                               error.code == Code::blob_checksum;
  if (!may_be_replaced || ++failures_ >= kMostTries) return false;
  if (failures_ > kTriesAtOnce) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  return true;
}

Result<void> Topology::check_alive(const Inode& inode) const {
  for (const Inode* at = &inode; at != nullptr; at = at->parent) {
    if (at->is_removed()) {
      return fail(Code::stale_inode, at->number, "Topology");
    }
  }
  return {};
}

Result<Place> Topology::body(const Inode& directory) const {
  CAW_TRY(check_alive(directory));
  const Inode* owner = nullptr;
  std::string path = path_below_owner(directory, owner);
  return Place{owner->tree(), std::move(path)};
}

Result<Spot> Topology::record(const Inode& inode) const {
  CAW_TRY(check_alive(inode));
  const Inode* owner = nullptr;
  const std::string path = path_below_owner(*inode.parent, owner);
  return Spot{owner->tree(), record_key(path, inode.entry)};
}

Result<Spot> Topology::data(const Inode& file) const {
  CAW_TRY(check_alive(file));
  if (file.tree()) return Spot{file.tree(), owned_chunk_prefix()};
  const Inode* owner = nullptr;
  const std::string path = path_below_owner(*file.parent, owner);
  return Spot{owner->tree(), chunk_prefix(path, file.entry)};
}

Result<Spot> Topology::xattrs(const Inode& inode) const {
  CAW_TRY(check_alive(inode));
  const Inode* owner = nullptr;
  const std::string path = path_below_owner(*inode.parent, owner);
  return Spot{owner->tree(), xattr_prefix(path, inode.entry)};
}

const Inode& Topology::tree_owner(const Inode& inode) {
  const Inode* at = &inode;
  while (!at->tree()) at = at->parent;
  return *at;
}

bool Topology::is_within(const Inode& inode, const Inode& ancestor) const {
  for (const Inode* at = &inode; at != nullptr; at = at->parent) {
    if (at == &ancestor) return true;
  }
  return false;
}

Result<void> Topology::mutate(std::span<const Written> writes, const MutateOptions& options,
                              const Attempt& attempt) {
  bool exclusive = options.exclusive;
  for (int tries = 0;; ++tries) {
    if (tries >= kMostTries) return fail(Code::count_underflow, 0, "no private tree to be had");
    if (tries >= kSharedTries) exclusive = true;  // keeps out whoever shares trees meanwhile
    std::optional<Gate::Shared> shared_side;
    std::optional<Gate::Exclusive> exclusive_side;
    if (exclusive) {
      exclusive_side.emplace(gate_);
    } else {
      shared_side.emplace(gate_);
    }
    const Outcome outcome = CAW_TRY(try_once(writes, exclusive, options, attempt));
    if (outcome == Outcome::done) return {};
    if (outcome == Outcome::exclusive) exclusive = true;
  }
}

Result<Topology::Outcome> Topology::try_once(std::span<const Written> writes, bool exclusive,
                                             const MutateOptions& options, const Attempt& attempt) {
  const uint64_t generation = forest_.share_generation();
  bool any_shared = false;
  for (const Written& written : writes) {
    CAW_TRY(check_alive(*written.inode));
    Inode* const owner = CAW_TRY(first_shared(written, forest_.share_generation()));
    if (owner == nullptr) continue;
    if (!exclusive) return Outcome::exclusive;
    CAW_TRY(make_private(*owner, forest_.share_generation(), options.essential));
    any_shared = true;  // all are looked at again, under one generation
  }
  if (any_shared) return Outcome::again;
  Batch batch;
  batch.generation = generation;
  batch.essential = options.essential;
  const Result<void> done = attempt(batch);
  if (done) return Outcome::done;
  if (done.error().code == Code::tree_not_private) return Outcome::again;
  return std::unexpected<Error>(done.error());
}

Result<Inode*> Topology::first_shared(const Written& written, uint64_t generation) {
  std::vector<Inode*> owners;
  for (Inode* at = written.contents ? written.inode : written.inode->parent; at != nullptr;
       at = at->parent) {
    // The system tree and the root's are private always; an orphan may own a tree it came with.
    if (at->parent == nullptr || at->parent == &system_) break;
    if (at->tree()) owners.push_back(at);
  }
  for (size_t i = owners.size(); i-- > 0;) {
    Inode& owner = *owners[i];
    if (owner.verified().load(std::memory_order_relaxed) == generation) continue;
    const Spot spot = CAW_TRY(record(owner));
    if (!CAW_TRY(forest_.is_private(spot.tree, spot.key))) return &owner;
    owner.verified().store(generation, std::memory_order_relaxed);
  }
  return nullptr;
}

Result<void> Topology::make_private(Inode& owner, uint64_t generation, bool essential) {
  const Spot spot = CAW_TRY(record(owner));
  std::optional<Value> value = CAW_TRY(forest_.get(spot.tree, spot.key));
  if (!value || value->tree != owner.tree()->root()) {
    return fail(Code::record_malformed, raw(owner.tree()->root()), "make_private");
  }
  const NodeId id = forest_.new_tree_id();
  value->tree = id;
  Batch then;
  then.generation = generation;
  then.essential = essential;
  then.put(spot.tree, spot.key, std::move(*value));
  const ClonePrefix whole;
  const Result<void> cloned = forest_.clone(owner.tree(), {&whole, 1}, id, then);
  if (!cloned && cloned.error().code == Code::tree_not_private) return {};  // looked at again
  if (!cloned) return cloned;
  owner.set_tree(forest_.open_tree(id));
  moved();
  return {};
}

Result<void> Topology::own_tree(Inode& inode, bool essential) {
  CAW_ASSERT(!inode.tree());
  for (int tries = 0;; ++tries) {
    if (tries >= kMostTries) return fail(Code::count_underflow, 0, "no private tree to be had");
    const uint64_t generation = forest_.share_generation();
    if (Inode* const outer = CAW_TRY(first_shared(record_of(inode), generation))) {
      CAW_TRY(make_private(*outer, generation, essential));
      continue;
    }
    const Spot spot = CAW_TRY(record(inode));
    std::optional<Value> value = CAW_TRY(forest_.get(spot.tree, spot.key));
    if (!value || value->tree != kNoNode) return fail(Code::record_malformed, 0, "own_tree");
    std::vector<ClonePrefix> prefixes;
    std::string mark;
    if (inode.is_directory()) {
      const Place place = CAW_TRY(body(inode));
      prefixes.push_back({metadata_prefix(place.path), metadata_prefix({})});
      prefixes.push_back({data_prefix(place.path), data_prefix({})});
      if (has_links()) prefixes.push_back({links_prefix(place.path), links_prefix({})});
      if (has_links() && CAW_TRY(caw::has_links(forest_, place))) {
        const Place outer = CAW_TRY(body(*inode.parent));
        mark = link_key(outer.path, inode.entry);
      }
    } else {
      prefixes.push_back({CAW_TRY(data(inode)).key, owned_chunk_prefix()});
    }
    const NodeId id = forest_.new_tree_id();
    value->tree = id;
    Batch then;
    then.generation = generation;
    then.essential = essential;
    then.put(spot.tree, spot.key, std::move(*value));
    for (const ClonePrefix& prefix : prefixes) {
      then.erase_range(spot.tree, prefix.from, after_prefix(prefix.from), kManyDeadBytes);
    }
    if (!mark.empty()) then.put(spot.tree, mark, inline_value(encode_link_entry({})));
    const Result<void> cloned = forest_.clone(spot.tree, prefixes, id, then);
    if (!cloned && cloned.error().code == Code::tree_not_private) continue;
    if (!cloned) return cloned;
    inode.set_tree(forest_.open_tree(id));
    moved();
    return {};
  }
}

}  // namespace caw
