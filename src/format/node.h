// A node as stored: header, then the payload, perhaps compressed.  Pure; no I/O.
// Also blobs, which have no header: their BlobRef says everything.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/aligned_buffer.h"
#include "base/error.h"
#include "base/ids.h"
#include "format/compression.h"
#include "format/value.h"

namespace caw {

enum class NodeKind : uint8_t { leaf = 1, interior = 2, run = 3 };

inline constexpr uint32_t kNodeHeaderBytes = 64;
inline constexpr uint32_t kMaxNodePayload = 4U << 20;

struct NodeInfo {
  NodeId id = kNoNode;
  NodeKind kind = NodeKind::leaf;
  Height height = 0;
  bool owns_refs = false;       ///< some message owns a blob or a tree
  Epoch birth = 0;              ///< checkpoint that wrote this copy
  Seq max_seq = 0;
  friend bool operator==(const NodeInfo&, const NodeInfo&) = default;
};

/// Bytes ready to write at a block boundary (whole blocks, zero-padded).
struct SealedNode {
  AlignedBuffer bytes;
  uint32_t stored_bytes = 0;    ///< header and stored payload
  uint64_t checksum = 0;        ///< XXH3-64 of those bytes; kept in the node table
  Compression compression = Compression::none;
};
SealedNode seal_node(const NodeInfo& info, std::string_view payload, Compression wanted);

struct OpenedNode {
  NodeInfo info;
  std::string payload;
};
/// `stored` may reach to the end of the node's last block; what follows the node must be zero.
/// Requires nothing else of `stored`.  Fails: node_checksum, node_identity, node_header, decompress.
/// The payload itself is validated by SortedBlock::open or decode_interior.
Result<OpenedNode> open_node(std::string_view stored, NodeId expected_id,
                             uint64_t expected_checksum);

struct SealedBlob {
  AlignedBuffer bytes;
  BlobRef ref;                  ///< addr still to be set
};
SealedBlob seal_blob(std::string_view raw, Compression wanted);
/// `stored` is exactly ref.stored_bytes long.  Fails: blob_checksum, decompress.
Result<std::string> open_blob(const BlobRef& ref, std::string_view stored);

/// What a repair leaves in place of file data that were damaged: a blob that is whole but cannot be
/// decompressed, so that reading it fails (docs/format.md).  Requires: 0 < raw_bytes <=
/// kMaxBlobBytes.
SealedBlob seal_lost_blob(uint32_t raw_bytes);
/// `stored`, verified by its checksum, is such a blob.
bool is_lost_blob(const BlobRef& ref, std::string_view stored);

}  // namespace caw
