// What a change of names does to the files they lead to.
#pragma once

#include <cstdint>
#include <vector>

#include "fs/inode.h"
#include "fs/inode_table.h"
#include "schema/records.h"

namespace caw {

/// A name that goes; its file goes as well, or becomes an orphan if it is open, unless it has
/// others.
struct NameDrop {
  Inode& child;
  Dirent dirent;
  bool open = false;
  uint64_t orphan_entry = 0;
  Timestamp ctime;
  bool is_last() const { return !dirent.is_linked() || child.nlink() <= 1; }
};

/// A whole tree that goes, with names of files that have others.
struct TreeRemoval {
  struct Gone {
    InodeHold inode;
    uint32_t nlink = 0;         ///< that are left
    uint64_t orphan_entry = 0;  ///< of an open one without any
  };
  InodeHold links;  ///< links directory of the domain that the tree is in
  uint64_t orphan_entry = 0;
  Timestamp ctime;
  std::vector<Gone> gone;
  std::vector<uint64_t> stale;  ///< node ids whose link counts changed
  bool changed = false;
};

}  // namespace caw
