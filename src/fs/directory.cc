// FileSystemImpl: listing directories.  The order is that of entry numbers, which are the cookies.
#include <utility>

#include "fs/file_system_impl.h"
#include "fs/values.h"

namespace caw {

namespace {

constexpr uint64_t kDotCookie = 1;
constexpr uint64_t kDotDotCookie = 2;

}  // namespace

struct FileSystemImpl::Listed {
  uint64_t entry = 0;
  InodeRecord record;  ///< of a linked name: type and name
  bool is_linked = false;
  NodeId tree = kNoNode;
  uint32_t evictions = 0;  ///< of the directory, before the record was read
};

Result<FileSystemImpl::Listed> FileSystemImpl::decode_listed(const Cursor& cursor,
                                                             size_t prefix_bytes) {
  Listed listed;
  listed.entry = CAW_TRY(chunk_of_key(cursor.key(), prefix_bytes));
  const std::string bytes = CAW_TRY(read_record(forest_, cursor.value()));
  listed.is_linked = is_link_name(bytes);
  if (listed.is_linked) {
    LinkName name = CAW_TRY(decode_link_name(bytes));
    listed.record.fields.mode = name.type;
    listed.record.name = std::move(name.name);
  } else {
    listed.record = CAW_TRY(decode_inode(bytes));
  }
  listed.tree = cursor.value().tree;
  return listed;
}

/// Calls `emit` for the entries after `after` until it says false.  Starts again at the next cookie
/// when places changed meanwhile or the tree ended.
Result<void> FileSystemImpl::list(Inode& directory, uint64_t after,
                                  const std::function<Result<bool>(const Listed&)>& emit) {
  after = std::max(after, kFirstEntry - 1);
  ReadTries tries;
  while (true) {
    uint64_t sequence = 0;
    const Result<Place> place =
        topology_.locate([&] { return topology_.body(directory); }, sequence);
    if (!place && place.error().code == Code::stale_inode) return {};  // removed: empty
    if (!place) return std::unexpected<Error>(place.error());
    const std::string lo = record_key(place->path, after + 1);
    const size_t prefix_bytes = records_end(place->path).size();
    const auto cursor = forest_.scan(place->tree, lo, records_end(place->path));
    while (true) {
      const uint32_t evictions = directory.evictions();
      const Result<bool> more = cursor->next();
      Result<Listed> listed = more && *more ? decode_listed(*cursor, prefix_bytes) : Listed{};
      if (!topology_.is_current(sequence)) break;
      if (!more && tries.again(more.error())) break;
      if (!more) return std::unexpected<Error>(more.error());
      if (!*more) return {};
      if (!listed && tries.again(listed.error())) break;
      if (!listed) return std::unexpected<Error>(listed.error());
      listed->evictions = evictions;
      if (!CAW_TRY(emit(*listed))) return {};
      after = listed->entry;
      tries.made_progress();
    }
  }
}

Result<bool> FileSystemImpl::emit_dots(Inode& directory, uint64_t after,
                                       const std::function<bool(const DirectoryEntry&)>& emit) {
  if (after < kDotCookie && !emit({".", CAW_TRY(ino_of(directory)), kDotCookie, S_IFDIR})) {
    return false;
  }
  if (after >= kDotDotCookie) return true;
  uint64_t parent_ino = CAW_TRY(ino_of(directory));
  if (&directory != root_) {
    Gate::Shared shared(topology_.gate());
    if (directory.parent != orphans_.get()) parent_ino = CAW_TRY(ino_of(*directory.parent));
  }
  return emit({"..", parent_ino, kDotDotCookie, S_IFDIR});
}

Result<void> FileSystemImpl::readdir(Inode& directory, uint64_t after,
                                     const std::function<bool(const DirectoryEntry&)>& emit) {
  if (!directory.is_directory()) return fail(Code::not_a_directory, directory.number, "readdir");
  if (!CAW_TRY(emit_dots(directory, after, emit))) return {};
  return list(directory, after, [&](const Listed& listed) -> Result<bool> {
    uint64_t ino = 0;
    if (listed.is_linked) {
      const Hold linked = CAW_TRY(load_listed(directory, listed));
      if (!linked) return true;
      ino = CAW_TRY(ino_of(*linked));
    } else {
      const uint64_t domain =
          CAW_TRY(numbers_.domain_of(directory.domain, listed.record.home, listed.record.domain));
      ino = CAW_TRY(numbers_.shown(domain, listed.record.number));
    }
    return emit({listed.record.name, ino, listed.entry, listed.record.fields.mode});
  });
}

/// None if it, or the directory, was removed meanwhile.
Result<FileSystemImpl::Hold> FileSystemImpl::load_listed(Inode& directory, const Listed& listed) {
  if (listed.is_linked) {
    Result<Hold> found = find_child(directory, listed.record.name);
    if (!found && found.error().code == Code::not_found) return Hold();
    return found;
  }
  Hold hold(table_, table_.find(directory, listed.entry));
  if (!hold) {
    hold = CAW_TRY(adopt(directory, listed.entry, listed.record, listed.tree, listed.evictions));
  }
  if (hold) return hold;
  Result<Hold> loaded = load(directory, listed.entry);
  if (!loaded && loaded.error().code == Code::stale_inode) return Hold();
  return loaded;
}

Result<void> FileSystemImpl::readdirplus(
    Inode& directory, uint64_t after,
    const std::function<bool(const DirectoryEntry&, const Entry&)>& emit) {
  if (!directory.is_directory()) return fail(Code::not_a_directory, directory.number, "readdir");
  const auto emit_dot = [&](const DirectoryEntry& dot) {
    Entry entry;
    entry.attributes.ino = dot.ino;
    entry.attributes.mode = dot.mode;
    return emit(dot, entry);
  };
  if (!CAW_TRY(emit_dots(directory, after, emit_dot))) return {};
  return list(directory, after, [&](const Listed& listed) -> Result<bool> {
    Hold hold = CAW_TRY(load_listed(directory, listed));
    if (!hold) return true;
    const Entry entry = CAW_TRY(entry_of(std::move(hold)));
    const DirectoryEntry shown{listed.record.name, entry.attributes.ino, listed.entry,
                               entry.attributes.mode};
    if (emit(shown, entry)) return true;
    table_.unref(*entry.inode);
    return false;
  });
}

}  // namespace caw
