// MapForest: the plainest correct Forest, the reference for the engine and a bed for tests of `fs`.
//
// Every tree is a std::map of its own; a clone copies the range.  Trees and blobs are counted by
// the records that name them and vanish with the last one.  State lives as long as the object:
// "remounting" is opening another FileSystem over the same MapForest.
//
// It is stricter than an engine has to be: writing to a tree that is_private() would not allow,
// referring to an object that is gone, and leaving a new object without a reference are mistakes
// of the caller and abort.  One mutex guards everything; all methods from any thread.
#pragma once

#include <array>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/random.h"
#include "volume/forest.h"

namespace caw {

/// Mistakes to switch on, to see a test harness fail.
enum class ForestBug : uint8_t {
  none,
  clone_open_end,        ///< a clone takes the first key after its prefix too
  erase_range_closed,    ///< erase_range erases the key at its end too
  patch_ignores_cut,     ///< patches never shorten
  clone_shares_record,   ///< a put into a clone shows in its source
};

struct MapForestOptions {
  uint64_t seed = 1;
  /// is_private() says false although it is true once in so many calls; 0: never.
  uint64_t lie_one_in = 0;
  /// apply() and clone() fail with no_space (nothing done) once in so many calls; 0: never.
  /// Batches marked essential never do.
  uint64_t no_space_one_in = 0;
  bool read_only = false;
  ForestBug bug = ForestBug::none;
};

class MapForest : public Forest {
 public:
  explicit MapForest(const MapForestOptions& options = {});
  ~MapForest() override;

  TreeRef system_tree() override;
  TreeRef open_tree(NodeId root) override;
  NodeId new_tree_id() override;
  uint64_t draw(Counter counter, uint64_t n) override;

  Result<std::optional<Value>> get(const TreeRef& tree, std::string_view key) override;
  std::unique_ptr<Cursor> scan(const TreeRef& tree, std::string lo, std::string hi) override;
  Result<void> read(const Value& value, uint32_t offset, std::span<char> out) override;
  void prefetch(std::span<const BlobRef> blobs) override;

  uint64_t share_generation() const override;
  Result<void> apply(Batch& batch) override;
  Result<BlobRef> write_blob(std::string_view raw) override;
  void cancel_blob(const BlobRef& blob) override;
  Result<bool> is_private(const TreeRef& outer, std::string_view key) override;
  Result<void> clone(const TreeRef& source, std::span<const ClonePrefix> prefixes, NodeId id,
                     Batch& then) override;

  Result<void> sync() override;
  Result<void> checkpoint() override { return sync(); }
  ForestSpace space() const override;
  bool read_only() const override;

  // ---- for tests

  void set_options(const MapForestOptions& options);
  /// Trees and blobs that some record names, and the system tree.
  size_t tree_count() const;
  size_t blob_count() const;
  /// Blobs written that no record names yet: not cancelled, not given a reference.
  size_t pending_blob_count() const;
  uint64_t sync_count() const;

 private:
  using Records = std::map<std::string, Value, std::less<>>;
  struct TreeState {
    Records records;
    std::multiset<NodeId> owners;      ///< tree of each record that owns this one
    NodeId clone_source = kNoNode;     ///< for ForestBug::clone_shares_record
  };
  struct BlobState {
    std::string bytes;
    uint64_t refs = 0;
    bool pending = true;               ///< no reference given yet
  };
  class MapCursor;

  // All below require mutex_.
  TreeState* find_tree(NodeId id);
  bool writable(NodeId id) const;
  bool hangs_from(NodeId id, NodeId ancestor) const;
  Result<void> check_batch(const Batch& batch, NodeId also_new) const;
  void apply_ops(Batch& batch, std::set<NodeId>& touched);
  void put_record(NodeId tree_id, const std::string& key, Value value, std::set<NodeId>& touched);
  void erase_record(NodeId tree_id, Records::iterator at, std::set<NodeId>& touched);
  void retain(NodeId holder, const Value& value);
  void release(NodeId holder, const Value& value, std::set<NodeId>& touched);
  void drop_unowned(std::set<NodeId>& touched);
  bool inject(uint64_t one_in);

  mutable std::mutex mutex_;
  MapForestOptions options_;
  Random random_;
  std::map<NodeId, TreeState> trees_;
  std::map<NodeId, TreeRef> handles_;
  std::map<BlockAddr, BlobState> blobs_;
  std::vector<BlockAddr> released_blobs_;
  std::array<uint64_t, kCounters> counters_{};
  NodeId system_tree_ = kNoNode;
  uint64_t next_blob_ = 1;
  uint64_t generation_ = 1;
  uint64_t syncs_ = 0;
};

}  // namespace caw
