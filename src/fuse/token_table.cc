#include "fuse/token_table.h"

#include <sys/random.h>

namespace caw {

Result<TokenBytes> TokenTable::issue(Inode& inode, Clock::time_point now) {
  TokenBytes token;
  if (getrandom(token.data(), token.size(), 0) != static_cast<ssize_t>(token.size())) {
    return fail(Code::unknown, 0, "getrandom", errno);
  }
  Forgets due;
  {
    const std::scoped_lock lock(mutex_);
    expire_locked(now, due);
    if (issued_.size() >= kMaxTokens) drop_oldest_locked(due);
    const uint64_t number = next_number_++;
    issued_.emplace(token, Issued{&inode, now + lifetime_, number});
    by_age_.emplace(number, token);
    pin_locked(inode);
  }
  hand_over(due);
  return token;
}

std::optional<TokenTable::Pin> TokenTable::find(const TokenBytes& token, Clock::time_point now) {
  const std::scoped_lock lock(mutex_);
  const auto found = issued_.find(token);
  if (found == issued_.end() || found->second.until < now) return std::nullopt;
  pin_locked(*found->second.inode);
  return Pin(this, found->second.inode);
}

void TokenTable::expire(Clock::time_point now) {
  Forgets due;
  {
    const std::scoped_lock lock(mutex_);
    expire_locked(now, due);
  }
  hand_over(due);
}

bool TokenTable::keep_back(Inode& inode, uint64_t lookups) {
  if (pinned_count_.load(std::memory_order_acquire) == 0) return false;
  const std::scoped_lock lock(mutex_);
  const auto found = pinned_.find(&inode);
  if (found == pinned_.end()) return false;
  found->second.kept_back += lookups;
  return true;
}

size_t TokenTable::size() const {
  const std::scoped_lock lock(mutex_);
  return issued_.size();
}

void TokenTable::pin_locked(Inode& inode) {
  ++pinned_[&inode].pins;
  pinned_count_.store(pinned_.size(), std::memory_order_release);
}

void TokenTable::unpin_locked(Inode& inode, Forgets& due) {
  const auto found = pinned_.find(&inode);
  if (--found->second.pins != 0) return;
  if (found->second.kept_back != 0) due.emplace_back(&inode, found->second.kept_back);
  pinned_.erase(found);
  pinned_count_.store(pinned_.size(), std::memory_order_release);
}

void TokenTable::drop_oldest_locked(Forgets& due) {
  const auto oldest = by_age_.begin();
  const auto issued = issued_.find(oldest->second);
  unpin_locked(*issued->second.inode, due);
  issued_.erase(issued);
  by_age_.erase(oldest);
}

void TokenTable::expire_locked(Clock::time_point now, Forgets& due) {
  while (!by_age_.empty() && issued_.at(by_age_.begin()->second).until < now) {
    drop_oldest_locked(due);
  }
}

void TokenTable::unpin(Inode& inode) {
  Forgets due;
  {
    const std::scoped_lock lock(mutex_);
    unpin_locked(inode, due);
  }
  hand_over(due);
}

void TokenTable::hand_over(const Forgets& due) {
  for (const auto& [inode, lookups] : due) forget_(*inode, lookups);
}

}  // namespace caw
