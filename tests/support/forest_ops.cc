#include "support/forest_ops.h"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "base/assert.h"

namespace caw {
namespace {

constexpr std::array<std::string_view, 15> kNames = {
    "put",   "patch", "erase", "erase_range", "make_tree", "move",   "copy", "clone",
    "get",   "scan",  "check", "sync",        "maintain",  "reopen", "crash"};
constexpr size_t kDepthMax = 4;
constexpr size_t kTreesMax = 40;

std::vector<std::string_view> split(std::string_view text, char by) {
  std::vector<std::string_view> out;
  while (true) {
    const size_t at = text.find(by);
    out.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return out;
    text.remove_prefix(at + 1);
  }
}

std::string unshow(std::string_view shown) {
  std::string out;
  for (size_t i = 0; i < shown.size(); ++i) {
    unsigned byte = 0;
    if (shown[i] == '%' && i + 2 < shown.size()) {
      std::from_chars(shown.data() + i + 1, shown.data() + i + 3, byte, 16);
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(shown[i]);
    }
  }
  return out;
}

std::string encode_path(const TreePath& path) {
  std::string out;
  for (const std::string& key : path) out += "/" + show_bytes(key);
  return out;
}

TreePath decode_path(std::string_view text) {
  TreePath out;
  for (const std::string_view part : split(text, '/')) {
    if (!part.empty()) out.push_back(unshow(part));
  }
  return out;
}

std::string encode_action(const Action& a) {
  std::string out(kNames[static_cast<size_t>(a.kind)]);
  out += " " + encode_path(a.path) + " " + show_bytes(a.key) + " " + encode_path(a.other_path) +
         " " + show_bytes(a.other_key) + " ";
  for (const ClonePrefix& prefix : a.prefixes) {
    out += show_bytes(prefix.from) + ">" + show_bytes(prefix.to) + ",";
  }
  for (const uint32_t n : a.n) out += " " + std::to_string(n);
  return out;
}

std::optional<Action> decode_action(std::string_view text) {
  const std::vector<std::string_view> words = split(text, ' ');
  if (words.size() != 10) return std::nullopt;
  const auto name = std::find(kNames.begin(), kNames.end(), words[0]);
  if (name == kNames.end()) return std::nullopt;
  Action a;
  a.kind = static_cast<ActionKind>(name - kNames.begin());
  a.path = decode_path(words[1]);
  a.key = unshow(words[2]);
  a.other_path = decode_path(words[3]);
  a.other_key = unshow(words[4]);
  for (const std::string_view pair : split(words[5], ',')) {
    const std::vector<std::string_view> sides = split(pair, '>');
    if (sides.size() == 2) a.prefixes.push_back({unshow(sides[0]), unshow(sides[1])});
  }
  for (size_t i = 0; i < a.n.size(); ++i) {
    std::from_chars(words[6 + i].data(), words[6 + i].data() + words[6 + i].size(), a.n[i]);
  }
  return a;
}

bool starts_with(const TreePath& path, const TreePath& prefix) {
  return path.size() >= prefix.size() && std::equal(prefix.begin(), prefix.end(), path.begin());
}

/// Whether `path` leads through the record `key` of `tree`.
bool leads_through(const TreePath& path, const TreePath& tree, std::string_view key) {
  return path.size() > tree.size() && starts_with(path, tree) && path[tree.size()] == key;
}

bool disjoint(std::string_view a, std::string_view b) {
  return !a.starts_with(b) && !b.starts_with(a);
}

/// What earlier actions of a batch have changed: later ones may not look there.
class Touched {
 public:
  void key(const TreePath& tree, const std::string& key) { range(tree, key, key + '\0'); }
  void range(const TreePath& tree, const std::string& lo, const std::string& hi) {
    ranges_.push_back({tree, lo, hi});
  }
  bool is_key(const TreePath& tree, std::string_view key) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& r) {
      return r.tree == tree && r.lo <= key && key < r.hi;
    });
  }
  bool on_path(const TreePath& path) const {
    return std::any_of(ranges_.begin(), ranges_.end(), [&](const Range& r) {
      return path.size() > r.tree.size() && starts_with(path, r.tree) &&
             r.lo <= path[r.tree.size()] && path[r.tree.size()] < r.hi;
    });
  }

 private:
  struct Range {
    TreePath tree;
    std::string lo, hi;
  };
  std::vector<Range> ranges_;
};

bool sensible_clone(const Action& a, const ForestModel& model) {
  const ModelTree* source = model.find(a.path);
  if (a.path.empty() || source == nullptr || model.find(a.other_path) == nullptr) return false;
  if (a.prefixes.empty()) return false;
  // Into a tree that a record of the source owns: a file system takes two steps (see MapForest).
  if (a.other_path.size() > a.path.size() && starts_with(a.other_path, a.path)) return false;
  for (size_t i = 0; i < a.prefixes.size(); ++i) {
    const ClonePrefix& p = a.prefixes[i];
    if (p.from.empty() != p.to.empty() && p.to.empty() && source->records.contains(p.from)) {
      return false;
    }
    for (size_t j = 0; j < i; ++j) {
      if (!disjoint(p.from, a.prefixes[j].from) || !disjoint(p.to, a.prefixes[j].to)) return false;
      if (p.to < a.prefixes[j].to) return false;
    }
    if (a.n[0] == 0) continue;
    // A range that leaves its tree may not take its own destination with it.
    if (p.from.empty()) return false;
    if (a.path == a.other_path && a.other_key.starts_with(p.from)) return false;
  }
  // Extracting a tree into a record on the way to it would close a circle.
  if (a.n[0] != 0 && leads_through(a.path, a.other_path, a.other_key)) return false;
  return true;
}

bool sensible_transfer(const Action& a, const ForestModel& model, const Touched& touched) {
  if (model.find(a.other_path) == nullptr || touched.on_path(a.other_path)) return false;
  if (touched.is_key(a.path, a.key) || (a.path == a.other_path && a.key == a.other_key)) {
    return false;
  }
  const auto& records = model.find(a.path)->records;
  const auto at = records.find(a.key);
  if (at == records.end()) return false;
  if (leads_through(a.other_path, a.path, a.key)) return false;   // into itself
  if (leads_through(a.path, a.other_path, a.other_key)) return false;
  return a.kind == ActionKind::move || !at->second.tree;
}

bool batchable(ActionKind kind) { return kind < ActionKind::clone; }

void mark(const Action& a, Touched& touched) {
  switch (a.kind) {
    case ActionKind::erase_range:
      touched.range(a.path, a.key, a.other_key);
      break;
    case ActionKind::move:
      touched.key(a.path, a.key);
      touched.key(a.other_path, a.other_key);
      break;
    case ActionKind::copy:
      touched.key(a.other_path, a.other_key);
      break;
    default:
      touched.key(a.path, a.key);
      break;
  }
}

void apply_clone(const Action& a, ForestModel& model) {
  ModelRecord record{fill_bytes(a.n[1], a.n[2]),
                     ForestModel::clone(*model.find(a.path), a.prefixes)};
  model.edit(a.other_path).records[a.other_key] = std::move(record);
  if (a.n[0] == 0) return;
  auto& records = model.edit(a.path).records;
  for (const ClonePrefix& prefix : a.prefixes) {
    auto at = records.lower_bound(prefix.from);
    while (at != records.end() && at->first.starts_with(prefix.from)) at = records.erase(at);
  }
}

void apply_action(const Action& a, ForestModel& model) {
  if (a.kind == ActionKind::clone) return apply_clone(a, model);
  if (!batchable(a.kind)) return;
  auto& records = model.edit(a.path).records;
  switch (a.kind) {
    case ActionKind::put:
      records[a.key] = {fill_bytes(a.n[0], a.n[1]), nullptr};
      break;
    case ActionKind::patch:
      patch_bytes(records[a.key].bytes, patch_of(a));
      break;
    case ActionKind::erase:
      records.erase(a.key);
      break;
    case ActionKind::erase_range:
      records.erase(records.lower_bound(a.key), records.lower_bound(a.other_key));
      break;
    case ActionKind::make_tree: {
      auto tree = std::make_shared<ModelTree>();
      for (uint32_t i = 0; i < a.n[0]; ++i) {
        tree->records[initial_key(i)] = {fill_bytes(a.n[2], a.n[1] + i), nullptr};
      }
      records[a.key] = {fill_bytes(a.n[3], a.n[1]), tree};
      break;
    }
    case ActionKind::move:
    case ActionKind::copy: {
      const ModelRecord record = records.find(a.key)->second;
      if (a.kind == ActionKind::move) records.erase(a.key);
      model.edit(a.other_path).records[a.other_key] = record;
      break;
    }
    default:
      break;
  }
}

size_t count_trees(const ModelTree& tree, size_t limit) {
  size_t count = 0;
  for (const auto& [key, record] : tree.records) {
    if (count >= limit) break;
    if (record.tree) count += 1 + count_trees(*record.tree, limit - count);
  }
  return count;
}

}  // namespace

std::string encode_op(const ForestOp& op) {
  std::string out;
  for (const Action& action : op) out += (out.empty() ? "" : ";") + encode_action(action);
  return out;
}

std::optional<ForestOp> decode_op(std::string_view line) {
  ForestOp op;
  for (const std::string_view part : split(line, ';')) {
    std::optional<Action> action = decode_action(part);
    if (!action) return std::nullopt;
    op.push_back(std::move(*action));
  }
  return op;
}

std::string fill_bytes(uint32_t length, uint32_t fill) {
  std::string out(length, '\0');
  Random random(fill);
  const uint64_t base = random.next();
  for (uint32_t i = 0; i < length; ++i) {
    // Half of it compresses, and every position differs from its neighbours in other values.
    out[i] = static_cast<char>((i / 16) % 2 == 0 ? base >> (i % 8 * 8) : random.next() & 0xff);
  }
  return out;
}

Patch patch_of(const Action& a) {
  Patch patch;
  if (a.n[0] != 0) patch.cut = a.n[0] - 1;
  patch.extend = a.n[1];
  if (a.n[3] != 0) {
    patch.pieces.push_back({a.n[2], fill_bytes(a.n[3], a.n[1] + a.n[2])});
    patch.extend = std::max(patch.extend, patch.pieces.back().end());
  }
  return patch;
}

std::string initial_key(uint32_t i) {
  std::string key = "b/";
  for (; i != 0; i /= 5) key.push_back(static_cast<char>('a' + i % 5));
  return key + '.';
}

ForestOp sensible(const ForestOp& op, const ForestModel& model) {
  ForestOp out;
  Touched touched;
  for (const Action& a : op) {
    if (op.size() > 1 && !batchable(a.kind)) continue;
    if (model.find(a.path) == nullptr || touched.on_path(a.path)) continue;
    if (a.kind == ActionKind::clone && !sensible_clone(a, model)) continue;
    if (a.kind == ActionKind::erase_range && a.key >= a.other_key) continue;
    if ((a.kind == ActionKind::move || a.kind == ActionKind::copy) &&
        !sensible_transfer(a, model, touched)) {
      continue;
    }
    if (batchable(a.kind)) mark(a, touched);
    out.push_back(a);
  }
  return out;
}

void apply_to_model(const ForestOp& op, ForestModel& model) {
  for (const Action& action : op) apply_action(action, model);
}

// ---- the source of ops

OpSource::OpSource(uint64_t seed, const OpMix& mix) : random_(seed), mix_(mix) {
  // put patch erase range make move copy | clone get scan check sync maintain reopen crash
  constexpr std::array<uint64_t, 15> kTypical = {60, 30, 12, 2, 2, 3, 3, 8, 15, 5, 1, 3, 4, 1, 1};
  for (size_t i = 0; i < weights_.size(); ++i) {
    constexpr std::array<uint64_t, 4> kScale = {0, 1, 1, 5};
    weights_[i] = kTypical[i] * kScale[random_.below(kScale.size())];
  }
  weights_[0] += 10;
  weights_[4] += 1;
  if (!mix.durability) weights_[11] = weights_[13] = weights_[14] = 0;
  key_parts_ = 1 + random_.below(4);
  batch_one_in_ = 2 + random_.below(8);
  nested_one_in_ = 2 + random_.below(4);
}

ForestOp OpSource::next(const ForestModel& model) {
  uint64_t sum = 0;
  for (const uint64_t weight : weights_) sum += weight;
  uint64_t pick = random_.below(sum);
  size_t kind = 0;
  while (pick >= weights_[kind]) pick -= weights_[kind++];
  ForestOp op{make_action(static_cast<ActionKind>(kind), model)};
  while (batchable(op.back().kind) && op.size() < 6 && random_.one_in(batch_one_in_)) {
    op.push_back(make_action(static_cast<ActionKind>(random_.below(7)), model));
  }
  return op;
}

Action OpSource::make_action(ActionKind kind, const ForestModel& model) {
  const auto small = [&](uint64_t bound) { return static_cast<uint32_t>(random_.below(bound)); };
  if (kind == ActionKind::clone) return make_clone(model);
  if (kind == ActionKind::make_tree && count_trees(model.system(), kTreesMax) >= kTreesMax) {
    kind = ActionKind::erase;
  }
  Action a;
  a.kind = kind;
  if (kind >= ActionKind::check) return a;
  a.path = any_path(model, kind == ActionKind::make_tree ? kDepthMax - 1 : kDepthMax);
  const ModelTree& tree = *model.find(a.path);
  a.key = random_.one_in(3) ? any_key() : key_near(tree);
  switch (kind) {
    case ActionKind::put: {
      const bool blob = random_.one_in(12);
      a.n = {blob ? small(mix_.blob_bytes_max) : small(mix_.inline_bytes_max),
             small(1U << 30), blob ? 1U : 0U, 0};
      if (!random_.one_in(3)) a.key = any_key();
      break;
    }
    case ActionKind::patch: {
      const auto at = tree.records.find(a.key);
      const uint64_t length = at == tree.records.end() ? 20 : at->second.bytes.size();
      if (random_.one_in(3)) a.n[0] = 1 + small(length + 10);
      if (random_.one_in(3)) a.n[1] = small(length + 50);
      if (!random_.one_in(4)) a.n[2] = small(length + 10), a.n[3] = 1 + small(30);
      break;
    }
    case ActionKind::make_tree:
      a.n = {random_.one_in(3) ? small(60) : 0, small(1U << 30), small(30), small(20)};
      if (a.path.empty()) a.key = std::string(1, static_cast<char>('A' + small(8)));
      break;
    case ActionKind::erase_range:
    case ActionKind::scan:
      a.other_key = random_.one_in(3) ? prefix_end(any_prefix(tree)) : key_near(tree);
      if (random_.one_in(2)) a.other_key = prefix_end(a.key = any_prefix(tree));
      if (a.key > a.other_key) std::swap(a.key, a.other_key);
      if (a.key.empty()) a.key = std::string(1, '\0');
      break;
    case ActionKind::move:
    case ActionKind::copy:
      a.other_path = random_.one_in(2) ? a.path : any_path(model, kDepthMax - 1);
      a.other_key = any_key();
      break;
    default:
      break;
  }
  return a;
}

Action OpSource::make_clone(const ForestModel& model) {
  Action a;
  a.kind = ActionKind::clone;
  a.path = any_path(model, kDepthMax);
  a.other_path = any_path(model, 2);
  a.other_key = any_key();
  if (a.other_path.empty() || count_trees(model.system(), kTreesMax) >= kTreesMax) {
    a.other_path.clear();
    a.other_key = std::string(1, static_cast<char>('A' + random_.below(8)));
  }
  a.n = {random_.one_in(5) ? 1U : 0U, static_cast<uint32_t>(random_.below(30)),
         static_cast<uint32_t>(random_.below(1U << 30)), 0};
  const ModelTree& source = *model.find(a.path);
  const uint64_t ranges = random_.one_in(3) ? 2 : 1;
  for (uint64_t i = 0; i < ranges; ++i) {
    ClonePrefix prefix;
    if (ranges == 2 || !random_.one_in(3)) prefix.from = any_prefix(source);
    if (ranges == 2 || (!prefix.from.empty() && random_.one_in(3))) prefix.to = any_component();
    if (ranges == 2) prefix.to.insert(prefix.to.begin(), static_cast<char>('1' + i));
    if (random_.one_in(3)) prefix.to = prefix.from;
    a.prefixes.push_back(std::move(prefix));
  }
  std::sort(a.prefixes.begin(), a.prefixes.end(),
            [](const ClonePrefix& x, const ClonePrefix& y) { return x.to < y.to; });
  return a;
}

TreePath OpSource::any_path(const ForestModel& model, size_t depth_max) {
  TreePath path;
  const ModelTree* tree = &model.system();
  while (path.size() < depth_max && !(path.empty() ? random_.one_in(12)
                                                   : !random_.one_in(nested_one_in_))) {
    std::vector<const std::string*> owners;
    for (const auto& [key, record] : tree->records) {
      if (record.tree) owners.push_back(&key);
    }
    if (owners.empty()) break;
    path.push_back(*owners[random_.below(owners.size())]);
    tree = tree->records.find(path.back())->second.tree.get();
  }
  return path;
}

std::string OpSource::any_component() {
  constexpr std::string_view kLetters("abcab\x00\x01\xfe", 8);
  std::string out;
  const uint64_t length = random_.one_in(40) ? 30 : 1 + random_.below(2);
  for (uint64_t i = 0; i < length; ++i) out.push_back(kLetters[random_.below(kLetters.size())]);
  return out;
}

/// Keys end with '.', prefixes (below) do not: no key is a prefix of a clone.
std::string OpSource::any_key() {
  std::string key;
  for (uint64_t i = random_.below(key_parts_ + 1); i > 0; --i) key += any_component() + '/';
  key += any_component();
  return key + '.';
}

std::string OpSource::key_near(const ModelTree& tree) {
  if (tree.records.empty()) return any_key();
  auto at = tree.records.lower_bound(any_key());
  if (at == tree.records.end()) at = tree.records.begin();
  return at->first;
}

std::string OpSource::any_prefix(const ModelTree& tree) {
  std::string key = random_.one_in(4) ? any_key() : key_near(tree);
  key.resize(random_.below(key.size()));
  while (!key.empty() && key.back() == '.') key.pop_back();
  return key;
}

}  // namespace caw
