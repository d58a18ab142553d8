#include "store/count_table.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/assert.h"
#include "base/bytes.h"

namespace caw {

bool CountTable::add(uint64_t id, int64_t delta, Epoch epoch, uint64_t blocks) {
  if (delta == 0) return true;
  Shard& at = shard(id);
  const std::scoped_lock lock(at.mutex);
  Side& changes = side(at, epoch);
  Entry& entry = changes.entries[id];
  if (delta > 0 && entry.freed) return false;   // zero was final
  entry.delta += delta;
  entry.blocks = static_cast<uint32_t>(blocks);
  if (entry.delta < 0 && delta < 0 && !entry.queued) {
    entry.queued = true;
    changes.candidates.push_back(id);
  }
  if (entry.delta == 0 && !entry.based && !entry.queued && !entry.freed) changes.entries.erase(id);
  return true;
}

Result<int64_t> CountTable::base(uint64_t id) {
  const std::optional<std::string> stored = CAW_TRY(meta_.get(MetaKey{space_, id}));
  if (!stored) return 1;
  Reader reader(*stored);
  const uint64_t count = reader.varint();
  if (!reader.ok() || !reader.at_end() || count < 2 ||
      count > static_cast<uint64_t>(std::numeric_limits<int64_t>::max() / 2)) {
    return fail(Code::node_entry, id, "count");
  }
  return static_cast<int64_t>(count);
}

int64_t CountTable::count_over(int64_t base, uint64_t id) {
  Shard& at = shard(id);
  const std::scoped_lock lock(at.mutex);
  int64_t sum = 0;
  for (const Side& changes : at.sides) {
    const auto found = changes.entries.find(id);
    if (found == changes.entries.end()) continue;
    sum += found->second.delta;
    if (found->second.based) base = found->second.base;
  }
  return base + sum;
}

Result<int64_t> CountTable::count(uint64_t id) {
  while (true) {
    const uint64_t before = generation();
    const int64_t stored = CAW_TRY(base(id));
    const int64_t count = count_over(stored, id);
    if (generation() == before) return count;
  }
}

std::vector<uint64_t> CountTable::take_candidates(Epoch epoch, size_t max) {
  std::vector<uint64_t> taken;
  for (Shard& at : shards_) {
    const std::scoped_lock lock(at.mutex);
    Side& changes = side(at, epoch);
    while (!changes.candidates.empty() && taken.size() < max) {
      const uint64_t id = changes.candidates.back();
      changes.candidates.pop_back();
      const auto found = changes.entries.find(id);
      if (found == changes.entries.end()) continue;
      found->second.queued = false;
      taken.push_back(id);
    }
  }
  return taken;
}

bool CountTable::has_candidates(Epoch epoch) const {
  for (const Shard& at : shards_) {
    const std::scoped_lock lock(at.mutex);
    if (!at.sides[epoch & 1U].candidates.empty()) return true;
  }
  return false;
}

void CountTable::return_candidates(const std::vector<uint64_t>& ids, Epoch epoch) {
  for (const uint64_t id : ids) {
    Shard& at = shard(id);
    const std::scoped_lock lock(at.mutex);
    Side& changes = side(at, epoch);
    const auto found = changes.entries.find(id);
    if (found == changes.entries.end() || found->second.queued) continue;
    found->second.queued = true;
    changes.candidates.push_back(id);
  }
}

bool CountTable::mark_freed(uint64_t id, Epoch epoch, uint64_t* blocks) {
  Shard& at = shard(id);
  const std::scoped_lock lock(at.mutex);
  Side& changes = side(at, epoch);
  const auto found = changes.entries.find(id);
  if (found == changes.entries.end() || found->second.freed) return false;
  found->second.freed = true;
  *blocks = found->second.blocks;
  return true;
}

Result<CountTable::Settled> CountTable::settle(uint64_t id, Epoch epoch) {
  Shard& at = shard(id);
  {
    const std::scoped_lock lock(at.mutex);
    Side& changes = side(at, epoch);
    const auto found = changes.entries.find(id);
    if (found == changes.entries.end()) return Settled{.id = id};
    const Entry& entry = found->second;
    if (entry.based) return Settled{id, entry.base, entry.base + entry.delta, entry.freed};
  }
  const int64_t stored = CAW_TRY(base(id));
  const std::scoped_lock lock(at.mutex);
  Entry& entry = side(at, epoch).entries[id];
  entry.based = true;
  entry.base = stored;
  return Settled{id, stored, stored + entry.delta, entry.freed};
}

std::vector<uint64_t> CountTable::changed(Epoch epoch, bool sunk_only) {
  std::vector<uint64_t> ids;
  for (Shard& at : shards_) {
    const std::scoped_lock lock(at.mutex);
    for (const auto& [id, entry] : side(at, epoch).entries) {
      if (!sunk_only || entry.delta < 0) ids.push_back(id);
    }
  }
  return ids;
}

void CountTable::forget(Epoch epoch) {
  for (Shard& at : shards_) {
    Side old;
    const std::scoped_lock lock(at.mutex);
    std::swap(side(at, epoch), old);
  }
}

void CountTable::merge_into_next(Epoch epoch) {
  for (Shard& at : shards_) {
    const std::scoped_lock lock(at.mutex);
    Side& from = side(at, epoch);
    Side& to = side(at, epoch + 1);
    for (const auto& [id, entry] : from.entries) {
      Entry& merged = to.entries[id];
      merged.delta += entry.delta;
      merged.blocks = entry.blocks;
      merged.freed = merged.freed || entry.freed;
      if (merged.delta < 0 && !merged.queued) {
        merged.queued = true;
        to.candidates.push_back(id);
      }
    }
    from = Side{};
  }
}

}  // namespace caw
