// Comparison: whether two directories hold the same, told by their records, without reading data.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "fs/topology.h"
#include "volume/forest.h"

namespace caw {

/// Content stamps stand for the data of files.  No means: perhaps not.
class Comparison {
 public:
  struct Side {
    Place place;
    Place links;  ///< links directory of its domain; no tree: there is none
  };
  Comparison(Forest& forest, bool has_links) : forest_(forest), has_links_(has_links) {}

  Result<bool> same(const Side& a, const Side& b);
  /// The links directory in the contents of a top.
  Result<Place> links_of(const Place& top);

 private:
  struct Entry;
  Result<Entry> read_entry(const Side& in, const Cursor& cursor, size_t prefix_bytes);
  Result<Side> below(const Side& in, const Entry& entry);
  Result<bool> same_contents(const Side& in_a, const Side& in_b);

  Forest& forest_;
  const bool has_links_;
  uint64_t left_ = 4096;  ///< records that may be looked at
  std::vector<std::pair<Side, Side>> pending_;
};

}  // namespace caw
