// Values of a file system's trees: dirents, inode records, the maps of the system tree.  Pure.
//
// An inode record is 128 fixed bytes, then the name (so that a scan of the records is a readdir),
// then the target of a symbolic link.  Fields that change together stand together, so that a change
// is a patch of one short range.  Integers are little-endian.
//
//   off size field
//     0    4 mode           type and permissions
//     4    4 uid
//     8    4 gid
//    12    4 nlink
//    16    4 rdev           devices only
//    20    4 flags          kInode*; others are zero
//    24    8 size           bytes
//    32    8 mtime          seconds
//    40    4 mtime          nanoseconds
//    44    4 ctime          nanoseconds
//    48    8 ctime          seconds
//    56    8 content_seq    stamp of the last change of the data or names; a stamp is given once
//    64    8 attribute_seq  stamp of the last change of the attributes
//    72    8 atime          seconds
//    80    4 atime          nanoseconds
//    84    4 btime          nanoseconds
//    88    8 btime          seconds
//    96    8 number         file number, unique but for copies made by clones
//   104    8 home           domain of the directory this record was put into, if domain is set
//   112    8 domain         domain of the file as seen there; 0: the directory's
//   120    2 name_bytes     0 only for "/" and orphans
//   122    2 target_bytes   symbolic links only
//   124    4 reserved       zero
//
// Where a file has several names, its record stands in a links directory, without a name, and each
// name has a record of its own in its directory, a link name:
//
//   off size field
//     0    4 type           S_IFMT bits, and bit 31, which no mode has
//     4    4 scope          1 local, 2 global
//     8    8 group          entry of the inode record in the links directory
//    16      name           to the end, 1 to 255 bytes
#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "base/error.h"
#include "format/value.h"

namespace caw {

inline constexpr uint32_t kInodeFixedBytes = 128;
inline constexpr uint32_t kMaxTargetBytes = 4095;
inline constexpr uint64_t kMaxFileBytes = INT64_MAX;
inline constexpr uint32_t kMaxRecordBytes = kInodeFixedBytes + 255 + kMaxTargetBytes;

inline constexpr uint32_t kInodeSparse = 1U << 0;  ///< some of the file may be holes
inline constexpr uint32_t kInodeClone = 1U << 1;   ///< made by clone: its owner may remove it whole
inline constexpr uint32_t kInodeXattrs = 1U << 2;  ///< it may have extended attributes
/// Of a links directory: it came with a clone; its link counts are those of the source.
inline constexpr uint32_t kInodeUncounted = 1U << 3;
inline constexpr uint32_t kInodeFlags =
    kInodeSparse | kInodeClone | kInodeXattrs | kInodeUncounted;

inline constexpr uint32_t kInodeFlagsOffset = 20;  ///< in a record
inline constexpr uint32_t kMaxLinks = INT32_MAX;

/// What changes in a file's life.
struct InodeFields {
  uint32_t mode = 0;
  uint32_t uid = 0, gid = 0;
  uint32_t nlink = 1;
  uint32_t rdev = 0;
  uint32_t flags = 0;
  uint64_t size = 0;
  Timestamp mtime, ctime, atime, btime;
  uint64_t content_seq = 0, attribute_seq = 0;
  friend bool operator==(const InodeFields&, const InodeFields&) = default;

  bool is_directory() const { return S_ISDIR(mode); }
  bool is_regular() const { return S_ISREG(mode); }
  bool is_symlink() const { return S_ISLNK(mode); }
};

struct InodeRecord {
  InodeFields fields;
  uint64_t number = 0;
  uint64_t home = 0, domain = 0;
  std::string name;
  std::string target;
  friend bool operator==(const InodeRecord&, const InodeRecord&) = default;
};

std::string encode_inode(const InodeRecord& record);
/// Fails: record_malformed.  Every field is checked.
Result<InodeRecord> decode_inode(std::string_view bytes);

/// Patches that bring a record up to `fields`: everything but atime and btime / all times too /
/// what a write changes (size, mtime, ctime, content_seq).  The link count is left to links_patch.
Patch attributes_patch(const InodeFields& fields);
Patch all_fields_patch(const InodeFields& fields);
Patch content_patch(const InodeFields& fields);
/// The same as all_fields_patch, and name and target anew.
Patch rename_patch(const InodeFields& fields, std::string_view name, std::string_view target);

Patch links_patch(uint32_t nlink, const Timestamp& ctime);
Patch link_count_patch(uint32_t nlink);

/// Where the inode record of a name is.
enum class LinkScope : uint8_t {
  none,    ///< at the name's own entry
  local,   ///< in the links directory of the root or clone that the name is in
  global,  ///< in that of the system tree
};

struct Dirent {
  uint64_t entry = 0;
  uint32_t type = 0;  ///< S_IFMT bits
  LinkScope scope = LinkScope::none;
  uint64_t group = 0;  ///< of a linked name: entry in the links directory
  bool is_linked() const { return scope != LinkScope::none; }
  friend bool operator==(const Dirent&, const Dirent&) = default;
};
std::string encode_dirent(const Dirent& dirent);
/// Fails: record_malformed.
Result<Dirent> decode_dirent(std::string_view bytes);

struct LinkName {
  uint32_t type = 0;
  LinkScope scope = LinkScope::local;
  uint64_t group = 0;
  std::string name;
  friend bool operator==(const LinkName&, const LinkName&) = default;
};
/// True if the bytes of a record are to be decoded as a link name, not as an inode.
bool is_link_name(std::string_view bytes);
std::string encode_link_name(const LinkName& name);
/// Fails: record_malformed.
Result<LinkName> decode_link_name(std::string_view bytes);

/// Value in the links index: a linked name; or, with no scope, the mark of a directory that owns a
/// tree with a links index.
struct LinkEntry {
  LinkScope scope = LinkScope::none;
  uint64_t group = 0;
  bool is_mark() const { return scope == LinkScope::none; }
  friend bool operator==(const LinkEntry&, const LinkEntry&) = default;
};
std::string encode_link_entry(const LinkEntry& entry);
/// Fails: record_malformed.
Result<LinkEntry> decode_link_entry(std::string_view bytes);

/// Values of both maps of the system tree: one number, never 0.
std::string encode_number(uint64_t number);
Result<uint64_t> decode_number(std::string_view bytes);

}  // namespace caw
