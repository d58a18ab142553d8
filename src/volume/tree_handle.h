// What a TreeRef of a Volume points to.
#pragma once

#include <chrono>

#include "dag/tree_core.h"
#include "volume/volume.h"

namespace caw {

inline int64_t steady_ms() {
  const auto now = std::chrono::steady_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

class Volume::Handle final : public Tree {
 public:
  explicit Handle(NodeId root) : Tree(root), core(make_ref<TreeCore>(root)) {}
  const Ref<TreeCore> core;
  std::atomic<bool> queued{false};
  std::atomic<bool> fat{false};    ///< a clone whose nodes may hold more than it shows
  std::atomic<bool> dying{false};  ///< its root is dead: seal what is open, so it can be dropped
};

}  // namespace caw
