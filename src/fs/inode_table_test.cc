#include "fs/inode_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

namespace caw {
namespace {

class Table : public testing::Test {
 protected:
  Table() { top.refs = 1; }
  Inode* add(Inode& parent, uint64_t entry) {
    auto inode = std::make_unique<Inode>();
    inode->parent = &parent;
    inode->entry = entry;
    return table.insert(std::move(inode), parent.evictions());
  }
  Inode top;
  InodeTable table;
};

TEST_F(Table, AnInodeLivesWhileItIsReferredToAndKeepsItsParent) {
  Inode* const directory = add(top, 16);
  Inode* const file = add(*directory, 17);
  EXPECT_EQ(table.find(top, 16), directory);
  table.unref(*directory, 2);
  EXPECT_EQ(table.size(), 2u);  // the file holds it
  EXPECT_EQ(table.find(*directory, 17), file);
  table.unref(*file, 2);
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.find(top, 16), nullptr);
  EXPECT_EQ(top.refs, 1u);
}

TEST_F(Table, InsertGivesTheOneThatIsThere) {
  Inode* const first = add(top, 16);
  EXPECT_EQ(add(top, 16), first);
  EXPECT_EQ(first->refs, 2u);
}

TEST_F(Table, WhatWasReadBeforeAnEvictionIsRefused) {
  const uint32_t before = top.evictions();
  table.unref(*add(top, 16));
  auto stale = std::make_unique<Inode>();
  stale->parent = &top;
  stale->entry = 16;
  EXPECT_EQ(table.insert(std::move(stale), before), nullptr);
}

/// A damaged volume may draw entry numbers that are in use.
TEST_F(Table, APlaceThatIsTakenGetsNoAlias) {
  Inode* const taken = add(top, 16);
  Inode* const file = add(top, 17);
  EXPECT_FALSE(table.add_alias(*file, top, 16));
  EXPECT_EQ(table.find(top, 16), taken);
  table.unref(*taken, 2);
  table.unref(*file);
}

TEST_F(Table, MovedInodesAreFoundAtTheirNewPlace) {
  Inode* const from = add(top, 16);
  Inode* const to = add(top, 17);
  Inode* const file = add(*from, 18);
  EXPECT_TRUE(table.add_alias(*file, *to, 19));
  EXPECT_EQ(table.find(*to, 19), file);
  table.rekey(*file, *to, 19, true);
  table.unref(*file);
  EXPECT_EQ(table.find(*from, 18), nullptr);
  EXPECT_EQ(file->parent, to);
  table.unref(*from);
  EXPECT_EQ(table.find(top, 16), nullptr);
  table.unref(*to);
  EXPECT_EQ(table.find(top, 17), to);  // the file holds it
  table.unref(*to);
  table.detach(*file);
  EXPECT_EQ(table.find(*to, 19), nullptr);
  table.unref(*file);
  EXPECT_EQ(table.size(), 0u);
}

TEST_F(Table, AMovedInodeThatNobodyFindsGoesWithItsLastReference) {
  Inode* const trash = add(top, 2);
  for (uint64_t entry = 16; entry < 300; ++entry) {  // from each shard to others
    Inode* const file = add(top, entry);
    table.rekey(*file, *trash, entry, false);
    EXPECT_EQ(table.find(*trash, entry), nullptr);
    EXPECT_EQ(table.find(top, entry), nullptr);
    table.unref(*file);
  }
  EXPECT_EQ(table.size(), 1u);
  table.unref(*trash);
}

// One thread moves an inode to and fro, others find it and let it go: it is freed once.
TEST_F(Table, InodesMoveWhileOthersLetThemGo) {
  constexpr uint64_t kPlaces = 4;
  std::atomic<bool> stop{false};
  std::atomic<uint64_t> first{16};  // no place is used twice
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; ++i) {
    threads.emplace_back([&] {
      while (!stop) {
        for (uint64_t place = 0; place < kPlaces; ++place) {
          if (Inode* const found = table.find(top, first + place)) table.unref(*found);
        }
      }
    });
  }
  for (int i = 0; i < 2000; ++i) {
    Inode* file = nullptr;
    while (file == nullptr) file = add(top, first);  // none: the last one just left the table
    for (uint64_t place = 1; place < kPlaces; ++place) table.rekey(*file, top, first + place, true);
    table.unref(*file);
    first += kPlaces;
  }
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(top.refs, 1u);
}

// docs/limits: what the kernel holds costs at most 200 bytes each.
TEST_F(Table, AnInodeTakesAtMost200Bytes) {
  constexpr size_t kMallocHeader = 8;
  constexpr size_t kMallocUnit = 16;
  constexpr size_t kInode =
      (sizeof(Inode) + kMallocHeader + kMallocUnit - 1) / kMallocUnit * kMallocUnit;
  std::vector<Inode*> held;
  size_t most = 0;
  for (uint64_t count = 1; count <= 200'000; ++count) {
    held.push_back(add(top, count));
    if (count >= 50'000 && count % 1000 == 0) {
      most = std::max(most, kInode + table.table_bytes() / count);
    }
  }
  EXPECT_LE(most, 185u);
  for (Inode* const inode : held) table.unref(*inode);
}

}  // namespace
}  // namespace caw
