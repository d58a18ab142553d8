#include "store/image.h"

#include <utility>

namespace caw {
namespace {

/// Allocations of a string beyond what fits into the string itself.
uint64_t heap_bytes(const std::string& text) { return text.capacity() > 15 ? text.capacity() + 16 : 0; }

uint64_t heap_bytes(const Translation& translation) {
  return heap_bytes(translation.strip) + heap_bytes(translation.prepend);
}

uint64_t interior_memory_bytes(const Interior& node) {
  uint64_t bytes = sizeof(InteriorImage) + heap_bytes(node.hi) + heap_bytes(node.inline_block) +
                   node.edges.capacity() * sizeof(Edge) + node.runs.capacity() * sizeof(RunRef);
  for (const Edge& edge : node.edges) bytes += heap_bytes(edge.lo) + heap_bytes(edge.translation);
  for (const RunRef& run : node.runs) {
    bytes += heap_bytes(run.lo) + heap_bytes(run.hi) + heap_bytes(run.translation);
  }
  return bytes;
}

SortedBlock trusted_block(std::string_view bytes) {
  return bytes.empty() ? SortedBlock() : SortedBlock::trust(bytes);
}

bool owns_refs_in(const SortedBlock& block) {
  SortedBlock::Iterator it(block);
  for (it.seek_to_first(); it.valid(); it.next()) {
    if (peek_refs(it.kind(), it.body()).any()) return true;
  }
  return false;
}

void visit_block(const SortedBlock& block, const RefVisitor& visitor) {
  SortedBlock::Iterator it(block);
  for (it.seek_to_first(); it.valid(); it.next()) {
    const OwnedRefs refs = peek_refs(it.kind(), it.body());
    if (refs.tree != kNoNode) visitor.node(refs.tree);
    if (refs.blob) visitor.blob(refs.blob);
  }
}

}  // namespace

uint64_t BlockImage::memory_bytes_of(NodeKind kind, std::string_view bytes) {
  const uint64_t filter =
      kind == NodeKind::run ? KeyFilter::memory_bytes(SortedBlock::trust(bytes).count()) : 0;
  return bytes.size() + filter + 160;
}

bool BlockImage::may_contain(uint64_t key_hash) const {
  const auto build = [this] {
    KeyFilter filter(block_.count());
    SortedBlock::Iterator it(block_);
    for (it.seek_to_first(); it.valid(); it.next()) filter.add(KeyFilter::hash(it.key()));
    return filter;
  };
  return filter_.get(build).may_contain(key_hash);
}

std::string BlockImage::tight(std::string bytes) {
  if (bytes.capacity() > bytes.size() + bytes.size() / 8) bytes.shrink_to_fit();
  return bytes;
}

InteriorImage::InteriorImage(Interior node)
    : Image(NodeKind::interior, interior_memory_bytes(node), node.max_seq,
            owns_refs_in(trusted_block(node.inline_block))),
      node_(std::move(node)),
      inline_(trusted_block(node_.inline_block)) {}

void visit_refs(const Image& image, const RefVisitor& visitor) {
  if (image.kind() != NodeKind::interior) {
    if (image.owns_refs()) visit_block(static_cast<const BlockImage&>(image).block(), visitor);
    return;
  }
  const auto& interior = static_cast<const InteriorImage&>(image);
  for (const Edge& edge : interior.node().edges) {
    if (edge.child != kNoNode) visitor.node(edge.child);
  }
  for (const RunRef& run : interior.node().runs) visitor.node(run.run);
  if (image.owns_refs()) visit_block(interior.inline_block(), visitor);
}

}  // namespace caw
