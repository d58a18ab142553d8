// Images: what a node is at one moment, in memory, immutable.
//
// A node's id leads to its current image; changing a node means publishing a new image under its
// id.  Whoever holds a Ref may go on reading an old one.  superseded() becomes true when a newer
// image was published (or the node dropped); a reader that took a child through an image which is
// superseded by then starts again (docs/locking.md).
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>

#include "base/ref.h"
#include "format/interior.h"
#include "format/key_filter.h"
#include "format/node.h"
#include "format/sorted_block.h"

namespace caw {

class Image : public RefCounted {
 public:
  NodeKind kind() const { return kind_; }
  bool superseded() const { return superseded_.load(std::memory_order_acquire); }
  void mark_superseded() const { superseded_.store(true, std::memory_order_release); }
  /// Memory it takes, about.
  uint64_t memory_bytes() const { return memory_bytes_; }
  Seq max_seq() const { return max_seq_; }
  /// Some message in it owns a tree or a blob (edges and runs are not meant).
  bool owns_refs() const { return owns_refs_; }

 protected:
  Image(NodeKind kind, uint64_t memory_bytes, Seq max_seq, bool owns_refs)
      : kind_(kind), owns_refs_(owns_refs), memory_bytes_(memory_bytes), max_seq_(max_seq) {}

 private:
  NodeKind kind_;
  bool owns_refs_;
  mutable std::atomic<bool> superseded_{false};
  uint64_t memory_bytes_;
  Seq max_seq_;
};

/// A leaf or a run: one sorted block.
class BlockImage final : public Image {
 public:
  /// `bytes` were validated or just built.
  BlockImage(NodeKind kind, std::string bytes, bool owns_refs, Seq max_seq)
      : Image(kind, memory_bytes_of(kind, bytes), max_seq, owns_refs),
        bytes_(tight(std::move(bytes))),
        block_(SortedBlock::trust(bytes_)) {}
  const SortedBlock& block() const { return block_; }
  const std::string& bytes() const { return bytes_; }
  /// False: there is no message for this key (range erases are not meant).  For runs.
  bool may_contain(uint64_t key_hash) const;

 private:
  static uint64_t memory_bytes_of(NodeKind kind, std::string_view bytes);
  /// Without the slack a growing string leaves behind, so that memory_bytes() is honest.
  static std::string tight(std::string bytes);

  std::string bytes_;
  SortedBlock block_;
  LazyKeyFilter filter_;
};

class InteriorImage final : public Image {
 public:
  explicit InteriorImage(Interior node);
  const Interior& node() const { return node_; }
  /// The embedded run; empty block when there is none.
  const SortedBlock& inline_block() const { return inline_; }

 private:
  Interior node_;
  SortedBlock inline_;
};

using ImageRef = Ref<const Image>;

/// Calls back for each reference the image owns: child nodes and runs (count times where an
/// interior refers to one several times), trees and blobs in messages.
struct RefVisitor {
  std::function<void(NodeId)> node;
  std::function<void(const BlobRef&)> blob;
};
void visit_refs(const Image& image, const RefVisitor& visitor);

}  // namespace caw
