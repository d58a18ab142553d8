#include "format/node.h"

#include <algorithm>
#include <cstring>

#include "base/assert.h"
#include "base/bytes.h"

namespace caw {
namespace {

/// No LZ4 block, nor is any front part of it one of that many bytes.
constexpr std::string_view kLostMark = "CAWLOST!";

/// Node header: the first 64 bytes of a node.  Integers are little-endian.
///   off size field
///     0    4 magic         "CAWN"
///     4    1 version       1
///     5    1 kind          1 leaf, 2 interior, 3 run
///     6    1 height        0 = leaf or run
///     7    1 compression   0 none, 1 lz4, 2 zstd
///     8    8 id            exposes a misdirected write
///    16    8 birth         checkpoint that wrote this copy
///    24    8 max_seq       newest operation in it
///    32    4 raw_bytes     payload after decompression
///    36    4 stored_bytes  payload as stored, right behind the header
///    40    1 flags         bit 0: owns references
///    41   23 reserved      zero on write, checked on read
/// The checksum of header and stored payload stands in the node table, so that a node which is
/// whole but stale is noticed as well.
struct NodeHeader {
  char magic[4];
  uint8_t version;
  uint8_t kind;
  uint8_t height;
  uint8_t compression;
  uint64_t id;
  uint64_t birth;
  uint64_t max_seq;
  uint32_t raw_bytes;
  uint32_t stored_bytes;
  uint8_t flags;
  uint8_t reserved[23];
};
static_assert(sizeof(NodeHeader) == kNodeHeaderBytes &&
              std::has_unique_object_representations_v<NodeHeader>);

constexpr char kMagic[4] = {'C', 'A', 'W', 'N'};
constexpr uint8_t kVersion = 1;
constexpr uint8_t kOwnsRefs = 1;

bool all_zero(std::string_view bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](char byte) { return byte == 0; });
}

Result<NodeInfo> parse_header(const NodeHeader& header) {
  const auto bad = [&](const char* where) { return fail(Code::node_header, header.id, where); };
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) return bad("magic");
  if (header.version != kVersion) return bad("version");
  if (header.kind < 1 || header.kind > 3) return bad("kind");
  if (header.compression > static_cast<uint8_t>(Compression::zstd)) return bad("compression");
  if ((header.flags & ~kOwnsRefs) != 0) return bad("flags");
  for (const uint8_t byte : header.reserved) {
    if (byte != 0) return bad("reserved");
  }
  const auto kind = static_cast<NodeKind>(header.kind);
  if ((header.height == 0) == (kind == NodeKind::interior)) return bad("height");
  if (header.raw_bytes > kMaxNodePayload) return bad("size");
  NodeInfo info;
  info.id = NodeId{header.id};
  info.kind = kind;
  info.height = header.height;
  info.owns_refs = (header.flags & kOwnsRefs) != 0;
  info.birth = header.birth;
  info.max_seq = header.max_seq;
  return info;
}

}  // namespace

SealedNode seal_node(const NodeInfo& info, std::string_view payload, Compression wanted) {
  CAW_ASSERT(info.id != kNoNode && payload.size() <= kMaxNodePayload);
  std::string stored;
  const Compression method = compress(wanted, payload, &stored);
  NodeHeader header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kVersion;
  header.kind = static_cast<uint8_t>(info.kind);
  header.height = info.height;
  header.compression = static_cast<uint8_t>(method);
  header.id = raw(info.id);
  header.birth = info.birth;
  header.max_seq = info.max_seq;
  header.raw_bytes = static_cast<uint32_t>(payload.size());
  header.stored_bytes = static_cast<uint32_t>(stored.size());
  header.flags = info.owns_refs ? kOwnsRefs : 0;

  SealedNode sealed;
  sealed.stored_bytes = static_cast<uint32_t>(sizeof(header) + stored.size());
  sealed.bytes = AlignedBuffer(sealed.stored_bytes);
  std::memcpy(sealed.bytes.data(), &header, sizeof(header));
  if (!stored.empty()) {
    std::memcpy(sealed.bytes.data() + sizeof(header), stored.data(), stored.size());
  }
  sealed.checksum = checksum64(sealed.bytes.view().substr(0, sealed.stored_bytes));
  sealed.compression = method;
  return sealed;
}

Result<OpenedNode> open_node(std::string_view stored, NodeId expected_id,
                             uint64_t expected_checksum) {
  if (stored.size() < sizeof(NodeHeader)) {
    return fail(Code::node_checksum, raw(expected_id), "size");
  }
  NodeHeader header;
  std::memcpy(&header, stored.data(), sizeof(header));
  const std::string_view behind = stored.substr(sizeof(header));
  if (header.stored_bytes > behind.size() || !all_zero(behind.substr(header.stored_bytes)) ||
      checksum64(stored.substr(0, sizeof(header) + header.stored_bytes)) != expected_checksum) {
    return fail(Code::node_checksum, raw(expected_id), "open_node");
  }
  OpenedNode node;
  node.info = CAW_TRY(parse_header(header));
  if (node.info.id != expected_id) return fail(Code::node_identity, header.id, "open_node");
  node.payload = CAW_TRY(decompress(static_cast<Compression>(header.compression),
                                    behind.substr(0, header.stored_bytes), header.raw_bytes));
  return node;
}

SealedBlob seal_blob(std::string_view raw, Compression wanted) {
  CAW_ASSERT(!raw.empty() && raw.size() <= kMaxBlobBytes);
  std::string stored;
  SealedBlob sealed;
  sealed.ref.compression = compress(wanted, raw, &stored);
  sealed.ref.stored_bytes = static_cast<uint32_t>(stored.size());
  sealed.ref.raw_bytes = static_cast<uint32_t>(raw.size());
  sealed.ref.checksum = checksum64(stored);
  sealed.bytes = AlignedBuffer(stored.size());
  std::memcpy(sealed.bytes.data(), stored.data(), stored.size());
  return sealed;
}

SealedBlob seal_lost_blob(uint32_t raw_bytes) {
  CAW_ASSERT(raw_bytes > 0 && raw_bytes <= kMaxBlobBytes);
  const std::string_view stored = kLostMark.substr(0, raw_bytes);
  SealedBlob sealed;
  sealed.ref.compression = Compression::lz4;
  sealed.ref.stored_bytes = static_cast<uint32_t>(stored.size());
  sealed.ref.raw_bytes = raw_bytes;
  sealed.ref.checksum = checksum64(stored);
  sealed.bytes = AlignedBuffer(stored.size());
  std::memcpy(sealed.bytes.data(), stored.data(), stored.size());
  return sealed;
}

bool is_lost_blob(const BlobRef& ref, std::string_view stored) {
  return ref.compression == Compression::lz4 && stored == kLostMark.substr(0, ref.raw_bytes);
}

Result<std::string> open_blob(const BlobRef& ref, std::string_view stored) {
  if (stored.size() != ref.stored_bytes || checksum64(stored) != ref.checksum) {
    return fail(Code::blob_checksum, raw(ref.addr), "open_blob");
  }
  return decompress(ref.compression, stored, ref.raw_bytes);
}

}  // namespace caw
