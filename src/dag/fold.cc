#include "dag/fold.h"

#include <algorithm>
#include <cstring>

namespace caw {
namespace {

/// A value over a damaged blob stays as it is: what was written since can still be read.
bool is_damage(Code code) { return code == Code::blob_checksum || code == Code::decompress; }

}  // namespace

ValueFolder::~ValueFolder() {
  for (const BlobRef& blob : blobs_) store_.cancel_blob(blob);
}

void ValueFolder::commit(Epoch epoch) {
  for (const BlobRef& blob : blobs_) {
    store_.commit_blob(blob, epoch);
    store_.add_blob_ref(blob, -1, epoch);  // born with a count of one; the image added its own
  }
  blobs_.clear();
}

bool ValueFolder::wants_fold(const Value& value) const {
  const uint64_t held = piece_bytes(value.pieces);
  if (held > shape_.inline_value_bytes) return true;
  if (!value.blob) return false;
  if (value.blob_length == 0) return true;
  return held > 0 && held * shape_.alpha_den >= uint64_t{value.blob_length} * shape_.alpha_num;
}

Result<void> ValueFolder::fold(Value& value) {
  if (!wants_fold(value)) return {};
  const bool replaces = static_cast<bool>(value.blob);
  if (value.blob_length == 0 && piece_bytes(value.pieces) <= shape_.inline_value_bytes) {
    value.blob = {};  // nothing of the blob shows any more
    replaced_ = replaced_ || replaces;
    return {};
  }
  std::string bytes(value.length, '\0');
  if (value.blob_length > 0) {
    const Result<void> read =
        store_.read_blob(value.blob, 0, std::span<char>(bytes.data(), value.blob_length));
    if (!read && is_damage(read.error().code)) return {};
    CAW_TRY(read);
  }
  for (const Piece& piece : value.pieces) {
    std::memcpy(bytes.data() + piece.offset, piece.bytes.data(), piece.bytes.size());
  }
  value.blob = CAW_TRY(store_.write_blob(bytes, SpaceClass::essential));
  value.blob_length = value.length;
  value.pieces.clear();
  replaced_ = replaced_ || replaces;
  blobs_.push_back(value.blob);
  return {};
}

Result<void> ValueFolder::fold(Merged& record) {
  if (record.kind != MessageKind::put) return {};
  if (record.is_raw) {
    // A body that is small beside the limits cannot want folding; do not decode it.
    const OwnedRefs refs = peek_refs(record.kind, record.raw_body);
    uint64_t limit = shape_.inline_value_bytes;
    if (refs.blob) {
      limit = std::min<uint64_t>(
          limit, uint64_t{refs.blob.raw_bytes} * shape_.alpha_num / shape_.alpha_den);
    }
    if (record.raw_body.size() <= limit / 2) return {};
    record.message = CAW_TRY(decode_message(record.kind, record.raw_body));
    record.is_raw = false;
  }
  return fold(record.message.value);
}

}  // namespace caw
