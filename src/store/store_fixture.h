// For this module's tests: a store on a device in memory, and small nodes to put into it.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "base/random.h"
#include "dev/memory_device.h"
#include "store/node_store.h"

namespace caw {

struct LeafRecord {
  std::string key;
  Value value;
};

/// A leaf, or run, of these records (in key order).
inline ImageRef make_block(NodeKind kind, const std::vector<LeafRecord>& records, Seq seq = 1) {
  SortedBlockBuilder builder;
  for (const LeafRecord& record : records) builder.add(record.key, Message::put(record.value));
  const bool owns_refs = builder.owns_refs();
  return ImageRef(make_ref<const BlockImage>(kind, builder.finish(), owns_refs, seq));
}

/// A leaf with one record: `bytes` bytes that do not compress, different for each `seed`.
inline ImageRef make_leaf(uint64_t seed, size_t bytes = 100) {
  Random random(seed);
  std::string text;
  while (text.size() < bytes) put_fixed(text, random.next());
  text.resize(bytes);
  return make_block(NodeKind::leaf, {{"key" + std::to_string(seed), inline_value(text)}});
}

inline ImageRef make_interior(const std::vector<NodeId>& children,
                              const std::vector<NodeId>& runs = {}, Height height = 1) {
  Interior node;
  node.height = height;
  for (size_t i = 0; i < children.size(); ++i) {
    Edge edge;
    if (i != 0) edge.lo = std::string(1, static_cast<char>(i));
    edge.child = children[i];
    edge.child_height = static_cast<Height>(height - 1);
    node.edges.push_back(std::move(edge));
  }
  if (node.edges.empty()) node.edges.push_back(Edge{});
  for (const NodeId run : runs) {
    RunRef ref;
    ref.run = run;
    ref.hi = kKeyEnd;
    ref.pos = runs.size() - node.runs.size();
    node.runs.push_back(std::move(ref));
  }
  node.next_pos = runs.size() + 1;
  return ImageRef(make_ref<const InteriorImage>(std::move(node)));
}

inline std::string contents(const Image& image) {
  if (image.kind() == NodeKind::interior) {
    return encode_interior(static_cast<const InteriorImage&>(image).node());
  }
  return static_cast<const BlockImage&>(image).bytes();
}

class StoreFixture : public ::testing::Test {
 protected:
  explicit StoreFixture(uint64_t blocks = 2 * kMinVolumeBlocks)
      : medium_(make_ref<MemoryImage>(blocks)) {}

  void SetUp() override {
    format(*medium_);
    open();
  }
  static void format(MemoryImage& medium) {
    const auto device = make_memory_device(Ref<MemoryImage>(&medium));
    Superblock superblock;
    superblock.block_count = medium.block_count();
    superblock.compression = Compression::lz4;
    ASSERT_TRUE(NodeStore::format(*device, superblock).has_value());
  }
  Result<void> try_open(uint64_t cache_bytes = 16U << 20) {
    store_.reset();
    StoreOptions options;
    options.cache_bytes = cache_bytes;
    auto opened = NodeStore::open(make_memory_device(medium_), options);
    if (!opened) return std::unexpected<Error>(opened.error());
    store_ = std::move(*opened);
    return {};
  }
  void open(uint64_t cache_bytes = 16U << 20) {
    const Result<void> opened = try_open(cache_bytes);
    ASSERT_TRUE(opened.has_value()) << opened.error().to_string();
  }

  NodeId publish_new(const ImageRef& image) {
    const NodeId id = store_->new_id();
    publish(id, image);
    return id;
  }
  void publish(NodeId id, const ImageRef& image) {
    const Gate::Shared shared(store_->gate());
    store_->publish(id, image, store_->open_epoch());
  }
  void add_ref(NodeId id, int64_t delta) {
    const Gate::Shared shared(store_->gate());
    store_->add_node_ref(id, delta, store_->open_epoch());
  }
  BlobRef write_blob(std::string_view bytes) {
    const Result<BlobRef> blob = store_->write_blob(bytes, SpaceClass::ordinary);
    EXPECT_TRUE(blob.has_value());
    const Gate::Shared shared(store_->gate());
    store_->commit_blob(*blob, store_->open_epoch());
    return *blob;
  }
  Epoch begin() {
    const Gate::Exclusive exclusive(store_->gate());
    return store_->begin_checkpoint();
  }
  void checkpoint() {
    begin();
    const Result<void> written = store_->write_checkpoint(1, false, 0);
    ASSERT_TRUE(written.has_value()) << written.error().to_string();
  }
  uint64_t reclaim_all() {
    uint64_t dropped = 0;
    while (true) {
      const Result<uint64_t> now = store_->reclaim(1000);
      EXPECT_TRUE(now.has_value()) << now.error().to_string();
      if (!now || *now == 0) return dropped;
      dropped += *now;
    }
  }
  std::string read_node(NodeId id) {
    const Result<ImageRef> image = store_->get(id);
    EXPECT_TRUE(image.has_value()) << image.error().to_string();
    return image ? contents(**image) : std::string();
  }
  Code error_of(NodeId id) {
    const Result<ImageRef> image = store_->get(id);
    return image ? Code::unknown : image.error().code;
  }
  uint64_t count(NodeId id) { return store_->node_count(id).value_or(UINT64_MAX); }
  uint64_t used() { return store_->space().used_blocks; }

  Ref<MemoryImage> medium_;
  std::unique_ptr<NodeStore> store_;
};

}  // namespace caw
