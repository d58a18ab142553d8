// Random operations on the file-system layer against plain nodes, on the plain forest and the
// engine.
//   CAW_SEED   first seed (default 1)        CAW_SEEDS  how many seeds (default 6)
//   CAW_OPS    ops of each (default 1200)    CAW_REPLAY file of ops that a failure wrote
//   CAW_SHRINK seconds to spend on a shorter list (default 60)
#include "model/fs_model.h"

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <functional>
#include <map>

#include "schema/keys.h"
#ifdef CAW_WITHOUT_ENGINE
#include "support/forest_runner.h"
#else
#include "model/fs_volume_bed.h"
#endif

namespace caw::fsm {
namespace {

constexpr uint32_t kSlots = 3;
constexpr uint64_t kMaxNodes = 250;
constexpr uint64_t kMaxBytes = 6U << 20;

class PlainBed final : public ForestBed {
 public:
  explicit PlainBed(const MapForestOptions& options) : forest_(options) {}
  Forest& forest() override { return forest_; }
  Result<void> maintain() override { return {}; }
  Result<void> reopen() override { return {}; }
  Result<void> crash() override { return {}; }

 private:
  MapForest forest_;
};

struct Plan {
  std::string name;
  BedMaker make_bed;
  bool crashes = false;   ///< the bed forgets what was not synced
  bool maintains = true;  ///< maintenance is an op
};

/// Carries out ops on both sides and compares.
class Runner {
 public:
  explicit Runner(const Plan& plan) : plan_(plan), bed_(plan.make_bed()), client_(bed_->forest()) {
    while (client_.make_and_mount() == ENOSPC) {
    }
  }
  ~Runner() { close_all(); }

  /// Empty, or what is wrong.
  std::string run(const Op& op) {
    switch (op.kind) {
      case Kind::open:
      case Kind::close:
      case Kind::write_open:
      case Kind::read_open:
        return run_open(op);
      case Kind::check:
      case Kind::remount:
      case Kind::reopen:
      case Kind::sync:
      case Kind::maintain:
      case Kind::crash:
        return run_whole(op);
      default:
        break;
    }
    const int got = run_client(op);
    if (got == ENOSPC) return {};  // injected: nothing happened
    const int expected = run_model(op);
    if (got == expected) return {};
    return "errno " + std::to_string(got) + ", expected " + std::to_string(expected);
  }
  const Model& model() const { return model_; }
  Model& model() { return model_; }

 private:
  struct Slot {
    Inode* inode = nullptr;
    NodePtr node;
  };
  /// Who shows which inode number.
  using Numbers = std::map<uint64_t, const Node*>;

  /// The same place in a chunk, often the same chunk; never onto what is copied.
  static uint64_t copy_target(const Op& op) {
    const uint64_t chunks = op.a == op.b ? 4 + op.z % 2 : op.z % 3;
    return op.x + chunks * kChunkBytes + (op.z % 5 == 0 ? op.z : 0);
  }

  int run_client(const Op& op) {
    switch (op.kind) {
      case Kind::create:
        return client_.create(op.a);
      case Kind::mkdir:
        return client_.mkdir(op.a);
      case Kind::symlink:
        return client_.symlink(op.a, op.b);
      case Kind::write:
        return client_.write(op.a, op.x, op_bytes(op.y, op.z));
      case Kind::truncate:
        return client_.truncate(op.a, op.x);
      case Kind::punch:
        return client_.at(op.a, [&](Inode& inode) {
          return FsClient::error_of(client_.fs().fallocate(inode, 3, op.x, op.y));
        });
      case Kind::unlink:
        return client_.unlink(op.a);
      case Kind::rmdir:
        return client_.rmdir(op.a);
      case Kind::remove_tree:
        return client_.remove_tree(op.a);
      case Kind::rename:
        return client_.rename(op.a, op.b);
      case Kind::rename_new:
        return client_.rename(op.a, op.b, {.no_replace = true});
      case Kind::exchange:
        return client_.rename(op.a, op.b, {.exchange = true});
      case Kind::link:
        return client_.link(op.a, op.b);
      case Kind::clone:
        return client_.clone(op.a, op.b);
      case Kind::copy:
        return client_.copy(op.a, op.x, op.b, copy_target(op), op.y);
      case Kind::set_xattr:
        return client_.set_xattr(op.a, xattr_name(op.x), op_bytes(op.y, op.z));
      case Kind::remove_xattr:
        return client_.remove_xattr(op.a, xattr_name(op.x));
      default:
        break;
    }
    SetAttributes set;
    set.mode = static_cast<uint32_t>(op.x);
    return client_.setattr(op.a, set);
  }

  int run_model(const Op& op) {
    const auto [node, error] = model_.find(op.a);
    switch (op.kind) {
      case Kind::create:
        return model_.make(op.a, S_IFREG | 0644, {});
      case Kind::mkdir:
        return model_.make(op.a, S_IFDIR | 0755, {});
      case Kind::symlink:
        return model_.make(op.a, S_IFLNK | 0777, op.b);
      case Kind::write:
        return error != 0 ? error : Model::write(*node, op.x, op_bytes(op.y, op.z));
      case Kind::truncate:
        return model_.truncate(op.a, op.x);
      case Kind::punch:
        return model_.punch(op.a, op.x, op.y);
      case Kind::unlink:
      case Kind::rmdir:
      case Kind::remove_tree:
        return model_.remove(op.a, op.kind);
      case Kind::rename:
      case Kind::rename_new:
      case Kind::exchange:
        return model_.rename(op.a, op.b, op.kind);
      case Kind::link:
        return model_.link(op.a, op.b);
      case Kind::clone:
        return model_.clone(op.a, op.b);
      case Kind::copy:
        return model_.copy(op.a, op.x, op.b, copy_target(op), op.y);
      case Kind::set_xattr:
        if (error == 0) node->xattrs[xattr_name(op.x)] = op_bytes(op.y, op.z);
        return error;
      case Kind::remove_xattr:
        if (error != 0) return error;
        return node->xattrs.erase(xattr_name(op.x)) == 1 ? 0 : ENODATA;
      default:
        break;
    }
    if (error == 0) node->mode = (node->mode & S_IFMT) | static_cast<uint32_t>(op.x);
    return error;
  }

  std::string run_open(const Op& op) {
    Slot& slot = slots_[op.slot % kSlots];
    FileSystem& fs = client_.fs();
    if (op.kind == Kind::open) {
      const auto [node, error] = model_.find(op.a);
      if (slot.inode != nullptr || error != 0 || !node->is_file()) return {};
      const Result<Inode*> inode = client_.get(op.a);
      if (!inode) return "open: " + inode.error().to_string();
      const Result<void> opened = fs.open_file(**inode, OpenFor::mapping, false);
      if (!opened) return "open: " + opened.error().to_string();
      slot = {*inode, node};
      return {};
    }
    if (slot.inode == nullptr) return {};
    if (op.kind == Kind::close) {
      close(slot);
      return {};
    }
    if (op.kind == Kind::write_open) {
      const Result<size_t> written = fs.write(*slot.inode, op.x, op_bytes(op.y, op.z));
      if (!written && written.error().as_errno() == ENOSPC) return {};
      if (!written) return "write: " + written.error().to_string();
      Model::write(*slot.node, op.x, op_bytes(op.y, op.z));
      return {};
    }
    return compare_data(*slot.inode, *slot.node, "open file");
  }

  std::string run_whole(const Op& op) {
    Result<void> done;
    switch (op.kind) {
      case Kind::check:
        return check();
      case Kind::sync:
        done = client_.fs().sync();
        if (done) durable_ = model_.durable_copy();
        break;
      case Kind::maintain:
        if (plan_.maintains) done = bed_->maintain();
        break;
      case Kind::remount:
        close_all();
        settle();
        if (const int error = client_.remount()) return "remount: " + std::to_string(error);
        break;
      case Kind::reopen:
        close_all();
        settle();
        client_.unmount();
        done = bed_->reopen();
        if (done) durable_ = model_.durable_copy();
        if (done && client_.mount_on(bed_->forest()) != 0) return "mount after reopen";
        break;
      default:
        if (!plan_.crashes || !durable_) return {};
        close_all();
        client_.unmount();
        done = bed_->crash();
        model_ = durable_->durable_copy();
        if (done && client_.mount_on(bed_->forest()) != 0) return "mount after a crash";
        break;
    }
    return done ? std::string() : done.error().to_string();
  }

  /// Inode numbers given out when there was no space are written now.
  void settle() {
    for (int i = 0; i < 8; ++i) {
      if (client_.fs().sync()) durable_ = model_.durable_copy();
    }
  }
  void close(Slot& slot) {
    if (slot.inode == nullptr) return;
    client_.fs().release_file(*slot.inode, OpenFor::mapping);
    client_.put(slot.inode);
    slot = {};
  }
  void close_all() {
    for (Slot& slot : slots_) close(slot);
  }

  // ---- comparison

  std::string check() {
    Numbers numbers;
    names_.clear();
    count_names(*model_.root(), names_);
    std::string wrong = compare(*client_.fs().root(), *model_.root(), "", numbers);
    for (const Slot& slot : slots_) {
      if (!wrong.empty() || slot.inode == nullptr) continue;
      wrong = compare_data(*slot.inode, *slot.node, "open file");
      if (wrong.empty()) wrong = compare_xattrs(*slot.inode, *slot.node, "open file");
    }
    if (wrong.empty()) wrong = bed_->check();
    durable_ = model_.durable_copy();  // the bed made it so
    return wrong;
  }

  std::string compare_data(Inode& inode, const Node& node, const std::string& path) {
    std::string data;
    if (const int error = client_.read_inode(inode, data)) {
      return path + ": read: errno " + std::to_string(error);
    }
    if (data == node.data) return {};
    size_t at = 0;
    while (at < data.size() && at < node.data.size() && data[at] == node.data[at]) ++at;
    return path + ": data differ at " + std::to_string(at) + " of " + std::to_string(data.size()) +
           ", expected " + std::to_string(node.data.size());
  }

  std::string compare_xattrs(Inode& inode, const Node& node, const std::string& path) {
    std::map<std::string, std::string> found;
    if (const int error = read_xattrs(client_.fs(), inode, found)) {
      return path + ": extended attributes: errno " + std::to_string(error);
    }
    return found == node.xattrs ? std::string() : path + ": extended attributes differ";
  }

  std::string compare_number(uint64_t ino, Node& node, const std::string& path,
                             Numbers& numbers) {
    if (ino == 0 || numbers.emplace(ino, &node).first->second != &node) {
      return path + ": inode number " + std::to_string(ino) + " is shown twice";
    }
    if (node.ino != 0 && node.ino != ino) {
      return path + ": inode number was " + std::to_string(node.ino) + ", is " +
             std::to_string(ino);
    }
    node.ino = ino;
    return {};
  }

  std::string compare(Inode& inode, Node& node, const std::string& path,
                      Numbers& numbers) {
    const Result<Attributes> attributes = client_.fs().getattr(inode);
    if (!attributes) return path + ": " + attributes.error().to_string();
    if (attributes->mode != node.mode) {
      return path + ": mode " + std::to_string(attributes->mode) + ", expected " +
             std::to_string(node.mode);
    }
    const uint32_t names = node.is_directory() ? 1 : names_.at(&node);
    if (attributes->nlink != names) {
      return path + ": link count " + std::to_string(attributes->nlink) + ", expected " +
             std::to_string(names);
    }
    std::string wrong = compare_number(attributes->ino, node, path, numbers);
    if (wrong.empty()) wrong = compare_xattrs(inode, node, path);
    if (!wrong.empty()) return wrong;
    if (S_ISLNK(node.mode)) {
      const Result<std::string> target = client_.fs().readlink(inode);
      if (!target || *target != node.data) return path + ": target of the link";
    }
    if (!node.is_directory() && attributes->size != node.data.size()) {
      return path + ": size " + std::to_string(attributes->size);
    }
    if (node.is_file()) return compare_data(inode, node, path);
    if (!node.is_directory()) return {};
    return compare_children(inode, node, path, numbers);
  }

  std::string compare_children(Inode& inode, Node& node, const std::string& path,
                               Numbers& numbers) {
    std::map<std::string, uint64_t> listed;
    if (const int error = client_.list_inode(inode, listed)) {
      return path + ": readdir: errno " + std::to_string(error);
    }
    for (const auto& [name, ino] : listed) {
      if (!node.children.contains(name)) return path + "/" + name + ": should not be there";
    }
    for (const auto& [name, child] : node.children) {
      const std::string below = path + "/" + name;
      const auto shown = listed.find(name);
      if (shown == listed.end()) return below + ": not listed";
      const Result<Entry> entry = client_.fs().lookup(inode, name);
      if (!entry) return below + ": " + entry.error().to_string();
      std::string wrong;
      if (entry->attributes.ino != shown->second) wrong = below + ": readdir's number differs";
      if (wrong.empty()) wrong = compare(*entry->inode, *child, below, numbers);
      client_.put(entry->inode);
      if (!wrong.empty()) return wrong;
    }
    return {};
  }

  const Plan& plan_;
  std::unique_ptr<ForestBed> bed_;
  FsClient client_;
  Model model_;
  std::optional<Model> durable_;
  std::map<const Node*, uint32_t> names_;
  std::array<Slot, kSlots> slots_;
};

// ---- making ops

class Maker {
 public:
  explicit Maker(uint64_t seed) : random_(seed) {
    // Swarm: each seed has its own weights; some kinds do not occur at all.
    for (uint32_t& weight : weights_) {
      weight = random_.one_in(5) ? 0 : static_cast<uint32_t>(1 + random_.below(8));
    }
    weights_[static_cast<size_t>(Kind::create)] += 6;
    weights_[static_cast<size_t>(Kind::mkdir)] += 6;
    weights_[static_cast<size_t>(Kind::write)] += 4;
    weights_[static_cast<size_t>(Kind::clone)] += 2;
    weights_[static_cast<size_t>(Kind::link)] += 3;
    for (const Kind rare : {Kind::check, Kind::remount, Kind::reopen, Kind::crash, Kind::sync}) {
      weights_[static_cast<size_t>(rare)] = 1;
    }
  }

  Op next(const Model& model) {
    uint64_t nodes = 0;
    uint64_t bytes = 0;
    count(*model.root(), nodes, bytes);
    paths_.clear();
    directories_.clear();
    files_.clear();
    collect(*model.root(), "");
    Op op;
    op.kind = pick_kind();
    const bool full = nodes > kMaxNodes || bytes > kMaxBytes;
    if (full && (op.kind == Kind::clone || random_.one_in(3))) op.kind = Kind::remove_tree;
    op.a = op.kind == Kind::create || op.kind == Kind::mkdir || op.kind == Kind::symlink
               ? new_path()
               : old_path();
    if (takes_file(op.kind) && !files_.empty() && !random_.one_in(10)) {
      op.a = files_[random_.below(files_.size())];
    }
    op.b = random_.one_in(3) ? old_path() : new_path();
    if (op.kind == Kind::clone && random_.one_in(12)) op.a = "/";
    if (op.b == "/" || op.b.empty()) op.b = "/a";
    if (op.kind == Kind::copy && !files_.empty() && !random_.one_in(10)) {
      op.b = files_[random_.below(files_.size())];
    }
    op.slot = static_cast<uint32_t>(random_.below(kSlots));
    op.z = random_.below(1000);
    choose_extent(op);
    return op;
  }

 private:
  Kind pick_kind() {
    uint64_t total = 0;
    for (const uint32_t weight : weights_) total += weight;
    uint64_t at = random_.below(total);
    for (size_t i = 0; i < weights_.size(); ++i) {
      if (at < weights_[i]) return static_cast<Kind>(i);
      at -= weights_[i];
    }
    return Kind::check;
  }
  void choose_extent(Op& op) {
    const uint64_t near = random_.one_in(2) ? 0 : kChunkBytes * random_.below(3);
    op.x = random_.one_in(3) ? near : near + random_.below(random_.one_in(2) ? 200 : 60'000);
    op.y = 1 + random_.below(random_.one_in(4) ? 150'000 : random_.one_in(2) ? 20'000 : 200);
    if (op.kind == Kind::copy) {
      op.x = kChunkBytes * random_.below(2) + (random_.one_in(3) ? random_.below(5000) : 0);
      op.y = 1 + random_.below(3 * kChunkBytes);
    }
    if (op.kind == Kind::chmod) op.x = random_.below(01000);
    if (op.kind == Kind::set_xattr) op.y = random_.below(random_.one_in(10) ? 20'000 : 100);
  }
  static bool takes_file(Kind kind) {
    return kind == Kind::write || kind == Kind::truncate || kind == Kind::punch ||
           kind == Kind::copy || kind == Kind::open || kind == Kind::unlink || kind == Kind::link;
  }
  void collect(const Node& node, const std::string& path) {
    paths_.push_back(path.empty() ? "/" : path);
    if (node.is_directory()) directories_.push_back(path);
    if (node.is_file()) files_.push_back(path);
    for (const auto& [name, child] : node.children) collect(*child, path + "/" + name);
  }
  std::string name() {
    static constexpr const char* kNames[] = {"a", "b", "c", "d",    "e",    "f",
                                             "g", "h", "i", "\x01", "\xff", "Long-name"};
    return kNames[random_.below(random_.one_in(2) ? std::size(kNames) : 4)];
  }
  std::string old_path() {
    if (random_.one_in(15)) return new_path();
    const std::string& path = paths_[random_.below(paths_.size())];
    return path == "/" ? "/" + name() : path;
  }
  std::string new_path() {
    if (!random_.one_in(12)) return directories_[random_.below(directories_.size())] + "/" + name();
    const std::string& path = paths_[random_.below(paths_.size())];
    return (path == "/" ? "" : path) + "/" + name();
  }

  Random random_;
  std::array<uint32_t, std::size(kKindNames)> weights_{};
  std::vector<std::string> paths_;
  std::vector<std::string> directories_;
  std::vector<std::string> files_;
};

// ---- running in a child, shrinking

struct Failure {
  std::string what;
  std::vector<Op> ops;
};

/// Calls next() until it gives none; writes each op before it is run, then what is wrong.
Failure run_in_child(const Plan& plan, const std::function<std::optional<Op>(const Model&)>& next) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const pid_t child = fork();
  if (child == 0) {
    ::close(ends[0]);
    const auto say = [&](const std::string& line) {
      const std::string text = line + "\n";
      if (::write(ends[1], text.data(), text.size()) < 0) _exit(3);
    };
    Runner runner(plan);
    while (const std::optional<Op> op = next(runner.model())) {
      say(to_line(*op));
      const std::string wrong = runner.run(*op);
      if (!wrong.empty()) {
        say("! " + wrong);
        _exit(1);
      }
    }
    say("done");
    _exit(0);
  }
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> part;
  for (ssize_t got = 0; (got = ::read(ends[0], part.data(), part.size())) > 0;) {
    text.append(part.data(), static_cast<size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  Failure failure;
  bool done = false;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line == "done") {
      done = true;
    } else if (line.starts_with("! ")) {
      failure.what = line.substr(2);
    } else if (const std::optional<Op> op = from_line(line)) {
      failure.ops.push_back(*op);
    }
  }
  if (failure.what.empty() && !done) failure.what = "aborted, status " + std::to_string(status);
  return failure;
}

Failure run_list(const Plan& plan, const std::vector<Op>& ops) {
  size_t at = 0;
  return run_in_child(plan, [&](const Model&) -> std::optional<Op> {
    if (at == ops.size()) return at++, Op{};  // a check at the end
    if (at > ops.size()) return std::nullopt;
    return ops[at++];
  });
}

Failure run_random(const Plan& plan, uint64_t seed, uint64_t count) {
  Maker maker(seed);
  uint64_t left = count;
  return run_in_child(plan, [&](const Model& model) -> std::optional<Op> {
    if (left == 0) return std::nullopt;
    if (--left % 200 == 0) return Op{};
    return maker.next(model);
  });
}

Failure shrink(const Plan& plan, Failure failure, uint64_t seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  for (size_t size = failure.ops.size() / 2; size > 0; size /= 2) {
    for (size_t at = 0; at + size <= failure.ops.size();) {
      if (std::chrono::steady_clock::now() > end) return failure;
      std::vector<Op> ops = failure.ops;
      const auto first = ops.begin() + static_cast<std::ptrdiff_t>(at);
      ops.erase(first, first + static_cast<std::ptrdiff_t>(size));
      Failure shorter = run_list(plan, ops);
      if (shorter.what.empty()) {
        at += size;
      } else {
        failure = std::move(shorter);
      }
    }
  }
  return failure;
}

std::string report(const Plan& plan, const Failure& failure, uint64_t seed) {
  const std::string file =
      testing::TempDir() + "fs_model." + plan.name + "." + std::to_string(seed) + ".ops";
  std::ofstream out(file);
  std::string text = failure.what + "\n";
  for (const Op& op : failure.ops) {
    out << to_line(op) << "\n";
    text += "  " + to_line(op) + "\n";
  }
  return text + "seed " + std::to_string(seed) + "; CAW_REPLAY=" + file +
         " fs_model_test --gtest_filter='*" + plan.name + "*'";
}

void run_plan(const std::function<Plan(uint64_t)>& plan_for, uint64_t seeds) {
  const uint64_t first = env_number("CAW_SEED", 1);
  if (const char* file = std::getenv("CAW_REPLAY"); file != nullptr) {
    std::vector<Op> ops;
    std::ifstream in(file);
    for (std::string line; std::getline(in, line);) {
      if (const std::optional<Op> op = from_line(line)) ops.push_back(*op);
    }
    const Failure failure = run_list(plan_for(first), ops);
    ASSERT_TRUE(failure.what.empty()) << failure.what;
    return;
  }
  const uint64_t ops = env_number("CAW_OPS", 1200);
  for (uint64_t seed = first; seed < first + env_number("CAW_SEEDS", seeds); ++seed) {
    const Plan plan = plan_for(seed);
    Failure failure = run_random(plan, seed, ops);
    if (!failure.what.empty()) failure = shrink(plan, failure, env_number("CAW_SHRINK", 60));
    ASSERT_TRUE(failure.what.empty()) << report(plan, failure, seed);
  }
}

TEST(FsModel, PlainForest) {
  run_plan(
      [](uint64_t seed) {
        MapForestOptions options;
        options.seed = seed;
        options.lie_one_in = seed % 3 == 0 ? 8 : 0;  // more, and deep trees are never private
        options.no_space_one_in = seed % 4 == 0 ? 20 : 0;
        return Plan{"PlainForest", [options] { return std::make_unique<PlainBed>(options); }};
      },
      6);
}

#ifndef CAW_WITHOUT_ENGINE
Plan engine_plan(uint64_t seed, bool background) {
  VolumeBedOptions options;
  options.shape = tiny_shape(seed);
  options.blocks = 65536;
  options.cache_bytes = 1U << 20;
  options.background = background;
  return Plan{background ? "EngineInBackground" : "Engine",
              [options] { return std::make_unique<FsVolumeBed>(options); }, !background,
              !background};
}

TEST(FsModel, Engine) {
  run_plan([](uint64_t seed) { return engine_plan(seed, false); }, 4);
}

/// Maintenance runs on threads of its own: a list that fails may not fail again.
TEST(FsModel, EngineInBackground) {
  run_plan([](uint64_t seed) { return engine_plan(seed, true); }, 4);
}
#endif

}  // namespace
}  // namespace caw::fsm
