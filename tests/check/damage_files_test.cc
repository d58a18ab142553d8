// Damage that only shows in the file systems, one kind at a time: structurally the volume is sound.
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>

#include "check/sample_volume.h"
#include "repair/repair.h"
#include "schema/keys.h"
#include "schema/records.h"
#include "support/damage.h"

namespace caw {
namespace {

class FileDamage : public testing::Test {
 protected:
  void SetUp() override {
    static const Ref<MemoryImage> kSample = SampleVolume::make(1, true, true);
    image_ = kSample->clone();
    device_ = make_memory_device(image_);
    before_ = SampleVolume::list(image_);
    const auto device = make_memory_device(image_);
    const FoundSuperblock found = find_superblock(*device).value();
    Findings none(0);
    table_ = read_node_table(*device, found.superblock, none);
    system_ = found.superblock.system_tree;
    root_ = tree_at(system_, record_key({}, kRootEntry));
  }

  NodeId tree_at(NodeId tree, const std::string& key) { return value_at(tree, key).tree; }
  Value value_at(NodeId tree, const std::string& key) {
    Value out;
    EXPECT_TRUE(TreeReader(*device_, table_).scan(tree, key, key + '\0',
                                                  [&](std::string_view, const Value& value) {
                                                    out = value;
                                                    return Result<void>{};
                                                  }));
    return out;
  }
  uint64_t entry_of(NodeId tree, const std::string& path, const std::string& name) {
    const std::string bytes = inline_bytes(value_at(tree, dirent_key(path, name)));
    return decode_dirent(bytes).value().entry;
  }
  Dirent dirent_of(NodeId tree, const std::string& path, const std::string& name) {
    return decode_dirent(inline_bytes(value_at(tree, dirent_key(path, name)))).value();
  }
  std::string links_path() { return body_path({}, entry_of(root_, {}, "links")); }
  NodeId links_of(NodeId top) { return tree_at(top, record_key({}, kLinksEntry)); }
  InodeRecord record_of(NodeId tree, const std::string& key) {
    return decode_inode(value_bytes(*device_, value_at(tree, key)).value()).value();
  }

  /// Lays messages over trees as a program with a fault would.
  void put(NodeId tree, const std::string& key, Message message) {
    fixes_.add(tree, key, std::move(message));
  }
  void change(NodeId tree, const std::string& key,
              const std::function<void(InodeRecord&)>& change) {
    InodeRecord record = record_of(tree, key);
    change(record);
    const NodeId owned = tree_at(tree, key);
    if (owned != kNoNode) more_references_.push_back(owned);
    put(tree, key, Message::put(inline_value(encode_inode(record), owned)));
  }
  /// Writes what was put; then the checker must complain of the files only, and repair help.
  void damage_and_repair(const std::set<std::string>& lost = {}) {
    DamageTool tool(*device_);
    ASSERT_TRUE(fixes_.apply(tool.draft()));
    for (const NodeId tree : more_references_) {
      uint64_t& count = tool.node_counts[raw(tree)];
      count = std::max<uint64_t>(count, 1) + 1;
    }
    tool.close();
    const CheckReport report = SampleVolume::check(image_);
    ASSERT_FALSE(report.is_sound());
    for (const Finding& finding : report.findings) {
      EXPECT_TRUE(finding.code == Code::check_files || finding.code == Code::check_cycle)
          << finding.text;
    }
    const Result<RepairReport> done = repair_volume(*device_, {});
    ASSERT_TRUE(done) << done.error().to_string();
    EXPECT_GT(done->note_count, 0U);
    for (const std::string& note : done->notes) notes_ += note + "\n";
    const CheckReport after = SampleVolume::check(image_);
    for (const Finding& finding : after.findings) ADD_FAILURE() << finding.text << "\n" << notes_;
    after_ = SampleVolume::list(image_);
    for (const auto& [path, shown] : before_) {
      const bool expected = std::ranges::any_of(
          lost, [&](const std::string& top) { return path.starts_with(top); });
      EXPECT_TRUE(expected || after_[path] == shown) << path << "\n" << notes_;
    }
  }

  Ref<MemoryImage> image_;
  std::unique_ptr<BlockDevice> device_;
  NodeTable table_;
  NodeId system_ = kNoNode, root_ = kNoNode;
  TreeFixes fixes_;
  std::vector<NodeId> more_references_;  ///< to these trees
  Listing before_, after_;
  std::string notes_;
};

TEST_F(FileDamage, NameWithoutRecord) {
  put(root_, dirent_key({}, "ghost"),
      Message::put(inline_value(encode_dirent({900'000, S_IFREG}))));
  damage_and_repair();
  EXPECT_FALSE(after_.contains("/ghost"));
}

TEST_F(FileDamage, RecordWithoutName) {
  put(root_, dirent_key({}, "late3"), Message::erase(0));
  damage_and_repair();
}

TEST_F(FileDamage, DirectoryWithoutRecord) {
  const uint64_t a = entry_of(root_, {}, "a");
  put(root_, record_key({}, a), Message::erase(0));
  damage_and_repair({"/a"});
  EXPECT_EQ(after_["/a"], std::to_string(S_IFDIR | 0700));
  EXPECT_EQ(after_["/a/big"], before_["/a/big"]);
  EXPECT_EQ(after_["/a/sub/deep/medium"], before_["/a/sub/deep/medium"]);
}

TEST_F(FileDamage, DirectoryWithoutRecordAndName) {
  const uint64_t a = entry_of(root_, {}, "a");
  put(root_, record_key({}, a), Message::erase(0));
  put(root_, dirent_key({}, "a"), Message::erase(0));
  damage_and_repair({"/a"});
  const std::string now = "/lost+found/#" + std::to_string(a);
  for (const auto& [path, shown] : before_) {
    if (!path.starts_with("/a/")) continue;
    EXPECT_EQ(after_[now + path.substr(2)], shown) << path;
  }
}

TEST_F(FileDamage, FileWithoutRecord) {
  const std::string a = body_path({}, entry_of(root_, {}, "a"));
  put(root_, record_key(a, entry_of(root_, a, "big")), Message::erase(0));
  damage_and_repair({"/a/big"});
  const std::string bytes = before_["/a/big"].substr(before_["/a/big"].find(' '));
  EXPECT_EQ(after_["/a/big"], std::to_string(S_IFREG | 0600) + bytes);
}

TEST_F(FileDamage, TwoRecordsOfOneName) {
  InodeRecord copy = record_of(root_, record_key({}, entry_of(root_, {}, "late3")));
  copy.number = 77'777;
  copy.fields.size = 0;
  put(root_, record_key({}, 900'001), Message::put(inline_value(encode_inode(copy))));
  damage_and_repair();
  EXPECT_TRUE(after_.contains("/lost+found/#900001")) << notes_;
}

TEST_F(FileDamage, TwoNamesOfOneRecord) {
  const uint64_t entry = entry_of(root_, {}, "late3");
  put(root_, dirent_key({}, "other"), Message::put(inline_value(encode_dirent({entry, S_IFREG}))));
  damage_and_repair();
  EXPECT_FALSE(after_.contains("/other"));
}

TEST_F(FileDamage, TypeInNameWrong) {
  const uint64_t entry = entry_of(root_, {}, "late3");
  put(root_, dirent_key({}, "late3"), Message::put(inline_value(encode_dirent({entry, S_IFIFO}))));
  damage_and_repair();
}

TEST_F(FileDamage, LinkCount) {
  change(root_, record_key({}, entry_of(root_, {}, "late3")),
         [](InodeRecord& record) { record.fields.nlink = 3; });
  damage_and_repair();
}

TEST_F(FileDamage, NumberOfAnotherFile) {
  const uint64_t number = record_of(root_, record_key({}, entry_of(root_, {}, "late4"))).number;
  change(root_, record_key({}, entry_of(root_, {}, "late3")),
         [&](InodeRecord& record) { record.number = number; });
  damage_and_repair();
}

TEST_F(FileDamage, DataBeyondTheEnd) {
  const std::string a = body_path({}, entry_of(root_, {}, "a"));
  change(root_, record_key(a, entry_of(root_, a, "big")),
         [](InodeRecord& record) { record.fields.size = 1000; });
  damage_and_repair();
}

TEST_F(FileDamage, DataMissing) {
  const std::string a = body_path({}, entry_of(root_, {}, "a"));
  put(root_, chunk_key(a, entry_of(root_, a, "big"), 1), Message::erase(0));
  damage_and_repair({"/a/big"});
  EXPECT_EQ(after_["/a/big"], std::to_string(S_IFREG | 0644) + " EIO");
}

TEST_F(FileDamage, DataOfNoFile) {
  put(root_, chunk_key({}, 900'002, 0), Message::put(inline_value("stray bytes")));
  damage_and_repair();
  EXPECT_EQ(after_["/lost+found/#900002"], std::to_string(S_IFREG | 0600) + " stray bytes");
}

TEST_F(FileDamage, AttributeOfNoFile) {
  put(root_, xattr_prefix({}, 900'004) + "user.x", Message::put(inline_value("stray")));
  damage_and_repair();
}

TEST_F(FileDamage, AttributeOfAFileThatIsSaidToHaveNone) {
  const uint64_t entry = entry_of(root_, {}, "late3");
  put(root_, xattr_prefix({}, entry) + "user.x", Message::put(inline_value("kept")));
  damage_and_repair({"/late3"});
  EXPECT_EQ(after_["/late3"], before_["/late3"] + " user.x=kept");
}

TEST_F(FileDamage, AttributeTooLong) {
  const uint64_t entry = entry_of(root_, {}, "late4");
  change(root_, record_key({}, entry),
         [](InodeRecord& record) { record.fields.flags |= kInodeXattrs; });
  put(root_, xattr_prefix({}, entry) + "user.x",
      Message::put(inline_value(std::string(kMaxXattrBytes + 1, 'x'))));
  damage_and_repair();
}

TEST_F(FileDamage, RecordOfAFileWithAttributesLost) {
  const uint64_t entry = entry_of(root_, {}, "marked");
  put(root_, record_key({}, entry), Message::erase(0));
  damage_and_repair({"/marked"});
  EXPECT_EQ(after_["/marked"].find("user."), std::string::npos) << "went with the record";
}

TEST_F(FileDamage, StrangeKeyAndDamagedRecord) {
  put(root_, "\5what", Message::put(inline_value("x")));
  put(root_, record_key({}, entry_of(root_, {}, "late3")), Message::put(inline_value("short")));
  damage_and_repair({"/late3"});
  EXPECT_TRUE(after_.contains("/late3")) << "its data are there";
}

TEST_F(FileDamage, InodeNumbersGivenOutTwice) {
  for (const uint64_t domain : {800U, 801U}) {
    put(system_, chunk_map_key(domain, 1), Message::put(inline_value(encode_number(55))));
  }
  damage_and_repair();
}

TEST_F(FileDamage, RootDirectoryOfAnotherOrigin) {
  change(system_, record_key({}, kRootEntry),
         [](InodeRecord& record) { record.home = record.domain = 7; });
  damage_and_repair();
}

// ---- hard links

TEST_F(FileDamage, LinkedNameNotInTheIndex) {
  const uint64_t f0 = entry_of(root_, links_path(), "f0");
  put(root_, link_key(links_path(), f0), Message::erase(0));
  damage_and_repair();
}

TEST_F(FileDamage, IndexOfNoName) {
  put(root_, link_key(links_path(), 900'010),
      Message::put(inline_value(encode_link_entry({LinkScope::local, 900'011}))));
  put(root_, link_key(links_path(), 900'012), Message::put(inline_value(encode_link_entry({}))));
  damage_and_repair();
}

TEST_F(FileDamage, RecordOfALinkedNameLost) {
  put(root_, record_key(links_path(), entry_of(root_, links_path(), "f0")), Message::erase(0));
  damage_and_repair();
}

TEST_F(FileDamage, DirentOfALinkedNameLost) {
  put(root_, dirent_key(links_path(), "f0"), Message::erase(0));
  damage_and_repair();
}

TEST_F(FileDamage, DirentAndRecordOfALinkedNameDisagree) {
  Dirent dirent = dirent_of(root_, links_path(), "f0");
  dirent.group = 900'013;
  put(root_, dirent_key(links_path(), "f0"), Message::put(inline_value(encode_dirent(dirent))));
  damage_and_repair();
}

TEST_F(FileDamage, LinkCountOfALinkedFile) {
  const uint64_t group = dirent_of(root_, links_path(), "f0").group;
  change(links_of(root_), record_key({}, group),
         [](InodeRecord& record) { record.fields.nlink = 77; });
  damage_and_repair();
}

TEST_F(FileDamage, LinkedFileLost) {
  const uint64_t group = dirent_of(root_, links_path(), "f0").group;
  put(links_of(root_), record_key({}, group), Message::erase(0));
  damage_and_repair({"/links/f0", "/links/h0", "/links/in/g0"});
}

TEST_F(FileDamage, LinkedFileWithoutNames) {
  InodeRecord lost = record_of(links_of(root_), record_key({}, dirent_of(root_, links_path(),
                                                                         "f0").group));
  lost.number = 99'999;
  lost.fields.size = 0;
  lost.fields.nlink = 2;
  put(links_of(root_), record_key({}, 900'014), Message::put(inline_value(encode_inode(lost))));
  damage_and_repair();
  EXPECT_TRUE(std::ranges::any_of(after_, [](const auto& shown) {
    return shown.first.starts_with("/lost+found/#");
  })) << notes_;
}

TEST_F(FileDamage, GlobalLinkedFileWithoutNamesAndCount) {
  const NodeId global = links_of(system_);
  const Dirent across = dirent_of(tree_at(root_, record_key({}, entry_of(root_, {}, "again"))), {},
                                  "across");
  ASSERT_EQ(across.scope, LinkScope::global);
  change(global, record_key({}, across.group),
         [](InodeRecord& record) { record.fields.nlink = 1; });
  InodeRecord lost = record_of(global, record_key({}, across.group));
  lost.number = 99'999;
  lost.fields.size = 0;
  put(global, record_key({}, 900'015), Message::put(inline_value(encode_inode(lost))));
  damage_and_repair();
}

TEST_F(FileDamage, LinksOfATreeNotMarked) {
  const uint64_t clone = entry_of(root_, {}, "clone");
  put(root_, link_key({}, clone), Message::erase(0));
  damage_and_repair();
}

TEST_F(FileDamage, LinksDirectoryLost) {
  put(root_, record_key({}, kLinksEntry), Message::erase(0));
  damage_and_repair({"/links", "/a/link"});
}

TEST_F(FileDamage, GlobalLinksDirectoryLost) {
  put(system_, record_key({}, kLinksEntry), Message::erase(0));
  damage_and_repair({"/clone/f4", "/again/across", "/links", "/counted/across"});
}

TEST_F(FileDamage, TreeWithinItself) {
  const uint64_t clone = entry_of(root_, {}, "clone");
  const NodeId tree = tree_at(root_, record_key({}, clone));
  ASSERT_NE(tree, kNoNode);
  InodeRecord record = record_of(root_, record_key({}, clone));
  record.name = "loop";
  record.number = 88'888;
  put(tree, dirent_key({}, "loop"), Message::put(inline_value(encode_dirent({900'003, S_IFDIR}))));
  put(tree, record_key({}, 900'003), Message::put(inline_value(encode_inode(record), tree)));
  more_references_.push_back(tree);
  damage_and_repair();
  EXPECT_TRUE(after_.contains("/clone/loop"));
}

}  // namespace
}  // namespace caw
