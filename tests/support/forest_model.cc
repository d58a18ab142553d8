#include "support/forest_model.h"

#include <algorithm>
#include <set>
#include <utility>

#include "base/assert.h"

namespace caw {
namespace {

class Hash {
 public:
  void add(std::string_view bytes) {
    add(bytes.size());
    for (const char c : bytes) step(static_cast<unsigned char>(c));
  }
  void add(uint64_t number) {
    for (unsigned shift = 0; shift < 64; shift += 8) step((number >> shift) & 0xff);
  }
  uint64_t value() const { return value_; }

 private:
  void step(uint64_t byte) { value_ = (value_ ^ byte) * 0x100000001b3ULL; }
  uint64_t value_ = 0xcbf29ce484222325ULL;
};

uint64_t digest_model(const ModelTree& tree, std::map<const ModelTree*, uint64_t>& known) {
  if (const auto at = known.find(&tree); at != known.end()) return at->second;
  Hash hash;
  for (const auto& [key, record] : tree.records) {
    hash.add(key);
    hash.add(record.bytes);
    hash.add(record.tree ? digest_model(*record.tree, known) : 0);
  }
  return known[&tree] = hash.value();
}

Result<uint64_t> digest_tree(Forest& forest, NodeId root, std::map<NodeId, uint64_t>& known) {
  if (const auto at = known.find(root); at != known.end()) return at->second;
  Hash hash;
  auto cursor = forest.scan(forest.open_tree(root), std::string(), "\xff");
  while (CAW_TRY(cursor->next())) {
    hash.add(cursor->key());
    const Value value = cursor->value();
    hash.add(CAW_TRY(read_bytes(forest, value)));
    hash.add(value.tree == kNoNode ? 0 : CAW_TRY(digest_tree(forest, value.tree, known)));
  }
  return known[root] = hash.value();
}

class Comparison {
 public:
  explicit Comparison(Forest& forest) : forest_(forest) {}

  std::string tree(NodeId root, const ModelTree& model, const TreePath& path) {
    if (!seen_.emplace(root, &model).second) return {};
    auto expected = model.records.begin();
    auto cursor = forest_.scan(forest_.open_tree(root), std::string(), "\xff");
    while (true) {
      const Result<bool> more = cursor->next();
      if (!more) return at(path, "scan fails: " + more.error().to_string());
      if (!*more) break;
      if (expected == model.records.end() || cursor->key() < expected->first) {
        return at(path, "a key that should not be there: " + show_bytes(cursor->key()));
      }
      if (cursor->key() > expected->first) {
        return at(path, "missing key " + show_bytes(expected->first) + ", next is " +
                            show_bytes(cursor->key()));
      }
      if (std::string text = record(cursor->value(), expected->second); !text.empty()) {
        return at(path, show_bytes(expected->first) + ": " + text);
      }
      ++expected;
    }
    if (expected != model.records.end()) {
      return at(path, "missing key " + show_bytes(expected->first) + " at the end");
    }
    return nested(root, model, path);
  }

 private:
  static std::string at(const TreePath& path, std::string text) {
    return "tree " + show_path(path) + ": " + text;
  }

  std::string record(const Value& value, const ModelRecord& model) {
    const Result<std::string> bytes = read_bytes(forest_, value);
    if (!bytes) return "read fails: " + bytes.error().to_string();
    if (*bytes != model.bytes) {
      const auto differ = std::mismatch(bytes->begin(), bytes->end(), model.bytes.begin(),
                                        model.bytes.end());
      return "bytes differ: length " + std::to_string(bytes->size()) + ", expected " +
             std::to_string(model.bytes.size()) + ", first at " +
             std::to_string(differ.first - bytes->begin());
    }
    if ((value.tree != kNoNode) != (model.tree != nullptr)) {
      return model.tree ? "owns no tree" : "owns a tree";
    }
    return {};
  }

  std::string nested(NodeId root, const ModelTree& model, const TreePath& path) {
    for (const auto& [key, record] : model.records) {
      if (!record.tree) continue;
      const auto value = forest_.get(forest_.open_tree(root), key);
      if (!value) return at(path, show_bytes(key) + ": get fails: " + value.error().to_string());
      if (!*value) return at(path, show_bytes(key) + ": get finds nothing, scan did");
      TreePath below = path;
      below.push_back(key);
      if (std::string text = tree((*value)->tree, *record.tree, below); !text.empty()) return text;
    }
    return {};
  }

  Forest& forest_;
  std::set<std::pair<NodeId, const ModelTree*>> seen_;
};

}  // namespace

const ModelTree* ForestModel::find(const TreePath& path) const {
  const ModelTree* tree = system_.get();
  for (const std::string& key : path) {
    const auto at = tree->records.find(key);
    if (at == tree->records.end() || !at->second.tree) return nullptr;
    tree = at->second.tree.get();
  }
  return tree;
}

ModelTree& ForestModel::edit(const TreePath& path) {
  const auto own = [](ModelTreeRef& tree) {
    if (tree.use_count() > 1) tree = std::make_shared<ModelTree>(*tree);
  };
  own(system_);
  ModelTree* tree = system_.get();
  for (const std::string& key : path) {
    ModelTreeRef& below = tree->records.find(key)->second.tree;
    CAW_ASSERT(below != nullptr);
    own(below);
    tree = below.get();
  }
  return *tree;
}

ModelTreeRef ForestModel::clone(const ModelTree& source,
                                const std::vector<ClonePrefix>& prefixes) {
  auto out = std::make_shared<ModelTree>();
  for (const ClonePrefix& prefix : prefixes) {
    for (auto at = source.records.lower_bound(prefix.from);
         at != source.records.end() && at->first.starts_with(prefix.from); ++at) {
      out->records[prefix.to + at->first.substr(prefix.from.size())] = at->second;
    }
  }
  return out;
}

uint64_t ForestModel::digest() const {
  std::map<const ModelTree*, uint64_t> known;
  return digest_model(*system_, known);
}

void patch_bytes(std::string& bytes, const Patch& patch) {
  if (bytes.size() > patch.cut) bytes.resize(patch.cut);
  if (bytes.size() < patch.extend) bytes.resize(patch.extend, '\0');
  for (const Piece& piece : patch.pieces) {
    CAW_ASSERT(piece.offset + piece.bytes.size() <= bytes.size());
    bytes.replace(piece.offset, piece.bytes.size(), piece.bytes);
  }
}

Result<uint64_t> digest_forest(Forest& forest) {
  std::map<NodeId, uint64_t> known;
  return digest_tree(forest, forest.system_tree()->root(), known);
}

Result<std::string> read_bytes(Forest& forest, const Value& value) {
  std::string out(value.length, '?');
  CAW_TRY(forest.read(value, 0, out));
  return out;
}

std::string compare_forest(Forest& forest, const ForestModel& model) {
  return Comparison(forest).tree(forest.system_tree()->root(), model.system(), {});
}

std::string show_bytes(std::string_view bytes) {
  constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  for (const char c : bytes) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '.' || c == '_') {
      out.push_back(c);
    } else {
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

std::string show_path(const TreePath& path) {
  std::string out = "/";
  for (const std::string& key : path) out += show_bytes(key) + "/";
  return out;
}

}  // namespace caw
