// Cases of the file-system layer, on the plainest forest.
#include <gtest/gtest.h>

#include <set>

#include "model/fs_harness.h"
#include "schema/keys.h"

namespace caw {
namespace {

using namespace std::string_literals;

class Fs : public testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(c.make_and_mount(), 0); }
  MapForest forest;
  FsClient c{forest};
};

std::string pattern(size_t size, uint64_t seed) {
  Random random(seed);
  std::string out(size, '\0');
  for (char& byte : out) byte = static_cast<char>('a' + random.below(26));
  return out;
}

TEST_F(Fs, RootIsInodeOneAndEmpty) {
  EXPECT_EQ(c.stat("").ino, 1u);
  EXPECT_EQ(c.stat("").mode, static_cast<uint32_t>(S_IFDIR | 0755));
  EXPECT_TRUE(c.list("").empty());
  EXPECT_EQ(c.stat("").nlink, 1u);
}

TEST_F(Fs, NamesAndTheirErrors) {
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.create("d/f"), 0);
  EXPECT_EQ(c.create("d/f"), EEXIST);
  EXPECT_EQ(c.mkdir("d"), EEXIST);
  EXPECT_EQ(c.create("x/f"), ENOENT);
  EXPECT_EQ(c.create("d/f/g"), ENOTDIR);
  EXPECT_EQ(c.create(std::string(256, 'n')), ENAMETOOLONG);
  EXPECT_EQ(c.create(std::string(255, 'n')), 0);
  EXPECT_EQ(c.rmdir("d"), ENOTEMPTY);
  EXPECT_EQ(c.rmdir("d/f"), ENOTDIR);
  EXPECT_EQ(c.unlink("d"), EISDIR);
  EXPECT_EQ(c.unlink("d/g"), ENOENT);
  EXPECT_EQ(c.unlink("d/f"), 0);
  EXPECT_EQ(c.rmdir("d"), 0);
  EXPECT_EQ(c.rmdir("d"), ENOENT);
}

TEST_F(Fs, SymlinksKeepTheirTargetWhenRenamed) {
  EXPECT_EQ(c.symlink("s", "some/where"), 0);
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.rename("s", "longer-name"), 0);
  EXPECT_EQ(c.rename("longer-name", "d/t"), 0);
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(c.at("d/t",
                 [&](Inode& inode) {
                   EXPECT_EQ(c.fs().readlink(inode).value(), "some/where");
                   return 0;
                 }),
            0);
  EXPECT_EQ(c.stat("d/t").size, 10u);
}

TEST_F(Fs, DataAcrossChunksHolesAndTruncation) {
  EXPECT_EQ(c.create("f"), 0);
  std::string expected = pattern(3 * kChunkBytes + 77, 1);
  EXPECT_EQ(c.write("f", 0, expected), 0);
  EXPECT_EQ(c.read("f"), expected);
  EXPECT_EQ(c.write("f", kChunkBytes - 5, "0123456789"), 0);
  expected.replace(kChunkBytes - 5, 10, "0123456789");
  EXPECT_EQ(c.read("f"), expected);
  EXPECT_EQ(c.truncate("f", kChunkBytes + 3), 0);
  EXPECT_EQ(c.truncate("f", 2 * kChunkBytes), 0);
  expected.resize(kChunkBytes + 3);
  expected.resize(2 * kChunkBytes, '\0');
  EXPECT_EQ(c.read("f"), expected);
  EXPECT_EQ(c.write("f", 5 * kChunkBytes, "end"), 0);
  expected.resize(5 * kChunkBytes, '\0');
  expected += "end";
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(c.read("f"), expected);
  EXPECT_LT(c.stat("f").blocks * 512, expected.size());
  EXPECT_EQ(
      c.at("f",
           [&](Inode& inode) {
             EXPECT_EQ(c.fs().seek_data(inode, 0, false).value(), 0u);
             EXPECT_EQ(c.fs().seek_data(inode, 0, true).value(), kChunkBytes + 3);
             EXPECT_EQ(c.fs().seek_data(inode, 2 * kChunkBytes, false).value(), 5 * kChunkBytes);
             EXPECT_EQ(c.fs().seek_data(inode, 5 * kChunkBytes, true).value(), expected.size());
             EXPECT_EQ(c.fs().seek_data(inode, expected.size(), true).error().as_errno(), ENXIO);
             return 0;
           }),
      0);
  EXPECT_EQ(c.truncate("f", 0), 0);
  EXPECT_EQ(c.unlink("f"), 0);
  EXPECT_EQ(forest.blob_count(), 0u);
}

TEST_F(Fs, PunchedHolesReadAsZeros) {
  constexpr uint32_t kPunch = 3;
  EXPECT_EQ(c.create("f"), 0);
  std::string expected = pattern(9 * kChunkBytes, 2);
  EXPECT_EQ(c.write("f", 0, expected), 0);
  const auto punch = [&](uint64_t from, uint64_t length) {
    EXPECT_EQ(c.at("f",
                   [&](Inode& inode) {
                     return FsClient::error_of(c.fs().fallocate(inode, kPunch, from, length));
                   }),
              0);
    for (uint64_t i = from; i < std::min<uint64_t>(from + length, expected.size()); ++i) {
      expected[i] = '\0';
    }
    EXPECT_EQ(c.read("f"), expected);
  };
  punch(10, 5);
  punch(kChunkBytes - 1, kChunkBytes + 2);
  punch(3 * kChunkBytes, 6 * kChunkBytes);
  punch(2 * kChunkBytes + 1, 100 * kChunkBytes);
}

TEST_F(Fs, TimesFollowChanges) {
  EXPECT_EQ(c.mkdir("d"), 0);
  const Attributes before = c.stat("d");
  EXPECT_EQ(c.create("d/f"), 0);
  const Attributes after = c.stat("d");
  EXPECT_GT(after.mtime, before.mtime);
  EXPECT_EQ(after.mtime, after.ctime);
  EXPECT_EQ(after.btime, before.btime);
  const Attributes file = c.stat("d/f");
  EXPECT_EQ(c.write("d/f", 0, "x"), 0);
  EXPECT_GT(c.stat("d/f").mtime, file.mtime);
  SetAttributes set;
  set.mtime = Timestamp{-5, 6};
  set.atime = Timestamp{77, 8};
  set.mode = 04711;
  set.uid = 12;
  EXPECT_EQ(c.setattr("d/f", set), 0);
  EXPECT_EQ(c.remount(), 0);
  const Attributes now = c.stat("d/f");
  EXPECT_EQ(now.mtime, (Timestamp{-5, 6}));
  EXPECT_EQ(now.atime, (Timestamp{77, 8}));
  EXPECT_EQ(now.mode, static_cast<uint32_t>(S_IFREG | 04711));
  EXPECT_EQ(now.uid, 12u);
}

TEST_F(Fs, CookiesContinueAListing) {
  for (int i = 0; i < 50; ++i) EXPECT_EQ(c.create("f" + std::to_string(i)), 0);
  std::set<std::string> seen;
  uint64_t cookie = 0;
  for (bool more = true; more;) {
    more = false;
    int taken = 0;
    EXPECT_TRUE(c.fs().readdir(*c.fs().root(), cookie, [&](const DirectoryEntry& entry) {
      if (++taken > 7) return false;
      EXPECT_GT(entry.cookie, cookie);
      cookie = entry.cookie;
      EXPECT_TRUE(seen.emplace(entry.name).second);
      return more = true;
    }));
    for (const std::string& name : seen) {
      if (name[0] != '.') static_cast<void>(c.unlink(name));  // later cookies stay good
    }
  }
  EXPECT_EQ(seen.size(), 52u);
  EXPECT_TRUE(seen.contains(".") && seen.contains(".."));
}

TEST_F(Fs, CloneIsIndependentAndHasNumbersOfItsOwn) {
  EXPECT_EQ(c.mkdir("s"), 0);
  EXPECT_EQ(c.mkdir("s/in"), 0);
  EXPECT_EQ(c.create("s/in/f"), 0);
  const std::string data = pattern(2 * kChunkBytes, 3);
  EXPECT_EQ(c.write("s/in/f", 0, data), 0);
  const Attributes source = c.stat("s/in/f");
  EXPECT_EQ(c.clone("s", "d"), 0);
  EXPECT_EQ(c.clone("d", "e"), 0);
  EXPECT_EQ(c.read("d/in/f"), data);
  std::set<uint64_t> numbers;
  for (const char* path : {"s", "s/in", "s/in/f", "d", "d/in", "d/in/f", "e", "e/in", "e/in/f"}) {
    EXPECT_TRUE(numbers.insert(c.stat(path).ino).second) << path;
  }
  const Attributes cloned = c.stat("d/in/f");
  EXPECT_EQ(cloned.mtime, source.mtime);
  EXPECT_EQ(cloned.ctime, source.ctime);
  EXPECT_EQ(cloned.btime, source.btime);
  EXPECT_EQ(c.write("d/in/f", 0, "changed"), 0);
  EXPECT_EQ(c.unlink("s/in/f"), 0);
  EXPECT_EQ(c.read("e/in/f"), data);
  EXPECT_EQ(c.read("d/in/f"), "changed" + data.substr(7));
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(c.stat("d/in/f").ino, cloned.ino);
  EXPECT_EQ(c.read("e/in/f"), data);
}

TEST_F(Fs, CloneOfTheRootIntoItself) {
  EXPECT_EQ(c.create("f"), 0);
  EXPECT_EQ(c.clone("", "a"), 0);
  EXPECT_EQ(c.clone("", "a/b"), 0);
  EXPECT_EQ(c.list("a/b").size(), 2u);
  EXPECT_EQ(c.list("a/b/a").size(), 1u);
  EXPECT_EQ(c.clone("a", "a"), EEXIST);
  EXPECT_EQ(c.clone("x", "y"), ENOENT);
}

TEST_F(Fs, CloneOfFilesSmallAndLarge) {
  EXPECT_EQ(c.create("small"), 0);
  EXPECT_EQ(c.write("small", 0, "abc"), 0);
  EXPECT_EQ(c.create("large"), 0);
  for (uint64_t chunk = 0; chunk < 70; ++chunk) {
    EXPECT_EQ(c.write("large", chunk << kChunkShift, "chunk" + std::to_string(chunk)), 0);
  }
  const std::string large = c.read("large");
  EXPECT_EQ(c.clone("small", "small2"), 0);
  EXPECT_EQ(c.clone("large", "large2"), 0);
  EXPECT_EQ(c.clone("large2", "large3"), 0);
  EXPECT_EQ(c.write("large2", 5, "??"), 0);
  EXPECT_EQ(c.write("large", 5, "!!"), 0);
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.rename("large", "d/large"), 0);
  EXPECT_EQ(c.read("large3"), large);
  EXPECT_EQ(c.read("large2").substr(0, 8), "chunk??\0"s.substr(0, 8));
  EXPECT_EQ(c.read("d/large").substr(0, 7), "chunk!!");
  EXPECT_EQ(c.read("small2"), "abc");
  EXPECT_EQ(c.unlink("large2"), 0);
  EXPECT_EQ(c.unlink("large3"), 0);
  EXPECT_EQ(c.unlink("d/large"), 0);
  EXPECT_EQ(forest.tree_count(), 2u);  // the system's and the root's
}

TEST_F(Fs, RenameKeepsNumbersAcrossClones) {
  EXPECT_EQ(c.mkdir("s"), 0);
  EXPECT_EQ(c.create("s/f"), 0);
  EXPECT_EQ(c.mkdir("s/sub"), 0);
  EXPECT_EQ(c.create("s/sub/g"), 0);
  EXPECT_EQ(c.clone("s", "d"), 0);
  const uint64_t f = c.stat("d/f").ino;
  const uint64_t g = c.stat("d/sub/g").ino;
  EXPECT_EQ(c.rename("d/f", "s/from-d"), 0);
  EXPECT_EQ(c.rename("d/sub", "sub"), 0);
  EXPECT_EQ(c.stat("s/from-d").ino, f);
  EXPECT_EQ(c.stat("sub/g").ino, g);
  EXPECT_EQ(c.clone("s", "e"), 0);
  EXPECT_EQ(c.rename("e/from-d", "e/again"), 0);
  EXPECT_EQ(c.rename("s/from-d", "e/from-s"), 0);
  EXPECT_EQ(c.clone("e", "h"), 0);  // holds two files with one (domain, number) in their records
  EXPECT_NE(c.stat("h/again").ino, c.stat("h/from-s").ino);
  EXPECT_EQ(c.stat("e/from-s").ino, f);
  const uint64_t again = c.stat("h/again").ino;
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(c.stat("h/again").ino, again);
  EXPECT_EQ(c.stat("sub/g").ino, g);
  EXPECT_EQ(c.stat("e/from-s").ino, f);
}

TEST_F(Fs, RenameOfDirectoriesSmallAndLarge) {
  for (const std::string dir : {"small", "large"}) {
    EXPECT_EQ(c.mkdir(dir), 0);
    EXPECT_EQ(c.mkdir(dir + "/sub"), 0);
    const int files = dir == "small" ? 3 : 80;
    for (int i = 0; i < files; ++i) {
      const std::string file = dir + "/sub/f" + std::to_string(i);
      EXPECT_EQ(c.create(file), 0);
      EXPECT_EQ(c.write(file, 0, file), 0);
    }
    EXPECT_EQ(c.mkdir("to-" + dir), 0);
    Inode* const open = c.get(dir + "/sub/f1").value();
    EXPECT_TRUE(c.fs().open_file(*open, OpenFor::mapping, false));
    EXPECT_EQ(c.rename(dir, dir + "/sub/in-itself"), EINVAL);
    EXPECT_EQ(c.rename(dir, "to-" + dir + "/moved"), 0);
    EXPECT_TRUE(c.fs().write(*open, 0, "WRITTEN"));
    c.fs().release_file(*open, OpenFor::mapping);
    c.put(open);
    const std::string sub = "to-" + dir + "/moved/sub";
    EXPECT_EQ(c.list(sub).size(), static_cast<size_t>(files));
    EXPECT_EQ(c.read(sub + "/f2"), dir + "/sub/f2");
    EXPECT_EQ(c.read(sub + "/f1").substr(0, 7), "WRITTEN");
    EXPECT_EQ(c.create(sub + "/new"), 0);
    EXPECT_EQ(c.get(dir).error().as_errno(), ENOENT);
  }
  EXPECT_EQ(forest.tree_count(), 3u);
}

TEST_F(Fs, ExchangeAndReplace) {
  EXPECT_EQ(c.mkdir("a"), 0);
  EXPECT_EQ(c.create("a/f"), 0);
  EXPECT_EQ(c.write("a/f", 0, "file"), 0);
  EXPECT_EQ(c.mkdir("a/d"), 0);
  EXPECT_EQ(c.create("a/d/x"), 0);
  EXPECT_EQ(c.create("b"), 0);
  EXPECT_EQ(c.rename("a/f", "b", {.no_replace = true}), EEXIST);
  EXPECT_EQ(c.rename("a/d", "b", {.exchange = true}), 0);
  EXPECT_EQ(c.list("b").count("x"), 1u);
  EXPECT_EQ(c.read("a/d"), "");
  EXPECT_EQ(c.rename("a/f", "a/d", {.exchange = true}), 0);
  EXPECT_EQ(c.read("a/d"), "file");
  EXPECT_EQ(c.rename("a/d", "b"), EISDIR);
  EXPECT_EQ(c.rename("b", "a/f"), ENOTDIR);
  EXPECT_EQ(c.rename("a/d", "a/f"), 0);
  EXPECT_EQ(c.read("a/f"), "file");
  EXPECT_EQ(c.mkdir("e"), 0);
  EXPECT_EQ(c.rename("e", "b"), ENOTEMPTY);
  EXPECT_EQ(c.unlink("b/x"), 0);
  EXPECT_EQ(c.rename("e", "b"), 0);
  EXPECT_EQ(c.list("").size(), 2u);
}

TEST_F(Fs, UnlinkedOpenFilesLiveUntilTheyAreClosed) {
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.create("d/f"), 0);
  EXPECT_EQ(c.write("d/f", 0, "hello"), 0);
  Inode* const file = c.get("d/f").value();
  EXPECT_TRUE(c.fs().open_file(*file, OpenFor::mapping, false));
  EXPECT_EQ(c.unlink("d/f"), 0);
  EXPECT_EQ(c.clone("d", "e"), 0);
  EXPECT_TRUE(c.list("e").empty());
  EXPECT_TRUE(c.fs().write(*file, 5, " world"));
  std::string out;
  EXPECT_EQ(c.read_inode(*file, out), 0);
  EXPECT_EQ(out, "hello world");
  EXPECT_EQ(c.fs().getattr(*file).value().nlink, 0u);
  c.fs().release_file(*file, OpenFor::mapping);
  EXPECT_EQ(c.fs().open_file(*file, OpenFor::reading, false).error().as_errno(), ESTALE);
  c.put(file);
  EXPECT_EQ(c.rmdir("d"), 0);
}

TEST_F(Fs, RemoveTreeWithAndWithoutOpenFiles) {
  EXPECT_EQ(c.mkdir("keep"), 0);
  for (const bool own_tree : {false, true}) {
    EXPECT_EQ(c.mkdir("d"), 0);
    EXPECT_EQ(c.mkdir("d/sub"), 0);
    EXPECT_EQ(c.create("d/sub/f"), 0);
    EXPECT_EQ(c.write("d/sub/f", 0, pattern(kChunkBytes, 4)), 0);
    if (own_tree) {
      EXPECT_EQ(c.clone("d", "clone"), 0);
      EXPECT_EQ(c.remove_tree("d"), 0);
      EXPECT_EQ(c.rename("clone", "d"), 0);
    }
    Inode* const file = c.get("d/sub/f").value();
    EXPECT_TRUE(c.fs().open_file(*file, OpenFor::mapping, false));
    EXPECT_EQ(c.remove_tree("d"), 0);
    EXPECT_EQ(c.list("").size(), 1u);
    EXPECT_TRUE(c.fs().write(*file, 0, "alive"));
    std::string out;
    EXPECT_EQ(c.read_inode(*file, out), 0);
    EXPECT_EQ(out.substr(0, 5), "alive");
    c.fs().release_file(*file, OpenFor::mapping);
    c.put(file);
    EXPECT_EQ(forest.tree_count(), 2u);
    EXPECT_EQ(forest.blob_count(), 0u);
  }
}

TEST_F(Fs, OrphansOfACrashAreDroppedAtTheNextMount) {
  EXPECT_EQ(c.create("f"), 0);
  EXPECT_EQ(c.write("f", 0, pattern(kChunkBytes, 5)), 0);
  Inode* const file = c.get("f").value();
  EXPECT_TRUE(c.fs().open_file(*file, OpenFor::reading, false));
  EXPECT_EQ(c.unlink("f"), 0);
  EXPECT_EQ(forest.blob_count(), 1u);
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(forest.blob_count(), 0u);
}

TEST_F(Fs, ClonePermissions) {
  EXPECT_EQ(c.mkdir("mine", 0755), 0);
  EXPECT_EQ(c.mkdir("open", 0777), 0);
  SetAttributes set;
  set.uid = 5;
  EXPECT_EQ(c.setattr("mine", set), 0);
  c.caller() = {6, 6, 0, false};
  EXPECT_EQ(c.clone("mine", "open/x"), EPERM);
  c.caller() = {5, 5, 0, false};
  EXPECT_EQ(c.clone("mine", "x"), EACCES);
  EXPECT_EQ(c.clone("mine", "open/x"), 0);
  c.caller() = {6, 6, 0, false};
  EXPECT_EQ(c.remove_tree("open/x"), EPERM);
  c.caller() = {5, 5, 0, false};
  EXPECT_EQ(c.remove_tree("open/x"), 0);
}

TEST_F(Fs, SameUntilSomethingChanges) {
  const auto same = [&](std::string_view a, std::string_view b) {
    bool result = false;
    EXPECT_EQ(c.at(a,
                   [&](Inode& x) {
                     return c.at(b, [&](Inode& y) {
                       result = c.fs().same(x, y).value();
                       return 0;
                     });
                   }),
              0);
    return result;
  };
  EXPECT_EQ(c.mkdir("s"), 0);
  EXPECT_EQ(c.mkdir("s/in"), 0);
  EXPECT_EQ(c.create("s/in/f"), 0);
  EXPECT_EQ(c.write("s/in/f", 0, "abc"), 0);
  EXPECT_EQ(c.clone("s", "d"), 0);
  EXPECT_TRUE(same("s", "d"));
  EXPECT_TRUE(same("s/in/f", "d/in/f"));
  EXPECT_EQ(c.write("d/in/f", 0, "abc"), 0);
  EXPECT_FALSE(same("s/in/f", "d/in/f"));
  EXPECT_FALSE(same("s", "d"));
  EXPECT_EQ(c.clone("s", "e"), 0);
  EXPECT_EQ(c.create("e/in/g"), 0);
  EXPECT_FALSE(same("s", "e"));
}

TEST_F(Fs, DeepPathsKeepKeysShort) {
  std::string path = "d";
  for (int depth = 0; depth < 600; ++depth) {
    ASSERT_EQ(c.mkdir(path), 0);
    path += "/d";
  }
  EXPECT_EQ(c.create(path), 0);
  EXPECT_GE(forest.tree_count(), 4u);
  EXPECT_EQ(c.clone("d", "e"), 0);
  path[0] = 'e';
  EXPECT_EQ(c.write(path, 0, "deep"), 0);
  EXPECT_EQ(c.remount(), 0);
  EXPECT_EQ(c.read(path), "deep");
  path[0] = 'd';
  EXPECT_EQ(c.read(path), "");
}

TEST_F(Fs, AFullVolumeFailsCleanlyAndRemovalWorks) {
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.create("d/f"), 0);
  EXPECT_EQ(c.clone("d", "e"), 0);
  forest.set_options({.no_space_one_in = 1});
  EXPECT_EQ(c.create("d/g"), ENOSPC);
  EXPECT_EQ(c.write("d/f", 0, pattern(kChunkBytes, 6)), ENOSPC);
  EXPECT_EQ(forest.pending_blob_count(), 0u);
  EXPECT_EQ(c.clone("d", "h"), ENOSPC);
  EXPECT_EQ(c.list("").size(), 2u);
  EXPECT_NE(c.stat("e/f").ino, c.stat("d/f").ino);  // numbers given out in memory
  EXPECT_EQ(c.unlink("e/f"), 0);
  EXPECT_EQ(c.remove_tree("d"), 0);
}

TEST_F(Fs, ReadOnlyRefusesChangesAndStillShowsNumbers) {
  EXPECT_EQ(c.mkdir("d"), 0);
  EXPECT_EQ(c.create("d/f"), 0);
  EXPECT_EQ(c.clone("d", "e"), 0);
  c.unmount();
  EXPECT_EQ(c.mount(true), 0);
  EXPECT_EQ(c.create("x"), EROFS);
  EXPECT_EQ(c.unlink("d/f"), EROFS);
  EXPECT_EQ(c.clone("d", "x"), EROFS);
  EXPECT_NE(c.stat("e/f").ino, c.stat("d/f").ino);
}

/// Trees end under their readers: a step of a read in so many fails.
class EndingForest final : public MapForest {
 public:
  uint64_t one_in = 0;  ///< 0: none

  Result<std::optional<Value>> get(const TreeRef& tree, std::string_view key) override {
    if (ends()) return fail(Code::node_absent);
    return MapForest::get(tree, key);
  }
  std::unique_ptr<Cursor> scan(const TreeRef& tree, std::string lo, std::string hi) override {
    return std::make_unique<EndingCursor>(*this,
                                          MapForest::scan(tree, std::move(lo), std::move(hi)));
  }

 private:
  class EndingCursor final : public Cursor {
   public:
    EndingCursor(EndingForest& forest, std::unique_ptr<Cursor> cursor)
        : forest_(forest), cursor_(std::move(cursor)) {}
    Result<bool> next() override {
      if (forest_.ends()) return fail(Code::node_absent);
      return cursor_->next();
    }
    std::string_view key() const override { return cursor_->key(); }
    const Value& value() const override { return cursor_->value(); }

   private:
    EndingForest& forest_;
    std::unique_ptr<Cursor> cursor_;
  };

  bool ends() { return one_in != 0 && ++steps_ % one_in == 0; }
  uint64_t steps_ = 0;
};

TEST(FsOnTreesThatEnd, ReadsGoOnInTheTreeThatIsThereNow) {
  EndingForest forest;
  FsClient c{forest};
  ASSERT_EQ(c.make_and_mount(), 0);
  ASSERT_EQ(c.mkdir("d"), 0);
  const std::string data = pattern(3 * kChunkBytes, 1);
  for (int i = 0; i < 200; ++i) ASSERT_EQ(c.create("d/f" + std::to_string(i)), 0);
  ASSERT_EQ(c.write("d/f7", 0, data), 0);
  ASSERT_EQ(c.remount(), 0);
  forest.one_in = 10;
  EXPECT_EQ(c.list("d").size(), 200u);
  EXPECT_EQ(c.read("d/f7"), data);
  forest.one_in = 3;
  EXPECT_EQ(c.list("d").size(), 200u);
}

TEST(FsOnTreesThatEnd, WhatIsMissingForGoodIsDamage) {
  EndingForest forest;
  FsClient c{forest};
  ASSERT_EQ(c.make_and_mount(), 0);
  ASSERT_EQ(c.mkdir("d"), 0);
  ASSERT_EQ(c.create("d/f"), 0);
  const Result<Inode*> inode = c.get("d");
  ASSERT_TRUE(inode);
  forest.one_in = 1;
  std::map<std::string, uint64_t> listed;
  EXPECT_EQ(c.list_inode(**inode, listed), EIO);
  EXPECT_FALSE(c.fs().lookup(**inode, "f"));
  forest.one_in = 0;
  EXPECT_EQ(c.list_inode(**inode, listed), 0);
  c.put(*inode);
}

}  // namespace
}  // namespace caw
