// A volume with files, clones and removed trees, and what is on it, for tests of damage.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>

#include "base/random.h"
#include "check/check.h"
#include "check/tree_reader.h"
#include "model/fs_harness.h"
#include "repair/file_mender.h"
#include "support/volume_bed.h"

namespace caw {

/// What shows at each path: "EIO", or type, mode and contents.
using Listing = std::map<std::string, std::string>;

inline std::string random_bytes(uint64_t seed, size_t count) {
  Random random(seed);
  std::string out(count, '\0');
  for (char& c : out) c = static_cast<char>(random.next());
  return out;
}

class SampleVolume {
 public:
  /// `links`: with hard links as well, of each kind.
  static Ref<MemoryImage> make(uint64_t seed, bool close = true, bool links = false) {
    VolumeBedOptions options;
    options.shape = shape();
    VolumeBed bed(options);
    FsClient client(bed.forest());
    EXPECT_EQ(client.make_and_mount(), 0);
    fill(client, bed, seed);
    if (links) fill_links(client, bed);
    if (!close) {
      EXPECT_TRUE(bed.forest().sync());
      return bed.image()->clone();
    }
    client.unmount();
    EXPECT_TRUE(bed.close());
    return bed.image();
  }

  static Listing list(const Ref<MemoryImage>& image) {
    Listing out;
    auto volume = Volume::open(make_memory_device(image->clone()), {.background = false});
    if (!volume) return {{"", "no mount: " + volume.error().to_string()}};
    auto fs = FileSystem::open(**volume, {});
    if (!fs) return {{"", "no mount: " + fs.error().to_string()}};
    list(**fs, *(*fs)->root(), "", out);
    return out;
  }

  static CheckReport check(const Ref<MemoryImage>& image) {
    const auto device = make_memory_device(image->clone(), true);
    const Result<CheckReport> report = check_volume(*device, {.files = true});
    if (report) return *report;
    CheckReport failed;
    failed.finding_count = 1;
    failed.findings.push_back({report.error().code, 0, report.error().to_string()});
    return failed;
  }

 private:
  static TreeShape shape() {
    TreeShape out = tiny_shape(1);
    out.leaf_bytes = 2048;
    out.buffer_bytes = 8192;
    out.run_bytes = 1024;
    out.inline_bytes = 512;
    out.inline_value_bytes = 1024;
    return out;
  }

  static void fill(FsClient& client, VolumeBed& bed, uint64_t seed) {
    for (const char* directory : {"a", "a/sub", "a/sub/deep", "many", "gone"}) {
      EXPECT_EQ(client.mkdir(directory), 0);
    }
    const auto file = [&](const std::string& path, size_t bytes) {
      EXPECT_EQ(client.create(path), 0);
      EXPECT_EQ(bytes == 0 ? 0 : client.write(path, 0, random_bytes(seed + bytes, bytes)), 0);
    };
    for (int i = 0; i < 8; ++i) file("a/f" + std::to_string(i), 10U + 60U * static_cast<size_t>(i));
    file("a/big", 300'000);
    file("a/sub/deep/medium", 20'000);
    file("a/sub/empty", 0);
    file("gone/x", 30'000);
    for (int i = 0; i < 40; ++i) file("many/n" + std::to_string(i), 33);
    EXPECT_EQ(client.symlink("a/link", "f1"), 0);
    EXPECT_EQ(client.set_xattr("a", "user.of a directory", "kept"), 0);
    EXPECT_EQ(client.set_xattr("a/f2", "user.short", "kept too"), 0);
    EXPECT_EQ(client.set_xattr("a/f2", "user.long", random_bytes(seed, 900)), 0);
    file("marked", 100);
    EXPECT_EQ(client.set_xattr("marked", "user.short", "kept"), 0);
    EXPECT_TRUE(bed.maintain());
    EXPECT_TRUE(client.fs().sync());
    EXPECT_EQ(client.clone("a", "clone"), 0);
    EXPECT_EQ(client.clone("many", "a/many2"), 0);
    EXPECT_EQ(client.clone("a/big", "big2"), 0);
    EXPECT_EQ(client.write("clone/f3", 5, "edited"), 0);
    EXPECT_EQ(client.write("clone/big", 140'000, random_bytes(seed, 2000)), 0);
    EXPECT_EQ(client.unlink("clone/f1"), 0);
    EXPECT_TRUE(bed.maintain());
    EXPECT_EQ(client.clone("clone", "again"), 0);
    file("again/new", 500);
    EXPECT_EQ(client.remove_tree("gone"), 0);
    for (int i = 0; i < 10; ++i) {
      file("late" + std::to_string(i), 200);
      EXPECT_TRUE(i % 4 != 0 || client.fs().sync());
    }
  }

  /// Within a clone, counted (counted) and not (part, its part), and between clones (across).
  static void fill_links(FsClient& client, VolumeBed& bed) {
    const auto link = [&](const std::string& from, const std::string& to) {
      EXPECT_EQ(client.link(from, to), 0) << to;
    };
    EXPECT_EQ(client.mkdir("links"), 0);
    EXPECT_EQ(client.mkdir("links/in"), 0);
    for (int i = 0; i < 6; ++i) {
      const std::string name = std::to_string(i);
      EXPECT_EQ(client.create("links/f" + name), 0);
      EXPECT_EQ(client.write("links/f" + name, 0, random_bytes(50, i % 2 == 0 ? 40 : 9000)), 0);
      link("links/f" + name, "links/in/g" + name);
      if (i % 3 == 0) link("links/f" + name, "links/h" + name);
    }
    EXPECT_EQ(client.create("links/large"), 0);
    EXPECT_EQ(client.write("links/large", 0, random_bytes(51, 300'000)), 0);
    link("links/large", "links/in/large");
    link("a/link", "links/in/symlink");
    EXPECT_TRUE(bed.maintain());
    EXPECT_EQ(client.clone("links/in", "part"), 0);
    EXPECT_EQ(client.clone("links", "counted"), 0);
    EXPECT_EQ(client.unlink("counted/f1"), 0);
    EXPECT_EQ(client.clone("counted", "again2"), 0);
    EXPECT_TRUE(bed.maintain());
    link("clone/f4", "again/across");
    link("clone/f4", "clone/f4.2");
    link("links/f2", "counted/across");
  }

  static void list(FileSystem& fs, Inode& directory, const std::string& path, Listing& out) {
    std::map<std::string, uint32_t> names;
    const Result<void> read = fs.readdir(directory, 0, [&](const DirectoryEntry& entry) {
      if (entry.cookie > 2) names.emplace(entry.name, entry.mode);
      return true;
    });
    if (!read) out[path] = "EIO";
    for (const auto& [name, mode] : names) {
      const std::string here = path + "/" + name;
      const Result<Entry> entry = fs.lookup(directory, name);
      if (!entry) {
        out[here] = "EIO";
        continue;
      }
      out[here] = std::to_string(entry->attributes.mode);
      std::map<std::string, std::string> xattrs;
      if (read_xattrs(fs, *entry->inode, xattrs) != 0) out[here] += " EIO";
      if (S_ISDIR(entry->attributes.mode)) {
        list(fs, *entry->inode, here, out);
      } else {
        out[here] += contents(fs, *entry->inode, entry->attributes);
      }
      for (const auto& [xattr, value] : xattrs) out[here] += " " + xattr + "=" + value;
      fs.forget(*entry->inode, 1);
    }
  }

  static std::string contents(FileSystem& fs, Inode& inode, const Attributes& attributes) {
    if (S_ISLNK(attributes.mode)) return " -> " + fs.readlink(inode).value_or("EIO");
    std::string bytes(attributes.size, '?');
    const Result<size_t> got = fs.read(inode, 0, bytes);
    return got && *got == bytes.size() ? " " + bytes : " EIO";
  }
};

/// All paths of which something stands in what node `lost` is read for, and all below them.
inline std::set<std::string> paths_under(const Ref<MemoryImage>& image, NodeId lost) {
  struct Pending {
    NodeId tree;
    TreeKind kind;
    std::string path;
  };
  const auto device = make_memory_device(image->clone(), true);
  const FoundSuperblock found = find_superblock(*device).value();
  Findings none(0);
  const NodeTable table = read_node_table(*device, found.superblock, none);
  std::set<std::string> out;
  std::vector<Pending> pending{{found.superblock.system_tree, TreeKind::system, ""}};
  while (!pending.empty()) {
    const Pending tree = pending.back();
    pending.pop_back();
    std::vector<std::pair<std::string, std::string>> ranges;
    std::map<std::string, std::string> paths{{"", tree.path}};
    TreeReader reader(*device, table);
    reader.on_enter([&](NodeId node, std::string_view lo, std::string_view hi) {
      if (node == lost) ranges.emplace_back(lo, hi);
    });
    std::vector<std::pair<std::string, Value>> records;
    EXPECT_TRUE(reader.scan(tree.tree, [&](std::string_view key, const Value& value) {
      records.emplace_back(key, value);
      return Result<void>{};
    }));
    if (tree.tree == lost) ranges.emplace_back("", kKeyEnd);
    for (const auto& [key, value] : records) {
      const bool hit = std::ranges::any_of(
          ranges, [&](const auto& range) { return range.first <= key && key < range.second; });
      const Result<ParsedKey> parsed = parse_key(key, tree.kind);
      if (!parsed || parsed->kind == KeyKind::domain_map || parsed->kind == KeyKind::chunk_map) {
        continue;
      }
      std::string path = paths[key_path(parsed->path)];
      if (parsed->kind == KeyKind::dirent) {
        path += "/" + std::string(parsed->name);
      } else if (parsed->kind == KeyKind::record) {
        const auto record = decode_inode(value_bytes(*device, value).value()).value();
        if (!record.name.empty()) path += "/" + record.name;
        paths[body_path(key_path(parsed->path), parsed->entry)] = path;
        if (value.tree != kNoNode) {
          pending.push_back({value.tree, record.fields.is_directory() ? TreeKind::directory
                                                                      : TreeKind::file, path});
        }
      } else if (parsed->kind == KeyKind::chunk) {
        path = paths[body_path(key_path(parsed->path), parsed->entry)];
      }
      if (hit) out.insert(path);
    }
  }
  return out;
}

}  // namespace caw
