#include "fs/inode_table.h"

#include <algorithm>

#include "base/assert.h"

namespace caw {

InodeTable::~InodeTable() {
  for (const Shard& shard : shards_) {
    for (const Inode* inode : shard.inodes) delete inode;
    for (const Inode* inode : shard.detached) delete inode;
  }
}

Inode* InodeTable::find_locked(Shard& shard, const Key& key) {
  const auto at = shard.inodes.find(key);
  if (at != shard.inodes.end()) return *at;
  const auto alias = shard.aliases.find(key);
  return alias == shard.aliases.end() ? nullptr : alias->second;
}

Inode* InodeTable::find(Inode& parent, uint64_t entry) {
  const Key key{&parent, entry};
  Shard& shard = shards_[shard_of(key)];
  const std::lock_guard lock(shard.mutex);
  Inode* const inode = find_locked(shard, key);
  if (inode != nullptr) ref(*inode);
  return inode;
}

Inode* InodeTable::insert(std::unique_ptr<Inode> inode, uint32_t evictions) {
  const Key key = key_of(inode.get());
  const size_t index = shard_of(key);
  Shard& shard = shards_[index];
  const std::lock_guard lock(shard.mutex);
  if (Inode* const there = find_locked(shard, key)) {
    ref(*there);
    return there;
  }
  // Whoever left this place did so under this shard's mutex, and counted it there.
  if (inode->parent->evictions() != evictions) return nullptr;
  ref(*inode->parent);
  ref(*inode);
  inode->shard_.store(static_cast<uint8_t>(index), std::memory_order_relaxed);
  shard.inodes.insert(inode.get());
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
      // It may move to another shard as long as somebody else finds it here.
      const uint8_t index = next->shard_.load(std::memory_order_acquire);
      Shard& shard = shards_[index];
      const std::lock_guard lock(shard.mutex);
      if (next->shard_.load(std::memory_order_relaxed) != index) continue;
      now = next->refs.fetch_sub(count, std::memory_order_acq_rel);
      CAW_ASSERT(now >= count);
      if (now > count) return;
      parent = next->parent;
      if (shard.detached.erase(next) == 0) remove_locked(shard, *next);
    }
    delete next;
    next = parent;
    count = 1;
  }
}

bool InodeTable::add_alias(Inode& inode, Inode& parent, uint64_t entry) {
  const Key key{&parent, entry};
  Shard& shard = shards_[shard_of(key)];
  const std::lock_guard lock(shard.mutex);
  return find_locked(shard, key) == nullptr && shard.aliases.emplace(key, &inode).second;
}

void InodeTable::drop_alias(Inode& inode, Inode& parent, uint64_t entry) {
  const Key key{&parent, entry};
  Shard& shard = shards_[shard_of(key)];
  const std::lock_guard lock(shard.mutex);
  const auto at = shard.aliases.find(key);
  CAW_ASSERT(at != shard.aliases.end() && at->second == &inode);
  shard.aliases.erase(at);
}

void InodeTable::rekey(Inode& inode, Inode& parent, uint64_t entry, bool findable) {
  Inode* const old_parent = inode.parent;
  ref(parent);
  const Key key{&parent, entry};
  const size_t from = inode.shard_.load(std::memory_order_relaxed);
  const size_t to = shard_of(key);
  {
    // By rising index.
    const std::lock_guard first(shards_[std::min(from, to)].mutex);
    std::unique_lock<std::mutex> second;
    if (from != to) second = std::unique_lock(shards_[std::max(from, to)].mutex);
    remove_locked(shards_[from], inode);
    inode.parent = &parent;
    inode.entry = entry;
    inode.shard_.store(static_cast<uint8_t>(to), std::memory_order_release);
    shards_[to].aliases.erase(key);
    if (findable) {
      CAW_ASSERT(shards_[to].inodes.insert(&inode).second);
    } else {
      shards_[to].detached.insert(&inode);
    }
  }
  unref(*old_parent);
}

void InodeTable::detach(Inode& inode) {
  Shard& shard = shards_[inode.shard_.load(std::memory_order_relaxed)];
  const std::lock_guard lock(shard.mutex);
  remove_locked(shard, inode);
  shard.detached.insert(&inode);
}

void InodeTable::remove_locked(Shard& shard, Inode& inode) {
  const auto at = shard.inodes.find(key_of(&inode));
  CAW_ASSERT(at != shard.inodes.end() && *at == &inode);
  shard.inodes.erase(at);
  inode.parent->evictions_or_next_read_.fetch_add(1, std::memory_order_release);
}

size_t InodeTable::size() const {
  size_t count = 0;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    count += shard.inodes.size() + shard.detached.size();
  }
  return count;
}

size_t InodeTable::table_bytes() const {
  size_t bytes = sizeof *this;
  for (const Shard& shard : shards_) {
    const std::lock_guard lock(shard.mutex);
    bytes += shard.inodes.capacity() * (sizeof(Inode*) + 1);  // a control byte each
  }
  return bytes;
}

}  // namespace caw
