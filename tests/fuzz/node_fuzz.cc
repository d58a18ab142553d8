// open_node, with the checksum that the bytes have, and then the decoder of its payload.
#include "format/interior.h"
#include "format/node.h"
#include "format/sorted_block.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view stored = caw::as_input(data, size);
  if (stored.size() < caw::kNodeHeaderBytes) return 0;
  uint64_t id = 0;
  uint32_t stored_bytes = 0;
  std::memcpy(&id, stored.data() + 8, sizeof id);
  std::memcpy(&stored_bytes, stored.data() + 36, sizeof stored_bytes);
  const uint64_t checksum =
      caw::checksum64(stored.substr(0, caw::kNodeHeaderBytes + size_t{stored_bytes}));
  const caw::Result<caw::OpenedNode> node = caw::open_node(stored, caw::NodeId{id}, checksum);
  if (!node) return 0;
  FUZZ_CHECK(node->payload.size() <= caw::kMaxNodePayload);
  if (node->info.kind == caw::NodeKind::interior) {
    static_cast<void>(caw::decode_interior(node->payload));
  } else {
    static_cast<void>(caw::SortedBlock::open(node->payload));
  }
  if (id == 0) return 0;
  const caw::SealedNode again = caw::seal_node(node->info, node->payload, caw::Compression::lz4);
  const caw::Result<caw::OpenedNode> reopened =
      caw::open_node(again.bytes.view(), node->info.id, again.checksum);
  FUZZ_CHECK(reopened && reopened->info == node->info && reopened->payload == node->payload);
  return 0;
}
