// Inode: the in-core state of one file or directory in its clone.  Owned by InodeTable.
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <thread>

#include "schema/records.h"
#include "volume/forest.h"

namespace caw {

/// For a few instructions that copy fields; never held over a call that waits.
class SpinLock {
 public:
  void lock() {
    while (held_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
  }
  void unlock() { held_.store(false, std::memory_order_release); }

 private:
  std::atomic<bool> held_{false};
};

/// Which lock guards what (lock order: locks.h):
///   parent, entry, tree   written under the exclusive topology gate, read under either side
///   fields                written under the inode's lock and `spin`; read under one of them
///   opens, writers        OpenFiles
///   the rest              constant, or atomic
class Inode {
 public:
  static constexpr uint64_t kNeverVerified = UINT64_MAX;

  bool is_directory() const { return S_ISDIR(type); }
  bool is_regular() const { return S_ISREG(type); }
  InodeFields load_fields() const {
    std::lock_guard lock(spin);
    return fields;
  }
  void store_fields(const InodeFields& now) {
    std::lock_guard lock(spin);
    fields = now;
  }
  uint64_t load_size() const {
    std::lock_guard lock(spin);
    return fields.size;
  }

  Inode* parent = nullptr;  ///< holds one of its references; null: the system directory
  uint64_t entry = 0;       ///< in `parent`
  TreeRef tree;             ///< owned tree: the directory's contents, the file's data
  uint64_t domain = 0;      ///< of its number; a directory's entries inherit it
  uint64_t number = 0;
  uint32_t type = 0;              ///< S_IFMT bits of the mode; constant
  std::atomic<uint64_t> ino{0};   ///< as shown; 0: not asked for yet
  std::atomic<uint64_t> refs{0};  ///< lookups, opens, children in core, users
  std::atomic<uint64_t> verified{
      kNeverVerified};                 ///< share generation under which `tree` is private
  std::atomic<uint32_t> evictions{0};  ///< children that left the table
  std::atomic<bool> removed{false};    ///< no name leads here any more, and the records are gone
  mutable SpinLock spin;
  std::atomic<bool> orphan{false};  ///< moved to the orphans, to be erased at the last close
  uint32_t opens = 0, writers = 0;
  std::atomic<uint64_t> next_read{0};  ///< where a sequential reader would go on
  InodeFields fields;
};
static_assert(sizeof(Inode) <= 232);

}  // namespace caw
