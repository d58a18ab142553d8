#include "fuzz/seeds.h"

#include <sys/stat.h>

#include <functional>
#include <map>

#include "base/aligned_buffer.h"
#include "base/bytes.h"
#include "format/interior.h"
#include "format/log_frame.h"
#include "format/log_record.h"
#include "format/node.h"
#include "format/sorted_block.h"
#include "format/superblock.h"
#include "fuzz/edits.h"
#include "meta/meta_page.h"
#include "schema/keys.h"
#include "schema/records.h"
#include "space/region_table.h"
#include "store/node_entry.h"

namespace caw {
namespace {

using Seeds = std::vector<std::string>;

BlobRef some_blob() {
  BlobRef blob;
  blob.addr = BlockAddr{77};
  blob.stored_bytes = 5000;
  blob.raw_bytes = 70'000;
  blob.checksum = 0x1234567890abcdef;
  blob.compression = Compression::lz4;
  return blob;
}

std::vector<Message> some_messages() {
  std::vector<Message> messages;
  messages.push_back(Message::put(inline_value("inline")));
  messages.push_back(Message::put(inline_value("", NodeId{9})));
  messages.push_back(Message::put(blob_value(some_blob())));
  Value overlaid = blob_value(some_blob());
  apply_patch(overlaid, write_patch(10, "over"));
  apply_patch(overlaid, write_patch(90'000, "beyond"));
  messages.push_back(Message::put(overlaid));
  messages.push_back(Message::make_patch(write_patch(3, "three")));
  messages.push_back(Message::make_patch(resize_patch(100)));
  Patch pieces = write_patch(3, "three");
  compose_patch(pieces, write_patch(300, "three hundred"));
  compose_patch(pieces, Patch{2, 0, {}});
  messages.push_back(Message::make_patch(pieces));
  messages.push_back(Message::erase(4096));
  return messages;
}

std::string some_block(bool leaf, size_t entries) {
  SortedBlockBuilder builder;
  const std::vector<Message> messages = some_messages();
  if (!leaf) builder.add_range_erase({"a", "abc", 100});
  if (!leaf) builder.add_range_erase({"abd", "b", 1});
  for (size_t i = 0; i < entries; ++i) {
    std::string key = "key";
    put_ordered(key, i * 40);
    builder.add(key, messages[leaf ? i % 4 : i % messages.size()]);
  }
  return builder.finish();
}

Interior some_interior() {
  Interior node;
  node.height = 2;
  node.next_pos = 9;
  node.max_seq = 40;
  node.edges.push_back({"", NodeId{5}, {"ab", "c"}, 3, 900, 1, 30});
  node.edges.push_back({"m", NodeId{6}, {"ab", "c"}, 0, 800, 0, 31});
  node.edges.push_back({"n", kNoNode, {}, 2, 0, 0, 0});
  node.runs.push_back({NodeId{8}, "a", "q", {}, 7, 500, 700, 40});
  node.runs.push_back({NodeId{7}, "a", "b", {"a", ""}, 4, 100, 60, 20});
  node.inline_block = some_block(false, 3);
  node.inline_pos = 8;
  return node;
}

InodeRecord some_inode(uint32_t type) {
  InodeRecord record;
  record.fields.mode = type | 0644;
  record.fields.size = 1234;
  record.fields.mtime = {1000, 5};
  record.number = 17;
  record.name = "name";
  if (S_ISLNK(type)) record.target = "to/somewhere";
  return record;
}

Seeds superblock_seeds() {
  Superblock superblock;
  superblock.block_count = 8192;
  superblock.epoch = 3;
  superblock.label = "label";
  superblock.meta_root = {BlockAddr{99}, 7};
  superblock.meta_height = 2;
  superblock.system_tree = NodeId{1};
  superblock.log_segments[0] = {BlockAddr{500}, 64};
  return {std::string(encode_superblock(superblock).view())};
}

Seeds node_seeds() {
  Seeds seeds;
  const auto add = [&](NodeKind kind, Height height, std::string_view payload, Compression how) {
    const SealedNode node = seal_node({NodeId{3}, kind, height, true, 2, 40}, payload, how);
    seeds.emplace_back(node.bytes.view().substr(0, node.stored_bytes));
  };
  add(NodeKind::leaf, 0, some_block(true, 40), Compression::none);
  add(NodeKind::run, 0, some_block(false, 400), Compression::lz4);
  add(NodeKind::run, 0, some_block(false, 400), Compression::zstd);
  add(NodeKind::interior, 2, encode_interior(some_interior()), Compression::none);
  return seeds;
}

Seeds interior_seeds() {
  Interior plain;
  plain.edges.push_back({"", NodeId{4}, {}, 0, 10, 0, 1});
  return {encode_interior(some_interior()), encode_interior(plain)};
}

Seeds message_seeds() {
  Seeds seeds;
  for (const Message& older : some_messages()) {
    for (const Message& newer : some_messages()) {
      std::string first;
      encode_message(first, older);
      std::string seed(1, static_cast<char>(static_cast<unsigned>(older.kind) |
                                            static_cast<unsigned>(newer.kind) << 2U));
      put_fixed(seed, static_cast<uint16_t>(first.size()));
      seed += first;
      encode_message(seed, newer);
      seeds.push_back(seed);
    }
  }
  return seeds;
}

Seeds compression_seeds() {
  Seeds seeds;
  const std::string raw = some_block(false, 600);
  for (const Compression method : {Compression::none, Compression::lz4, Compression::zstd}) {
    std::string packed;
    std::string seed(1, static_cast<char>(compress(method, raw, &packed)));
    put_fixed(seed, static_cast<uint32_t>(raw.size()));
    seeds.push_back(seed + packed);
  }
  return seeds;
}

Seeds log_record_seeds() {
  LogRecordBuilder clone;
  clone.add_clone(NodeId{1}, NodeId{2});
  clone.add_clone_prefix("from", "to");
  clone.add_range_erase(NodeId{1}, "a", "b", 3);
  LogRecordBuilder puts;
  puts.add_new_tree(NodeId{6});
  for (const Message& message : some_messages()) puts.add_message(NodeId{1}, "key", message);
  return {clone.finish(), puts.finish()};
}

Seeds log_frame_seeds() {
  std::string records;
  Seq seq = 5;
  for (std::string& record : log_record_seeds()) {
    set_record_seq(record, seq++);
    records += record;
  }
  std::string seed;
  put_fixed(seed, uint16_t{8});
  for (uint64_t position = 8; position < 11; ++position) {
    const AlignedBuffer frame = encode_frame({{}, position, 8, 0}, records);
    const size_t bytes = kFrameHeaderBytes + records.size();
    put_fixed(seed, static_cast<uint16_t>(bytes));
    seed += frame.view().substr(0, bytes);
  }
  return {seed};
}

Seeds key_seeds() {
  const std::string path = body_path(body_path({}, 20), 300);
  return {dirent_key(path, "name"), record_key({}, 1),   chunk_key(path, 17, 70'000),
          owned_chunk_key(5),       chunk_map_key(1, 2), domain_map_key(1, 2, 3)};
}

Seeds record_seeds() {
  InodeRecord clone = some_inode(S_IFDIR);
  clone.home = clone.domain = 3;
  return {encode_inode(some_inode(S_IFREG)), encode_inode(some_inode(S_IFLNK)),
          encode_inode(clone), encode_dirent({300, S_IFREG}), encode_number(12)};
}

Seeds meta_page_seeds() {
  NodeEntry entry;
  entry.addr = BlockAddr{44};
  entry.stored_bytes = 5000;
  entry.checksum = 11;
  MetaPageContent leaf;
  for (uint64_t id = 1; id < 20; ++id, ++leaf.count) {
    append_leaf_entry(leaf.entries, {MetaSpace::node, id}, encode_node_entry(entry));
  }
  append_leaf_entry(leaf.entries, {MetaSpace::node_count, 3}, "\x02");
  append_leaf_entry(leaf.entries, {MetaSpace::dead_node, 4}, {});
  leaf.count = static_cast<uint16_t>(leaf.count + 2);
  MetaPageContent interior;
  interior.level = 1;
  for (uint64_t id = 1; id < 20; ++id, ++interior.count) {
    append_interior_entry(interior.entries, {MetaSpace::node, id}, {BlockAddr{50 + id}, id});
  }
  Seeds seeds{encode_node_entry(entry)};
  for (const MetaPageContent& content : {leaf, interior}) {
    AlignedBuffer page(kBlockSize);
    encode_meta_page(content, BlockAddr{44}, 2, page.chars());
    seeds.emplace_back(page.view().substr(0, kMetaHeaderBytes + content.entries.size()));
  }
  return seeds;
}

Seeds space_seeds() {
  std::string table(1, '\1');
  put_fixed(table, uint32_t{60'000});
  put_fixed(table, uint16_t{0});
  const RegionGeometry geometry(kMinVolumeBlocks + 60'000);
  RegionTableBlock block;
  for (uint32_t region = 0; region < geometry.regions; ++region) {
    block.entries.push_back({5, 100, 1, true});
  }
  AlignedBuffer bytes(kBlockSize);
  encode_region_table_block(block, bytes.chars());
  table += bytes.view().substr(0, 80);
  std::string bitmap(1, '\0');
  put_fixed(bitmap, uint16_t{3});
  put_fixed(bitmap, uint16_t{700});
  put_fixed(bitmap, uint16_t{20});
  for (uint64_t word : {~uint64_t{0}, uint64_t{0xf0f0'0000'ff00'0ff0}, uint64_t{1}}) {
    put_fixed(bitmap, word);
  }
  return {table, bitmap};
}

const std::map<std::string_view, std::function<Seeds()>>& makers() {
  static const std::map<std::string_view, std::function<Seeds()>> all = {
      {"superblock", superblock_seeds},
      {"node", node_seeds},
      {"interior", interior_seeds},
      {"sorted_block", [] { return Seeds{some_block(true, 40), some_block(false, 20)}; }},
      {"message", message_seeds},
      {"compression", compression_seeds},
      {"log_record", log_record_seeds},
      {"log_frame", log_frame_seeds},
      {"key", key_seeds},
      {"record", record_seeds},
      {"meta_page", meta_page_seeds},
      {"space", space_seeds},
      {"check_image", edit_seeds},
      {"mount_image", edit_seeds},
      {"requests", [] { return Seeds{std::string(200, '\1'), std::string("\0\x05\x20", 3)}; }},
  };
  return all;
}

}  // namespace

std::vector<std::string> seeds_of(std::string_view target) {
  const auto maker = makers().find(target);
  return maker == makers().end() ? std::vector<std::string>{} : maker->second();
}

}  // namespace caw
