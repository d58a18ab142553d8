#include "meta/meta_page.h"

#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"
#include "format/compression.h"

namespace caw {
namespace {

constexpr size_t kKeyBytes = 9;
static_assert(kLeafEntryBytes == kKeyBytes + 1 && kInteriorEntryBytes == kKeyBytes + 16);
constexpr const char* kWhere = "meta page";

void append_key(std::string& out, MetaKey key) {
  put_fixed<uint8_t>(out, static_cast<uint8_t>(key.space));
  put_fixed<uint64_t>(out, key.id);
}

MetaKey key_at(const char* at) {
  return {static_cast<MetaSpace>(*at), load_fixed<uint64_t>(at + 1)};
}

/// Bytes of the entry at the front of `rest`, 0 if it does not fit.
size_t entry_bytes(uint8_t level, std::string_view rest) {
  if (level > 0) return rest.size() >= kInteriorEntryBytes ? kInteriorEntryBytes : 0;
  if (rest.size() < kKeyBytes + 1) return 0;
  const auto value_bytes = static_cast<uint8_t>(rest[kKeyBytes]);
  const size_t size = kKeyBytes + 1 + value_bytes;
  return value_bytes <= kMaxMetaValueBytes && rest.size() >= size ? size : 0;
}

}  // namespace

void append_leaf_entry(std::string& entries, MetaKey key, std::string_view value) {
  CAW_ASSERT(value.size() <= kMaxMetaValueBytes);
  append_key(entries, key);
  put_fixed<uint8_t>(entries, static_cast<uint8_t>(value.size()));
  entries.append(value);
}

void append_interior_entry(std::string& entries, MetaKey key, PageRef child) {
  append_key(entries, key);
  put_fixed<uint64_t>(entries, raw(child.addr));
  put_fixed<uint64_t>(entries, child.checksum);
}

uint64_t encode_meta_page(const MetaPageContent& content, BlockAddr addr, Epoch epoch, char* out) {
  CAW_ASSERT(content.count > 0 && content.entries.size() <= kMetaCapacityBytes);
  std::memset(out, 0, kBlockSize);
  store_fixed<uint32_t>(out, kMetaPageMagic);
  store_fixed<uint8_t>(out + 4, content.level);
  store_fixed<uint16_t>(out + 6, content.count);
  store_fixed<uint64_t>(out + 8, raw(addr));
  store_fixed<uint64_t>(out + 16, epoch);
  store_fixed<uint16_t>(out + 24, static_cast<uint16_t>(content.entries.size()));
  std::memcpy(out + kMetaHeaderBytes, content.entries.data(), content.entries.size());
  return checksum64({out, kBlockSize});
}

Result<MetaPageHandle> MetaPage::decode(std::string_view bytes, PageRef ref, uint8_t level) {
  const auto damaged = [&] { return fail(Code::meta_page, raw(ref.addr), kWhere); };
  if (bytes.size() != kBlockSize || checksum64(bytes) != ref.checksum) return damaged();
  const char* at = bytes.data();
  const size_t used_bytes = load_fixed<uint16_t>(at + 24);
  if (load_fixed<uint32_t>(at) != kMetaPageMagic || load_fixed<uint8_t>(at + 4) != level ||
      load_fixed<uint64_t>(at + 8) != raw(ref.addr) || used_bytes > kMetaCapacityBytes) {
    return damaged();
  }
  Ref<MetaPage> page(new MetaPage(ref, level, bytes.substr(kMetaHeaderBytes, used_bytes)));
  if (!page->index_entries(load_fixed<uint16_t>(at + 6))) return damaged();
  return MetaPageHandle(page);
}

MetaPageHandle MetaPage::make(const MetaPageContent& content, PageRef ref) {
  Ref<MetaPage> page(new MetaPage(ref, content.level, content.entries));
  CAW_ASSERT(page->index_entries(content.count));
  return page;
}

/// False if the bytes are not exactly `count` entries with ascending keys and valid children.
bool MetaPage::index_entries(size_t count) {
  if (count == 0 || count > entries_.size()) return false;
  offsets_.reserve(count);
  std::string_view rest = entries_;
  for (size_t i = 0; i < count; ++i) {
    const size_t size = entry_bytes(level_, rest);
    if (size == 0) return false;
    offsets_.push_back(static_cast<uint16_t>(entries_.size() - rest.size()));
    if (i > 0 && key(i - 1) >= key(i)) return false;
    if (level_ > 0 && !child(i)) return false;
    rest.remove_prefix(size);
  }
  return rest.empty();
}

MetaKey MetaPage::key(size_t i) const { return key_at(entries_.data() + offsets_[i]); }

std::string_view MetaPage::value(size_t i) const {
  const char* at = entries_.data() + offsets_[i] + kKeyBytes;
  return {at + 1, static_cast<uint8_t>(*at)};
}

PageRef MetaPage::child(size_t i) const {
  const char* at = entries_.data() + offsets_[i] + kKeyBytes;
  return {BlockAddr{load_fixed<uint64_t>(at)}, load_fixed<uint64_t>(at + 8)};
}

size_t MetaPage::lower_bound(MetaKey wanted) const {
  size_t low = 0;
  size_t high = count();
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (key(middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

size_t MetaPage::child_index(MetaKey wanted) const {
  const size_t i = lower_bound(wanted);
  if (i < count() && key(i) == wanted) return i;
  return i == 0 ? 0 : i - 1;
}

}  // namespace caw
