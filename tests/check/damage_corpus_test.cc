// One kind of damage at a time: the checker names it; repair makes the volume sound, and what does
// not lie under the damage is what it was.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <iostream>

#include "check/log_frames.h"
#include "check/sample_volume.h"
#include "dev/recording_device.h"
#include "repair/repair.h"
#include "support/damage.h"

namespace caw {
namespace {

std::string texts(const CheckReport& report) {
  std::string out;
  for (const Finding& finding : report.findings) {
    out += std::string(name_of(finding.code)) + " " + finding.text + "\n";
  }
  return out;
}

bool is_under(const std::set<std::string>& paths, const std::string& path) {
  return std::ranges::any_of(paths, [&](const std::string& top) {
    return path == top || path.starts_with(top + "/");
  });
}

/// A sound volume, and what is on it.
class Corpus : public testing::Test {
 protected:
  static void TearDownTestSuite() {
    std::cout << cut_images_ << " images of repairs cut short\n";
    EXPECT_GT(cut_images_, 100U);
  }
  void SetUp() override {
    static const Ref<MemoryImage> kSample = SampleVolume::make(1);
    image_ = kSample->clone();
    device_ = make_memory_device(image_);
    notes_.clear();
    before_ = SampleVolume::list(image_);
    const CheckReport report = SampleVolume::check(image_);
    ASSERT_TRUE(report.is_sound()) << texts(report);
    ASSERT_GT(before_.size(), 120U);
  }

  /// The checker finds `code`, and with `only` nothing else.
  void expect_found(Code code, bool only = true) {
    const CheckReport report = SampleVolume::check(image_);
    EXPECT_FALSE(report.is_sound());
    size_t others = 0;
    bool found = false;
    for (const Finding& finding : report.findings) {
      found = found || finding.code == code;
      others += finding.code != code ? 1 : 0;
    }
    EXPECT_TRUE(found) << name_of(code) << " expected:\n" << texts(report);
    EXPECT_TRUE(others == 0 || !only) << texts(report);
  }
  void repair() {
    WriteLog log(image_->clone());
    RecordingDevice recorded(make_memory_device(image_), log);
    const Result<RepairReport> done = repair_volume(recorded, {});
    ASSERT_TRUE(done) << done.error().to_string();
    for (const std::string& note : done->notes) notes_ += note + "\n";
    const CheckReport report = SampleVolume::check(image_);
    EXPECT_TRUE(report.is_sound()) << texts(report) << notes_;
    after_ = SampleVolume::list(image_);
    const Result<RepairReport> again = repair_volume(*device_, {});
    ASSERT_TRUE(again) << again.error().to_string();
    EXPECT_EQ(again->note_count, 0U) << "a second repair: " << again->notes[0];
    EXPECT_EQ(SampleVolume::list(image_), after_);
    cut_power(log);
  }
  /// A power cut during the repair that `log` holds, at CAW_CUTS places or (CAW_CUTS=all) at each:
  /// another repair, and the volume is sound, and what the first one kept is kept.
  void cut_power(const WriteLog& log) {
    const char* wanted = std::getenv("CAW_CUTS");
    const bool all = wanted != nullptr && std::string_view(wanted) == "all";
    const uint64_t cuts = wanted != nullptr && !all ? std::strtoull(wanted, nullptr, 10) : 6;
    Random random(17);
    CrashExplorer crash(log);
    do {
      if (!all && random.below(log.point() + 1) >= cuts) continue;
      for (const std::vector<Fate>& fates : crash.cases(all ? 4 : 0, random)) {
        const Ref<MemoryImage> image = crash.image(fates, random.next());
        ++cut_images_;
        const auto device = make_memory_device(image);
        const Result<RepairReport> again = repair_volume(*device, {});
        ASSERT_TRUE(again) << again.error().to_string() << ", cut at " << crash.point();
        const CheckReport report = SampleVolume::check(image);
        ASSERT_TRUE(report.is_sound()) << "cut at " << crash.point() << "\n" << texts(report);
        expect_none_lost(SampleVolume::list(image), crash.point());
        if (HasFailure()) return;
      }
    } while (crash.advance());
  }
  /// What shows after an uninterrupted repair as it did before shows in `listing`.
  void expect_none_lost(const Listing& listing, uint64_t point) {
    for (const auto& [path, shown] : before_) {
      const auto kept = after_.find(path);
      if (kept == after_.end() || kept->second != shown) continue;
      const auto found = listing.find(path);
      EXPECT_TRUE(found != listing.end() && found->second == shown)
          << path << " is lost by a power cut at " << point << " of the repair";
    }
  }
  /// Everything is what it was, but for these paths and what is below them.
  /// With a run, removals are lost, too: what they removed may be there again.
  void expect_kept(const std::set<std::string>& lost = {}, bool may_return = false) {
    for (const auto& [path, shown] : before_) {
      const auto found = after_.find(path);
      const bool same = found != after_.end() && found->second == shown;
      if (!same && !is_under(lost, path)) {
        ADD_FAILURE() << path << (found == after_.end() ? " is gone" : " is another") << "\n"
                      << notes_;
        return;
      }
    }
    for (const auto& [path, shown] : after_) {
      const bool is_new = !before_.contains(path) && !path.starts_with("/lost+found");
      EXPECT_TRUE(!is_new || may_return || is_under(lost, path))
          << path << " appeared\n" << notes_;
    }
  }
  void expect_repaired(Code code, bool only = true) {
    expect_found(code, only);
    repair();
    expect_kept();
  }

  void damage_bitmap() {
    const FoundSuperblock found = find_superblock(*device_).value();
    Findings none(0);
    const RegionTable regions = read_region_table(*device_, found.superblock, none);
    const VolumeLayout layout(found.superblock.block_count);
    flip_bit(*device_, raw(layout.bitmap(0, regions.rows[0].slot)), 7);
  }
  /// Some node of a kind that owns no trees, as the sample has it.
  static NodeId pick(DamageTool& tool, NodeKind kind, size_t nth = 0) {
    return tool.nodes(kind).at(nth);
  }
  /// A node and place of a message that `fits`.
  struct Spot {
    NodeId node = kNoNode;
    size_t index = 0;
  };
  static Spot find(DamageTool& tool,
                   const std::function<bool(const std::string&, const Message&)>& fits) {
    for (const NodeKind kind : {NodeKind::leaf, NodeKind::run, NodeKind::interior}) {
      for (const NodeId id : tool.nodes(kind)) {
        const DamageTool::Messages messages = tool.messages(id);
        for (size_t i = 0; i < messages.size(); ++i) {
          if (fits(messages[i].first, messages[i].second)) return {id, i};
        }
      }
    }
    ADD_FAILURE() << "the sample has no such message";
    return {};
  }

  Ref<MemoryImage> image_;
  std::unique_ptr<BlockDevice> device_;
  Listing before_, after_;
  std::string notes_;
  static inline uint64_t cut_images_ = 0;
};

// ---- superblocks, tables, space

TEST_F(Corpus, SuperblockOlderDamaged) {
  const FoundSuperblock found = find_superblock(*device_).value();
  flip_bit(*device_, found.slot ^ 1U, 300);
  EXPECT_EQ(SampleVolume::check(image_).figures.damaged_superblocks, 1U);
  repair();
  expect_kept();
  EXPECT_EQ(SampleVolume::check(image_).figures.damaged_superblocks, 0U);
}

TEST_F(Corpus, SuperblockNewerDamaged) {
  const FoundSuperblock found = find_superblock(*device_).value();
  flip_bit(*device_, found.slot, 300);
  EXPECT_EQ(SampleVolume::check(image_).figures.damaged_superblocks, 1U);
  repair();
  EXPECT_GT(after_.size(), 120U) << "the checkpoint before the last one, and the log";
}

TEST_F(Corpus, NodeCountWrong) {
  for (const int64_t error : {-1, +1}) {
    SetUp();
    DamageTool tool(*device_);
    ASSERT_FALSE(tool.node_counts.empty());
    uint64_t& count = tool.node_counts.begin()->second;
    count = static_cast<uint64_t>(static_cast<int64_t>(count) + error);
    if (count == 1) tool.node_counts.erase(tool.node_counts.begin());
    tool.close();
    expect_repaired(Code::check_count);
  }
}

TEST_F(Corpus, BlobCountWrong) {
  DamageTool tool(*device_);
  ASSERT_FALSE(tool.blob_counts.empty());
  tool.blob_counts.begin()->second += 2;
  tool.blob_counts[20'000] = 3;
  tool.close();
  expect_repaired(Code::check_count);
}

TEST_F(Corpus, DeadListNamesTheLiving) {
  DamageTool tool(*device_);
  tool.draft().table().dead = {999'999, raw(pick(tool, NodeKind::leaf))};
  tool.close();
  expect_repaired(Code::check_dead);
}

TEST_F(Corpus, BlocksLeaked) {
  DamageTool tool(*device_);
  tool.leaked = {15'000, 15'001, 15'500};
  tool.close();
  expect_repaired(Code::check_leaked);
}

TEST_F(Corpus, BlocksUsedButFree) {
  DamageTool tool(*device_);
  tool.unmarked = {raw(tool.row(pick(tool, NodeKind::leaf)).addr), raw(tool.blobs[0].addr)};
  tool.close();
  expect_repaired(Code::check_unmarked);
}

TEST_F(Corpus, BitmapDamaged) {
  damage_bitmap();
  expect_repaired(Code::bitmap_damaged, /*only=*/false);
}

/// What the bitmap no longer protects must not be written to.
TEST_F(Corpus, BitmapAndNodesDamaged) {
  {
    // Data at the very place where a repair would write first.
    DamageTool tool(*device_);
    const Spot spot = find(tool, [](const std::string& key, const Message& message) {
      return key.starts_with('\1') && message.kind == MessageKind::put &&
             message.value.length > 0 && message.value.is_inline();
    });
    DamageTool::Messages messages = tool.messages(spot.node);
    Value& value = messages[spot.index].second.value;
    value = blob_value(tool.draft().write_blob(inline_bytes(value)).value());
    tool.blobs.push_back(value.blob);
    tool.put_messages(spot.node, messages);
    tool.close();
    repair();
    expect_kept();
  }
  DamageTool tool(*device_);
  const std::vector<NodeId> runs = tool.nodes(NodeKind::run);
  std::set<std::string> under;
  for (const NodeId id : runs) under.merge(paths_under(image_, id));
  for (const NodeId id : runs) flip_bit(*device_, raw(tool.row(id).addr), 80);
  damage_bitmap();
  repair();
  expect_kept(under, /*may_return=*/true);
  EXPECT_EQ(notes_.find("file data"), std::string::npos) << notes_;
}

TEST_F(Corpus, RegionTableDamaged) {
  const FoundSuperblock found = find_superblock(*device_).value();
  flip_bit(*device_, 2 + (found.superblock.region_table_slots[0] & 1U), 33);
  expect_repaired(Code::region_table, /*only=*/false);
}

TEST_F(Corpus, FiguresWrong) {
  change_superblock(*device_, [](Superblock& superblock) { superblock.used_blocks += 5; });
  expect_repaired(Code::check_figures);
}

TEST_F(Corpus, NodeNumberNeverDrawn) {
  change_superblock(*device_, [](Superblock& superblock) { superblock.counters[0] = 5; });
  expect_repaired(Code::check_figures);
}

// ---- nodes

TEST_F(Corpus, NodeChecksum) {
  for (const NodeKind kind : {NodeKind::leaf, NodeKind::run, NodeKind::interior}) {
    SetUp();
    const size_t nodes = DamageTool(*device_).nodes(kind).size();
    ASSERT_GT(nodes, 2U);
    for (size_t i = 0; i < nodes; i += std::max<size_t>(1, nodes / 6)) {
      SetUp();
      DamageTool tool(*device_);
      const NodeId id = pick(tool, kind, i);
      const std::set<std::string> under = paths_under(image_, id);
      flip_bit(*device_, raw(tool.row(id).addr), 70, 3);
      expect_found(Code::node_checksum);
      repair();
      if (kind != NodeKind::interior) expect_kept(under, kind == NodeKind::run);
      if (HasFailure()) FAIL() << "node " << raw(id);
    }
  }
}

TEST_F(Corpus, NodeOfAnotherId) {
  DamageTool tool(*device_);
  const NodeId a = pick(tool, NodeKind::leaf, 0);
  const NodeId b = pick(tool, NodeKind::leaf, 1);
  const std::set<std::string> under = paths_under(image_, a);
  NodeRow& row = tool.row(a);
  const SealedNode sealed = seal_node({b, row.kind, row.height, row.owns_refs, 1, row.max_seq},
                                      tool.payload(a), row.compression);
  row.checksum = sealed.checksum;
  row.stored_bytes = sealed.stored_bytes;
  ASSERT_TRUE(device_->write(row.addr, sealed.bytes.span()));
  tool.close();
  expect_found(Code::node_identity);
  repair();
  expect_kept(under);
}

TEST_F(Corpus, TwoNodesInOnePlace) {
  DamageTool tool(*device_);
  const NodeId a = pick(tool, NodeKind::leaf, 0);
  const NodeId b = pick(tool, NodeKind::leaf, 1);
  const std::set<std::string> under = paths_under(image_, a);
  tool.row(a).addr = tool.row(b).addr;
  tool.close();
  expect_found(Code::check_double_use, /*only=*/false);
  repair();
  expect_kept(under);
}

TEST_F(Corpus, KeysOutOfOrder) {
  DamageTool tool(*device_);
  const NodeId id = pick(tool, NodeKind::leaf, 0);
  const std::set<std::string> under = paths_under(image_, id);
  DamageTool::Messages messages = tool.messages(id);
  ASSERT_GT(messages.size(), 1U);
  SortedBlockBuilder front, back;
  front.add(messages[1].first, messages[1].second);
  std::string payload = front.finish();
  payload[3] = '\x7f';  // the key's first byte, of a metadata key always 0 or 1
  payload.insert(0, payload.substr(0, payload.size() - 20));
  const bool owns_refs = tool.row(id).owns_refs;
  tool.put_payload(id, payload, owns_refs);
  tool.close();
  const CheckReport report = SampleVolume::check(image_);
  ASSERT_FALSE(report.is_sound());
  repair();
  expect_kept(under);
}

TEST_F(Corpus, LeafWithAnErase) {
  DamageTool tool(*device_);
  const Spot spot = find(tool, [&](const std::string& key, const Message& message) {
    return message.kind == MessageKind::put && !refs_of(message).any() && key.size() > 3;
  });
  DamageTool::Messages messages = tool.messages(spot.node);
  messages.insert(messages.begin() + static_cast<ptrdiff_t>(spot.index) + 1,
                  {messages[spot.index].first + "~", Message::erase(1)});
  tool.put_messages(spot.node, messages);
  tool.close();
  expect_repaired(Code::node_payload);
}

TEST_F(Corpus, HeaderDeniesReferences) {
  DamageTool tool(*device_);
  const Spot spot = find(tool, [](const std::string&, const Message& message) {
    return static_cast<bool>(refs_of(message).blob);
  });
  tool.put_payload(spot.node, tool.payload(spot.node), /*owns_refs=*/false);
  tool.close();
  expect_repaired(Code::node_header);
}

TEST_F(Corpus, EdgeToNothing) {
  DamageTool tool(*device_);
  for (const NodeId id : tool.nodes(NodeKind::interior)) {
    Interior node = tool.interior(id);
    const auto leaf = std::ranges::find_if(node.edges, [](const Edge& edge) {
      return edge.child != kNoNode && edge.child_height == 0;
    });
    if (leaf == node.edges.end()) continue;
    const std::set<std::string> under = paths_under(image_, leaf->child);
    leaf->child = NodeId{tool.superblock().counters[0] - 1};
    tool.put_interior(id, node);
    tool.close();
    expect_found(Code::node_absent, /*only=*/false);
    repair();
    return expect_kept(under);
  }
  FAIL() << "no leaves";
}

TEST_F(Corpus, RunAsAChildAndLeafAsARun) {
  DamageTool tool(*device_);
  for (const NodeId id : tool.nodes(NodeKind::interior)) {
    Interior node = tool.interior(id);
    if (node.runs.empty() || node.edges[0].child == kNoNode || node.height != 1) continue;
    std::set<std::string> under = paths_under(image_, node.runs[0].run);
    under.merge(paths_under(image_, node.edges[0].child));
    std::swap(node.runs[0].run, node.edges[0].child);
    tool.put_interior(id, node);
    tool.close();
    expect_found(Code::check_reference, /*only=*/false);
    repair();
    return expect_kept(under);
  }
  FAIL() << "no node with a run and a leaf";
}

TEST_F(Corpus, HeightOfAChildWrong) {
  DamageTool tool(*device_);
  for (const NodeId id : tool.nodes(NodeKind::interior)) {
    Interior node = tool.interior(id);
    if (node.height < 2 || node.edges[0].child == kNoNode) continue;
    node.edges[0].child_height = static_cast<Height>(node.edges[0].child_height ^ 1U);
    tool.put_interior(id, node);
    tool.close();
    return expect_repaired(Code::node_height);
  }
  FAIL() << "all trees are of height 1";
}

TEST_F(Corpus, EmbeddedRunBelowANode) {
  DamageTool tool(*device_);
  for (const NodeId id : tool.nodes(NodeKind::interior)) {
    const Interior node = tool.interior(id);
    if (node.height < 2) continue;
    const NodeId child = node.edges[0].child;
    if (child == kNoNode || tool.row(child).kind != NodeKind::interior) continue;
    Interior below = tool.interior(child);
    SortedBlockBuilder builder;
    builder.add(std::string(1, '\0') + "no key", Message::erase(1));
    below.inline_block = builder.finish();
    below.inline_pos = below.next_pos++;
    tool.put_interior(child, below);
    tool.close();
    return expect_repaired(Code::interior_malformed);
  }
  FAIL() << "no interior below another";
}

TEST_F(Corpus, NodeThatNothingLeadsTo) {
  DamageTool tool(*device_);
  const NodeId id{tool.draft().draw(Counter::node_id)};
  SortedBlockBuilder builder;
  InodeRecord record;
  record.fields.mode = S_IFREG | 0644;
  record.number = tool.draft().draw(Counter::file);
  record.name = "astray";
  const uint64_t entry = tool.draft().draw(Counter::entry);
  builder.add(dirent_key({}, "astray"),
              Message::put(inline_value(encode_dirent({entry, S_IFREG}))));
  builder.add(record_key({}, entry), Message::put(inline_value(encode_inode(record))));
  ASSERT_TRUE(tool.draft().write_node({id, NodeKind::leaf, 0, false, 0, 1}, builder.finish()));
  tool.close();
  expect_repaired(Code::check_unreachable);
  const std::string finds = "/lost+found/#" + std::to_string(raw(id));
  EXPECT_TRUE(after_.contains(finds + "/astray")) << notes_;
}

// ---- the node table

TEST_F(Corpus, TablePagesDamaged) {
  const NodeTable table = Draft::open(*device_, find_superblock(*device_).value())->table();
  ASSERT_FALSE(table.pages.empty());
  for (const BlockAddr page : table.pages) {
    SetUp();
    flip_bit(*device_, raw(page), 90);
    expect_found(Code::meta_page, /*only=*/false);
    repair();
    expect_kept();
    if (HasFailure()) FAIL() << "page " << raw(page);
  }
}

TEST_F(Corpus, TableEntryMalformed) {
  DamageTool tool(*device_);
  const NodeId id = pick(tool, NodeKind::leaf, 1);
  tool.row(id).height = 3;
  tool.close();
  expect_repaired(Code::node_entry, /*only=*/false);
}

// ---- the log

TEST(CorpusLog, FrameDamaged) {
  const Ref<MemoryImage> whole = SampleVolume::make(1, /*close=*/false);
  const auto sound = make_memory_device(whole->clone());
  const Superblock superblock = find_superblock(*sound).value().superblock;
  const LogFrames log = read_log_frames(*sound, superblock).value();
  ASSERT_GT(log.frames, 2U);
  EXPECT_TRUE(SampleVolume::check(whole).is_sound());
  const Listing before = SampleVolume::list(whole);

  const auto damage = [&](uint64_t position) {
    const Ref<MemoryImage> image = whole->clone();
    const auto device = make_memory_device(image);
    flip_bit(*device, raw(superblock.log_segments[0].first) + position, 100);
    return image;
  };
  EXPECT_TRUE(SampleVolume::check(damage(log.end - 1)).is_sound()) << "as after a power cut";
  const Ref<MemoryImage> image = damage(superblock.log_position);
  const CheckReport report = SampleVolume::check(image);
  ASSERT_EQ(report.findings.size(), 1U) << texts(report);
  EXPECT_EQ(report.findings[0].code, Code::log_frame);
  const auto device = make_memory_device(image);
  ASSERT_TRUE(repair_volume(*device, {}));
  EXPECT_TRUE(SampleVolume::check(image).is_sound()) << texts(SampleVolume::check(image));
  for (const auto& [path, shown] : SampleVolume::list(image)) {
    EXPECT_TRUE(before.contains(path)) << path;
  }
}

// ---- file data

TEST_F(Corpus, BlobChecksum) {
  DamageTool tool(*device_);
  const BlobRef blob = tool.blobs[0];
  flip_bit(*device_, raw(blob.addr), 5);
  expect_found(Code::blob_checksum);
  repair();
  size_t errors = 0;
  for (const auto& [path, shown] : before_) {
    if (after_.at(path) == shown) continue;
    EXPECT_TRUE(after_.at(path).ends_with(" EIO")) << path;
    ++errors;
  }
  EXPECT_GE(errors, 1U);
  EXPECT_LE(errors, 4U) << notes_;
  EXPECT_EQ(SampleVolume::check(image_).figures.lost_blobs, 1U);
}

TEST_F(Corpus, BlobLength) {
  DamageTool tool(*device_);
  const Spot spot = find(tool, [](const std::string&, const Message& message) {
    return static_cast<bool>(refs_of(message).blob);
  });
  const std::set<std::string> under = paths_under(image_, spot.node);
  DamageTool::Messages messages = tool.messages(spot.node);
  BlobRef& blob = messages[spot.index].second.value.blob;
  --blob.stored_bytes;
  if (blob.compression == Compression::none) blob.compression = Compression::lz4;
  tool.put_messages(spot.node, messages);
  tool.close();
  expect_found(Code::blob_checksum, /*only=*/false);
  repair();
  expect_kept(under);
}

}  // namespace
}  // namespace caw
