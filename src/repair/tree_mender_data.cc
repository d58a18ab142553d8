// TreeMender: file data.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "check/describe.h"
#include "format/compression.h"
#include "repair/tree_mender.h"

namespace caw {
namespace {

constexpr uint32_t kSizeOffset = 24;
constexpr uint64_t kMaxChunk = kMaxFileBytes >> kChunkShift;

/// Bytes that were written, as far as one can tell: in a file without holes, all up to its length.
uint64_t covered_bytes(const Value& value) {
  uint64_t covered = value.blob_length;
  for (const Piece& piece : value.pieces) {
    covered += piece.end() - std::min(piece.end(), std::max(piece.offset, value.blob_length));
  }
  return covered;
}

uint64_t chunk_count(uint64_t size) { return (size + kChunkBytes - 1) >> kChunkShift; }

uint64_t chunk_bytes(uint64_t chunk, uint64_t size) {
  return std::min<uint64_t>(kChunkBytes, size - (chunk << kChunkShift));
}

}  // namespace

Result<void> TreeMender::take_data(std::string_view key, const ParsedKey& parsed,
                                   const Value& value) {
  if (!in_data_) {
    CAW_TRY(leave_names());
    in_data_ = true;
    std::ranges::sort(files_, {}, &FileState::place);
  }
  std::string prefix = use_.kind == TreeKind::file
                           ? owned_chunk_prefix()
                           : chunk_prefix(key_path(parsed.path), parsed.entry);
  if (!current_ || current_->prefix != prefix) {
    CAW_TRY(end_file());
    if (!CAW_TRY(start_file(parsed, std::move(prefix)))) {
      erase(key, "data of no file");
      return {};
    }
  }
  return take_chunk(key, parsed.chunk, value);
}

/// False: the data cannot belong to any file.
Result<bool> TreeMender::start_file(const ParsedKey& parsed, std::string prefix) {
  Current file;
  file.prefix = std::move(prefix);
  if (use_.kind == TreeKind::file) {
    file.owner = use_.owner;
    file.key = use_.key;
    file.size = use_.size;
    file.is_sparse = use_.is_sparse;
    current_ = std::move(file);
    return true;
  }
  file.owner = use_.root;
  file.key = record_key(key_path(parsed.path), parsed.entry);
  const uint64_t place = checksum64(file.prefix);
  const auto known = std::ranges::lower_bound(files_, place, {}, &FileState::place);
  if (known != files_.end() && known->place == place) {
    known->is_seen = true;
    file.known = &*known;
    file.size = known->size;
    file.is_sparse = known->is_sparse;
  } else if (use_.kind == TreeKind::system || !CAW_TRY(adopt_file(parsed, &file))) {
    return false;
  }
  current_ = std::move(file);
  return true;
}

/// Its data are there, its record is not.
Result<bool> TreeMender::adopt_file(const ParsedKey& parsed, Current* file) {
  if (CAW_TRY(context_.record_at(use_.root, file->key))) return false;
  for (size_t depth = 0; depth < parsed.path.size(); ++depth) {
    const std::vector<uint64_t> outer(parsed.path.begin(),
                                      parsed.path.begin() + static_cast<ptrdiff_t>(depth));
    const auto record =
        CAW_TRY(context_.record_at(use_.root, record_key(key_path(outer), parsed.path[depth])));
    if (record && !record->fields.is_directory()) return false;
  }
  CAW_TRY(ensure_directories(parsed.path));
  const auto missing = missing_.find(file->prefix);
  const bool has_name = missing != missing_.end();
  const bool is_linked = use_.is_links && parsed.path.empty();
  const std::string unnamed = is_linked ? std::string() : fmt::format("#{}", parsed.entry);
  const std::string name = has_name ? missing->second.name : unnamed;
  file->made = context_.new_record(S_IFREG | 0600, name);
  file->made->fields.flags = kInodeSparse;
  file->is_sparse = true;
  context_.draft.note_used(Counter::entry, parsed.entry);
  Level level;
  level.path = key_path(parsed.path);
  level.components = parsed.path;
  context_.notes.say(fmt::format("{}: file \"{}\": its attributes are lost; it got new ones",
                                 context_.path_of(use_.root, parsed.path), quoted(name)));
  if (has_name) {
    missing_.erase(missing);
  } else if (is_linked) {
    links().files[parsed.entry] = {1, S_IFREG};  // its names are elsewhere
  } else {
    put_name(level.path, name, parsed.entry, S_IFREG);
    note_stray(level, parsed.entry);
  }
  return true;
}

/// Nothing but data is left of these, perhaps.
Result<void> TreeMender::ensure_directories(const std::vector<uint64_t>& path) {
  Level parent;
  for (const uint64_t entry : path) {
    if (!CAW_TRY(context_.record_at(use_.root, record_key(parent.path, entry)))) {
      CAW_TRY(adopt_directory(parent, entry));
    }
    parent.path = body_path(parent.path, entry);
    parent.components.push_back(entry);
  }
  return {};
}

Result<void> TreeMender::take_chunk(std::string_view key, uint64_t chunk, const Value& value) {
  Current& file = *current_;
  const uint64_t start = chunk << kChunkShift;
  if (chunk > kMaxChunk || start + value.length > kMaxFileBytes) {
    erase(key, "data beyond the largest file");
    return {};
  }
  if (value.tree != kNoNode || value.length > kChunkBytes) {
    context_.notes.say(fmt::format("{}: {}: data that own a tree, or are longer than a chunk",
                                   here(), key_text(key)));
    Value mended = value;
    mended.tree = kNoNode;
    Patch cut;
    cut.cut = kChunkBytes;
    apply_patch(mended, cut);
    context_.fixes.add(use_.root, std::string(key), Message::put(mended));
  }
  if (!file.is_sparse) {
    CAW_TRY(lose_chunks(file.next_chunk, std::min(chunk, chunk_count(file.size))));
    CAW_TRY(fill_gap(key, chunk, value));
  }
  if (context_.draft.is_lost(value.blob)) tell_range(start, start + value.length, "are damaged");
  file.next_chunk = chunk + 1;
  if (value.length > 0) {
    file.end = std::max(file.end, start + std::min<uint64_t>(value.length, kChunkBytes));
  }
  return {};
}

/// A file without holes has all bytes of its chunks.
Result<void> TreeMender::fill_gap(std::string_view key, uint64_t chunk, const Value& value) {
  Current& file = *current_;
  const uint64_t start = chunk << kChunkShift;
  if (start >= file.size) return {};
  const auto expected = static_cast<uint32_t>(
      std::max<uint64_t>(chunk_bytes(chunk, file.size), value.length));
  if (value.length > kChunkBytes || covered_bytes(value) >= expected) return {};
  if (value.blob) {
    tell_range(start, start + expected, "are partly lost, and read as zeros there");
    file.became_sparse = true;
    return {};
  }
  Value mended = value;
  mended.blob = CAW_TRY(context_.draft.lost_blob(expected));
  mended.blob_length = mended.length = expected;
  context_.fixes.add(use_.root, std::string(key), Message::put(mended));
  tell_range(start, start + expected, "are partly lost; reading them fails");
  return {};
}

Result<void> TreeMender::lose_chunks(uint64_t first, uint64_t end) {
  if (first >= end) return {};
  Current& file = *current_;
  for (uint64_t chunk = first; chunk < end; ++chunk) {
    if (context_.fixes.count() > 400'000) {
      context_.is_full = true;
      return fail(Code::interrupted);
    }
    const auto bytes = static_cast<uint32_t>(chunk_bytes(chunk, file.size));
    std::string key = file.prefix;
    put_ordered(key, chunk);
    context_.fixes.add(use_.root, key,
                       Message::put(blob_value(CAW_TRY(context_.draft.lost_blob(bytes)))));
  }
  tell_range(first << kChunkShift, std::min(end << kChunkShift, file.size),
             "are lost; reading them fails");
  return {};
}

void TreeMender::tell_range(uint64_t from, uint64_t to, std::string_view what) {
  const Current& file = *current_;
  std::string path;
  if (file.made) {
    path = file.made->name;
  } else if (use_.kind == TreeKind::file) {
    path = context_.path_of(use_.root, {});
  } else if (const Result<ParsedKey> parsed = parse_key(file.key, use_.kind)) {
    std::vector<uint64_t> all = parsed->path;
    all.push_back(parsed->entry);
    path = context_.path_of(use_.root, all);
  }
  context_.notes.say(fmt::format("{}: bytes {} to {} {}", path, from, to, what));
}

Result<void> TreeMender::end_file() {
  if (!current_ && use_.kind == TreeKind::file && !use_.is_sparse && use_.size > 0) {
    CAW_TRY(start_file({}, owned_chunk_prefix()));
  }
  if (!current_) return {};
  Current& file = *current_;
  if (!file.is_sparse) {
    CAW_TRY(lose_chunks(file.next_chunk, chunk_count(file.size)));
  }
  if (file.made) {
    file.made->fields.size = file.end;
    put(file.key, *file.made);
  } else if (file.end > file.size || file.became_sparse) {
    const Result<std::optional<InodeRecord>> record = context_.record_at(file.owner, file.key);
    if (record && *record) {
      std::string fields;
      put_fixed(fields, (*record)->fields.flags | (file.became_sparse ? kInodeSparse : 0U));
      put_fixed(fields, std::max(file.end, file.size));
      context_.fixes.add(file.owner, file.key,
                         Message::make_patch(write_patch(kInodeFlagsOffset, fields)));
    }
    if (file.end > file.size) {
      tell_range(file.size, file.end, "were beyond the end of the file; it is longer now");
    }
  }
  current_.reset();
  return {};
}

/// Files without holes of which not one chunk was met.
Result<void> TreeMender::find_unseen() {
  std::ranges::sort(files_, {}, &FileState::place);
  const auto is_unseen = [](const FileState& file) {
    return !file.is_seen && !file.is_sparse && file.size > 0;
  };
  if (std::ranges::none_of(files_, is_unseen)) return {};
  TreeReader reader(context_.draft.device(), context_.draft.table());
  return reader.scan(use_.root, [&](std::string_view key, const Value&) -> Result<void> {
    const Result<ParsedKey> parsed = parse_key(key, use_.kind);
    if (!parsed || parsed->kind != KeyKind::record) return {};
    const std::string prefix = chunk_prefix(key_path(parsed->path), parsed->entry);
    const auto known =
        std::ranges::lower_bound(files_, checksum64(prefix), {}, &FileState::place);
    if (known == files_.end() || known->place != checksum64(prefix) || !is_unseen(*known)) {
      return {};
    }
    CAW_TRY(start_file(*parsed, prefix));
    return end_file();
  });
}

static_assert(kInodeFlagsOffset + sizeof(uint32_t) == kSizeOffset, "both are patched at once");

}  // namespace caw
