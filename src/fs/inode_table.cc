#include "fs/inode_table.h"

#include "base/assert.h"

namespace caw {

InodeTable::~InodeTable() {
  for (const auto& [key, inode] : by_key_) delete inode;
  for (Inode* inode : detached_) delete inode;
}

Inode* InodeTable::find(Inode& parent, uint64_t entry) {
  std::lock_guard lock(mutex_);
  const auto at = by_key_.find(Key{&parent, entry});
  if (at == by_key_.end()) return nullptr;
  ref(*at->second);
  return at->second;
}

Inode* InodeTable::insert(std::unique_ptr<Inode> inode, uint32_t evictions) {
  std::lock_guard lock(mutex_);
  const Key key{inode->parent, inode->entry};
  const auto at = by_key_.find(key);
  if (at != by_key_.end()) {
    ref(*at->second);
    return at->second;
  }
  if (inode->parent->evictions.load(std::memory_order_relaxed) != evictions) return nullptr;
  ref(*inode->parent);
  ref(*inode);
  by_key_.emplace(key, inode.get());
  return inode.release();
}

void InodeTable::unref(Inode& inode, uint64_t count) {
  Inode* next = &inode;
  while (next != nullptr) {
    uint64_t now = next->refs.load(std::memory_order_relaxed);
    while (now > count) {
      if (next->refs.compare_exchange_weak(now, now - count, std::memory_order_acq_rel)) return;
    }
    Inode* parent = nullptr;
    {
      std::lock_guard lock(mutex_);
      now = next->refs.fetch_sub(count, std::memory_order_acq_rel);
      CAW_ASSERT(now >= count);
      if (now > count) return;
      parent = next->parent;
      if (detached_.erase(next) == 0) erase_key(*next);
    }
    delete next;
    next = parent;
    count = 1;
  }
}

void InodeTable::add_alias(Inode& inode, Inode& parent, uint64_t entry) {
  std::lock_guard lock(mutex_);
  CAW_ASSERT(by_key_.emplace(Key{&parent, entry}, &inode).second);
}

void InodeTable::drop_alias(Inode& inode, Inode& parent, uint64_t entry) {
  std::lock_guard lock(mutex_);
  const auto at = by_key_.find(Key{&parent, entry});
  CAW_ASSERT(at != by_key_.end() && at->second == &inode);
  by_key_.erase(at);
}

void InodeTable::rekey(Inode& inode, Inode& parent, uint64_t entry, bool findable) {
  Inode* const old_parent = inode.parent;
  ref(parent);
  {
    std::lock_guard lock(mutex_);
    erase_key(inode);
    inode.parent = &parent;
    inode.entry = entry;
    if (findable) {
      by_key_.insert_or_assign(Key{&parent, entry}, &inode);
    } else {
      detached_.insert(&inode);
    }
  }
  unref(*old_parent);
}

void InodeTable::detach(Inode& inode) {
  std::lock_guard lock(mutex_);
  erase_key(inode);
  detached_.insert(&inode);
}

void InodeTable::erase_key(const Inode& inode) {
  const auto at = by_key_.find(Key{inode.parent, inode.entry});
  CAW_ASSERT(at != by_key_.end() && at->second == &inode);
  by_key_.erase(at);
  inode.parent->evictions.fetch_add(1, std::memory_order_relaxed);
}

size_t InodeTable::size() const {
  std::lock_guard lock(mutex_);
  return by_key_.size() + detached_.size();
}

}  // namespace caw
