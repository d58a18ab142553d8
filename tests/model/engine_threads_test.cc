// Writers, readers, a cloner and a syncer at once on the real engine, its background work on.
// Every clone must hold exactly what its source held at one moment.  For ThreadSanitizer too.
//   CAW_SEED, CAW_SEEDS (default 4), CAW_OPS (ops of each writer; default 1500)
#include <gtest/gtest.h>

#include <array>
#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "support/volume_bed.h"

namespace caw {
namespace {

constexpr int kWriters = 3;
constexpr uint32_t kKeys = 150;

std::string slot(char kind, int number) { return kind + std::to_string(number); }

Action put_action(const TreePath& path, std::string key, uint32_t length, uint32_t fill) {
  Action a;
  a.kind = ActionKind::put;
  a.path = path;
  a.key = std::move(key);
  a.n = {length, fill, length > 200 ? 1U : 0U, 0};
  return a;
}

/// The i-th batch of a writer: always the same, and it says how many there were so far.
ForestOp writer_op(uint64_t seed, const TreePath& path, uint32_t i) {
  Random random(seed * 1000003 + i);
  const std::string key = "k/" + std::to_string(random.below(kKeys)) + ".";
  Action a;
  a.path = path;
  a.key = key;
  switch (random.below(9)) {
    case 0:
      a.kind = ActionKind::erase;
      break;
    case 1:
      a.kind = ActionKind::erase_range;
      a.other_key = key + "\x7f";
      break;
    case 2:
      // Copies references to blobs that the background may fold at this moment.
      a.kind = random.one_in(2) ? ActionKind::move : ActionKind::copy;
      a.other_path = path;
      a.other_key = "k/" + std::to_string(random.below(kKeys)) + ".";
      break;
    case 3:
    case 4:
      a.kind = ActionKind::patch;
      a.n = {0, 0, static_cast<uint32_t>(random.below(60)), 20};
      break;
    default: {
      const auto length = static_cast<uint32_t>(random.one_in(4) ? 400 : random.below(80));
      a = put_action(path, key, length, static_cast<uint32_t>(random.below(1U << 30)));
    }
  }
  Action count = put_action(path, "count.", 0, 0);
  count.n = {i, 0, 0, 0};                // the length says i
  return {a, count};
}

/// What a writer's tree holds after `n` batches.
ForestModel writer_model(uint64_t seed, uint32_t n) {
  ForestModel model;
  Action make;
  make.kind = ActionKind::make_tree;
  make.key = "W";
  apply_to_model({make}, model);
  for (uint32_t i = 1; i <= n; ++i) {
    apply_to_model(sensible(writer_op(seed, {"W"}, i), model), model);
  }
  return model;
}

struct CloneNote {
  int writer = 0;
  uint32_t at_least = 0, at_most = 0;    ///< batches that had returned before, had begun after
  uint32_t edits = 0;
};

class Threads {
 public:
  explicit Threads(uint64_t seed, uint32_t ops) : seed_(seed), ops_(ops), bed_(options(seed)) {
    for (int w = 0; w < kWriters; ++w) make_tree(slot('W', w));
    make_tree("P");
  }

  void run() {
    std::vector<std::thread> writers;
    std::vector<std::thread> others;
    for (int w = 0; w < kWriters; ++w) writers.emplace_back([this, w] { write(w); });
    others.emplace_back([this] { read(1); });
    others.emplace_back([this] { read(2); });
    others.emplace_back([this] { clone(); });
    others.emplace_back([this] { sync(); });
    for (std::thread& thread : writers) thread.join();
    stop_ = true;
    for (std::thread& thread : others) thread.join();
  }

  void check() {
    for (int w = 0; w < kWriters; ++w) check_tree({slot('W', w)}, w, ops_, ops_, 0);
    for (const auto& [path, note] : clones_) {
      check_tree(path, note.writer, note.at_least, note.at_most, note.edits);
    }
  }

  VolumeBed& bed() { return bed_; }
  size_t clone_count() const { return clones_.size(); }

 private:
  static VolumeBedOptions options(uint64_t seed) {
    VolumeBedOptions options;
    options.shape = tiny_shape(seed);
    options.background = true;
    return options;
  }

  void must(const Result<void>& done, const char* what) {
    if (done) return;
    std::lock_guard lock(mutex_);
    ADD_FAILURE() << what << ": " << done.error().to_string();
  }

  void make_tree(const std::string& name) {
    Action make;
    make.kind = ActionKind::make_tree;
    make.key = name;
    must(ForestClient(bed_.forest()).apply({make}), "make_tree");
  }

  void write(int writer) {
    const auto w = static_cast<size_t>(writer);
    ForestClient client(bed_.forest());
    const TreePath path{slot('W', writer)};
    ForestModel model = writer_model(seed_ + w, 0);
    for (uint32_t i = 1; i <= ops_; ++i) {
      ForestOp op = sensible(writer_op(seed_ + w, {"W"}, i), model);
      apply_to_model(op, model);
      for (Action& action : op) {
        action.path = path;
        action.other_path = path;
      }
      begun_[w] = i;
      must(client.apply(op), "writer");
      done_[w] = i;
    }
  }

  bool was_replaced(const std::string& name, const Value& before) {
    Forest& forest = bed_.forest();
    const auto now = forest.get(forest.system_tree(), name);
    return now && *now && (*now)->tree != before.tree;
  }

  void read(uint64_t salt) {
    Random random(seed_ + salt);
    Forest& forest = bed_.forest();
    while (!stop_) {
      const std::string name = slot('W', static_cast<int>(random.below(kWriters)));
      const auto value = forest.get(forest.system_tree(), name);
      ASSERT_TRUE(value && *value);
      auto cursor = forest.scan(forest.open_tree((*value)->tree), std::string(), "\xff");
      std::string before;
      while (true) {
        const Result<bool> more = cursor->next();
        // A tree that was replaced by a private one may end while it is read; one still named not.
        if (!more && more.error().code == Code::node_absent && was_replaced(name, **value)) break;
        ASSERT_TRUE(more) << more.error().to_string();
        if (!*more) break;
        ASSERT_LT(before, cursor->key());
        before = cursor->key();
        if (cursor->value().is_inline()) {
          ASSERT_TRUE(read_bytes(forest, cursor->value()));
        }
      }
    }
  }

  /// Clones of writers' trees and of clones stand in the tree P; clones of P in Q0 to Q2.  Whoever
  /// edits a tree below P or Q has to make it private first.
  void clone() {
    Random random(seed_ + 77);
    ForestClient client(bed_.forest());
    while (!stop_) {
      if (random.one_in(6)) {
        clone_all(client, slot('Q', static_cast<int>(random.below(3))));
      } else {
        clone_one(client, random);
      }
      edit_some(client, random);
      std::this_thread::sleep_for(std::chrono::milliseconds(random.below(5)));
    }
  }

  void clone_one(ForestClient& client, Random& random) {
    const TreePath path{"P", slot('C', static_cast<int>(random.below(8)))};
    CloneNote note;
    note.writer = static_cast<int>(random.below(kWriters));
    const auto writer = static_cast<size_t>(note.writer);
    Action a = whole_clone({slot('W', note.writer)}, {"P"}, path.back());
    const TreePath other{"P", slot('C', static_cast<int>(random.below(8)))};
    const auto known = clones_.find(other);
    if (random.one_in(3) && known != clones_.end() && other != path) {
      a.path = other;
      note = known->second;
      must(client.apply({a}), "clone of a clone");
    } else {
      note.at_least = done_[writer];
      must(client.apply({a}), "clone");
      note.at_most = begun_[writer];
    }
    clones_[path] = note;
  }

  void clone_all(ForestClient& client, const std::string& name) {
    must(client.apply({whole_clone({"P"}, {}, name)}), "clone of clones");
    std::erase_if(clones_, [&](const auto& entry) { return entry.first.front() == name; });
    std::map<TreePath, CloneNote> made;
    for (const auto& [path, note] : clones_) {
      if (path.front() == "P") made[{name, path.back()}] = note;
    }
    clones_.merge(made);
  }

  void edit_some(ForestClient& client, Random& random) {
    if (clones_.empty()) return;
    auto at = clones_.begin();
    std::advance(at, random.below(clones_.size()));
    auto& [path, note] = *at;
    for (uint64_t n = random.below(20); n > 0; --n) {
      must(client.apply({edit(path, note.edits++)}), "edit of a clone");
    }
  }

  static Action whole_clone(const TreePath& from, const TreePath& to, const std::string& key) {
    Action a;
    a.kind = ActionKind::clone;
    a.path = from;
    a.other_path = to;
    a.other_key = key;
    a.prefixes = {{"", ""}};
    return a;
  }

  static Action edit(const TreePath& path, uint32_t i) {
    return put_action(path, "edit/" + std::to_string(i) + ".", 30, i);
  }

  void sync() {
    while (!stop_) {
      must(bed_.forest().sync(), "sync");
      std::this_thread::sleep_for(std::chrono::milliseconds(7));
    }
  }

  /// The tree at `path` holds what the writer had after some n batches in [at_least, at_most], and
  /// the edits.
  void check_tree(const TreePath& path, int w, uint32_t at_least, uint32_t at_most,
                  uint32_t edits) {
    Forest& forest = bed_.forest();
    const std::string name = show_path(path);
    const Result<TreeRef> found = ForestClient(forest).find(path);
    ASSERT_TRUE(found) << name << ": " << found.error().to_string();
    const TreeRef tree = *found;
    const auto count = forest.get(tree, "count.");
    ASSERT_TRUE(count) << count.error().to_string();
    const uint32_t n = *count ? (*count)->length : 0;
    EXPECT_GE(n, at_least) << name;
    EXPECT_LE(n, at_most) << name;
    ForestModel model = writer_model(seed_ + static_cast<uint64_t>(w), n);
    for (uint32_t i = 0; i < edits; ++i) {
      apply_to_model({edit({"W"}, i)}, model);
    }
    const auto& records = model.find({"W"})->records;
    auto expected = records.begin();
    auto cursor = forest.scan(tree, std::string(), "\xff");
    while (true) {
      const Result<bool> more = cursor->next();
      ASSERT_TRUE(more) << name << ": " << more.error().to_string();
      ASSERT_EQ(*more, expected != records.end()) << name << " after " << n;
      if (!*more) break;
      ASSERT_EQ(show_bytes(cursor->key()), show_bytes(expected->first)) << name << " after " << n;
      const auto bytes = read_bytes(forest, cursor->value());
      ASSERT_TRUE(bytes) << name << ": " << bytes.error().to_string();
      ASSERT_TRUE(*bytes == expected->second.bytes)
          << name << " after " << n << ": " << show_bytes(expected->first);
      ++expected;
    }
  }

  const uint64_t seed_;
  const uint32_t ops_;
  VolumeBed bed_;
  std::atomic<bool> stop_{false};
  std::array<std::atomic<uint32_t>, kWriters> begun_{};
  std::array<std::atomic<uint32_t>, kWriters> done_{};
  std::mutex mutex_;
  std::map<TreePath, CloneNote> clones_;   // the cloner's, then check()'s
};

void run_threads(uint64_t seed, uint32_t ops) {
  SCOPED_TRACE("about (threads differ): CAW_SEEDS=1 CAW_SEED=" + std::to_string(seed) +
               " CAW_OPS=" + std::to_string(ops) + " engine_threads_test");
  Threads threads(seed, ops);
  threads.run();
  EXPECT_GT(threads.clone_count(), 0U);
  threads.check();
  if (testing::Test::HasFailure()) return;
  const Result<void> again = threads.bed().reopen();
  ASSERT_TRUE(again) << again.error().to_string();
  threads.check();
  EXPECT_EQ(threads.bed().check(), "");
}

TEST(EngineThreads, ClonesHoldOneMoment) {
  const uint64_t first = env_number("CAW_SEED", 1);
  const auto ops = static_cast<uint32_t>(env_number("CAW_OPS", 1500));
  for (uint64_t seed = first; seed < first + env_number("CAW_SEEDS", 4); ++seed) {
    run_threads(seed, ops);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace caw
