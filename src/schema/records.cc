#include "schema/records.h"

#include <algorithm>

#include "base/assert.h"
#include "base/bytes.h"
#include "schema/keys.h"

namespace caw {

namespace {

constexpr uint32_t kNlinkOffset = 12;
constexpr uint32_t kRdevOffset = 16;
constexpr uint32_t kSizeOffset = 24;
constexpr uint32_t kCtimeOffset = 44;
constexpr uint32_t kAttributeSeqOffset = 64;
constexpr uint32_t kAtimeOffset = 72;
constexpr uint32_t kNumberOffset = 96;
constexpr uint32_t kNameBytesOffset = 120;
constexpr uint32_t kNanosecondsPerSecond = 1'000'000'000;
constexpr uint32_t kLinkNameBit = 1U << 31;
constexpr unsigned kDirentScopeShift = 6;
constexpr uint8_t kDirentType = 0xf;

std::unexpected<Error> malformed(const char* where) {
  return fail(Code::record_malformed, 0, where);
}

bool is_known_type(uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFIFO:
    case S_IFSOCK:
    case S_IFCHR:
    case S_IFBLK:
      return true;
    default:
      return false;
  }
}

/// Bytes [0, kNumberOffset) of a record.
std::string encode_fields(const InodeFields& fields) {
  std::string out;
  out.reserve(kMaxRecordBytes / 8);
  put_fixed(out, fields.mode);
  put_fixed(out, fields.uid);
  put_fixed(out, fields.gid);
  put_fixed(out, fields.nlink);
  put_fixed(out, fields.rdev);
  put_fixed(out, fields.flags);
  put_fixed(out, fields.size);
  put_fixed(out, fields.mtime.seconds);
  put_fixed(out, fields.mtime.nanoseconds);
  put_fixed(out, fields.ctime.nanoseconds);
  put_fixed(out, fields.ctime.seconds);
  put_fixed(out, fields.content_seq);
  put_fixed(out, fields.attribute_seq);
  put_fixed(out, fields.atime.seconds);
  put_fixed(out, fields.atime.nanoseconds);
  put_fixed(out, fields.btime.nanoseconds);
  put_fixed(out, fields.btime.seconds);
  CAW_ASSERT(out.size() == kNumberOffset);
  return out;
}

InodeFields read_fields(Reader& reader) {
  InodeFields fields;
  fields.mode = reader.fixed<uint32_t>();
  fields.uid = reader.fixed<uint32_t>();
  fields.gid = reader.fixed<uint32_t>();
  fields.nlink = reader.fixed<uint32_t>();
  fields.rdev = reader.fixed<uint32_t>();
  fields.flags = reader.fixed<uint32_t>();
  fields.size = reader.fixed<uint64_t>();
  fields.mtime.seconds = reader.fixed<int64_t>();
  fields.mtime.nanoseconds = reader.fixed<uint32_t>();
  fields.ctime.nanoseconds = reader.fixed<uint32_t>();
  fields.ctime.seconds = reader.fixed<int64_t>();
  fields.content_seq = reader.fixed<uint64_t>();
  fields.attribute_seq = reader.fixed<uint64_t>();
  fields.atime.seconds = reader.fixed<int64_t>();
  fields.atime.nanoseconds = reader.fixed<uint32_t>();
  fields.btime.nanoseconds = reader.fixed<uint32_t>();
  fields.btime.seconds = reader.fixed<int64_t>();
  return fields;
}

bool are_valid(const InodeFields& fields) {
  return is_known_type(fields.mode) && (fields.mode & ~(S_IFMT | 07777U)) == 0 &&
         (fields.flags & ~kInodeFlags) == 0 && fields.size <= kMaxFileBytes && fields.nlink != 0 &&
         fields.mtime.nanoseconds < kNanosecondsPerSecond &&
         fields.ctime.nanoseconds < kNanosecondsPerSecond &&
         fields.atime.nanoseconds < kNanosecondsPerSecond &&
         fields.btime.nanoseconds < kNanosecondsPerSecond;
}

bool is_link_scope(uint64_t scope) {
  return scope == static_cast<uint64_t>(LinkScope::local) ||
         scope == static_cast<uint64_t>(LinkScope::global);
}

/// Bytes [0, end) of a record but the link count.
void overlay_fields(Patch& patch, const InodeFields& fields, uint32_t end) {
  const std::string all = encode_fields(fields);
  const std::string_view bytes = std::string_view(all).substr(0, end);
  overlay(patch.pieces, 0, bytes.substr(0, kNlinkOffset));
  overlay(patch.pieces, kRdevOffset, bytes.substr(kRdevOffset));
  patch.extend = std::max(patch.extend, end);
}

std::string encode_tail(std::string_view name, std::string_view target) {
  CAW_ASSERT(name.size() <= kMaxNameBytes && target.size() <= kMaxTargetBytes);
  std::string out;
  put_fixed(out, static_cast<uint16_t>(name.size()));
  put_fixed(out, static_cast<uint16_t>(target.size()));
  put_fixed(out, uint32_t{0});
  out.append(name);
  out.append(target);
  return out;
}

}  // namespace

std::string encode_inode(const InodeRecord& record) {
  std::string out = encode_fields(record.fields);
  put_fixed(out, record.number);
  put_fixed(out, record.home);
  put_fixed(out, record.domain);
  out += encode_tail(record.name, record.target);
  return out;
}

Result<InodeRecord> decode_inode(std::string_view bytes) {
  Reader reader(bytes);
  InodeRecord record;
  record.fields = read_fields(reader);
  record.number = reader.fixed<uint64_t>();
  record.home = reader.fixed<uint64_t>();
  record.domain = reader.fixed<uint64_t>();
  const auto name_bytes = reader.fixed<uint16_t>();
  const auto target_bytes = reader.fixed<uint16_t>();
  const auto reserved = reader.fixed<uint32_t>();
  record.name = reader.bytes(name_bytes);
  record.target = reader.bytes(target_bytes);
  if (!reader.ok() || !reader.at_end()) return malformed("inode length");
  if (!are_valid(record.fields)) return malformed("inode fields");
  if (record.number == 0 || reserved != 0) return malformed("inode number");
  if ((record.home == 0) != (record.domain == 0)) return malformed("inode domain");
  if (!record.name.empty() && !is_valid_name(record.name)) return malformed("inode name");
  const bool has_target = !record.target.empty();
  if (has_target != record.fields.is_symlink() || target_bytes > kMaxTargetBytes ||
      record.target.find('\0') != std::string::npos) {
    return malformed("link target");
  }
  return record;
}

Patch attributes_patch(const InodeFields& fields) {
  Patch patch;
  overlay_fields(patch, fields, kAtimeOffset);
  return patch;
}

Patch all_fields_patch(const InodeFields& fields) {
  Patch patch;
  overlay_fields(patch, fields, kNumberOffset);
  return patch;
}

Patch content_patch(const InodeFields& fields) {
  const std::string all = encode_fields(fields);
  return write_patch(kSizeOffset,
                     std::string_view(all).substr(kSizeOffset, kAttributeSeqOffset - kSizeOffset));
}

Patch rename_patch(const InodeFields& fields, std::string_view name, std::string_view target) {
  const std::string tail = encode_tail(name, target);
  Patch patch;
  patch.cut = kInodeFixedBytes;
  patch.extend = kNameBytesOffset + static_cast<uint32_t>(tail.size());
  overlay_fields(patch, fields, kNumberOffset);
  overlay(patch.pieces, kNameBytesOffset, tail);
  return patch;
}

Patch link_count_patch(uint32_t nlink) {
  std::string count;
  put_fixed(count, nlink);
  return write_patch(kNlinkOffset, count);
}

Patch links_patch(uint32_t nlink, const Timestamp& ctime) {
  Patch patch = link_count_patch(nlink);
  std::string time;
  put_fixed(time, ctime.nanoseconds);
  put_fixed(time, ctime.seconds);
  overlay(patch.pieces, kCtimeOffset, time);
  patch.extend = kCtimeOffset + static_cast<uint32_t>(time.size());
  return patch;
}

std::string encode_dirent(const Dirent& dirent) {
  const auto scope = static_cast<unsigned>(dirent.scope) << kDirentScopeShift;
  std::string out(1, static_cast<char>((dirent.type & S_IFMT) >> 12 | scope));
  put_varint(out, dirent.entry);
  if (dirent.is_linked()) put_varint(out, dirent.group);
  return out;
}

Result<Dirent> decode_dirent(std::string_view bytes) {
  Reader reader(bytes);
  Dirent dirent;
  const auto first = reader.fixed<uint8_t>();
  const auto scope = static_cast<uint8_t>(first >> kDirentScopeShift);
  const auto type = static_cast<uint8_t>(first & ~(scope << kDirentScopeShift));
  dirent.type = uint32_t{type} << 12;
  dirent.entry = reader.varint();
  if (scope != 0) dirent.group = reader.varint();
  if (!reader.ok() || !reader.at_end() || type > kDirentType || !is_known_type(dirent.type) ||
      dirent.entry < kFirstEntry) {
    return malformed("dirent");
  }
  if (scope == 0) return dirent;
  if (!is_link_scope(scope) || dirent.group < kFirstEntry || dirent.type == S_IFDIR) {
    return malformed("link");
  }
  dirent.scope = static_cast<LinkScope>(scope);
  return dirent;
}

bool is_link_name(std::string_view bytes) {
  return bytes.size() >= sizeof(uint32_t) && Reader(bytes).fixed<uint32_t>() >= kLinkNameBit;
}

std::string encode_link_name(const LinkName& name) {
  CAW_ASSERT(name.scope != LinkScope::none && name.name.size() <= kMaxNameBytes);
  std::string out;
  put_fixed(out, kLinkNameBit | (name.type & S_IFMT));
  put_fixed(out, static_cast<uint32_t>(name.scope));
  put_fixed(out, name.group);
  out.append(name.name);
  return out;
}

Result<LinkName> decode_link_name(std::string_view bytes) {
  Reader reader(bytes);
  LinkName out;
  const auto type = reader.fixed<uint32_t>();
  const auto scope = reader.fixed<uint32_t>();
  out.group = reader.fixed<uint64_t>();
  if (!reader.ok()) return malformed("link name");
  out.name = reader.rest();
  out.type = type & ~kLinkNameBit;
  out.scope = static_cast<LinkScope>(scope);
  if ((type & kLinkNameBit) == 0 || (out.type & ~uint32_t{S_IFMT}) != 0 ||
      !is_known_type(out.type) || out.type == S_IFDIR || !is_link_scope(scope) ||
      out.group < kFirstEntry || !is_valid_name(out.name)) {
    return malformed("link name");
  }
  return out;
}

std::string encode_link_entry(const LinkEntry& entry) {
  std::string out(1, static_cast<char>(entry.scope));
  if (!entry.is_mark()) put_varint(out, entry.group);
  return out;
}

Result<LinkEntry> decode_link_entry(std::string_view bytes) {
  Reader reader(bytes);
  LinkEntry out;
  const auto scope = reader.fixed<uint8_t>();
  if (scope != 0) out.group = reader.varint();
  const bool is_known = scope == 0 || (is_link_scope(scope) && out.group >= kFirstEntry);
  if (!reader.ok() || !reader.at_end() || !is_known) return malformed("links index");
  out.scope = static_cast<LinkScope>(scope);
  return out;
}

std::string encode_number(uint64_t number) {
  std::string out;
  put_varint(out, number);
  return out;
}

Result<uint64_t> decode_number(std::string_view bytes) {
  Reader reader(bytes);
  const uint64_t number = reader.varint();
  if (!reader.ok() || !reader.at_end() || number == 0) return malformed("number");
  return number;
}

}  // namespace caw
