// The links index of a directory's contents (docs/adr/0013-hard-links.md): which names at and below
// it are names of linked files.
//
// The directories below a top (the root, or a clone) that are not below an inner top are its domain
// of links.  Linked files whose names are all in one domain are *local* to it, all others *global*.
#pragma once

#include <absl/container/flat_hash_map.h>

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "fs/topology.h"
#include "schema/records.h"
#include "volume/forest.h"

namespace caw {

/// A name as the index has it.
struct LinkedName {
  std::vector<uint64_t> route;  ///< entries from the directory where the scan began to its own
  Place place;                  ///< of its directory
  uint64_t entry = 0;
  LinkEntry link;
};

/// Calls `visit` for the linked names at and below `top`: those in its own domain, and of those in
/// the domains of inner tops the global ones.  Reads only the index, so its cost is theirs.  Fails:
/// record_malformed, what `visit` fails with.
Result<void> scan_links(Forest& forest, const Place& top, bool inner_tops,
                        const std::function<Result<void>(const LinkedName&)>& visit);

/// How many names each local file has in the domain of `top`, by entry in the links directory.
using LinkCounts = absl::flat_hash_map<uint64_t, uint32_t>;
Result<LinkCounts> count_local_links(Forest& forest, const Place& top);

void put_linked_name(Batch& batch, const Place& place, std::string_view name,
                     const Dirent& dirent);
void erase_linked_name(Batch& batch, const Place& place, std::string_view name, uint64_t entry);

/// True if the index has anything at or below `place`.
Result<bool> has_links(Forest& forest, const Place& place);
/// True if a name at or below `place` is linked so: local to its domain, or global.
Result<bool> has_links_of(Forest& forest, const Place& place, LinkScope scope);

}  // namespace caw
