// Inode: the in-core state of one file or directory in its clone.  Owned by InodeTable.
//
// The kernel may hold millions of them, so it is packed, and what few inodes need stands elsewhere:
// an owned tree, whether it is open (OpenFiles).  Bound, with all that InodeTable and the allocator
// add: 200 bytes (inode_table_test.cc).
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>

#include "schema/records.h"
#include "volume/forest.h"

namespace caw {

/// Which lock guards what (lock order: locks.h):
///   parent, entry   written under the exclusive topology gate and their shards of InodeTable, read
///                   under any of these
///   tree            written under the exclusive topology gate, read under either side
///   fields          written under the inode's lock and the one in `state_`; read under either
///   link count      of a linked file, changed by an attempt (topology.h) under the inode's lock,
///                   or without it under the exclusive topology gate
///   the rest        constant, or atomic
class Inode {
 public:
  static constexpr uint64_t kNeverVerified = UINT64_MAX;

  /// Requires: nobody else has it yet.  Fixes its type.
  void start_fields(const InodeFields& fields);
  uint32_t type() const {  ///< S_IFMT bits of the mode
    return (state_.load(std::memory_order_relaxed) & uint32_t{kType}) << kTypeShift;
  }
  bool is_directory() const { return S_ISDIR(type()); }
  bool is_regular() const { return S_ISREG(type()); }
  InodeFields load_fields() const;
  /// The type and the link count stay what they were.
  void store_fields(const InodeFields& now);
  uint32_t nlink() const;
  /// Link count, and the time of its change.
  void set_links(uint32_t nlink, const Timestamp& ctime);
  uint64_t load_size() const;

  /// The owned tree: the directory's contents, the file's data.  Null: none.
  const TreeRef& tree() const {
    static const TreeRef none;
    return owned_ ? owned_->tree : none;
  }
  void set_tree(TreeRef tree);
  /// Share generation under which tree() is private.  Requires: tree().
  std::atomic<uint64_t>& verified() { return owned_->verified; }

  /// No name leads here any more, and the records are gone.
  bool is_removed() const { return has(kRemoved); }
  void set_removed() { state_.fetch_or(kRemoved, std::memory_order_release); }
  /// Moved to the orphans, to be erased at the last close.
  bool is_orphan() const { return has(kOrphan); }
  void set_orphan() { state_.fetch_or(kOrphan, std::memory_order_release); }

  /// Of a directory: children that left the table.
  uint32_t evictions() const { return evictions_or_next_read_.load(std::memory_order_acquire); }
  /// Of a file: a read of [offset, end) comes.  True if it goes on where the last one ended; a
  /// hint.
  bool note_read(uint64_t offset, uint64_t end) {
    return evictions_or_next_read_.exchange(static_cast<uint32_t>(end),
                                            std::memory_order_relaxed) ==
           static_cast<uint32_t>(offset);
  }

  Inode* parent = nullptr;  ///< holds one of its references; null: the system directory
  uint64_t entry = 0;       ///< in `parent`
  uint64_t domain = 0;      ///< of its number; a directory's entries inherit it
  uint64_t number = 0;
  std::atomic<uint64_t> ino{0};   ///< as shown; 0: not asked for yet
  std::atomic<uint64_t> refs{0};  ///< lookups, opens, children in core, users

 private:
  friend class InodeTable;  // evictions, shard_
  struct OwnedTree {
    TreeRef tree;
    std::atomic<uint64_t> verified{kNeverVerified};
  };
  class FieldsLock;

  // state_
  static constexpr unsigned kTypeShift = 12;
  static constexpr uint8_t kType = S_IFMT >> kTypeShift;
  static constexpr uint8_t kFieldsLocked = 1U << 4;
  static constexpr uint8_t kRemoved = 1U << 5;
  static constexpr uint8_t kOrphan = 1U << 6;
  bool has(uint8_t bit) const { return (state_.load(std::memory_order_acquire) & bit) != 0; }

  enum Time : uint8_t { kMtime, kCtime, kAtime, kBtime, kTimes };
  void pack(const InodeFields& fields);

  std::unique_ptr<OwnedTree> owned_;
  // InodeFields, without the padding and the type.
  uint64_t size_ = 0;
  uint64_t content_seq_ = 0, attribute_seq_ = 0;
  std::array<int64_t, kTimes> seconds_{};
  std::array<uint32_t, kTimes> nanoseconds_{};
  uint32_t uid_ = 0, gid_ = 0;
  uint32_t nlink_ = 1;
  uint32_t rdev_ = 0;
  uint16_t permissions_and_flags_ = 0;

  mutable std::atomic<uint8_t> state_{0};
  std::atomic<uint8_t> shard_{0};  ///< of InodeTable
  std::atomic<uint32_t> evictions_or_next_read_{0};
};
static_assert(sizeof(Inode) == 152, "and 8 of malloc");

}  // namespace caw
