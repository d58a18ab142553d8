#include "store/node_entry.h"

#include <limits>

#include "base/assert.h"
#include "base/bytes.h"

namespace caw {
namespace {

constexpr uint8_t kKindMask = 0x03;
constexpr uint8_t kOwnsRefs = 0x04;
constexpr unsigned kCompressionShift = 3;
constexpr uint32_t kMaxStoredBytes = kMaxNodePayload + 4096;

}  // namespace

std::string encode_node_entry(const NodeEntry& entry) {
  std::string out;
  const auto shape = static_cast<unsigned>(entry.kind) | (entry.owns_refs ? kOwnsRefs : 0U) |
                     (static_cast<unsigned>(entry.compression) << kCompressionShift);
  put_fixed(out, static_cast<uint8_t>(shape));
  put_fixed(out, entry.height);
  put_fixed(out, entry.checksum);
  put_varint(out, raw(entry.addr));
  put_varint(out, entry.stored_bytes);
  put_varint(out, entry.birth);
  put_varint(out, entry.max_seq);
  put_varint(out, entry.owner);
  CAW_ASSERT(out.size() <= 64);
  return out;
}

Result<NodeEntry> decode_node_entry(std::string_view bytes) {
  Reader reader(bytes);
  const auto shape = reader.fixed<uint8_t>();
  NodeEntry entry;
  entry.height = reader.fixed<uint8_t>();
  entry.checksum = reader.fixed<uint64_t>();
  const uint64_t addr = reader.varint();
  const uint64_t stored_bytes = reader.varint();
  entry.birth = reader.varint();
  entry.max_seq = reader.varint();
  entry.owner = reader.varint();
  const auto kind = static_cast<uint8_t>(shape & kKindMask);
  const auto compression = static_cast<uint8_t>((shape >> kCompressionShift) & 0x03U);
  if (!reader.ok() || !reader.at_end() || kind == 0 || (shape >> 5U) != 0 ||
      compression > static_cast<uint8_t>(Compression::zstd) || addr == 0 || stored_bytes == 0 ||
      stored_bytes > kMaxStoredBytes || addr > std::numeric_limits<uint64_t>::max() / kBlockSize) {
    return fail(Code::node_entry, addr, "node table");
  }
  entry.addr = BlockAddr{addr};
  entry.stored_bytes = static_cast<uint32_t>(stored_bytes);
  entry.kind = NodeKind{kind};
  entry.owns_refs = (shape & kOwnsRefs) != 0;
  entry.compression = Compression{compression};
  if ((entry.kind == NodeKind::interior) != (entry.height > 0)) {
    return fail(Code::node_entry, addr, "node table: height");
  }
  return entry;
}

}  // namespace caw
