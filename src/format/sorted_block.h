// SortedBlock: messages in key order, prefix-compressed, with restart points for binary search;
// the payload of leaves and runs.  Pure; no I/O.  (Layout after LevelDB's table block, 2011.)
//
// Layout (docs/format.md): entries, range erases, restart offsets, footer.
//
// Besides point messages a block holds range erases [lo, hi).  RULE: a block's range erases are
// older than all its points.  In a leaf every point is a put and there are no range erases.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "format/value.h"

namespace caw {

/// hi is exclusive; keys never start with byte 0xff, so kKeyEnd stands above all of them.
struct RangeErase {
  std::string lo;
  std::string hi;
  uint64_t dead_bytes = 0;
  friend bool operator==(const RangeErase&, const RangeErase&) = default;
};
inline constexpr std::string_view kKeyEnd = "\xff";

class SortedBlockBuilder {
 public:
  /// Before the first add(); sorted by lo, disjoint.
  void add_range_erase(const RangeErase& range);
  /// Keys strictly ascending.
  void add(std::string_view key, MessageKind kind, std::string_view body);
  void add(std::string_view key, const Message& message);
  /// Bytes finish() would give now, within a few bytes.
  size_t size_bytes() const;
  uint32_t count() const { return count_; }
  bool owns_refs() const { return owns_refs_; }
  bool empty() const { return count_ == 0 && range_count_ == 0; }
  /// The block; the builder is then empty again.
  std::string finish();

 private:
  std::string entries_;
  std::string ranges_;
  std::string last_key_;
  std::string last_range_hi_;
  std::string scratch_;
  std::vector<uint32_t> restarts_;
  uint32_t count_ = 0;
  uint32_t range_count_ = 0;
  bool owns_refs_ = false;
};

/// A validated view of an encoded block; the bytes must outlive it.
class SortedBlock {
 public:
  /// An empty block.
  SortedBlock() = default;
  /// Checks everything: bounds, order, every message, every range.  Fails: block_order,
  /// message_malformed, node_payload.
  static Result<SortedBlock> open(std::string_view bytes);
  /// Bytes this process just built; no checks.
  static SortedBlock trust(std::string_view bytes);

  uint32_t count() const { return count_; }
  const std::vector<RangeErase>& range_erases() const { return ranges_; }
  size_t size_bytes() const { return bytes_.size(); }

  class Iterator {
   public:
    explicit Iterator(const SortedBlock& block) : block_(&block) {}
    bool valid() const { return valid_; }
    /// First key >= `key`.
    void seek(std::string_view key);
    void seek_to_first();
    void next();
    std::string_view key() const { return key_; }
    MessageKind kind() const { return kind_; }
    std::string_view body() const { return body_; }

   private:
    void parse_at(uint32_t offset);
    const SortedBlock* block_;
    bool valid_ = false;
    uint32_t next_offset_ = 0;
    std::string key_;
    MessageKind kind_ = MessageKind::put;
    std::string_view body_;
  };

 private:
  friend class Iterator;
  Result<void> read_footer();
  Result<void> check_ranges(std::string_view encoded, uint32_t count);
  Result<void> check_entries() const;
  uint32_t restart(uint32_t index) const;
  std::string_view restart_key(uint32_t index) const;

  std::string_view bytes_;
  std::string_view entries_;
  const char* restarts_ = nullptr;   ///< u32 little-endian each, maybe unaligned
  uint32_t restart_count_ = 0;
  uint32_t count_ = 0;
  std::vector<RangeErase> ranges_;
};

}  // namespace caw
