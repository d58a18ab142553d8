// Hard links, case by case, on plain trees and on the engine; what is random is in fs_model_test.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "model/fs_harness.h"
#include "model/fs_volume_bed.h"

namespace caw {
namespace {

std::string bytes_of(size_t count) {
  std::string out(count, '\0');
  for (size_t i = 0; i < count; ++i) out[i] = static_cast<char>('a' + i / 7 % 26);
  return out;
}

class FsLinks : public testing::Test {
 protected:
  FsLinks() : bed_(options()), c(bed_.forest()) { EXPECT_EQ(c.make_and_mount(), 0); }
  ~FsLinks() override { EXPECT_EQ(check(), ""); }

  static VolumeBedOptions options() {
    VolumeBedOptions out;
    out.shape = tiny_shape(3);
    out.blocks = 65536;
    return out;
  }
  std::string check() {
    EXPECT_TRUE(bed_.maintain());
    return bed_.check();
  }
  void remount() {
    EXPECT_EQ(check(), "");
    EXPECT_EQ(c.remount(), 0);
  }
  uint32_t links(const std::string& path) { return c.stat(path).nlink; }
  uint64_t ino(const std::string& path) { return c.stat(path).ino; }
  void make(const std::string& path, size_t size = 100) {
    ASSERT_EQ(c.create(path), 0);
    ASSERT_EQ(c.write(path, 0, bytes_of(size)), 0);
  }

  FsVolumeBed bed_;
  FsClient c;
};

TEST_F(FsLinks, OneFileUnderManyNames) {
  ASSERT_EQ(c.mkdir("d"), 0);
  make("a");
  const uint64_t number = ino("a");
  ASSERT_EQ(c.link("a", "d/b"), 0);
  ASSERT_EQ(c.link("d/b", "c"), 0);
  EXPECT_EQ(links("a"), 3u);
  ASSERT_EQ(c.write("c", 0, "new"), 0);
  remount();
  for (const char* name : {"a", "c", "d/b"}) {
    EXPECT_EQ(ino(name), number);
    EXPECT_EQ(c.read(name).substr(0, 4), "newa");
  }
  EXPECT_EQ(c.list("d").at("b"), number);
  ASSERT_EQ(c.unlink("a"), 0);
  ASSERT_EQ(c.rename("c", "d/c"), 0);
  EXPECT_EQ(links("d/c"), 2u);
  ASSERT_EQ(c.unlink("d/b"), 0);
  EXPECT_EQ(links("d/c"), 1u);
  ASSERT_EQ(c.rename("d/c", "a"), 0);
  EXPECT_EQ(ino("a"), number);
}

TEST_F(FsLinks, WhatCannotBeLinked) {
  make("a");
  ASSERT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.link("d", "e"), EPERM);
  EXPECT_EQ(c.link("a", "d"), EEXIST);
  EXPECT_EQ(c.link("a", "a"), EEXIST);
  EXPECT_EQ(c.link("x", "y"), ENOENT);
  EXPECT_EQ(c.link("a", "a/b"), ENOTDIR);
  EXPECT_EQ(c.link("a", std::string(256, 'n')), ENAMETOOLONG);
  EXPECT_EQ(links("a"), 1u);
  Inode* const file = c.get("a").value();
  ASSERT_TRUE(c.fs().open_file(*file, OpenFor::mapping, false));
  ASSERT_EQ(c.unlink("a"), 0);
  const Result<Entry> linked = c.fs().link(*file, *c.fs().root(), "b");
  ASSERT_FALSE(linked);
  EXPECT_EQ(linked.error().as_errno(), ENOENT);
  c.fs().release_file(*file, OpenFor::mapping);
  c.put(file);
}

TEST_F(FsLinks, TimesChange) {
  make("a");
  ASSERT_EQ(c.mkdir("d"), 0);
  const Attributes before = c.stat("a");
  const Attributes directory = c.stat("d");
  ASSERT_EQ(c.link("a", "d/b"), 0);
  EXPECT_GT(c.stat("a").ctime, before.ctime);
  EXPECT_EQ(c.stat("a").mtime, before.mtime);
  EXPECT_GT(c.stat("d").mtime, directory.mtime);
  const Attributes between = c.stat("a");
  ASSERT_EQ(c.unlink("d/b"), 0);
  EXPECT_GT(c.stat("a").ctime, between.ctime);
}

TEST_F(FsLinks, CloneOfAPartCountsItsOwn) {
  ASSERT_EQ(c.mkdir("s"), 0);
  ASSERT_EQ(c.mkdir("s/in"), 0);
  make("s/large", 400'000);
  make("s/small");
  make("s/outside");
  for (const char* name : {"large", "small"}) {
    ASSERT_EQ(c.link(std::string("s/") + name, std::string("s/in/") + name), 0);
    ASSERT_EQ(c.link(std::string("s/") + name, std::string("s/in/2") + name), 0);
  }
  ASSERT_EQ(c.link("s/outside", "s/outside2"), 0);
  ASSERT_EQ(c.clone("s/in", "part"), 0);
  ASSERT_EQ(c.clone("part", "again"), 0);  // not counted yet
  remount();
  EXPECT_EQ(links("again/large"), 2u);
  EXPECT_EQ(links("part/small"), 2u);
  EXPECT_EQ(links("s/small"), 3u);
  EXPECT_EQ(ino("part/large"), ino("part/2large"));
  EXPECT_NE(ino("part/large"), ino("s/large"));
  ASSERT_EQ(c.write("part/large", 200'000, "changed"), 0);
  EXPECT_EQ(c.read("part/2large").substr(200'000, 7), "changed");
  EXPECT_EQ(c.read("again/large"), bytes_of(400'000));
  ASSERT_EQ(c.remove_tree("s"), 0);
  remount();
  EXPECT_EQ(c.read("again/2large"), bytes_of(400'000));
}

TEST_F(FsLinks, CountsWithoutWriting) {
  ASSERT_EQ(c.mkdir("s"), 0);
  make("a");
  ASSERT_EQ(c.link("a", "s/b"), 0);
  ASSERT_EQ(c.link("a", "s/c"), 0);
  ASSERT_EQ(c.clone("s", "part"), 0);
  EXPECT_EQ(check(), "");
  c.unmount();
  ASSERT_EQ(c.mount(true), 0);
  EXPECT_EQ(links("part/b"), 2u);
  EXPECT_EQ(links("a"), 3u);
  EXPECT_EQ(ino("part/b"), ino("part/c"));
  ASSERT_EQ(c.remount(), 0);
  EXPECT_EQ(links("part/b"), 2u);
}

TEST_F(FsLinks, AcrossTheBordersOfClones) {
  ASSERT_EQ(c.mkdir("s"), 0);
  make("s/a", 300'000);
  make("s/b");
  ASSERT_EQ(c.link("s/b", "s/b2"), 0);
  ASSERT_EQ(c.clone("s", "d"), 0);
  const uint64_t number = ino("s/a");
  ASSERT_EQ(c.link("s/a", "d/a2"), 0);
  ASSERT_EQ(c.rename("s/b2", "d/b3"), 0);
  remount();
  EXPECT_EQ(ino("d/a2"), number);
  EXPECT_EQ(links("s/a"), 2u);
  EXPECT_EQ(ino("d/b3"), ino("s/b"));
  EXPECT_EQ(links("d/b"), 2u);
  ASSERT_EQ(c.clone("", "all"), 0);
  EXPECT_EQ(ino("all/d/a2"), ino("all/s/a"));
  EXPECT_NE(ino("all/d/a2"), number);
  EXPECT_EQ(links("all/s/b"), 2u);
  EXPECT_EQ(c.read("all/d/a2"), bytes_of(300'000));
  ASSERT_EQ(c.remove_tree("d"), 0);
  EXPECT_EQ(links("s/a"), 1u);
  EXPECT_EQ(links("s/b"), 1u);
  EXPECT_EQ(links("all/s/a"), 2u);
  remount();
  ASSERT_EQ(c.rename("s/a", "a"), 0);
  EXPECT_EQ(ino("a"), number);
}

TEST_F(FsLinks, ADirectoryLeavesItsClone) {
  ASSERT_EQ(c.mkdir("s"), 0);
  ASSERT_EQ(c.mkdir("s/in"), 0);
  make("s/a");
  for (int i = 0; i < 90; ++i) make("s/in/" + std::to_string(i), 300);  // too many to copy
  ASSERT_EQ(c.link("s/a", "s/in/a"), 0);
  ASSERT_EQ(c.clone("s", "d"), 0);
  ASSERT_EQ(c.rename("s/in", "d/moved"), 0);
  EXPECT_EQ(ino("d/moved/a"), ino("s/a"));
  EXPECT_EQ(links("s/a"), 2u);
  EXPECT_EQ(links("d/in/a"), 2u);
  remount();
  ASSERT_EQ(c.rename("d/moved", "s/in", {}), 0);
  EXPECT_EQ(ino("s/in/a"), ino("s/a"));
  ASSERT_EQ(c.rename("s/in", "d/in", {.exchange = true}), 0);
  remount();
  EXPECT_EQ(ino("d/in/a"), ino("s/a"));
  EXPECT_EQ(ino("s/in/a"), ino("d/a"));
}

TEST_F(FsLinks, RemovalOfATreeTellsWhoseLinksChanged) {
  ASSERT_EQ(c.mkdir("d"), 0);
  make("kept");
  ASSERT_EQ(c.link("kept", "d/kept"), 0);
  make("d/gone", 200'000);
  ASSERT_EQ(c.link("d/gone", "d/gone2"), 0);
  Inode* const kept = c.get("kept").value();
  Inode* const gone = c.get("d/gone").value();
  ASSERT_TRUE(c.fs().open_file(*gone, OpenFor::mapping, false));
  const auto changed = c.fs().remove_tree(*c.fs().root(), "d", {});
  ASSERT_TRUE(changed);
  EXPECT_EQ(changed->size(), 2u);
  EXPECT_EQ(c.fs().getattr(*kept).value().nlink, 1u);
  EXPECT_EQ(c.fs().getattr(*gone).value().nlink, 0u);
  std::string data;
  EXPECT_EQ(c.read_inode(*gone, data), 0);
  EXPECT_EQ(data, bytes_of(200'000));
  c.fs().release_file(*gone, OpenFor::mapping);
  c.put(gone);
  c.put(kept);
}

TEST_F(FsLinks, SameComparesTheFiles) {
  ASSERT_EQ(c.mkdir("s"), 0);
  make("s/a");
  ASSERT_EQ(c.link("s/a", "s/b"), 0);
  ASSERT_EQ(c.clone("s", "d"), 0);
  const auto same = [&] {
    Inode* const s = c.get("s").value();
    Inode* const d = c.get("d").value();
    const bool out = c.fs().same(*s, *d).value();
    c.put(s);
    c.put(d);
    return out;
  };
  EXPECT_TRUE(same());
  ASSERT_EQ(c.write("d/b", 0, "other"), 0);
  EXPECT_FALSE(same());
}

TEST(FsManyLinks, TooManyAtOnceAreRefused) {
  MapForest forest{MapForestOptions{}};
  FsClient c(forest);
  ASSERT_EQ(c.make_and_mount(), 0);
  ASSERT_EQ(c.mkdir("d"), 0);
  ASSERT_EQ(c.mkdir("s"), 0);
  ASSERT_EQ(c.clone("s", "clone"), 0);
  ASSERT_EQ(c.create("d/0"), 0);
  constexpr int kNames = 20'001;
  for (int i = 1; i < kNames; ++i) ASSERT_EQ(c.link("d/0", "d/" + std::to_string(i)), 0);
  EXPECT_EQ(c.stat("d/0").nlink, static_cast<uint32_t>(kNames));
  EXPECT_EQ(c.remove_tree("d"), EMLINK);
  EXPECT_EQ(c.rename("d", "clone/d"), EXDEV);
  EXPECT_EQ(c.link("d/0", "clone/0"), EMLINK);
  EXPECT_EQ(c.rename("d/0", "clone/0"), EXDEV);
  ASSERT_EQ(c.unlink("d/1"), 0);
  EXPECT_EQ(c.link("d/0", "clone/0"), 0);
  EXPECT_EQ(c.clone("d", "e"), 0);
  EXPECT_EQ(c.stat("e/7").nlink, static_cast<uint32_t>(kNames - 1));
  EXPECT_EQ(c.remove_tree("d"), 0);
  EXPECT_EQ(c.stat("clone/0").nlink, 1u);
}

/// Its data stood in the system tree, whose nodes lead to everything; so the clone came to lead to
/// itself.
TEST_F(FsLinks, CloneOfAFileLinkedBetweenClonesIsNoCycle) {
  ASSERT_EQ(c.mkdir("s"), 0);
  make("s/a");
  ASSERT_EQ(c.clone("s", "d"), 0);
  ASSERT_EQ(c.link("s/a", "d/b"), 0);
  ASSERT_EQ(c.write("d/b", 100, bytes_of(300'000)), 0);
  ASSERT_EQ(c.clone("d/b", "s/c"), 0);
  EXPECT_EQ(check(), "");
  EXPECT_EQ(links("s/c"), 1u);
  ASSERT_EQ(c.write("s/c", 0, "x"), 0);
}

/// It has no edge for the links index; what is put there stands above the edges it has.
TEST_F(FsLinks, FirstLinkInACloneMadeBefore) {
  ASSERT_EQ(c.mkdir("s"), 0);
  ASSERT_EQ(c.mkdir("s/in"), 0);
  for (int i = 0; i < 60; ++i) make("s/in/" + std::to_string(i), 900);
  EXPECT_EQ(check(), "");
  ASSERT_EQ(c.clone("s/in", "d"), 0);
  for (int i = 0; i < 40; ++i) {
    const std::string name = std::to_string(i);
    ASSERT_EQ(c.link("d/" + name, (i % 2 == 0 ? "d/l" : "l") + name), 0);
    if (i % 10 == 0) {
      EXPECT_EQ(check(), "");
    }
  }
}

}  // namespace
}  // namespace caw
