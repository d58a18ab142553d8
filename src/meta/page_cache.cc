#include "meta/page_cache.h"

#include <utility>

#include "base/aligned_buffer.h"
#include "base/assert.h"

namespace caw {

Result<MetaPageHandle> PageCache::get(PageRef ref, uint8_t level) {
  if (MetaPageHandle page = find(ref, level)) return page;
  AlignedBuffer buffer(kBlockSize);
  CAW_TRY(device_.read(ref.addr, buffer.span()));
  MetaPageHandle page = CAW_TRY(MetaPage::decode(buffer.view(), ref, level));
  put(page);
  return page;
}

Result<std::vector<MetaPageHandle>> PageCache::get_all(std::span<const PageRef> refs,
                                                       uint8_t level) {
  std::vector<MetaPageHandle> pages(refs.size());
  std::vector<size_t> missing;
  for (size_t i = 0; i < refs.size(); ++i) {
    pages[i] = find(refs[i], level);
    if (!pages[i]) missing.push_back(i);
  }
  AlignedBuffer buffer(missing.size() * kBlockSize);
  std::vector<ReadRequest> reads;
  for (size_t i = 0; i < missing.size(); ++i) {
    reads.push_back({refs[missing[i]].addr, buffer.span().subspan(i * kBlockSize, kBlockSize)});
  }
  if (!reads.empty()) CAW_TRY(device_.read_batch(reads));
  for (size_t i = 0; i < missing.size(); ++i) {
    const std::string_view bytes = buffer.view().substr(i * kBlockSize, kBlockSize);
    pages[missing[i]] = CAW_TRY(MetaPage::decode(bytes, refs[missing[i]], level));
    put(pages[missing[i]]);
  }
  return pages;
}

/// Null if the page is not there.  A page of another level than expected is not there either: the
/// read that follows reports the damage.
MetaPageHandle PageCache::find(PageRef ref, uint8_t level) {
  Shard& shard = shard_of(ref.addr);
  const std::lock_guard<std::mutex> lock(shard.mutex);
  const auto at = shard.index.find(raw(ref.addr));
  if (at == shard.index.end()) return {};
  Slot& slot = shard.slots[at->second];
  if (slot.page->page_ref() != ref || slot.page->level() != level) return {};
  slot.recent = true;
  return slot.page;
}

void PageCache::put(MetaPageHandle page) {
  Shard& shard = shard_of(page->page_ref().addr);
  const std::lock_guard<std::mutex> lock(shard.mutex);
  const auto at = shard.index.find(raw(page->page_ref().addr));
  if (at != shard.index.end()) drop(shard, at->second);
  shard.bytes += cost(*page);
  cached_bytes_.fetch_add(cost(*page), std::memory_order_relaxed);
  shard.index.emplace(raw(page->page_ref().addr), shard.slots.size());
  shard.slots.push_back({std::move(page), true});
  evict(shard);
}

void PageCache::evict(Shard& shard) {
  while (shard.bytes > shard_bytes_ && !shard.slots.empty()) {
    if (shard.hand >= shard.slots.size()) shard.hand = 0;
    Slot& slot = shard.slots[shard.hand];
    if (std::exchange(slot.recent, false)) {
      ++shard.hand;
    } else {
      drop(shard, shard.hand);
    }
  }
}

/// The last slot takes the place of the one dropped.
void PageCache::drop(Shard& shard, size_t slot) {
  const MetaPage& page = *shard.slots[slot].page;
  shard.bytes -= cost(page);
  cached_bytes_.fetch_sub(cost(page), std::memory_order_relaxed);
  CAW_ASSERT(shard.index.erase(raw(page.page_ref().addr)) == 1);
  if (slot + 1 != shard.slots.size()) {
    shard.slots[slot] = std::move(shard.slots.back());
    shard.index[raw(shard.slots[slot].page->page_ref().addr)] = slot;
  }
  shard.slots.pop_back();
}

}  // namespace caw
