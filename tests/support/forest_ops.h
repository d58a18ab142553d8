// Operations on a forest as plain data: made from a seed, written as one line of text, and carried
// out on a ForestModel and on a Forest alike.
//
// An op that makes no sense in the state it meets (a path that is not there, say) does nothing, on
// both sides: any part of a list is a valid list, so failures can be shrunk.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "support/forest_model.h"

namespace caw {

enum class ActionKind : uint8_t {
  put, patch, erase, erase_range, make_tree, move, copy,       // batches of these
  clone, get, scan, check, sync, maintain, reopen, crash,      // alone
};

/// Fields by kind (n: numbers):
///   put          path key; n = length, fill, as a blob, as dead bytes hint none
///   patch        path key; n = cut (0: none, else cut + 1), extend, offset, length of the piece
///   erase        path key;  erase_range  path key other_key (end)
///   make_tree    path key; n = records put into it at once, fill
///   move, copy   path key -> other_path other_key (copy: records that own no tree)
///   clone        path prefixes -> other_path other_key; n = extract
///   get          path key;  scan  path key other_key
struct Action {
  ActionKind kind = ActionKind::check;
  TreePath path;
  std::string key;
  TreePath other_path;
  std::string other_key;
  std::vector<ClonePrefix> prefixes;
  std::array<uint32_t, 4> n{};
};

/// Actions that take effect together, in order.
using ForestOp = std::vector<Action>;

std::string encode_op(const ForestOp& op);
/// Nothing if `line` is not from encode_op.
std::optional<ForestOp> decode_op(std::string_view line);

/// `length` bytes that depend on `fill`.
std::string fill_bytes(uint32_t length, uint32_t fill);
/// The patch of a patch action.
Patch patch_of(const Action& action);
/// Key i of a new tree of a make_tree action.
std::string initial_key(uint32_t i);

/// The actions of `op` that make sense in `model`, judged one after the other.
ForestOp sensible(const ForestOp& op, const ForestModel& model);
/// Requires: sensible().
void apply_to_model(const ForestOp& op, ForestModel& model);

struct OpMix {
  bool durability = true;            ///< sync, reopen, crash
  uint32_t blob_bytes_max = 20000;
  uint32_t inline_bytes_max = 100;
};

/// Makes random ops that fit the state of `model`.  The weights are drawn from the seed too.
class OpSource {
 public:
  OpSource(uint64_t seed, const OpMix& mix);
  ForestOp next(const ForestModel& model);

 private:
  Action make_action(ActionKind kind, const ForestModel& model);
  Action make_clone(const ForestModel& model);
  TreePath any_path(const ForestModel& model, size_t depth_max);
  std::string any_key();
  std::string key_near(const ModelTree& tree);
  std::string any_prefix(const ModelTree& tree);
  std::string any_component();

  Random random_;
  OpMix mix_;
  std::array<uint64_t, 15> weights_{};
  uint64_t key_parts_ = 3;
  uint64_t batch_one_in_ = 4;
  uint64_t nested_one_in_ = 3;
};

}  // namespace caw
