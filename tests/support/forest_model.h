// ForestModel: what a forest should hold, with value semantics: cloning copies.
//
// Trees are reached by the keys of the records that own them, outermost first (TreePath); the
// system tree is the empty path.  Copies of a model share structure, so keeping old ones is cheap.
// One thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "volume/forest.h"

namespace caw {

using TreePath = std::vector<std::string>;

struct ModelTree;
using ModelTreeRef = std::shared_ptr<ModelTree>;

struct ModelRecord {
  std::string bytes;
  ModelTreeRef tree;                 ///< null: owns none
};
struct ModelTree {
  std::map<std::string, ModelRecord, std::less<>> records;
};

class ForestModel {
 public:
  ForestModel() : system_(std::make_shared<ModelTree>()) {}

  /// Null if some record on the way is absent or owns no tree.
  const ModelTree* find(const TreePath& path) const;
  /// The tree for writing, made this model's own.  Requires: find(path).
  ModelTree& edit(const TreePath& path);
  /// A tree of its own with the ranges of `source`.
  static ModelTreeRef clone(const ModelTree& source, const std::vector<ClonePrefix>& prefixes);

  const ModelTree& system() const { return *system_; }
  /// The same for equal content, nested trees included; equal to digest_forest() of it.
  uint64_t digest() const;

 private:
  ModelTreeRef system_;
};

/// Bytes after the patch, worked out byte by byte.
void patch_bytes(std::string& bytes, const Patch& patch);

/// ForestModel::digest() of what `forest` holds; also fails where anything cannot be read.
Result<uint64_t> digest_forest(Forest& forest);

/// The logical bytes of a value.
Result<std::string> read_bytes(Forest& forest, const Value& value);

/// Empty if `forest` holds exactly `model`; else one line about the first difference.
std::string compare_forest(Forest& forest, const ForestModel& model);

/// Printable: letters as they are, other bytes as %xx.
std::string show_bytes(std::string_view bytes);
std::string show_path(const TreePath& path);

}  // namespace caw
