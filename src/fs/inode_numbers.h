// The numbers users see, made of an inode's domain and number.
//
// A record says (home, domain): "where the directory's domain is `home`, mine is `domain`".  Seen
// through a clone, the directory's domain is another one: then the record's domain is one of its
// own for (context, home, domain), given out when first asked for and kept in the system tree.
//
// Why no two live files share a number: within a context, records with home = context were put
// there and name the domain their file already had.  All others came with the one clone that made
// the context; in its source they were distinct in (home, domain, number), by induction on clones.
//
// A shown number is chunk(domain, number >> 28) << 28 | low bits of number; chunks are given out
// when first asked for as well.  "/" shows as 1.  When the volume is read-only or full what is
// given out stays in memory (and is written later if possible).
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <shared_mutex>
#include <string>
#include <tuple>
#include <vector>

#include "base/error.h"
#include "fs/id_pool.h"
#include "volume/forest.h"

namespace caw {

inline constexpr uint64_t kRootDomain = 1;
inline constexpr uint64_t kRootNumber = 1;

/// All methods from any thread.
class InodeNumbers {
 public:
  explicit InodeNumbers(Forest& forest);

  /// A domain for a new clone.
  uint64_t new_domain() { return domains_.next(); }
  /// The domain of a record in a directory whose own is `context`.  Never fails for domain = 0 and
  /// home = context.
  Result<uint64_t> domain_of(uint64_t context, uint64_t home, uint64_t domain);
  Result<uint64_t> shown(uint64_t domain, uint64_t number);
  /// Writes what could not be written when it was given out.
  Result<void> save();

 private:
  static constexpr size_t kMaxCached = 1U << 16;
  using Pair = std::pair<uint64_t, uint64_t>;
  using Triple = std::tuple<uint64_t, uint64_t, uint64_t>;

  template <typename Key, typename Give>
  Result<uint64_t> look_up(absl::flat_hash_map<Key, uint64_t>& cache, const Key& key,
                           const std::string& tree_key, const Give& give);
  void save_one(const std::string& key, uint64_t number);

  Forest& forest_;
  IdPool domains_;
  IdPool chunks_;
  std::shared_mutex mutex_;
  absl::flat_hash_map<Triple, uint64_t> domain_map_;
  absl::flat_hash_map<Pair, uint64_t> chunk_map_;
  absl::flat_hash_map<std::string, uint64_t> unsaved_;
};

}  // namespace caw
