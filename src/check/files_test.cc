#include "check/files.h"

#include <gtest/gtest.h>

#include <functional>
#include <map>

#include "check/check.h"
#include "check/handmade_volume.h"
#include "check/tree_reader.h"
#include "schema/keys.h"
#include "schema/records.h"

namespace caw {
namespace {

using Messages = std::map<std::string, Message>;

std::vector<std::pair<std::string, Message>> listed(const Messages& messages) {
  return {messages.begin(), messages.end()};
}

Message record(uint32_t mode, std::string name, uint64_t size = 0, uint64_t tree = 0) {
  static uint64_t number = 20;
  InodeRecord out;
  out.fields.mode = mode;
  out.fields.size = size;
  out.fields.flags = size > 5 ? kInodeSparse : 0;
  out.number = ++number;
  out.name = std::move(name);
  if (S_ISLNK(mode)) out.target = "target";
  return Message::put(inline_value(encode_inode(out), NodeId{tree}));
}
Message dirent(uint64_t entry, uint32_t type) {
  return Message::put(inline_value(encode_dirent({entry, type})));
}
Message data(size_t bytes) { return Message::put(inline_value(std::string(bytes, 'd'))); }

/// "/" owns tree 3: file 17 "f", directory 18 "d" with link 19 "l" and file 20 "g", whose data are
/// tree 5; an orphan.
struct Sample {
  Messages system, root, file;
  uint64_t file_tree = 5;
  std::map<uint64_t, uint64_t> counts;

  Sample() {
    const std::string d = body_path("", 18);
    const std::string orphans = body_path("", kOrphansEntry);
    system[record_key("", kRootEntry)] = record(S_IFDIR | 0755, "", 0, 3);
    system[record_key(orphans, 40)] = record(S_IFREG | 0600, "", 5);
    system[chunk_key(orphans, 40, 0)] = data(5);
    system[chunk_map_key(1, 0)] = Message::put(inline_value(encode_number(9)));
    root[dirent_key("", "f")] = dirent(17, S_IFREG);
    root[dirent_key("", "d")] = dirent(18, S_IFDIR);
    root[record_key("", 17)] = record(S_IFREG | 0644, "f", kChunkBytes + 10);
    root[record_key("", 18)] = record(S_IFDIR | 0755, "d");
    root[dirent_key(d, "l")] = dirent(19, S_IFLNK);
    root[dirent_key(d, "g")] = dirent(20, S_IFREG);
    root[record_key(d, 19)] = record(S_IFLNK | 0777, "l", 6);
    root[record_key(d, 20)] = record(S_IFREG | 0644, "g", 100, 5);
    root[chunk_key("", 17, 0)] = data(1000);
    root[chunk_key("", 17, 1)] = data(10);
    file[owned_chunk_key(0)] = data(100);
  }

  CheckReport check() const {
    HandmadeVolume volume;
    uint64_t leaf = 10;
    for (const auto& [id, messages] :
         {std::pair{uint64_t{1}, &system}, std::pair{uint64_t{3}, &root},
          std::pair{file_tree, &file}}) {
      Interior node;
      node.edges.resize(1);
      node.edges[0].child = NodeId{leaf};
      volume.add_block(leaf++, NodeKind::leaf, listed(*messages));
      volume.add_interior(id, node);
    }
    volume.node_counts = counts;
    volume.finish();
    return check_volume(volume.device(), {.files = true}).value();
  }
  std::string findings(Code expected = Code::check_files) const {
    std::string out;
    for (const Finding& finding : check().findings) {
      EXPECT_EQ(finding.code, expected) << finding.text;
      out += finding.text + "\n";
    }
    return out;
  }
};

template <typename Change>
std::string found_with(Change change) {
  Sample sample;
  change(sample);
  return sample.findings();
}

TEST(Files, SoundFileSystem) {
  const CheckReport report = Sample().check();
  EXPECT_EQ(Sample().findings(), "");
  const FileFigures& files = report.figures.files;
  EXPECT_EQ(files.trees, 3U);
  EXPECT_EQ(files.directories, 2U);
  EXPECT_EQ(files.files, 3U);
  EXPECT_EQ(files.symlinks, 1U);
  EXPECT_EQ(files.orphans, 1U);
  EXPECT_EQ(files.file_bytes, kChunkBytes + 10U + 100U + 5U);
}

TEST(Files, NamesAndRecords) {
  const std::string d = body_path("", 18);
  EXPECT_NE(found_with([](Sample& s) { s.root.erase(dirent_key("", "f")); }), "");
  EXPECT_NE(found_with([&](Sample& s) { s.root.erase(dirent_key(d, "l")); }), "");
  EXPECT_NE(found_with([&](Sample& s) { s.root.erase(record_key(d, 19)); }), "");
  EXPECT_NE(found_with([&](Sample& s) { s.root[dirent_key(d, "l")] = dirent(19, S_IFREG); }), "");
  EXPECT_NE(found_with([&](Sample& s) { s.root[dirent_key(d, "l")] = dirent(21, S_IFLNK); }), "");
  EXPECT_NE(found_with([&](Sample& s) { s.root[dirent_key(d, "m")] = dirent(19, S_IFLNK); }), "");
  EXPECT_NE(found_with([](Sample& s) {
              s.root.erase(record_key("", 18));
              s.root.erase(dirent_key("", "d"));
            }),
            "")
      << "a directory's contents without the directory";
  EXPECT_NE(found_with([](Sample& s) { s.root[record_key("", 17)] = data(7); }), "");
  EXPECT_NE(found_with([](Sample& s) { s.root[dirent_key("", "f")] = data(7); }), "");
  EXPECT_NE(found_with([](Sample& s) { s.root["\5what"] = data(7); }), "") << "no key";
  EXPECT_NE(found_with([](Sample& s) { s.system[chunk_map_key(1, 0)] = data(9); }), "");
}

TEST(Files, Data) {
  EXPECT_NE(found_with([](Sample& s) { s.root[chunk_key("", 17, 1)] = data(11); }), "");
  EXPECT_NE(found_with([](Sample& s) { s.root[chunk_key("", 17, 2)] = data(1); }), "");
  EXPECT_EQ(found_with([](Sample& s) { s.root[chunk_key("", 17, 2)] = data(0); }), "");
  EXPECT_NE(found_with([](Sample& s) { s.root[chunk_key("", 18, 0)] = data(1); }), "")
      << "data of a directory";
  EXPECT_NE(found_with([](Sample& s) { s.root[chunk_key("", 99, 0)] = data(1); }), "");
  EXPECT_NE(found_with([](Sample& s) { s.file[owned_chunk_key(0)] = data(101); }), "");
  EXPECT_NE(found_with([](Sample& s) { s.file[owned_chunk_key(~uint64_t{0})] = data(1); }), "");
}

Message changed(uint32_t mode, std::string name, uint64_t size,
                const std::function<void(InodeRecord&)>& change) {
  InodeRecord out = decode_inode(inline_bytes(record(mode, std::move(name), size).value)).value();
  change(out);
  return Message::put(inline_value(encode_inode(out)));
}

TEST(Files, FieldsOfRecords) {
  EXPECT_NE(found_with([](Sample& s) {
              s.root[record_key("", 17)] = changed(
                  S_IFREG, "f", kChunkBytes + 10, [](InodeRecord& r) { r.fields.nlink = 2; });
            }),
            "");
  EXPECT_NE(found_with([](Sample& s) {
              const auto nine = [](InodeRecord& r) { r.number = 9; };
              s.root[record_key("", 17)] = changed(S_IFREG, "f", kChunkBytes + 10, nine);
              s.root[record_key("", 18)] = changed(S_IFDIR, "d", 0, nine);
            }),
            "")
      << "two files with one number";
  EXPECT_NE(found_with([](Sample& s) {
              s.root[record_key("", 17)] = changed(S_IFREG, "f", kChunkBytes + 10,
                                                   [](InodeRecord& r) { r.fields.flags = 0; });
            }),
            "")
      << "missing data of a file without holes";
  EXPECT_NE(found_with([](Sample& s) {
              Message& root = s.system[record_key("", kRootEntry)];
              root = changed(S_IFDIR, "", 0, [](InodeRecord& r) { r.home = r.domain = 7; });
              root.value.tree = NodeId{3};
            }),
            "")
      << "a root directory of another origin";
  EXPECT_NE(found_with([](Sample& s) {
              s.system[chunk_map_key(2, 0)] = Message::put(inline_value(encode_number(9)));
            }),
            "")
      << "inode numbers given out twice";
}

TEST(Files, TreeWithinItself) {
  Sample sample;
  sample.root[record_key("", 18)] = record(S_IFDIR | 0755, "d", 0, 6);
  std::erase_if(sample.root, [](const auto& entry) {
    return entry.first.starts_with(metadata_prefix(body_path("", 18)));
  });
  sample.file.clear();
  sample.file[dirent_key("", "up")] = dirent(30, S_IFDIR);
  sample.file[record_key("", 30)] = record(S_IFDIR | 0755, "up", 0, 3);
  sample.file_tree = 6;
  sample.counts = {{3, 2}};
  EXPECT_NE(sample.findings(Code::check_cycle), "");
}

/// One leaf below two levels, each with runs, seen through a translated edge.
TEST(TreeReader, AppliesWhatIsPending) {
  HandmadeVolume volume;
  const auto put = [](std::string text) { return Message::put(inline_value(text)); };
  volume.add_block(10, NodeKind::leaf,
                   {{"src/a", put("old a")},
                    {"src/b", put("b")},
                    {"src/c", put("c")},
                    {"src/d", put("d")},
                    {"strange", put("x")}});
  volume.add_block(11, NodeKind::run, {{"src/a", put("new a")}, {"src/e", put("e")}});
  volume.add_block(12, NodeKind::run,
                   {{"dst/b", Message::make_patch(write_patch(1, "!"))},
                    {"dst/e", Message::erase(0)},
                    {"other", put("o")}});
  volume.add_block(13, NodeKind::run, {{"dst/c", put("applied before")}});
  SortedBlockBuilder embedded;
  embedded.add_range_erase({"dst/d", "dst/e", 0});
  embedded.add("dst/dd", put("dd"));

  Interior lower;
  lower.next_pos = 5;
  lower.edges.resize(1);
  lower.edges[0].child = NodeId{10};
  lower.runs.push_back({.run = NodeId{11}, .lo = "", .hi = "\xff", .translation = {}, .pos = 2});
  volume.add_interior(2, lower);
  Interior upper;
  upper.height = 2;
  upper.next_pos = 9;
  upper.edges.resize(2);
  upper.edges[0].child = NodeId{2};
  upper.edges[0].child_height = 1;
  upper.edges[0].translation = {"dst", "src"};
  upper.edges[0].applied_pos = 4;
  upper.edges[1].lo = "n";
  upper.runs.push_back({.run = NodeId{12}, .lo = "", .hi = "\xff", .translation = {}, .pos = 7});
  upper.runs.push_back({.run = NodeId{13}, .lo = "", .hi = "\xff", .translation = {}, .pos = 4});
  upper.inline_block = embedded.finish();
  upper.inline_pos = 8;
  volume.add_interior(1, upper);
  volume.finish();

  Findings findings(1);
  const NodeTable table = read_node_table(volume.device(), volume.superblock, findings);
  std::map<std::string, std::string> got;
  std::string last;
  ASSERT_TRUE(TreeReader(volume.device(), table)
                  .scan(NodeId{1}, [&](std::string_view key, const Value& value) -> Result<void> {
                    EXPECT_LT(last, key);
                    last = key;
                    got[last] = inline_bytes(value);
                    return {};
                  }));
  const std::map<std::string, std::string> want = {
      {"dst/a", "new a"}, {"dst/b", "b!"}, {"dst/c", "c"}, {"dst/dd", "dd"}, {"other", "o"}};
  EXPECT_EQ(got, want);
}

}  // namespace
}  // namespace caw
