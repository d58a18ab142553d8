#include "check/check.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/random.h"
#include "check/handmade_volume.h"

namespace caw {
namespace {

Edge edge(std::string lo, uint64_t child, Height height) {
  Edge out;
  out.lo = std::move(lo);
  out.child = NodeId{child};
  out.child_height = height;
  return out;
}

RunRef run_ref(uint64_t id, uint64_t pos) {
  RunRef out;
  out.run = NodeId{id};
  out.hi = kKeyEnd;
  out.pos = pos;
  return out;
}

Interior interior(Height height, std::vector<Edge> edges, std::vector<RunRef> runs = {}) {
  Interior node;
  node.height = height;
  node.next_pos = 10;
  node.edges = std::move(edges);
  node.runs = std::move(runs);
  return node;
}

Message blob_put(const BlobRef& blob) { return Message::put(blob_value(blob)); }
Message tree_put(uint64_t tree) { return Message::put(inline_value("d", NodeId{tree})); }

/// The system tree (1, 2, leaf 3, run 4) owns trees 5 and 6, which share leaf 7 and run 8; a blob
/// is shared by leaf 7 and run 8; node 9 is dead and holds leaf 10 and another blob.
void fill(HandmadeVolume& volume) {
  const BlobRef shared = volume.add_blob(std::string(9000, 's'));
  const BlobRef single = volume.add_blob(std::string(20'000, 'x'));
  volume.add_interior(1, interior(2, {edge("", 2, 1)}, {run_ref(4, 3)}));
  volume.add_interior(2, interior(1, {edge("", 3, 0), edge("t", 0, 0)}));
  volume.add_block(3, NodeKind::leaf, {{"a", tree_put(5)}, {"b", Message::put(inline_value("x"))}});
  volume.add_block(4, NodeKind::run, {{"c", tree_put(6)}, {"d", Message::erase(3)}});
  volume.add_interior(5, interior(1, {edge("", 7, 0)}, {run_ref(8, 2)}));
  volume.add_interior(6, interior(1, {edge("", 7, 0), edge("m", 7, 0)}, {run_ref(8, 2)}));
  volume.add_block(7, NodeKind::leaf, {{"k", blob_put(shared)}});
  volume.add_block(8, NodeKind::run, {{"k", blob_put(shared)}});
  volume.add_interior(9, interior(1, {edge("", 10, 0)}));
  volume.add_block(10, NodeKind::leaf, {{"z", blob_put(single)}});
  volume.node_counts = {{7, 3}, {8, 2}};
  volume.blob_counts = {{raw(shared.addr), 2}};
  volume.dead = {9};
}

std::vector<Code> codes(const CheckReport& report) {
  std::vector<Code> out;
  for (const Finding& finding : report.findings) out.push_back(finding.code);
  std::ranges::sort(out);
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::string texts(const CheckReport& report) {
  std::string out;
  for (const Finding& finding : report.findings) out += finding.text + "\n";
  return out;
}

/// Codes found in the sample volume after `change`; the volume is finished in between.
template <typename Change>
std::vector<Code> found_with(Change change) {
  HandmadeVolume volume;
  fill(volume);
  change(volume);
  volume.finish();
  const Result<CheckReport> report = check_volume(volume.device());
  EXPECT_TRUE(report);
  return report ? codes(*report) : std::vector<Code>{};
}
template <typename Change>
std::vector<Code> found_after(Change change) {
  HandmadeVolume volume;
  fill(volume);
  volume.finish();
  change(volume);
  const Result<CheckReport> report = check_volume(volume.device());
  EXPECT_TRUE(report);
  return report ? codes(*report) : std::vector<Code>{};
}

using Codes = std::vector<Code>;

TEST(Check, SoundVolume) {
  HandmadeVolume volume;
  fill(volume);
  volume.finish();
  const Result<CheckReport> report = check_volume(volume.device());
  ASSERT_TRUE(report);
  EXPECT_TRUE(report->is_sound()) << texts(*report);
  const CheckFigures& figures = report->figures;
  EXPECT_EQ(figures.epoch, 7U);
  EXPECT_EQ(figures.interiors, 5U);
  EXPECT_EQ(figures.leaves, 3U);
  EXPECT_EQ(figures.runs, 2U);
  EXPECT_EQ(figures.trees, 3U);
  EXPECT_EQ(figures.dead_nodes, 1U);
  EXPECT_EQ(figures.shared_nodes, 2U);
  EXPECT_EQ(figures.blobs, 2U);
  EXPECT_EQ(figures.shared_blobs, 1U);
  EXPECT_EQ(figures.records, 4U);
  EXPECT_EQ(figures.messages, 3U);
  EXPECT_EQ(figures.blob_raw_bytes, 29'000U);
  EXPECT_EQ(figures.used_blocks + figures.free_blocks, HandmadeVolume::kBlocks);
  EXPECT_EQ(figures.max_height, 2U);
}

TEST(Check, NoVolume) {
  const auto device = make_memory_device(5000);
  EXPECT_EQ(check_volume(*device).error().code, Code::not_a_volume);
  HandmadeVolume volume;
  volume.superblock.block_count = HandmadeVolume::kBlocks + 1;
  volume.finish();
  EXPECT_EQ(check_volume(volume.device()).error().code, Code::volume_truncated);
}

TEST(Check, OlderSuperblockIsTheFallBack) {
  HandmadeVolume volume;
  fill(volume);
  volume.finish();
  volume.damage(0, 100);  // never written here: a torn write of the older one is no damage
  EXPECT_TRUE(check_volume(volume.device()).value().is_sound());
  volume.damage(1, 100);
  EXPECT_EQ(check_volume(volume.device()).error().code, Code::superblock_damaged);
}

TEST(Check, Counts) {
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.node_counts[7] = 2; }), Codes{Code::check_count});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.node_counts[7] = 4; }), Codes{Code::check_count});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.node_counts.erase(8); }),
            Codes{Code::check_count});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.node_counts[3] = 2; }), Codes{Code::check_count});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.node_counts[3] = 1; }), Codes{Code::check_count});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.node_counts[99] = 2; }), Codes{Code::check_count});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.blob_counts.begin()->second = 3; }),
            Codes{Code::check_count});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.blob_counts.clear(); }), Codes{Code::check_count});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.blob_counts[20'000] = 2; }),
            Codes{Code::check_count});
}

TEST(Check, DeadListAndUnreachableNodes) {
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.dead.clear(); }), Codes{Code::check_unreachable});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.dead = {9, 88}; }), Codes{Code::check_dead});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.dead = {3, 9}; }), Codes{Code::check_dead});
  EXPECT_EQ(found_with([](HandmadeVolume& v) {
              v.add_block(20, NodeKind::leaf, {{"q", tree_put(21)}});
              v.add_interior(21, interior(1, {edge("", 20, 0)}));
            }),
            Codes{Code::check_unreachable})
      << "two nodes that only hold each other";
}

TEST(Check, References) {
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.forget_node(7); })[0], Code::node_absent);
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.superblock.system_tree = NodeId{50}; }),
            Codes{Code::node_absent});
  EXPECT_EQ(found_with([](HandmadeVolume& v) {
              v.add_interior(5, interior(1, {edge("", 8, 0)}, {run_ref(7, 2)}));
            }),
            (Codes{Code::check_leaked, Code::check_reference}))
      << "a run as child, a leaf as run (and the block of the copy replaced by hand)";
  EXPECT_EQ(found_with([](HandmadeVolume& v) {
              v.add_block(3, NodeKind::leaf, {{"a", tree_put(5)}, {"b", tree_put(7)}});
              v.node_counts[7] = 4;
            }),
            (Codes{Code::check_leaked, Code::check_reference}))
      << "a record that owns a leaf";
  EXPECT_EQ(found_with([](HandmadeVolume& v) {
              v.add_interior(30, interior(3, {edge("", 2, 1)}));
              v.add_interior(31, interior(2, {edge("", 30, 1)}));
              v.dead = {9, 31};
              v.node_counts[2] = 2;
            }),
            Codes{Code::node_height});
}

/// A shared leaf may hold the record of a tree that shares it, outside the bounds of its edge.
TEST(Check, CyclesOfReferencesAreCounted) {
  HandmadeVolume volume;
  fill(volume);
  volume.add_block(11, NodeKind::leaf, {{"up", tree_put(12)}});
  volume.add_interior(12, interior(1, {edge("", 11, 0)}));
  volume.add_interior(13, interior(2, {edge("", 12, 1)}));
  volume.dead = {9, 13};
  volume.node_counts[12] = 2;
  volume.finish();
  const CheckReport report = check_volume(volume.device()).value();
  EXPECT_TRUE(report.is_sound()) << texts(report);
  EXPECT_EQ(report.figures.reference_cycles, 1U);
}

TEST(Check, Blocks) {
  EXPECT_EQ(found_with([](HandmadeVolume& v) {
              v.leaked = {20'000, 20'001, 20'500};
            }),
            Codes{Code::check_leaked});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.unmarked = {v.addr_of(7)}; }),
            Codes{Code::check_unmarked});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.unmarked = {1}; }), Codes{Code::check_unmarked})
      << "a superblock";
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.free_error = 1; }), Codes{Code::check_figures});
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.flip_bitmap = 1; }), Codes{Code::bitmap_damaged});
  EXPECT_TRUE(std::ranges::count(
      found_with([](HandmadeVolume& v) { v.move_node(3, v.addr_of(4)); }), Code::check_double_use));
  EXPECT_TRUE(std::ranges::count(found_with([](HandmadeVolume& v) { v.move_node(3, 2); }),
                                 Code::check_double_use));
  EXPECT_TRUE(
      std::ranges::count(found_with([](HandmadeVolume& v) { v.move_node(3, uint64_t{1} << 60); }),
                         Code::check_double_use));
}

TEST(Check, Damage) {
  EXPECT_EQ(found_after([](HandmadeVolume& v) { v.damage(v.addr_of(7), 70); }),
            Codes{Code::node_checksum});
  EXPECT_EQ(found_after([](HandmadeVolume& v) { v.damage(HandmadeVolume::kFixed, 5); }),
            Codes{Code::blob_checksum});
  EXPECT_EQ(found_after([](HandmadeVolume& v) { v.damage(3, 100); })[0], Code::region_table);
  EXPECT_TRUE(std::ranges::count(
      found_after([](HandmadeVolume& v) { v.damage(raw(v.superblock.meta_root.addr), 40); }),
      Code::meta_page));
  EXPECT_TRUE(std::ranges::count(found_with([](HandmadeVolume& v) { v.page_address_error = 1; }),
                                 Code::meta_page));
}

TEST(Check, Figures) {
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.superblock.counters[0] = 10; }),
            Codes{Code::check_figures})
      << "node 10 was never drawn";
  EXPECT_EQ(found_with([](HandmadeVolume& v) { v.superblock.epoch = 6; })[0], Code::check_figures);
}

TEST(Check, HeadersAreCompared) {
  EXPECT_EQ(found_with([](HandmadeVolume& v) {
              SortedBlockBuilder builder;
              builder.add("a", tree_put(5));
              v.add_node({NodeId{40}, NodeKind::run, 0, false, 7, 10}, builder.finish());
              v.node_counts[5] = 2;
              v.dead = {9, 40};
            }),
            Codes{Code::node_header})
      << "owns references, but says it does not";
  EXPECT_EQ(found_with([](HandmadeVolume& v) {
              v.add_block(40, NodeKind::leaf, {{"a", Message::erase(1)}});
              v.dead = {9, 40};
            }),
            Codes{Code::node_payload})
      << "a leaf with an erase";
}

TEST(Check, FindingsAreBounded) {
  HandmadeVolume volume;
  fill(volume);
  for (uint64_t block = 20'000; block < 22'000; block += 2) volume.leaked.push_back(block);
  volume.finish();
  const CheckReport report = check_volume(volume.device(), {.max_findings = 10}).value();
  EXPECT_EQ(report.findings.size(), 10U);
  EXPECT_EQ(report.finding_count, 1000U);
}

TEST(Check, AnyFlippedBitOfWhatIsUsedIsFoundOrHarmless) {
  HandmadeVolume volume;
  fill(volume);
  volume.finish();
  const uint64_t end = raw(volume.superblock.meta_root.addr) + 1;
  Random random(5);
  size_t found = 0;
  for (int round = 0; round < 3000; ++round) {
    const uint64_t block = 1 + random.below(end - 1);
    const size_t offset = random.below(kBlockSize);
    volume.damage(block, offset);
    const Result<CheckReport> report = check_volume(volume.device());
    if (!report || !report->is_sound()) ++found;
    volume.damage(block, offset);
  }
  EXPECT_GT(found, 1500U);
  EXPECT_TRUE(check_volume(volume.device()).value().is_sound());
}

}  // namespace
}  // namespace caw
