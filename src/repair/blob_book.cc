#include "repair/blob_book.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <string>

namespace caw {
namespace {

enum class Health : uint8_t { whole, lost, damaged };

/// Lost: whole, but known not to hold data any more.
Health look_at(BlockDevice& device, const BlobRef& blob, std::optional<std::string>* bytes) {
  Result<std::string> read = read_blob(device, blob);
  if (read) {
    *bytes = std::move(*read);
    return Health::whole;
  }
  return reads_as_lost_blob(device, blob) ? Health::lost : Health::damaged;
}

}  // namespace

void BlobBook::start(BlockMap& claimed) {
  claimed_ = &claimed;
  for (auto& [addr, known] : known_) known.count = 0;
}

void BlobBook::count(const BlobRef& blob) {
  Known& known = known_[raw(blob.addr)];
  if (known.count++ == 0) claimed_->mark(raw(blob.addr), blob.blocks());
  known.ref = blob;
}

Result<BlobRef> BlobBook::use(const BlobRef& blob) {
  if (const auto replaced = replaced_.find(key_of(blob)); replaced != replaced_.end()) {
    count(replaced->second);
    return replaced->second;
  }
  const auto known = known_.find(raw(blob.addr));
  const bool is_known = known != known_.end() && known->second.ref == blob;
  if (is_known && known->second.count > 0) {
    ++known->second.count;
    return blob;
  }
  if (draft_.is_place(blob.addr, blob.blocks())) {
    bool is_free = true;
    for (uint64_t i = 0; i < blob.blocks(); ++i) {
      is_free = is_free && !claimed_->is_set(raw(blob.addr) + i);
    }
    std::optional<std::string> bytes;
    if (is_free && (is_known || look_at(draft_.device(), blob, &bytes) != Health::damaged)) {
      count(blob);
      return blob;
    }
  }
  return replace(blob);
}

/// What can be read is written to a place of its own.
Result<BlobRef> BlobBook::replace(const BlobRef& blob) {
  std::optional<std::string> bytes;
  const Health health = look_at(draft_.device(), blob, &bytes);
  BlobRef other;
  if (health == Health::whole) {
    other = CAW_TRY(draft_.write_blob(*bytes));
    notes_.say(fmt::format("file data at block {}: moved, the blocks are in use for something else",
                           raw(blob.addr)));
  } else {
    other = CAW_TRY(draft_.lost_blob(blob.raw_bytes));
    notes_.say(fmt::format("file data at block {}: {} bytes are damaged; reading them fails",
                           raw(blob.addr), blob.raw_bytes));
  }
  replaced_[key_of(blob)] = other;
  count(other);
  return other;
}

CountRows BlobBook::counts() const {
  CountRows out;
  for (const auto& [addr, known] : known_) {
    if (known.count > 1) out.push_back({addr, known.count});
  }
  std::ranges::sort(out, {}, &CountRow::id);
  return out;
}

}  // namespace caw
