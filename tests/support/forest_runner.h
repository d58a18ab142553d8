// Carries ops out on a forest and on a model, and compares.  Also runs lists of ops in a child
// process, so that an abort is a failure like any other, and shrinks lists that fail.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "support/forest_ops.h"

namespace caw {

/// A forest with a life: it can be closed, opened again, or lose what was not made durable.
class ForestBed {
 public:
  virtual ~ForestBed() = default;
  virtual Forest& forest() = 0;
  /// Pending background work, until there is none.
  virtual Result<void> maintain() = 0;
  virtual Result<void> reopen() = 0;
  /// Opens what a power cut at this moment would have left.
  virtual Result<void> crash() = 0;
  /// More to check, after which everything is durable; empty if all is well.
  virtual std::string check() { return {}; }
};
using BedMaker = std::function<std::unique_ptr<ForestBed>()>;

/// Carries out batches and clones as a file system would: checks that trees are private from the
/// outermost down, gives shared ones a root of their own, tries again when the generation moved.
/// May be used by several threads, each with its own.
class ForestClient {
 public:
  explicit ForestClient(Forest& forest) : forest_(forest) {}
  /// Requires: sensible().  Only batches and clones.  On failure nothing has happened.
  Result<void> apply(const ForestOp& op);
  /// The tree at `path`, for reading.
  Result<TreeRef> find(const TreePath& path);

  uint64_t privatized_count() const { return privatized_count_; }

 private:
  /// Null: a root was made private meanwhile, start again.
  Result<TreeRef> find_private(const TreePath& path);
  Result<bool> privatize(const TreeRef& outer, const std::string& key);
  Result<bool> try_batch(const ForestOp& op);
  Result<bool> try_clone(const Action& action);
  Result<bool> add_action(const Action& action, Batch& batch);
  Result<void> add_put(const Action& action, const TreeRef& tree, Batch& batch);
  void cancel(const Batch& batch);

  Forest& forest_;
  uint64_t generation_ = 0;              ///< at the start of the attempt under way
  bool essential_ = false;               ///< it only removes: may use the reserve
  uint64_t privatized_count_ = 0;
};

class ForestRunner {
 public:
  explicit ForestRunner(ForestBed& bed) : bed_(bed) {}
  /// Empty if all is well, else what is wrong.
  std::string run(const ForestOp& op);
  /// Compares everything.
  std::string check_all();
  const ForestModel& model() const { return model_; }

 private:
  std::string run_alone(const Action& action);
  std::string compare_get(const Action& action);
  std::string compare_scan(const Action& action);
  std::string recover();

  ForestBed& bed_;
  ForestModel model_;
  ForestModel durable_;                  ///< at the last sync or reopen
  std::vector<ForestOp> since_;          ///< what came after
};

struct RunPlan {
  BedMaker make_bed;
  OpMix mix;
  uint64_t check_every = 500;            ///< ops between full comparisons
};

struct RunFailure {
  std::string what;                      ///< empty: none
  std::vector<ForestOp> ops;             ///< up to the one that failed
};

/// Runs `ops` random ops from `seed` in a child process.
RunFailure run_random(const RunPlan& plan, uint64_t seed, uint64_t ops);
/// Runs this list in a child process.
RunFailure run_list(const RunPlan& plan, const std::vector<ForestOp>& ops);
/// A shorter list that fails too, within about `seconds`.
RunFailure shrink(const RunPlan& plan, RunFailure failure, unsigned seconds);
/// The failure as text: the ops, and the line that replays them from the file it writes.
std::string report(const RunFailure& failure, uint64_t seed, const std::string& program);
std::vector<ForestOp> load_ops(const std::string& path);

/// A number from the environment.
uint64_t env_number(const char* name, uint64_t otherwise);

}  // namespace caw
