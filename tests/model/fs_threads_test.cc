// Threads on one file system: nothing breaks, and what is in core is what is stored.
//   CAW_SEED first seed (default 1)   CAW_SEEDS how many (default 3)   CAW_OPS ops of each thread
//   CAW_MASK which kinds of steps (bits, see step())   CAW_THREADS how many (default 4)
#include <gtest/gtest.h>

#include <set>
#include <thread>

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
  std::set<uint64_t> numbers;
};

void draw(FsClient& client, Inode& inode, const std::string& path, Picture& picture) {
  const Result<Attributes> attributes = client.fs().getattr(inode);
  ASSERT_TRUE(attributes) << path << ": " << attributes.error().to_string();
  EXPECT_TRUE(picture.numbers.insert(attributes->ino).second) << path;
  std::string line = std::to_string(attributes->ino) + " " + std::to_string(attributes->mode) +
                     " " + std::to_string(attributes->size) + " " +
                     std::to_string(attributes->mtime.seconds) + " " +
                     std::to_string(attributes->ctime.seconds) + " ";
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
    client_.fs().release_file(*inode, true);
    client_.put(inode);
  }
  void open_one() {
    const Result<Inode*> inode = client_.get(path());
    if (!inode) return;
    const Result<Attributes> attributes = client_.fs().getattr(**inode);
    if (attributes && S_ISREG(attributes->mode) && client_.fs().open_file(**inode, true, false)) {
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
    uint64_t kind = random_.below(16);
    while (((mask_ >> kind) & 1) == 0) kind = random_.below(16);
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
        client_.write(path(), random_.below(1000), "some bytes");
        break;
      default:
        if (!open_.empty()) write_open();
        break;
    }
  }

  FsClient& client_;
  const uint64_t mask_ = env_number("CAW_MASK", 0xffff);
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
TEST(FsThreads, Engine) {
  const uint64_t first = env_number("CAW_SEED", 1);
  for (uint64_t seed = first; seed < first + env_number("CAW_SEEDS", 3); ++seed) {
    VolumeBedOptions options;
    options.shape = tiny_shape(seed);
    options.blocks = 65536;
    options.background = true;
    FsVolumeBed bed(options);
    run_threads(bed.forest(), seed, env_number("CAW_OPS", 1500));
    EXPECT_EQ(bed.check(), "") << "seed " << seed;
  }
}
#endif

}  // namespace
}  // namespace caw
