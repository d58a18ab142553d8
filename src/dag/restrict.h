// Restriction: the part of a tree under some prefixes, as a new root of edges and runs.
//
// This is the clone (contract: engine-level only; `volume` adds memtables, gate and counts) and,
// with one level and no prefix, the private copy of an interior node.  Nothing but interior nodes
// on the path to the lowest covering node is read.
#pragma once

#include <array>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "dag/tree_core.h"

namespace caw {

/// Keys that start with `from` in the source appear with `to` in its place.
struct PrefixMap {
  std::string from;
  std::string to;
  friend bool operator==(const PrefixMap&, const PrefixMap&) = default;
};

struct Restriction {
  Interior node;
  /// What it was made from: still right while none of these is superseded.
  std::vector<ImageRef> seen;

  bool current() const {
    for (const ImageRef& image : seen) {
      if (image->superseded()) return false;
    }
    return true;
  }
};

/// The last restrictions: a tree that is cloned again without a change in between needs no look at
/// its runs.  Any thread.
class RestrictionCache {
 public:
  struct Entry : RefCounted {
    Ref<const InteriorImage> root;
    std::vector<PrefixMap> prefixes;
    Restriction restriction;
  };
  /// Null: none that is still right.
  Ref<const Entry> find(const Ref<const InteriorImage>& root,
                        const std::vector<PrefixMap>& prefixes);
  void keep(Ref<const Entry> entry);

 private:
  static constexpr size_t kKept = 4;
  std::mutex mutex_;
  std::array<Ref<const Entry>, kKept> entries_;  ///< the newest in front
};

/// The new root.  `prefixes` are sorted by `to` and disjoint.  Fails with node_superseded when a
/// node changed meanwhile: start again with the current root.
Result<Restriction> restrict_tree(NodeStore& store, const Ref<const InteriorImage>& root,
                                  std::span<const PrefixMap> prefixes);

/// `child` as a node of its own in its parent's coordinates: the keys of [lo, hi) only, edges and
/// runs rebased, so that its edge needs no translation.
Interior rebase_child(const Interior& child, const Translation& translation, std::string_view lo,
                      std::string_view hi);

/// An empty tree's root.
Interior empty_root();

}  // namespace caw
