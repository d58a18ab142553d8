// InodeTable: the inodes in core by (parent, entry), and their life.
//
// An inode lives while it has references.  Whoever changes the place of an inode holds the
// exclusive topology gate and calls rekey(), which also takes the mutexes of the shards it leaves
// and comes to: so `parent` and `entry` may be read under any of these.
//
// A shard holds pointers only and hashes what they point to; there are many, so that none takes
// long to grow.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>
#include <absl/hash/hash.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "fs/inode.h"

namespace caw {

/// All methods from any thread.
class InodeTable {
 public:
  InodeTable() = default;
  InodeTable(const InodeTable&) = delete;
  InodeTable& operator=(const InodeTable&) = delete;
  ~InodeTable();

  /// The inode there with one reference more; null if it is not in core.
  Inode* find(Inode& parent, uint64_t entry);
  /// Adds `inode` (its parent and entry set, no references) and returns it with one reference; or
  /// the one that is there already.  Null if a child of the parent left the table since its
  /// `evictions` was read: what `inode` was made of may be out of date.
  Inode* insert(std::unique_ptr<Inode> inode, uint32_t evictions);

  void ref(Inode& inode) { inode.refs.fetch_add(1, std::memory_order_relaxed); }
  void unref(Inode& inode, uint64_t count = 1);

  /// Found under (parent, entry) as well from now on: before its records move there.  False, and
  /// nothing done: another inode is there; on a damaged volume, which draws numbers a second time.
  [[nodiscard]] bool add_alias(Inode& inode, Inode& parent, uint64_t entry);
  void drop_alias(Inode& inode, Inode& parent, uint64_t entry);
  /// Its place is (parent, entry) now; found only there, or nowhere if `findable` is false.
  void rekey(Inode& inode, Inode& parent, uint64_t entry, bool findable);
  /// Not found any more.
  void detach(Inode& inode);

  size_t size() const;
  /// Memory taken, the inodes' own not included.
  size_t table_bytes() const;

 private:
  using Key = std::pair<const Inode*, uint64_t>;
  static Key key_of(const Inode* inode) { return {inode->parent, inode->entry}; }
  struct Hash {
    using is_transparent = void;
    size_t operator()(const Key& key) const { return absl::HashOf(key.first, key.second); }
    size_t operator()(const Inode* inode) const { return (*this)(key_of(inode)); }
  };
  struct Equal {
    using is_transparent = void;
    bool operator()(const Inode* a, const Inode* b) const { return key_of(a) == key_of(b); }
    bool operator()(const Inode* a, const Key& b) const { return key_of(a) == b; }
    bool operator()(const Key& a, const Inode* b) const { return a == key_of(b); }
  };
  struct alignas(64) Shard {
    mutable std::mutex mutex;
    absl::flat_hash_set<Inode*, Hash, Equal> inodes;
    absl::flat_hash_map<Key, Inode*> aliases;  ///< while their records move
    absl::flat_hash_set<Inode*> detached;
  };
  static constexpr unsigned kShardBits = 7;

  static size_t shard_of(const Key& key) { return Hash()(key) >> (64 - kShardBits); }
  static Inode* find_locked(Shard& shard, const Key& key);
  static void remove_locked(Shard& shard, Inode& inode);

  std::array<Shard, size_t{1} << kShardBits> shards_;
};

/// Holds one reference.
class InodeHold {
 public:
  InodeHold() = default;
  InodeHold(InodeTable& table, Inode* held) : table_(&table), inode_(held) {}
  InodeHold(InodeHold&& other) noexcept
      : table_(other.table_), inode_(std::exchange(other.inode_, nullptr)) {}
  InodeHold& operator=(InodeHold&& other) noexcept {
    std::swap(table_, other.table_);
    std::swap(inode_, other.inode_);
    return *this;
  }
  ~InodeHold() {
    if (inode_ != nullptr) table_->unref(*inode_);
  }
  Inode* get() const { return inode_; }
  Inode* operator->() const { return inode_; }
  Inode& operator*() const { return *inode_; }
  explicit operator bool() const { return inode_ != nullptr; }
  /// The reference is the caller's now.
  Inode* release() { return std::exchange(inode_, nullptr); }

 private:
  InodeTable* table_ = nullptr;
  Inode* inode_ = nullptr;
};

}  // namespace caw
