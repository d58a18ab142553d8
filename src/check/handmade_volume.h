// A small volume made by hand, byte by byte, for tests of the checker: sound unless told otherwise.
#pragma once

#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/assert.h"
#include "base/bytes.h"
#include "dev/block_device.h"
#include "format/compression.h"
#include "format/interior.h"
#include "format/node.h"
#include "format/sorted_block.h"
#include "format/superblock.h"
#include "format/value.h"

namespace caw {

class HandmadeVolume {
 public:
  static constexpr uint64_t kBlocks = 40'000;  // two regions, the second one short
  static constexpr uint64_t kFixed = 6;        // of region 0: superblocks, tables, bitmaps

  HandmadeVolume() : device_(make_memory_device(kBlocks)) {
    superblock.block_count = kBlocks;
    superblock.epoch = 7;
    superblock.next_seq = 1000;
    superblock.counters.fill(1000);
    superblock.system_tree = NodeId{1};
  }

  Superblock superblock;
  std::map<uint64_t, uint64_t> node_counts;
  std::map<uint64_t, uint64_t> blob_counts;
  std::vector<uint64_t> dead;
  std::vector<uint64_t> leaked;     ///< blocks marked though unused
  std::vector<uint64_t> unmarked;   ///< blocks not marked though used
  int64_t free_error = 0;           ///< added to region 0's count of free blocks
  uint8_t flip_bitmap = 0;          ///< xored into a byte of region 0's bitmap
  uint64_t page_address_error = 0;  ///< added to the address a leaf page claims

  BlockDevice& device() { return *device_; }
  uint64_t addr_of(uint64_t id) const { return nodes_.at(id).addr; }
  void move_node(uint64_t id, uint64_t addr) { nodes_.at(id).addr = addr; }
  void forget_node(uint64_t id) { nodes_.erase(id); }

  void add_interior(uint64_t id, const Interior& node, bool owns_refs = false) {
    add_node({NodeId{id}, NodeKind::interior, node.height, owns_refs, 7, 10},
             encode_interior(node));
  }
  void add_block(uint64_t id, NodeKind kind,
                 const std::vector<std::pair<std::string, Message>>& messages) {
    SortedBlockBuilder builder;
    for (const auto& [key, message] : messages) builder.add(key, message);
    const bool owns_refs = builder.owns_refs();
    add_node({NodeId{id}, kind, 0, owns_refs, 7, 10}, builder.finish());
  }
  void add_node(const NodeInfo& info, std::string_view payload) {
    const SealedNode sealed = seal_node(info, payload, Compression::lz4);
    std::string entry(
        1, static_cast<char>(static_cast<unsigned>(info.kind) | (info.owns_refs ? 4U : 0U) |
                             static_cast<unsigned>(sealed.compression) << 3U));
    entry.push_back(static_cast<char>(info.height));
    put_fixed(entry, sealed.checksum);
    const uint64_t addr = place(sealed.bytes.span());
    nodes_[raw(info.id)] = {addr, sealed.stored_bytes, entry, info.birth, info.max_seq};
  }
  BlobRef add_blob(std::string_view bytes) {
    SealedBlob sealed = seal_blob(bytes, Compression::lz4);
    sealed.ref.addr = BlockAddr{place(sealed.bytes.span())};
    return sealed.ref;
  }
  void damage(uint64_t addr, size_t offset) {
    AlignedBuffer block(kBlockSize);
    check(device_->read(BlockAddr{addr}, block.span()));
    block.chars()[offset] = static_cast<char>(block.chars()[offset] ^ 1);
    check(device_->write(BlockAddr{addr}, block.span()));
  }

  /// Writes tables and superblock.
  void finish() {
    write_pages();
    write_space();
    check(device_->write(BlockAddr{superblock.epoch % 2}, encode_superblock(superblock).span()));
  }

 private:
  struct Stored {
    uint64_t addr = 0;
    uint32_t stored_bytes = 0;
    std::string shape_and_checksum;
    uint64_t birth = 0, max_seq = 0;
  };
  static void check(const Result<void>& result) { CAW_ASSERT(result.has_value()); }

  uint64_t place(std::span<const std::byte> bytes) {
    const uint64_t addr = next_;
    next_ += blocks_for(bytes.size());
    check(device_->write(BlockAddr{addr}, bytes));
    return addr;
  }
  static void put_key(std::string& out, uint8_t space, uint64_t id) {
    put_fixed(out, space);
    put_fixed(out, id);
  }
  static void put_entry(std::vector<std::string>& out, uint8_t space, uint64_t id,
                        std::string_view value) {
    std::string entry;
    put_key(entry, space, id);
    put_fixed(entry, static_cast<uint8_t>(value.size()));
    entry.append(value);
    out.push_back(entry);
  }
  std::vector<std::string> table_entries() const {
    std::vector<std::string> out;
    for (const auto& [id, node] : nodes_) {
      std::string value = node.shape_and_checksum;
      put_varint(value, node.addr);
      put_varint(value, node.stored_bytes);
      put_varint(value, node.birth);
      put_varint(value, node.max_seq);
      put_varint(value, 0);
      put_entry(out, 1, id, value);
    }
    const auto put_counts = [&](uint8_t space, const std::map<uint64_t, uint64_t>& counts) {
      for (const auto& [id, count] : counts) {
        std::string value;
        put_varint(value, count);
        put_entry(out, space, id, value);
      }
    };
    put_counts(2, node_counts);
    put_counts(3, blob_counts);
    for (const uint64_t id : dead) put_entry(out, 4, id, "");
    return out;
  }
  PageRef write_page(uint8_t level, uint16_t count, std::string_view entries, uint64_t error) {
    AlignedBuffer page(kBlockSize);
    std::string header("CAWM");
    put_fixed(header, level);
    put_fixed(header, uint8_t{0});
    put_fixed(header, count);
    put_fixed(header, next_ + error);
    put_fixed(header, superblock.epoch);
    put_fixed(header, static_cast<uint16_t>(entries.size()));
    std::memcpy(page.data(), header.data(), header.size());
    std::memcpy(page.data() + 32, entries.data(), entries.size());
    const uint64_t checksum = checksum64(page.view());
    return {BlockAddr{place(page.span())}, checksum};
  }
  /// Two levels: three entries a leaf, one root.
  void write_pages() {
    const std::vector<std::string> entries = table_entries();
    std::string root;
    uint16_t leaves = 0;
    for (size_t i = 0; i < entries.size(); i += 3, ++leaves) {
      std::string leaf;
      uint16_t count = 0;
      for (size_t k = i; k < std::min(entries.size(), i + 3); ++k, ++count) leaf += entries[k];
      const PageRef ref = write_page(0, count, leaf, page_address_error);
      root += entries[i].substr(0, 9);
      put_fixed(root, raw(ref.addr));
      put_fixed(root, ref.checksum);
    }
    superblock.meta_root = write_page(1, leaves, root, 0);
    superblock.meta_height = 2;
  }
  void write_space() {
    std::string bitmap(kBlockSize, '\0');
    const auto set = [&](uint64_t i, bool value) {
      const auto bit = static_cast<char>(1 << (i % 8));
      bitmap[i / 8] = static_cast<char>(value ? bitmap[i / 8] | bit : bitmap[i / 8] & ~bit);
    };
    for (uint64_t i = 0; i < next_; ++i) set(i, true);
    for (const uint64_t block : leaked) set(block, true);
    for (const uint64_t block : unmarked) set(block, false);
    int64_t used = static_cast<int64_t>(next_ + leaked.size() - unmarked.size());
    superblock.used_blocks = static_cast<uint64_t>(used) - kFixed;
    AlignedBuffer block(kBlockSize);
    std::memcpy(block.data(), bitmap.data(), kBlockSize);
    block.chars()[100] = static_cast<char>(block.chars()[100] ^ flip_bitmap);
    check(device_->write(BlockAddr{5}, block.span()));  // slot 1 of region 0

    std::string body("CAWR");
    put_fixed(body, uint32_t{0});
    put_fixed(body, superblock.epoch);
    put_fixed(body, uint32_t{2});
    put_fixed(body, uint32_t{0});
    put_fixed(body, checksum64(bitmap));
    put_fixed(body, static_cast<uint16_t>(static_cast<int64_t>(kRegionBlocks) - used + free_error));
    body += std::string("\x01\x01", 2);
    put_fixed(body, uint64_t{0});
    put_fixed(body, static_cast<uint16_t>(kBlocks - kRegionBlocks - 2));
    body += std::string("\0\0", 2);
    body.resize(kBlockSize - 8);
    std::string table;
    put_fixed(table, checksum64(body));
    superblock.region_table_hash = checksum64(table);
    table += body;
    std::memcpy(block.data(), table.data(), kBlockSize);
    check(device_->write(BlockAddr{3}, block.span()));  // slot 1 of table block 0
    superblock.region_table_slots[0] = 1;
  }

  std::unique_ptr<BlockDevice> device_;
  uint64_t next_ = kFixed;
  std::map<uint64_t, Stored> nodes_;
};

}  // namespace caw
