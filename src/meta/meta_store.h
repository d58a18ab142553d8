// MetaStore: the node table, the counts above one and the dead list, in one paged copy-on-write
// B+tree of 4 KiB pages, changed only by a checkpoint, in one sorted batch.
//
// Keys are (space, u64); values are short byte strings.  A page reference carries the page's
// checksum, so every byte read back is checked.  Pages are cached within a bound; the tree may be
// larger than memory.  get() may be called from any thread, also while apply() runs: it reads the
// last published root.  apply() by one thread at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/ids.h"
#include "dev/block_device.h"
#include "format/superblock.h"
#include "space/allocator.h"

namespace caw {

enum class MetaSpace : uint8_t {
  node = 1,         ///< NodeId -> NodeEntry (store/node_entry.h)
  node_count = 2,   ///< NodeId -> varint count, present only when > 1
  blob_count = 3,   ///< BlockAddr -> varint count, present only when > 1
  dead_node = 4,    ///< NodeId -> empty: count is zero, contents not yet freed
};

struct MetaKey {
  MetaSpace space = MetaSpace::node;
  uint64_t id = 0;
  friend auto operator<=>(const MetaKey&, const MetaKey&) = default;
};

/// A change: value, or nothing to erase the key.
struct MetaChange {
  MetaKey key;
  std::optional<std::string> value;     ///< at most 64 bytes
};

class MetaStore {
 public:
  /// `cache_bytes` bounds the pages kept in memory.  An invalid root is an empty tree.
  static std::unique_ptr<MetaStore> open(BlockDevice& device, Allocator& allocator, PageRef root,
                                         uint8_t height, uint64_t cache_bytes);
  virtual ~MetaStore() = default;
  MetaStore() = default;
  MetaStore(const MetaStore&) = delete;
  MetaStore& operator=(const MetaStore&) = delete;

  /// Fails: meta_page, device_read.
  virtual Result<std::optional<std::string>> get(MetaKey key) = 0;
  /// Calls `visit` with each key of `space` >= `from` in order until it returns false.
  virtual Result<void> scan(
      MetaSpace space, uint64_t from,
      const std::function<bool(uint64_t id, std::string_view value)>& visit) = 0;

  /// Makes a new tree with `changes` (sorted by key, distinct), writing each changed page once to a
  /// new place committed in `epoch`; frees replaced pages in `epoch`; publishes it for get() and
  /// scan().  Does not flush.  On failure the old tree stays.
  virtual Result<void> apply(std::span<const MetaChange> changes, Epoch epoch) = 0;

  virtual PageRef root() const = 0;
  virtual uint8_t height() const = 0;
  virtual uint64_t cached_bytes() const = 0;
};

}  // namespace caw
