// Keys of a file system's trees.  Pure; no I/O.
//
// A tree holds the contents of one directory (its top) in three indexes:
//
//   \0 PATH \1 name          dirent of `name`
//   \0 PATH \2 entry         inode record of the entry
//   \0 PATH \3 entry name    extended attribute of the entry: its value
//   \1 PATH \2 entry chunk   file data
//   \4 PATH \2 entry         links index: of a linked name (docs/adr/0013-hard-links.md)
//
// PATH leads from the top to a directory: \4 entry for each component.  An entry number names an
// entry within its directory; it is unique in the volume, never used again, and the entry's readdir
// cookie.  So a directory's own entries stand together, the contents of the directory at PATH are
// the ranges that start with \0 PATH, \1 PATH and \4 PATH, and cloning a subtree is cloning these
// prefixes.
//
// A file whose record owns a tree keeps its data there: \1 chunk.
//
// Numbers are ordered: one byte 1..8 (how many follow), then big-endian without leading zeros.  No
// byte after a section byte is taken for another section, and no key starts with 0xff.
//
// The system tree has the same form (its top holds the root and the orphans), and two maps:
//
//   \2 context home domain   domain that shows for (home, domain) in `context`
//   \3 domain high           chunk of inode numbers of `domain` whose number >> 28 is `high`
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace caw {

inline constexpr size_t kMaxNameBytes = 255;   ///< of a file, and of an extended attribute
inline constexpr size_t kMaxXattrBytes = 65536;  ///< of a value
inline constexpr uint32_t kChunkShift = 17;
inline constexpr uint32_t kChunkBytes = 1U << kChunkShift;  ///< of file data per value
inline constexpr uint64_t kFirstEntry = 16;                 ///< 1 and 2 are "." and ".."
inline constexpr uint64_t kRootEntry = 1;                   ///< of "/" in the system tree
inline constexpr uint64_t kOrphansEntry = 2;                ///< of the orphans in the system tree
/// Of the links directory of a root or clone in its contents; in the system tree: of that of links
/// between them.
inline constexpr uint64_t kLinksEntry = 3;
/// A directory whose path in its tree would be longer owns a tree: keys stay below kMaxKeyBytes.
inline constexpr size_t kMaxPathBytes = 1024;

/// Appends `number` so that byte order is number order.
void put_ordered(std::string& out, uint64_t number);
/// Takes one number off the front; nothing if it is malformed (`bytes` is then unspecified).
std::optional<uint64_t> take_ordered(std::string_view& bytes);

/// PATH of the directory with this entry in the directory at `path`.
std::string body_path(std::string_view path, uint64_t entry);
std::string dirent_key(std::string_view path, std::string_view name);
std::string record_key(std::string_view path, uint64_t entry);
/// What the keys of all extended attributes of an entry start with; the name follows.
std::string xattr_prefix(std::string_view path, uint64_t entry);
/// The end of all records of the directory at `path`.
std::string records_end(std::string_view path);
std::string chunk_key(std::string_view path, uint64_t entry, uint64_t chunk);
/// What all chunk keys of a file start with.
std::string chunk_prefix(std::string_view path, uint64_t entry);
/// Key and prefix of a chunk in a tree that the file owns.
std::string owned_chunk_key(uint64_t chunk);
std::string owned_chunk_prefix();
/// What all metadata, all data keys at and below the directory at `path` start with.
std::string metadata_prefix(std::string_view path);
std::string data_prefix(std::string_view path);
/// Key and prefix in the links index.
std::string link_key(std::string_view path, uint64_t entry);
std::string links_prefix(std::string_view path);
/// First key after all that start with `prefix`.  Requires: not empty, first byte not 0xff.
std::string after_prefix(std::string prefix);

std::string domain_map_key(uint64_t context, uint64_t home, uint64_t domain);
std::string chunk_map_key(uint64_t domain, uint64_t high);

/// True for 1..kMaxNameBytes bytes without '/' and NUL that are not "." or "..".
bool is_valid_name(std::string_view name);

enum class KeyKind : uint8_t {
  dirent,
  record,
  xattr,
  chunk,
  owned_chunk,
  domain_map,
  chunk_map,
  link,
};

struct ParsedKey {
  KeyKind kind = KeyKind::record;
  std::vector<uint64_t> path;  ///< entries from the top
  uint64_t entry = 0;          ///< record, xattr, chunk, link
  uint64_t chunk = 0;          ///< chunk, owned_chunk
  std::string_view name;       ///< dirent, xattr; into the parsed key
};

enum class TreeKind : uint8_t { directory, file, system };

/// Fails: record_malformed.  Every byte is checked.
Result<ParsedKey> parse_key(std::string_view key, TreeKind tree);
/// The chunk number after `prefix_bytes` of a chunk key.  Fails: record_malformed.
Result<uint64_t> chunk_of_key(std::string_view key, size_t prefix_bytes);

}  // namespace caw
