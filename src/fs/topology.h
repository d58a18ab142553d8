// Topology: where the records of an inode are, and the privacy of the trees on the way.
//
// Keys are built by walking up from an inode to the nearest directory that owns a tree, under the
// topology gate.  Mutations hold its shared side from there until their batch is applied; whatever
// changes the place of an inode, or the tree it owns, holds the exclusive side.  Reads build their
// key under the shared side, let go, read, and look again if the sequence moved meanwhile.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <span>
#include <string>

#include "base/gate.h"
#include "fs/inode.h"
#include "volume/forest.h"

namespace caw {

/// Contents of a directory: `path` below the top of `tree`.
struct Place {
  TreeRef tree;
  std::string path;
};
/// A record, or what all chunk keys of a file start with.
struct Spot {
  TreeRef tree;
  std::string key;
};

/// What a mutation writes to: the record of an inode, or its contents (entries, data) as well.
struct Written {
  Inode* inode = nullptr;
  bool contents = false;
};
inline Written record_of(Inode& inode) { return {&inode, false}; }
inline Written contents_of(Inode& inode) { return {&inode, true}; }

struct MutateOptions {
  bool exclusive = false;  ///< the attempt changes places
  bool essential = false;  ///< a removal: may use the space kept in reserve
};

/// Counts the failures of a read that looks its place up anew after each.  A tree that was made
/// private anew, or removed, ends when the last clone that shares the old one goes; a read that is
/// under way on it fails, and succeeds at the place as it is now.
class ReadTries {
 public:
  /// True if it is worth another try: the failure is of that kind, and not the same for the
  /// kMostTries-th time in a row, which is damage.  Waits a little if others have failed before.
  bool again(const Error& error);
  void made_progress() { failures_ = 0; }

 private:
  static constexpr int kMostTries = 20;
  int failures_ = 0;
};

/// All methods from any thread unless they say which side of the gate they need.
class Topology {
 public:
  /// `system` owns the system tree.
  Topology(Forest& forest, const Inode& system) : forest_(forest), system_(system) {}

  /// There are, or were, linked names: links indexes go along with what moves.  Set once, before
  /// the first, under the exclusive gate (or when nobody else is there yet).
  bool has_links() const { return has_links_.load(std::memory_order_acquire); }
  void set_has_links() { has_links_.store(true, std::memory_order_release); }


  // ---- under either side of the gate
  // All fail with stale_inode if the inode or a directory above it was removed.

  Result<Place> body(const Inode& directory) const;
  Result<Spot> record(const Inode& inode) const;
  Result<Spot> data(const Inode& file) const;
  /// What the keys of its extended attributes start with; they stand beside the record.
  Result<Spot> xattrs(const Inode& inode) const;
  /// Whose tree the contents or data of `inode` lie in: it, or the next directory above.
  static const Inode& tree_owner(const Inode& inode);
  /// True if `inode` is `ancestor` or below it.
  bool is_within(const Inode& inode, const Inode& ancestor) const;

  // ---- writes

  using Attempt = std::function<Result<void>(Batch&)>;
  /// Makes private the trees that `writes` lie in, then calls `attempt` with a batch prepared for
  /// that generation, under the gate; again if it fails with tree_not_private.  `attempt` builds
  /// and applies the batch; it may not call read().
  Result<void> mutate(std::span<const Written> writes, const MutateOptions& options,
                      const Attempt& attempt);
  Result<void> mutate(std::initializer_list<Written> writes, const MutateOptions& options,
                      const Attempt& attempt) {
    return mutate(std::span(writes.begin(), writes.size()), options, attempt);
  }

  /// Moves the contents or data of `inode`, which owns no tree, into a tree of its own; the place
  /// of its record stays.  For use in an exclusive attempt, which then fails with tree_not_private
  /// to be called again.
  Result<void> own_tree(Inode& inode, bool essential);

  /// A place changed.  Requires: the exclusive side, or that only reads of removed inodes can
  /// differ.
  void moved() { sequence_.fetch_add(1, std::memory_order_acq_rel); }

  // ---- reads

  /// Calls under_gate() for a place and look(place) without the gate, until nothing moved
  /// meanwhile.
  template <typename UnderGate, typename Look>
  auto read(const UnderGate& under_gate, const Look& look) -> decltype(look(*under_gate())) {
    ReadTries tries;
    while (true) {
      uint64_t sequence = 0;
      auto place = locate(under_gate, sequence);
      if (!place) return std::unexpected<Error>(place.error());
      auto result = look(*place);
      if (is_current(sequence) && (result || !tries.again(result.error()))) return result;
    }
  }
  template <typename UnderGate>
  auto locate(const UnderGate& under_gate, uint64_t& sequence) -> decltype(under_gate()) {
    Gate::Shared shared(gate_);
    sequence = sequence_.load(std::memory_order_acquire);
    return under_gate();
  }
  bool is_current(uint64_t sequence) const {
    return sequence_.load(std::memory_order_acquire) == sequence;
  }
  Gate& gate() { return gate_; }

 private:
  static constexpr int kSharedTries = 4;
  /// Who has kept out all others so often does not get there: the counts of the volume are wrong.
  static constexpr int kMostTries = 1000;
  enum class Outcome { done, again, exclusive };
  Result<Outcome> try_once(std::span<const Written> writes, bool exclusive,
                           const MutateOptions& options, const Attempt& attempt);
  /// The outermost owner of a tree on the way to what is written whose tree is shared; null: none.
  Result<Inode*> first_shared(const Written& written, uint64_t generation);
  Result<void> make_private(Inode& owner, uint64_t generation, bool essential);
  Result<void> check_alive(const Inode& inode) const;

  Forest& forest_;
  const Inode& system_;
  Gate gate_;
  std::atomic<uint64_t> sequence_{0};
  std::atomic<bool> has_links_{false};
};

}  // namespace caw
