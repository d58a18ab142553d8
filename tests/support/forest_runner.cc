#include "support/forest_runner.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <utility>

#include "base/assert.h"

namespace caw {
namespace {

std::string text_of(const Result<void>& result, std::string_view what) {
  return result ? std::string() : std::string(what) + " fails: " + result.error().to_string();
}

/// Runs `body` in a child; it writes each op before it is tried, and at last what went wrong.
class ChildRun {
 public:
  template <typename Body>
  explicit ChildRun(const Body& body) {
    int ends[2];
    CAW_ASSERT(pipe(ends) == 0);
    std::fflush(nullptr);
    const pid_t child = fork();
    CAW_ASSERT(child >= 0);
    if (child == 0) {
      close(ends[0]);
      std::FILE* out = fdopen(ends[1], "w");
      dup2(ends[1], STDERR_FILENO);      // the line of an assertion that fails
      const std::string what = body(out);
      if (!what.empty()) std::fprintf(out, "!%s\n", what.c_str());
      std::fprintf(out, "=\n");
      std::fflush(out);
      _exit(0);
    }
    close(ends[1]);
    collect(ends[0]);
    int status = 0;
    CAW_ASSERT(waitpid(child, &status, 0) == child);
    if (!finished_ && failure_.what.empty()) failure_.what = "ends early: " + last_line_;
    if (WIFSIGNALED(status)) failure_.what += " (signal " + std::to_string(WTERMSIG(status)) + ")";
  }
  RunFailure take() { return std::move(failure_); }

 private:
  void collect(int end) {
    std::FILE* in = fdopen(end, "r");
    char* line = nullptr;
    size_t capacity = 0;
    for (ssize_t length = 0; (length = getline(&line, &capacity, in)) > 0;) {
      std::string_view text(line, static_cast<size_t>(length));
      if (text.ends_with('\n')) text.remove_suffix(1);
      if (text.starts_with('+')) {
        if (auto op = decode_op(text.substr(1))) failure_.ops.push_back(std::move(*op));
      } else if (text.starts_with('!')) {
        failure_.what = text.substr(1);
      } else if (text == "=") {
        finished_ = true;
      } else {
        last_line_ = text;
      }
    }
    std::free(line);
    std::fclose(in);
  }

  RunFailure failure_;
  std::string last_line_;
  bool finished_ = false;
};

std::string note_and_run(ForestRunner& runner, const ForestOp& op, std::FILE* out) {
  std::fprintf(out, "+%s\n", encode_op(op).c_str());
  std::fflush(out);
  return runner.run(op);
}

}  // namespace

// ---- ForestRunner

std::string ForestRunner::run(const ForestOp& raw_op) {
  const ForestOp op = sensible(raw_op, model_);
  if (op.empty()) return {};
  if (op.front().kind > ActionKind::clone) return run_alone(op.front());
  const Result<void> done = ForestClient(bed_.forest()).apply(op);
  if (!done) return text_of(done, "apply");
  apply_to_model(op, model_);
  since_.push_back(op);
  return {};
}

std::string ForestRunner::run_alone(const Action& action) {
  switch (action.kind) {
    case ActionKind::get:
      return compare_get(action);
    case ActionKind::scan:
      return compare_scan(action);
    case ActionKind::check:
      return check_all();
    case ActionKind::maintain:
      return text_of(bed_.maintain(), "maintain");
    case ActionKind::crash:
      return recover();
    case ActionKind::sync:
    case ActionKind::reopen: {
      const bool sync = action.kind == ActionKind::sync;
      const Result<void> done = sync ? bed_.forest().sync() : bed_.reopen();
      if (!done) return text_of(done, sync ? "sync" : "reopen");
      durable_ = model_;
      since_.clear();
      return sync ? std::string() : check_all();
    }
    default:
      return {};
  }
}

std::string ForestRunner::compare_get(const Action& action) {
  const Result<TreeRef> tree = ForestClient(bed_.forest()).find(action.path);
  if (!tree) return "get: the tree is not found: " + tree.error().to_string();
  const auto value = bed_.forest().get(*tree, action.key);
  if (!value) return "get fails: " + value.error().to_string();
  const auto& records = model_.find(action.path)->records;
  const auto expected = records.find(action.key);
  if (value->has_value() != (expected != records.end())) {
    return *value ? "get finds a key that should not be there" : "get does not find a key";
  }
  if (!*value) return {};
  const Result<std::string> bytes = read_bytes(bed_.forest(), **value);
  if (!bytes) return "read fails: " + bytes.error().to_string();
  if (*bytes != expected->second.bytes) return "get: bytes differ";
  if (bytes->empty()) return {};
  // A part of it, and beyond its end.
  const size_t offset = bytes->size() / 3;
  std::string part(bytes->size(), '?');
  if (auto done = bed_.forest().read(**value, static_cast<uint32_t>(offset), part); !done) {
    return text_of(done, "read of a part");
  }
  std::string wanted = bytes->substr(offset);
  wanted.resize(part.size(), '\0');
  return part == wanted ? std::string() : "read of a part differs";
}

std::string ForestRunner::compare_scan(const Action& action) {
  const Result<TreeRef> tree = ForestClient(bed_.forest()).find(action.path);
  if (!tree) return "scan: the tree is not found: " + tree.error().to_string();
  const auto& records = model_.find(action.path)->records;
  auto expected = records.lower_bound(action.key);
  const auto end = records.lower_bound(action.other_key);
  auto cursor = bed_.forest().scan(*tree, action.key, action.other_key);
  while (true) {
    const Result<bool> more = cursor->next();
    if (!more) return "scan fails: " + more.error().to_string();
    if (*more != (expected != end)) return *more ? "scan finds too much" : "scan ends early";
    if (!*more) return {};
    if (cursor->key() != expected->first) {
      return "scan finds " + show_bytes(cursor->key()) + ", not " + show_bytes(expected->first);
    }
    const Result<std::string> bytes = read_bytes(bed_.forest(), cursor->value());
    if (!bytes) return "read fails: " + bytes.error().to_string();
    if (*bytes != expected->second.bytes) return "scan: bytes differ";
    ++expected;
  }
}

std::string ForestRunner::check_all() {
  std::string text = compare_forest(bed_.forest(), model_);
  if (text.empty()) text = bed_.check();
  durable_ = model_;
  since_.clear();
  return text;
}

/// After a power cut the forest holds what it held after some op, none before the last sync.
std::string ForestRunner::recover() {
  if (const Result<void> done = bed_.crash(); !done) return text_of(done, "opening after a crash");
  const Result<uint64_t> found = digest_forest(bed_.forest());
  if (!found) return "reading after a crash fails: " + found.error().to_string();
  ForestModel candidate = durable_;
  for (size_t i = 0; candidate.digest() != *found; ++i) {
    if (i == since_.size()) {
      return "after a crash: no prefix of the " + std::to_string(since_.size()) +
             " ops since the last sync; against the synced state: " +
             compare_forest(bed_.forest(), durable_);
    }
    apply_to_model(since_[i], candidate);
  }
  model_ = candidate;
  durable_ = candidate;
  since_.clear();
  return check_all();
}

// ---- lists of ops

RunFailure run_random(const RunPlan& plan, uint64_t seed, uint64_t ops) {
  return ChildRun([&](std::FILE* out) -> std::string {
           const std::unique_ptr<ForestBed> bed = plan.make_bed();
           ForestRunner runner(*bed);
           OpSource source(seed, plan.mix);
           for (uint64_t i = 1; i <= ops; ++i) {
             ForestOp op = source.next(runner.model());
             if (i % plan.check_every == 0 || i == ops) op = {Action{}};
             if (std::string what = note_and_run(runner, op, out); !what.empty()) return what;
           }
           return {};
         }).take();
}

RunFailure run_list(const RunPlan& plan, const std::vector<ForestOp>& ops) {
  return ChildRun([&](std::FILE* out) -> std::string {
           const std::unique_ptr<ForestBed> bed = plan.make_bed();
           ForestRunner runner(*bed);
           for (const ForestOp& op : ops) {
             if (std::string what = note_and_run(runner, op, out); !what.empty()) return what;
           }
           return note_and_run(runner, {Action{}}, out);
         }).take();
}

RunFailure shrink(const RunPlan& plan, RunFailure failure, unsigned seconds) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
  const auto in_time = [&] { return std::chrono::steady_clock::now() < until; };
  for (size_t piece = failure.ops.size() / 2; piece > 0 && in_time();) {
    bool shorter = false;
    for (size_t at = 0; at < failure.ops.size() && in_time();) {
      std::vector<ForestOp> rest = failure.ops;
      rest.erase(rest.begin() + static_cast<ptrdiff_t>(at),
                 rest.begin() + static_cast<ptrdiff_t>(std::min(at + piece, rest.size())));
      RunFailure smaller = run_list(plan, rest);
      if (!smaller.what.empty() && smaller.ops.size() < failure.ops.size()) {
        failure = std::move(smaller);
        shorter = true;
      } else {
        at += piece;
      }
    }
    if (!shorter || piece > failure.ops.size()) piece = std::min(piece, failure.ops.size()) / 2;
  }
  // Then single actions out of batches.
  for (size_t i = 0; i < failure.ops.size() && in_time(); ++i) {
    for (size_t j = 0; failure.ops[i].size() > 1 && j < failure.ops[i].size() && in_time();) {
      std::vector<ForestOp> rest = failure.ops;
      rest[i].erase(rest[i].begin() + static_cast<ptrdiff_t>(j));
      RunFailure smaller = run_list(plan, rest);
      if (!smaller.what.empty() && smaller.ops.size() <= failure.ops.size() &&
          smaller.ops.size() > i) {
        failure = std::move(smaller);
      } else {
        ++j;
      }
      if (i >= failure.ops.size()) break;
    }
  }
  return failure;
}

std::string report(const RunFailure& failure, uint64_t seed, const std::string& program) {
  const char* folder = std::getenv("TMPDIR");
  const std::string path = std::string(folder != nullptr ? folder : "/tmp") + "/caw-ops-" +
                           std::to_string(seed) + ".txt";
  std::string text = failure.what + "\n";
  std::ofstream file(path);
  for (const ForestOp& op : failure.ops) {
    file << encode_op(op) << '\n';
    if (failure.ops.size() <= 60) text += "  " + encode_op(op) + "\n";
  }
  return text + std::to_string(failure.ops.size()) + " ops; replay: CAW_SEED=" +
         std::to_string(seed) + " CAW_REPLAY=" + path + " " + program;
}

std::vector<ForestOp> load_ops(const std::string& path) {
  std::vector<ForestOp> ops;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (auto op = decode_op(line)) ops.push_back(std::move(*op));
  }
  return ops;
}

uint64_t env_number(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  if (text == nullptr) return otherwise;
  uint64_t number = 0;
  const auto parsed = std::from_chars(text, text + std::strlen(text), number);
  return parsed.ec == std::errc() ? number : otherwise;
}

}  // namespace caw
