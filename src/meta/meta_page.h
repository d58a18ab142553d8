// A page of the meta tree: bytes and checks.  Pure; no I/O.
//
// Page (4096 bytes, little-endian):
//   off size field
//     0    4 magic        "CAWM"
//     4    1 level        0 = leaf; a child is exactly one lower
//     5    1 reserved     zero
//     6    2 count        entries, at least 1
//     8    8 address      the page's own block: exposes a misdirected write
//    16    8 epoch        checkpoint that wrote this copy
//    24    2 used_bytes   of the entries
//    26    6 reserved     zero
//    32      entries, packed, keys strictly ascending; then zeros
// Leaf entry:     space u8, id u64, value size u8 (at most 64), value
// Interior entry: space u8, id u64, child address u64, child checksum u64
// The checksum, XXH3-64 of all 4096 bytes, is in the reference to the page: the entry of its parent
// or Superblock::meta_root.
//
// Keys are ordered by (space, id).  Child i of an interior page holds keys >= key i and < key i + 1
// (the last one: < what bounds the page itself).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "base/ids.h"
#include "base/ref.h"
#include "format/superblock.h"
#include "meta/meta_store.h"

namespace caw {

inline constexpr uint32_t kMetaPageMagic = 0x4d574143;   // "CAWM"
inline constexpr size_t kMetaHeaderBytes = 32;
inline constexpr size_t kMetaCapacityBytes = kBlockSize - kMetaHeaderBytes;
inline constexpr size_t kLeafEntryBytes = 10;         ///< without the value
inline constexpr size_t kInteriorEntryBytes = 25;
inline constexpr size_t kMaxMetaValueBytes = 64;
/// Levels; far more than any volume needs.
inline constexpr uint8_t kMaxMetaHeight = 12;

void append_leaf_entry(std::string& entries, MetaKey key, std::string_view value);
void append_interior_entry(std::string& entries, MetaKey key, PageRef child);

/// What a page is made of, before it has an address.
struct MetaPageContent {
  uint8_t level = 0;
  uint16_t count = 0;
  std::string entries;
};

/// Fills `out` (4096 bytes) and returns its checksum.
uint64_t encode_meta_page(const MetaPageContent& content, BlockAddr addr, Epoch epoch, char* out);

/// A checked page in memory, immutable.
class MetaPage final : public RefCounted {
 public:
  /// Fails: meta_page (checksum, magic, level, address, entries), detail = the address.
  static Result<Ref<const MetaPage>> decode(std::string_view bytes, PageRef ref, uint8_t level);
  /// Of our own making, as encoded for `ref`.
  static Ref<const MetaPage> make(const MetaPageContent& content, PageRef ref);

  PageRef page_ref() const { return ref_; }
  uint8_t level() const { return level_; }
  size_t count() const { return offsets_.size(); }
  MetaKey key(size_t i) const;
  std::string_view value(size_t i) const;            ///< leaf
  PageRef child(size_t i) const;                     ///< interior
  /// Index of the first key >= `key`, or count().
  size_t lower_bound(MetaKey key) const;
  /// Interior: index of the child where `key` is, or where it belongs if it is below them all.
  size_t child_index(MetaKey key) const;
  size_t memory_bytes() const {
    return sizeof(*this) + entries_.capacity() + offsets_.capacity() * sizeof(uint16_t);
  }

 private:
  MetaPage(PageRef ref, uint8_t level, std::string_view entries)
      : ref_(ref), level_(level), entries_(entries) {}
  bool index_entries(size_t count);

  PageRef ref_;
  uint8_t level_;
  std::string entries_;
  std::vector<uint16_t> offsets_;
};
using MetaPageHandle = Ref<const MetaPage>;

}  // namespace caw
