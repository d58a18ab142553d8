// InodeTable: the inodes in core by (parent, entry), and their life.
//
// An inode lives while it has references.  Whoever changes the place of an inode holds the
// exclusive topology gate and calls rekey(), which also takes the table's mutex: so `parent` and
// `entry` may be read under either.
#pragma once

#include <absl/container/flat_hash_map.h>
#include <absl/container/flat_hash_set.h>

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

  /// Found under (parent, entry) as well from now on: before its records move there.
  void add_alias(Inode& inode, Inode& parent, uint64_t entry);
  void drop_alias(Inode& inode, Inode& parent, uint64_t entry);
  /// Its place is (parent, entry) now; found only there, or nowhere if `findable` is false.
  void rekey(Inode& inode, Inode& parent, uint64_t entry, bool findable);
  /// Not found any more.
  void detach(Inode& inode);

  size_t size() const;

 private:
  using Key = std::pair<const Inode*, uint64_t>;
  void erase_key(const Inode& inode);

  mutable std::mutex mutex_;
  absl::flat_hash_map<Key, Inode*> by_key_;
  absl::flat_hash_set<Inode*> detached_;
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
