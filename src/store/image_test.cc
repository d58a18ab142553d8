#include "store/image.h"

#include <map>

#include "store/store_fixture.h"

namespace caw {
namespace {

BlobRef blob_at(uint64_t addr) {
  return BlobRef{BlockAddr{addr}, 4096, 4096, 99, Compression::none};
}

struct Counted {
  std::map<NodeId, int> nodes;
  std::map<BlockAddr, int> blobs;
};

Counted count_refs(const Image& image) {
  Counted counted;
  visit_refs(image, RefVisitor{
                        .node = [&](NodeId id) { ++counted.nodes[id]; },
                        .blob = [&](const BlobRef& blob) { ++counted.blobs[blob.addr]; },
                    });
  return counted;
}

TEST(Image, LeafRefsAreItsTreesAndBlobs) {
  Value both = blob_value(blob_at(70));
  both.tree = NodeId{5};
  const ImageRef leaf = make_block(NodeKind::leaf, {{"a", blob_value(blob_at(60))},
                                                    {"b", inline_value("x")},
                                                    {"c", inline_value("", NodeId{5})},
                                                    {"d", both}});
  EXPECT_TRUE(leaf->owns_refs());
  const Counted counted = count_refs(*leaf);
  EXPECT_EQ(counted.nodes, (std::map<NodeId, int>{{NodeId{5}, 2}}));
  EXPECT_EQ(counted.blobs, (std::map<BlockAddr, int>{{BlockAddr{60}, 1}, {BlockAddr{70}, 1}}));
}

TEST(Image, InteriorRefsAreEdgesRunsAndEmbeddedMessages) {
  Interior node = static_cast<const InteriorImage&>(
                      *make_interior({NodeId{3}, NodeId{4}, kNoNode, NodeId{3}}, {NodeId{8}}))
                      .node();
  SortedBlockBuilder builder;
  builder.add("a", Message::put(inline_value("", NodeId{9})));
  builder.add("b", Message::put(blob_value(blob_at(61))));
  node.inline_block = builder.finish();
  const InteriorImage image(std::move(node));
  EXPECT_TRUE(image.owns_refs());
  const Counted counted = count_refs(image);
  EXPECT_EQ(counted.nodes, (std::map<NodeId, int>{
                               {NodeId{3}, 2}, {NodeId{4}, 1}, {NodeId{8}, 1}, {NodeId{9}, 1}}));
  EXPECT_EQ(counted.blobs, (std::map<BlockAddr, int>{{BlockAddr{61}, 1}}));
}

TEST(Image, InteriorWithoutMessagesOwnsNone) {
  const ImageRef image = make_interior({NodeId{3}});
  EXPECT_FALSE(image->owns_refs());
  EXPECT_EQ(count_refs(*image).nodes.size(), 1U);
  EXPECT_EQ(static_cast<const InteriorImage&>(*image).inline_block().count(), 0U);
}

TEST(Image, MemoryFollowsContents) {
  EXPECT_GE(make_leaf(1, 50000)->memory_bytes(), 50000U);
  EXPECT_LE(make_leaf(1, 50000)->memory_bytes(), 51000U);
  EXPECT_GE(make_interior(std::vector<NodeId>(30, NodeId{4}))->memory_bytes(), 30 * sizeof(Edge));
}

}  // namespace
}  // namespace caw
