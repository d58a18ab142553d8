// BlobBook: the blobs that a volume refers to: each verified once, however often the volume is
// walked; counted anew in each walk.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <map>
#include <tuple>

#include "check/block_map.h"
#include "repair/draft.h"
#include "repair/notes.h"

namespace caw {

class BlobBook {
 public:
  /// Both outlive it.
  BlobBook(Draft& draft, RepairNotes& notes) : draft_(draft), notes_(notes) {}

  /// Begins to count anew; `claimed` has the blocks of nodes and outlives the walk.
  void start(BlockMap& claimed);
  /// One reference more.  Returns what it is to say: the same, or another blob where this one is
  /// damaged or lies on what belongs to something else.  Fails: no_space, device_write, ...
  Result<BlobRef> use(const BlobRef& blob);
  /// Above one, sorted.
  CountRows counts() const;

 private:
  struct Known {
    BlobRef ref;
    uint64_t count = 0;
  };
  using Key = std::tuple<uint64_t, uint32_t, uint32_t, uint64_t, Compression>;
  static Key key_of(const BlobRef& blob) {
    return {raw(blob.addr), blob.stored_bytes, blob.raw_bytes, blob.checksum, blob.compression};
  }
  Result<BlobRef> replace(const BlobRef& blob);
  void count(const BlobRef& blob);

  Draft& draft_;
  RepairNotes& notes_;
  BlockMap* claimed_ = nullptr;
  absl::flat_hash_map<uint64_t, Known> known_;  ///< by address
  std::map<Key, BlobRef> replaced_;
};

}  // namespace caw
