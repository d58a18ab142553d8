// TokenTable: unforgeable names for inodes, good for a while; and pins, which keep an inode in
// core.
//
// A token is 16 random bytes that stand for an inode the kernel had open when it was issued.  While
// a token is alive, or a Pin is held, the inode is pinned: the kernel's forgets of it are kept back
// and handed over when the last pin goes, so that the Inode pointer stays good although the kernel
// may have forgotten it.
//
// All methods may be called from any thread.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "base/error.h"
#include "fs/file_system.h"

namespace caw {

using TokenBytes = std::array<uint8_t, 16>;

class TokenTable {
 public:
  using Clock = std::chrono::steady_clock;
  /// Hands forgets that were kept back to the file system.  Called without locks held.
  using Forget = std::function<void(Inode&, uint64_t)>;

  TokenTable(std::chrono::seconds lifetime, Forget forget)
      : lifetime_(lifetime), forget_(std::move(forget)) {}
  /// Does not hand over what it kept back: at the end the whole file system goes.
  ~TokenTable() = default;
  TokenTable(const TokenTable&) = delete;
  TokenTable& operator=(const TokenTable&) = delete;

  class Pin {
   public:
    Pin(Pin&& other) noexcept
        : table_(std::exchange(other.table_, nullptr)), inode_(other.inode_) {}
    Pin& operator=(Pin&&) = delete;
    ~Pin() {
      if (table_ != nullptr) table_->unpin(*inode_);
    }
    Inode& inode() const { return *inode_; }

   private:
    friend class TokenTable;
    Pin(TokenTable* table, Inode* inode) : table_(table), inode_(inode) {}
    TokenTable* table_;
    Inode* inode_;
  };

  /// Requires: the kernel holds `inode` open during the call.  At most kMaxTokens live at a time;
  /// the oldest make room.  Fails: the system has no random bytes.
  Result<TokenBytes> issue(Inode& inode, Clock::time_point now);
  /// Nothing if the token is unknown or too old.
  std::optional<Pin> find(const TokenBytes& token, Clock::time_point now);
  /// Drops tokens that are too old.
  void expire(Clock::time_point now);
  /// The kernel forgets `inode`.  True: it is pinned, the forget is kept back until it no longer
  /// is.
  bool keep_back(Inode& inode, uint64_t lookups);
  size_t size() const;

  static constexpr size_t kMaxTokens = 4096;

 private:
  struct Issued {
    Inode* inode;
    Clock::time_point until;
    uint64_t number;
  };
  struct Pinned {
    uint64_t pins = 0;
    uint64_t kept_back = 0;
  };
  using Forgets = std::vector<std::pair<Inode*, uint64_t>>;

  void pin_locked(Inode& inode);
  void unpin_locked(Inode& inode, Forgets& due);
  void drop_oldest_locked(Forgets& due);
  void expire_locked(Clock::time_point now, Forgets& due);
  void unpin(Inode& inode);
  void hand_over(const Forgets& due);

  const std::chrono::seconds lifetime_;
  const Forget forget_;
  mutable std::mutex mutex_;
  uint64_t next_number_ = 0;
  std::map<TokenBytes, Issued> issued_;
  std::map<uint64_t, TokenBytes> by_age_;
  std::map<Inode*, Pinned> pinned_;
  /// pinned_.size(): lets keep_back(), which is called for every forget, pass without the lock.
  /// An inode cannot become pinned while its last forget is under way (issue() requires it open).
  std::atomic<size_t> pinned_count_{0};
};

}  // namespace caw
