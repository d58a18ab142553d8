// Threads on one file system: nothing breaks, and what is in core is what is stored.
//   CAW_SEED first seed (default 1)   CAW_SEEDS how many (default 3)   CAW_OPS ops of each thread
//   CAW_MASK which kinds of steps (bits, see step())   CAW_THREADS how many (default 4)
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <map>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "model/fs_harness.h"
#ifdef CAW_WITHOUT_ENGINE
#include "support/forest_runner.h"
#else
#include "model/fs_volume_bed.h"
#endif

namespace caw {
namespace {

/// All that a user can see, one line for each file.
struct Picture {
  std::map<std::string, std::string> lines;
  std::map<uint64_t, std::pair<uint32_t, uint32_t>> names;  ///< by number: met, link count

  void check_links() const {
    for (const auto& [ino, counts] : names) EXPECT_EQ(counts.first, counts.second) << ino;
  }
};

void draw(FsClient& client, Inode& inode, const std::string& path, Picture& picture) {
  const Result<Attributes> attributes = client.fs().getattr(inode);
  ASSERT_TRUE(attributes) << path << ": " << attributes.error().to_string();
  auto& [names, links] = picture.names[attributes->ino];
  ++names;
  links = attributes->nlink;
  std::string line = std::to_string(attributes->ino) + " " + std::to_string(attributes->mode) +
                     " " + std::to_string(attributes->size) + " " +
                     std::to_string(attributes->mtime.seconds) + " " +
                     std::to_string(attributes->ctime.seconds) + " " +
                     std::to_string(attributes->nlink) + " ";
  if (S_ISREG(attributes->mode)) {
    std::string data;
    EXPECT_EQ(client.read_inode(inode, data), 0) << path;
    EXPECT_EQ(data.size(), attributes->size) << path;
    line += std::to_string(std::hash<std::string>{}(data));
  }
  picture.lines[path] = line;
  if (!S_ISDIR(attributes->mode)) return;
  std::map<std::string, uint64_t> listed;
  ASSERT_EQ(client.list_inode(inode, listed), 0) << path;
  for (const auto& [name, ino] : listed) {
    const std::string below = path + "/" + name;
    const Result<Entry> entry = client.fs().lookup(inode, name);
    ASSERT_TRUE(entry) << below << ": " << entry.error().to_string();
    EXPECT_EQ(entry->attributes.ino, ino) << below;
    draw(client, *entry->inode, below, picture);
    client.put(entry->inode);
  }
}

class Worker {
 public:
  Worker(FsClient& client, uint64_t seed) : client_(client), random_(seed) {}

  void run(uint64_t ops) {
    for (uint64_t i = 0; i < ops; ++i) step();
    while (!open_.empty()) close_one();
  }

 private:
  std::string path() {
    static constexpr const char* kTops[] = {"p", "q", "r", "s"};
    std::string out = kTops[random_.below(4)];
    for (uint64_t depth = random_.below(3); depth > 0; --depth) {
      out += "/" + std::string(1, static_cast<char>('a' + random_.below(5)));
    }
    return out;
  }
  void close_one() {
    Inode* const inode = open_.back();
    open_.pop_back();
    client_.fs().release_file(*inode, OpenFor::mapping);
    client_.put(inode);
  }
  void open_one() {
    const Result<Inode*> inode = client_.get(path());
    if (!inode) return;
    const Result<Attributes> attributes = client_.fs().getattr(**inode);
    if (attributes && S_ISREG(attributes->mode) &&
        client_.fs().open_file(**inode, OpenFor::mapping, false)) {
      open_.push_back(*inode);
    } else {
      client_.put(*inode);
    }
  }
  void list_one() {
    const Result<Inode*> inode = client_.get(path());
    if (!inode) return;
    std::vector<Inode*> taken;
    const Result<void> done =
        client_.fs().readdirplus(**inode, 2, [&](const DirectoryEntry&, const Entry& entry) {
          if (taken.size() == 3) return false;
          taken.push_back(entry.inode);
          return true;
        });
    ignore_error(done, "may be a file, or removed");
    for (Inode* child : taken) client_.put(child);
    client_.put(*inode);
  }
  void write_open() {
    Inode& inode = *open_.back();
    const std::string bytes(1 + random_.below(40'000), static_cast<char>('a' + random_.below(26)));
    const uint64_t offset = random_.below(200'000);
    const Result<size_t> written = client_.fs().write(inode, offset, bytes);
    if (!written) {
      ADD_FAILURE() << "write to an open file: " << written.error().to_string();
      return;
    }
    std::string back(bytes.size(), '\0');
    const Result<size_t> got = client_.fs().read(inode, offset, back);
    if (!got) ADD_FAILURE() << "read of an open file: " << got.error().to_string();
  }

  void step() {
    uint64_t kind = random_.below(18);
    while (((mask_ >> kind) & 1) == 0) kind = random_.below(18);
    switch (kind) {
      case 0:
      case 1:
        client_.create(path());
        break;
      case 2:
      case 3:
        client_.mkdir(path());
        break;
      case 4:
        client_.unlink(path());
        break;
      case 5:
        client_.rmdir(path());
        break;
      case 6:
      case 7:
        client_.rename(path(), path());
        break;
      case 8:
        client_.rename(path(), path(), {.exchange = true});
        break;
      case 9:
        client_.clone(path(), path());
        break;
      case 10:
        client_.remove_tree(path());
        break;
      case 11:
        open_one();
        break;
      case 12:
        list_one();
        break;
      case 13:
        if (!open_.empty()) close_one();
        break;
      case 14:
      case 15:
        client_.link(path(), path());
        break;
      case 16:
        client_.write(path(), random_.below(1000), "some bytes");
        break;
      default:
        if (!open_.empty()) write_open();
        break;
    }
  }

  FsClient& client_;
  const uint64_t mask_ = env_number("CAW_MASK", 0x3ffff);
  Random random_;
  std::vector<Inode*> open_;
};

void run_threads(Forest& forest, uint64_t seed, uint64_t ops) {
  FsClient client(forest);
  ASSERT_EQ(client.make_and_mount(), 0);
  {
    std::vector<std::jthread> threads;
    for (uint64_t i = 0; i < env_number("CAW_THREADS", 4); ++i) {
      threads.emplace_back([&client, seed, i, ops] { Worker(client, seed * 1000 + i).run(ops); });
    }
  }
  Picture in_core;
  draw(client, *client.fs().root(), "", in_core);
  client.unmount();
  ASSERT_EQ(client.mount(), 0);
  Picture stored;
  draw(client, *client.fs().root(), "", stored);
  EXPECT_EQ(in_core.lines, stored.lines) << "seed " << seed;
  in_core.check_links();
  stored.check_links();
}

TEST(FsThreads, PlainForest) {
  const uint64_t first = env_number("CAW_SEED", 1);
  for (uint64_t seed = first; seed < first + env_number("CAW_SEEDS", 3); ++seed) {
    MapForestOptions options;
    options.seed = seed;
    options.lie_one_in = seed % 2 == 0 ? 5 : 0;
    MapForest forest(options);
    run_threads(forest, seed, env_number("CAW_OPS", 1500));
  }
}

#ifndef CAW_WITHOUT_ENGINE
VolumeBedOptions threaded_volume(uint64_t seed) {
  VolumeBedOptions options;
  options.shape = tiny_shape(seed);
  options.blocks = 65536;
  options.background = true;
  return options;
}

TEST(FsThreads, Engine) {
  const uint64_t first = env_number("CAW_SEED", 1);
  for (uint64_t seed = first; seed < first + env_number("CAW_SEEDS", 3); ++seed) {
    FsVolumeBed bed(threaded_volume(seed));
    run_threads(bed.forest(), seed, env_number("CAW_OPS", 1500));
    EXPECT_EQ(bed.check(), "") << "seed " << seed;
  }
}

/// "p/c" owns a tree, which clones of "p" share until somebody writes to it: then it is made
/// private anew, and the old one ends with the last clone.  Listings that are under way go on.
class ClonesComeAndGo {
 public:
  explicit ClonesComeAndGo(Forest& forest) : client_(forest) {}

  void prepare() {
    ASSERT_EQ(client_.make_and_mount(), 0);
    ASSERT_EQ(client_.mkdir("base"), 0);
    ASSERT_EQ(client_.mkdir("p"), 0);
    for (int i = 0; i < 150; ++i) {
      const std::string name = "f" + std::to_string(i);
      names_.insert(name);
      ASSERT_EQ(client_.create("base/" + name), 0);
      ASSERT_EQ(client_.write("base/" + name, 0, "data of " + name), 0);
    }
    ASSERT_EQ(client_.clone("base", "p/c"), 0);
  }

  void run(uint64_t rounds) {
    std::vector<std::jthread> readers;
    for (const char* path : {"p/c", "q0/c", "q1/c"}) {
      readers.emplace_back([this, path] {
        while (!stop_) list(path);
      });
    }
    {
      std::vector<std::jthread> writers;
      for (const char* name : {"q0", "q1"}) {
        writers.emplace_back([this, name = std::string(name), rounds] {
          for (uint64_t i = 0; i < rounds; ++i) make_and_remove(name, i);
        });
      }
    }
    stop_ = true;
    readers.clear();
    EXPECT_GT(listed_, 0u);
  }

 private:
  void make_and_remove(const std::string& name, uint64_t round) {
    const std::string file = "/c/f" + std::to_string(round % names_.size());
    EXPECT_EQ(client_.clone("p", name), 0);
    EXPECT_EQ(client_.write("p" + file, 0, "DATA"), 0);
    EXPECT_EQ(client_.write(name + file, 0, "DAta"), 0);
    EXPECT_EQ(client_.remove_tree(name), 0);
  }
  void list(const std::string& path) {
    const Result<Inode*> inode = client_.get(path);
    if (!inode) {
      EXPECT_EQ(inode.error().as_errno(), ENOENT) << path << ": " << inode.error().to_string();
      return;
    }
    std::set<std::string> seen;
    const auto take = [&](const DirectoryEntry& entry, const Entry& found) {
      EXPECT_TRUE(seen.insert(std::string(entry.name)).second) << entry.name;
      client_.put(found.inode);
      return true;
    };
    const Result<void> done = client_.fs().readdirplus(**inode, 2, take);
    EXPECT_TRUE(done) << path << ": " << done.error().to_string();
    if (path == "p/c") {
      EXPECT_EQ(seen, names_);
    }
    client_.put(*inode);
    ++listed_;
  }

  FsClient client_;
  std::set<std::string> names_;
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> listed_{0};
};

TEST(FsThreads, ListingsGoOnWhileClonesComeAndGo) {
  const uint64_t first = env_number("CAW_SEED", 1);
  for (uint64_t seed = first; seed < first + env_number("CAW_SEEDS", 3); ++seed) {
    FsVolumeBed bed(threaded_volume(seed));
    {
      ClonesComeAndGo test(bed.forest());
      test.prepare();
      test.run(env_number("CAW_OPS", 1500) / 75);
    }
    EXPECT_EQ(bed.check(), "") << "seed " << seed;
  }
}
#endif

}  // namespace
}  // namespace caw
