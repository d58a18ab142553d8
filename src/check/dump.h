// What is on a volume, for people: text, and a picture of its trees for Graphviz.
//
// Only reads; the volume may be mounted, then what is shown is its last checkpoint as long as no
// newer one is written meanwhile.  Damage does not stop a dump: it says what it could not read.
#pragma once

#include <cstddef>
#include <string>

#include "base/error.h"
#include "base/ids.h"
#include "dev/block_device.h"

namespace caw {

struct DumpLimits {
  size_t max_nodes = 300;    ///< listed or drawn
  size_t max_entries = 200;  ///< of one node
};

/// All of these fail as check_volume() does.

/// Both superblocks and every field of the newer one.
Result<std::string> dump_superblocks(BlockDevice& device);
/// The superblocks, then the node table: a line for each node, its count if above one.
Result<std::string> dump_text(BlockDevice& device, const DumpLimits& limits = {});
/// A node's header and contents.  Fails: node_absent, and as reading a node does.
Result<std::string> dump_node(BlockDevice& device, NodeId id, const DumpLimits& limits = {});
/// The trees as a directed graph in Graphviz's language: who owns which tree, nodes, runs and
/// leaves, with what is shared set off by colour and count.  Breadth first from the system tree.
Result<std::string> dump_dot(BlockDevice& device, const DumpLimits& limits = {});

}  // namespace caw
