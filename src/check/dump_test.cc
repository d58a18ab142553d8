#include "check/dump.h"

#include <gtest/gtest.h>

#include "check/describe.h"
#include "check/handmade_volume.h"
#include "schema/keys.h"
#include "schema/records.h"

namespace caw {
namespace {

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

std::string record_of(std::string name) {
  InodeRecord record;
  record.fields.mode = S_IFDIR | 0755;
  record.number = 20;
  record.name = std::move(name);
  return encode_inode(record);
}

void fill(HandmadeVolume& volume) {
  const BlobRef blob = volume.add_blob(std::string(9000, 's'));
  Interior root;
  root.edges.resize(1);
  root.edges[0].child = NodeId{2};
  volume.superblock.label = "pic\"ture";
  volume.add_interior(1, root);
  volume.add_block(
      2, NodeKind::leaf,
      {{dirent_key("", "file"), Message::put(inline_value("x"))},
       {record_key("", 17), Message::put(inline_value(record_of("photos"), NodeId{3}))},
       {record_key("", 18), Message::put(inline_value(record_of("copy"), NodeId{4}))}});
  root.edges[0].child = NodeId{5};
  root.next_pos = 3;
  root.edges[0].translation = {std::string("\0\4\1\x11", 4), std::string("\0", 1)};
  root.runs.resize(1);
  root.runs[0].run = NodeId{6};
  root.runs[0].hi = "\xff";
  root.runs[0].pos = 1;
  volume.add_interior(3, root);
  volume.add_interior(4, root);
  volume.add_block(5, NodeKind::leaf, {{chunk_key("", 20, 3), Message::put(blob_value(blob))}});
  volume.add_block(6, NodeKind::run, {{"k", Message::erase(7)}});
  volume.node_counts = {{5, 2}, {6, 2}};
  volume.finish();
}

TEST(Describe, Keys) {
  EXPECT_EQ(key_text(dirent_key("", "a b")), "meta name \"a b\"");
  EXPECT_EQ(key_text(record_key(body_path(body_path("", 17), 300), 20)), "meta /17 /300 #20");
  EXPECT_EQ(key_text(chunk_key(body_path("", 17), 20, 3)), "data /17 #20 +3");
  EXPECT_EQ(key_text(std::string("\0\4", 2)), "meta \\x04");
  EXPECT_EQ(key_text(""), "(first)");
  EXPECT_EQ(key_text("\xff"), "(end)");
  EXPECT_EQ(key_text("q\"\\"), "q\\\"\\\\");
  EXPECT_EQ(size_text(1023), "1023 B");
  EXPECT_EQ(size_text(1536), "1.5 KiB");
}

TEST(Dump, Superblocks) {
  HandmadeVolume volume;
  fill(volume);
  const std::string text = dump_superblocks(volume.device()).value();
  EXPECT_TRUE(contains(text, "superblock 0: not a cawfs volume")) << text;
  EXPECT_TRUE(contains(text, "superblock 1: current"));
  EXPECT_TRUE(contains(text, "epoch          7\n"));
}

TEST(Dump, NodeTable) {
  HandmadeVolume volume;
  fill(volume);
  const std::string text = dump_text(volume.device()).value();
  EXPECT_TRUE(contains(text, "6 nodes, 0 dead")) << text;
  EXPECT_TRUE(contains(text, "           5 leaf")) << text;
  const std::string cut = dump_text(volume.device(), {.max_nodes = 2}).value();
  EXPECT_TRUE(contains(cut, "... 4 more"));
}

TEST(Dump, Nodes) {
  HandmadeVolume volume;
  fill(volume);
  const std::string leaf = dump_node(volume.device(), NodeId{2}).value();
  EXPECT_TRUE(contains(leaf, "meta #17: put 134 B, tree 3, record of \"photos\"")) << leaf;
  const std::string interior = dump_node(volume.device(), NodeId{3}).value();
  EXPECT_TRUE(contains(interior, "edge [(first), (end)) -> node 5")) << interior;
  EXPECT_TRUE(contains(interior, "meta /17 => meta")) << interior;
  EXPECT_TRUE(contains(interior, "run 6 at 1")) << interior;
  const std::string blob = dump_node(volume.device(), NodeId{5}).value();
  EXPECT_TRUE(contains(blob, "data #20 +3: put 9000 B, blob at")) << blob;
  EXPECT_TRUE(
      contains(dump_node(volume.device(), NodeId{2}, {.max_entries = 1}).value(), "... 2 more"));
  EXPECT_EQ(dump_node(volume.device(), NodeId{99}).error().code, Code::node_absent);
}

TEST(Dump, Dot) {
  HandmadeVolume volume;
  fill(volume);
  const std::string dot = dump_dot(volume.device()).value();
  EXPECT_TRUE(contains(dot, "label=\"pic\\\"ture epoch 7")) << dot;
  EXPECT_TRUE(contains(dot, "n2 -> n3 [color=blue, penwidth=1.5, label=\"photos\"]")) << dot;
  EXPECT_TRUE(contains(dot, "n4 -> n5 [style=solid, label=\"meta /17 => meta\"]")) << dot;
  EXPECT_TRUE(contains(dot, "n3 -> n6 [style=dashed")) << dot;
  EXPECT_TRUE(contains(dot, "leaf 5, count 2\\n1 records\\n1 blobs, 8.8 KiB, 0 shared")) << dot;
  EXPECT_TRUE(contains(dot, "fillcolor=orange")) << dot;
  const std::string cut = dump_dot(volume.device(), {.max_nodes = 2}).value();
  EXPECT_TRUE(contains(cut, "not drawn")) << cut;
  EXPECT_FALSE(contains(cut, "n3 [")) << cut;
}

TEST(Dump, DamageIsShownAndNotFollowed) {
  HandmadeVolume volume;
  fill(volume);
  volume.damage(volume.addr_of(5), 80);
  EXPECT_EQ(dump_node(volume.device(), NodeId{5}).error().code, Code::node_checksum);
  EXPECT_TRUE(contains(dump_dot(volume.device()).value(), "checksum mismatch in a node"));
  EXPECT_EQ(dump_text(*make_memory_device(5000)).error().code, Code::not_a_volume);
}

}  // namespace
}  // namespace caw
