#include "fs/inode_table.h"

#include <gtest/gtest.h>

namespace caw {
namespace {

class Table : public testing::Test {
 protected:
  Table() { top.refs = 1; }
  Inode* add(Inode& parent, uint64_t entry) {
    auto inode = std::make_unique<Inode>();
    inode->parent = &parent;
    inode->entry = entry;
    return table.insert(std::move(inode), parent.evictions);
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
  const uint32_t before = top.evictions;
  table.unref(*add(top, 16));
  auto stale = std::make_unique<Inode>();
  stale->parent = &top;
  stale->entry = 16;
  EXPECT_EQ(table.insert(std::move(stale), before), nullptr);
}

TEST_F(Table, MovedInodesAreFoundAtTheirNewPlace) {
  Inode* const from = add(top, 16);
  Inode* const to = add(top, 17);
  Inode* const file = add(*from, 18);
  table.add_alias(*file, *to, 19);
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

}  // namespace
}  // namespace caw
