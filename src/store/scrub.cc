// Scrub: the nodes and blobs of the last checkpoint, verified on the device.
//
// A node is looked up in the table, read and verified without a lock.  Its blocks are given to
// something else only after a checkpoint whose table no longer has this entry; so if it fails and
// the table still says the same, it is damaged.  A blob is given up by the checkpoint that
// rewrites or drops the node that referred to it, so the same question answers for both.
#include <utility>

#include "format/interior.h"
#include "format/node.h"
#include "format/sorted_block.h"
#include "store/store_impl.h"

namespace caw {
namespace {

void add_blobs(std::string_view bytes, std::vector<BlobRef>& out) {
  const Result<SortedBlock> block = SortedBlock::open(bytes);
  if (!block) return;
  SortedBlock::Iterator it(*block);
  for (it.seek_to_first(); it.valid(); it.next()) {
    const OwnedRefs refs = peek_refs(it.kind(), it.body());
    if (refs.blob) out.push_back(refs.blob);
  }
}

std::vector<BlobRef> blobs_of(const OpenedNode& node) {
  std::vector<BlobRef> out;
  if (node.info.kind != NodeKind::interior) {
    add_blobs(node.payload, out);
  } else if (const Result<Interior> interior = decode_interior(node.payload)) {
    if (!interior->inline_block.empty()) add_blobs(interior->inline_block, out);
  }
  return out;
}

/// The bytes must mean something, too.
Result<void> check_payload(const OpenedNode& node) {
  if (node.info.kind == NodeKind::interior) {
    CAW_TRY(decode_interior(node.payload));
  } else {
    CAW_TRY(SortedBlock::open(node.payload));
  }
  return {};
}

}  // namespace

/// The first entry of an id from `from` on.
Result<std::optional<std::pair<NodeId, NodeEntry>>> NodeStoreImpl::next_entry(uint64_t from) {
  std::optional<std::pair<NodeId, std::string>> found;
  CAW_TRY(meta_->scan(MetaSpace::node, from, [&](uint64_t id, std::string_view value) {
    found.emplace(NodeId{id}, value);
    return false;
  }));
  if (!found) return std::nullopt;
  return std::pair{found->first, CAW_TRY(decode_node_entry(found->second))};
}

Result<bool> NodeStoreImpl::is_current(NodeId id, const NodeEntry& entry) {
  const std::optional<NodeEntry> now = CAW_TRY(find_entry(id));
  return now && *now == entry;
}

/// Nothing: damaged, which was noted, or gone.
Result<std::optional<OpenedNode>> NodeStoreImpl::scrub_node(NodeId id, const NodeEntry& entry,
                                                            ScrubSlice& slice) {
  AlignedBuffer stored(entry.stored_bytes);
  Result<void> checked = device_->read(entry.addr, stored.span());
  slice.bytes += stored.size();
  if (checked) {
    Result<OpenedNode> node = open_node(stored.view(), id, entry.checksum);
    checked = node ? check_payload(*node) : std::unexpected<Error>(node.error());
    if (checked) {
      ++slice.nodes;
      return std::move(*node);
    }
  }
  if (CAW_TRY(is_current(id, entry))) {
    slice.errors.push_back({checked.error().code, id, kNoBlock});
  }
  return std::nullopt;
}

Result<void> NodeStoreImpl::scrub_blob(NodeId id, const NodeEntry& entry, const BlobRef& blob,
                                       ScrubSlice& slice) {
  AlignedBuffer stored(blob.stored_bytes);
  Result<void> checked = device_->read(blob.addr, stored.span());
  slice.bytes += stored.size();
  if (checked) {
    const std::string_view bytes = stored.view().substr(0, blob.stored_bytes);
    const Result<std::string> opened = open_blob(blob, bytes);
    if (opened) {
      ++slice.blobs;
      return {};
    }
    if (opened.error().code == Code::decompress && is_lost_blob(blob, bytes)) {
      ++slice.lost_blobs;
      return {};
    }
    checked = std::unexpected<Error>(opened.error());
  }
  if (CAW_TRY(is_current(id, entry))) {
    slice.errors.push_back({checked.error().code, id, blob.addr});
  }
  return {};
}

Result<ScrubSlice> NodeStoreImpl::scrub(const ScrubCursor& from, uint64_t max_bytes,
                                        size_t max_errors) {
  ScrubSlice slice;
  slice.next = from;
  const auto is_full = [&] {
    return slice.bytes >= max_bytes || slice.errors.size() >= max_errors;
  };
  while (!is_full()) {
    const auto found = CAW_TRY(next_entry(slice.next.node));
    if (!found) {
      slice.done = true;
      break;
    }
    const auto& [id, entry] = *found;
    const std::optional<OpenedNode> node = CAW_TRY(scrub_node(id, entry, slice));
    const std::vector<BlobRef> blobs = node ? blobs_of(*node) : std::vector<BlobRef>{};
    const bool goes_on = raw(id) == from.node && entry.checksum == from.node_checksum;
    uint64_t next = goes_on && slice.next.node == from.node ? from.blob : 0;
    if (node && next > 0) --slice.nodes;  // counted before
    for (bool stop = false; next < blobs.size() && !stop; stop = is_full()) {
      CAW_TRY(scrub_blob(id, entry, blobs[next], slice));
      ++next;
    }
    if (next < blobs.size()) {
      slice.next = {raw(id), next, entry.checksum};
      break;
    }
    slice.next = {raw(id) + 1, 0, 0};
  }
  return slice;
}

}  // namespace caw
