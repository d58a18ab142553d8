#include "format/sorted_block.h"

#include <algorithm>
#include <utility>

#include "base/assert.h"
#include "base/bytes.h"

namespace caw {
namespace {

/// An entry at every multiple of this stores its whole key.
constexpr uint32_t kRestartInterval = 16;
/// Footer: counts of entries, range erases and restarts, and the bytes of the entries; u32 each.
constexpr size_t kFooterBytes = 16;
constexpr unsigned char kForbiddenFirst = 0xff;

std::unexpected<Error> damaged(const char* where) { return fail(Code::node_payload, 0, where); }

size_t common_prefix(std::string_view a, std::string_view b) {
  const size_t limit = std::min(a.size(), b.size());
  return static_cast<size_t>(
      std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(limit), b.begin()).first -
      a.begin());
}

bool key_allowed(std::string_view key) {
  return key.size() <= kMaxKeyBytes &&
         (key.empty() || static_cast<unsigned char>(key.front()) != kForbiddenFirst);
}
bool end_allowed(std::string_view key) { return key == kKeyEnd || key_allowed(key); }

size_t varint_bytes(uint64_t value) {
  size_t bytes = 1;
  for (; value >= 0x80; value >>= 7) ++bytes;
  return bytes;
}

/// A varint at *at; validated bytes only: at most 5, so no shift passes 28.
uint32_t take_varint(const char** at) {
  const auto* p = reinterpret_cast<const unsigned char*>(*at);
  uint32_t value = *p & 0x7fU;
  for (unsigned shift = 7; (*p++ & 0x80U) != 0; shift += 7) value |= (*p & 0x7fU) << shift;
  *at = reinterpret_cast<const char*>(p);
  return value;
}

}  // namespace

// ---- builder

void SortedBlockBuilder::add_range_erase(const RangeErase& range) {
  CAW_ASSERT(count_ == 0 && key_allowed(range.lo) && end_allowed(range.hi) && range.lo < range.hi);
  CAW_ASSERT(range_count_ == 0 || last_range_hi_ <= range.lo);
  put_sized(ranges_, range.lo);
  const size_t shared = common_prefix(range.lo, range.hi);
  put_varint(ranges_, shared);
  put_sized(ranges_, std::string_view(range.hi).substr(shared));
  put_varint(ranges_, range.dead_bytes);
  last_range_hi_ = range.hi;
  ++range_count_;
}

void SortedBlockBuilder::add(std::string_view key, MessageKind kind, std::string_view body) {
  CAW_ASSERT(key_allowed(key) && (count_ == 0 || key > last_key_));
  size_t shared = 0;
  if (count_ % kRestartInterval == 0) {
    restarts_.push_back(static_cast<uint32_t>(entries_.size()));
  } else {
    shared = common_prefix(key, last_key_);
  }
  put_varint(entries_, shared);
  put_varint(entries_, key.size() - shared);
  put_varint(entries_, (body.size() << 2) | static_cast<uint8_t>(kind));
  entries_.append(key.substr(shared));
  entries_.append(body);
  last_key_.assign(key);
  owns_refs_ = owns_refs_ || peek_refs(kind, body).any();
  ++count_;
}

void SortedBlockBuilder::add(std::string_view key, const Message& message) {
  scratch_.clear();
  encode_message(scratch_, message);
  add(key, message.kind, scratch_);
}

size_t SortedBlockBuilder::size_bytes() const {
  return entries_.size() + ranges_.size() + restarts_.size() * sizeof(uint32_t) + kFooterBytes;
}

std::string SortedBlockBuilder::finish() {
  std::string out = std::move(entries_);
  const auto entry_bytes = static_cast<uint32_t>(out.size());
  out.append(ranges_);
  for (const uint32_t offset : restarts_) put_fixed(out, offset);
  put_fixed(out, count_);
  put_fixed(out, range_count_);
  put_fixed(out, static_cast<uint32_t>(restarts_.size()));
  put_fixed(out, entry_bytes);
  entries_.clear();
  ranges_.clear();
  last_key_.clear();
  last_range_hi_.clear();
  restarts_.clear();
  count_ = range_count_ = 0;
  owns_refs_ = false;
  return out;
}

// ---- reading

Result<void> SortedBlock::read_footer() {
  if (bytes_.size() < kFooterBytes || bytes_.size() > std::numeric_limits<uint32_t>::max()) {
    return damaged("block size");
  }
  const char* footer = bytes_.data() + bytes_.size() - kFooterBytes;
  count_ = load_fixed<uint32_t>(footer);
  const auto range_count = load_fixed<uint32_t>(footer + 4);
  restart_count_ = load_fixed<uint32_t>(footer + 8);
  const auto entry_bytes = load_fixed<uint32_t>(footer + 12);
  const uint64_t before_footer = bytes_.size() - kFooterBytes;
  const uint64_t restart_bytes = uint64_t{restart_count_} * sizeof(uint32_t);
  if (restart_bytes + entry_bytes > before_footer ||
      restart_count_ != (uint64_t{count_} + kRestartInterval - 1) / kRestartInterval) {
    return damaged("block footer");
  }
  entries_ = bytes_.substr(0, entry_bytes);
  restarts_ = bytes_.data() + before_footer - restart_bytes;
  return check_ranges(bytes_.substr(entry_bytes, before_footer - restart_bytes - entry_bytes),
                      range_count);
}

Result<void> SortedBlock::check_ranges(std::string_view encoded, uint32_t count) {
  if (count > encoded.size()) return damaged("range count");
  Reader reader(encoded);
  for (uint32_t i = 0; i < count; ++i) {
    RangeErase range;
    range.lo = reader.sized();
    const uint64_t shared = reader.varint();
    const std::string_view suffix = reader.sized();
    range.dead_bytes = reader.varint();
    if (!reader.ok() || shared > range.lo.size() || suffix.size() > kMaxKeyBytes) {
      return damaged("range");
    }
    range.hi.assign(range.lo, 0, shared);
    range.hi.append(suffix);
    if (!key_allowed(range.lo) || !end_allowed(range.hi)) return damaged("range bounds");
    if (range.lo >= range.hi || (i > 0 && ranges_.back().hi > range.lo)) {
      return fail(Code::block_order, i, "ranges");
    }
    ranges_.push_back(std::move(range));
  }
  return reader.at_end() ? Result<void>{} : damaged("trailing bytes");
}

Result<void> SortedBlock::check_entries() const {
  Reader reader(entries_);
  std::string key;
  for (uint32_t i = 0; i < count_; ++i) {
    const auto offset = static_cast<uint32_t>(entries_.size() - reader.rest().size());
    const uint64_t shared = reader.varint();
    const uint64_t unshared = reader.varint();
    const uint64_t size_and_kind = reader.varint();
    const size_t header_bytes = entries_.size() - reader.rest().size() - offset;
    const std::string_view suffix = reader.bytes(unshared);
    const std::string_view body = reader.bytes(size_and_kind >> 2);
    if (!reader.ok() || shared > key.size() || shared + unshared > kMaxKeyBytes) {
      return damaged("entry");
    }
    // The shortest varints only: the iterator reads them without checks.
    if (size_and_kind > std::numeric_limits<uint32_t>::max() ||
        header_bytes !=
            varint_bytes(shared) + varint_bytes(unshared) + varint_bytes(size_and_kind)) {
      return damaged("entry header");
    }
    if (i % kRestartInterval == 0 && (shared != 0 || restart(i / kRestartInterval) != offset)) {
      return damaged("restart");
    }
    const bool greater = suffix > std::string_view(key).substr(shared);
    if (i > 0 && !greater) return fail(Code::block_order, i, "keys");
    key.resize(shared);
    key.append(suffix);
    if (!key_allowed(key)) return damaged("key");
    CAW_TRY(validate_message(static_cast<MessageKind>(size_and_kind & 3), body));
  }
  return reader.at_end() ? Result<void>{} : damaged("trailing bytes");
}

Result<SortedBlock> SortedBlock::open(std::string_view bytes) {
  SortedBlock block;
  block.bytes_ = bytes;
  CAW_TRY(block.read_footer());
  CAW_TRY(block.check_entries());
  return block;
}

SortedBlock SortedBlock::trust(std::string_view bytes) {
  SortedBlock block;
  if (bytes.empty()) return block;
  block.bytes_ = bytes;
  CAW_ASSERT(block.read_footer().has_value());
  return block;
}

uint32_t SortedBlock::restart(uint32_t index) const {
  return load_fixed<uint32_t>(restarts_ + index * sizeof(uint32_t));
}

std::string_view SortedBlock::restart_key(uint32_t index) const {
  const char* at = entries_.data() + restart(index);
  take_varint(&at);  // shared: 0
  const uint32_t size = take_varint(&at);
  take_varint(&at);
  return {at, size};
}

// ---- iterator

void SortedBlock::Iterator::parse_at(uint32_t offset) {
  const char* const begin = block_->entries_.data();
  valid_ = offset < block_->entries_.size();
  if (!valid_) return;
  const char* at = begin + offset;
  const uint32_t shared = take_varint(&at);
  const uint32_t unshared = take_varint(&at);
  const uint32_t size_and_kind = take_varint(&at);
  key_.resize(shared);
  key_.append(at, unshared);
  at += unshared;
  kind_ = static_cast<MessageKind>(size_and_kind & 3);
  body_ = {at, size_and_kind >> 2};
  next_offset_ = static_cast<uint32_t>(at - begin) + (size_and_kind >> 2);
}

void SortedBlock::Iterator::seek_to_first() {
  key_.clear();
  parse_at(0);
}

void SortedBlock::Iterator::next() {
  CAW_ASSERT(valid_);
  parse_at(next_offset_);
}

void SortedBlock::Iterator::seek(std::string_view key) {
  // The last restart whose key is < `key`; nothing before it can be the answer.
  uint32_t low = 0;
  uint32_t high = block_->restart_count_;
  while (low < high) {
    const uint32_t middle = low + (high - low) / 2;
    if (block_->restart_key(middle) < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  key_.clear();
  parse_at(low == 0 ? 0 : block_->restart(low - 1));
  while (valid_ && key_ < key) parse_at(next_offset_);
}

}  // namespace caw
