// A volume taken apart, changed, and put together again with every checksum right.
//
// Nodes, the node table, the bitmap and the log are held decoded; edits change them without regard
// for sense; seal() writes what was changed to free blocks, as a writer would, and makes checksums,
// the table above them and the superblock agree.  Volumes of one region only.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "check/tables.h"
#include "dev/memory_device.h"
#include "format/interior.h"
#include "format/node.h"
#include "format/sorted_block.h"
#include "format/superblock.h"
#include "fuzz/edits.h"
#include "meta/meta_page.h"
#include "space/bitmap.h"
#include "store/node_entry.h"

namespace caw {

/// The messages of a leaf, a run, or an embedded run.
struct LooseBlock {
  std::map<std::string, Message> points;
  std::vector<RangeErase> ranges;
};

class HostileImage {
 public:
  /// Requires: a sound volume.
  explicit HostileImage(const Ref<MemoryImage>& sound);
  void apply(const Edit& edit);
  Ref<MemoryImage> seal();

 private:
  struct LooseNode {
    NodeInfo info;
    std::string payload;
    NodeEntry row;
    bool changed = false;
  };
  struct Patched {
    size_t page = 0;
    size_t offset = 0;
    std::string bytes;
  };

  void load_table(BlockDevice& device);
  void load_log(BlockDevice& device);

  uint64_t number(const Edit& edit) const;
  LooseNode* pick(const Edit& edit, std::optional<NodeKind> kind, bool with_embedded = false);
  void edit_interior(const Edit& edit);
  void edit_edge(const Edit& edit, Interior& node);
  void edit_run(const Edit& edit, Interior& node);
  void edit_entry(const Edit& edit);
  void edit_embedded(const Edit& edit);
  void edit_payload(const Edit& edit);
  void edit_header(const Edit& edit);
  void edit_row(const Edit& edit);
  void edit_count(const Edit& edit);
  void edit_bitmap(const Edit& edit);
  void edit_log_op(const Edit& edit);
  void edit_log_bytes(const Edit& edit);
  void edit_superblock(const Edit& edit);
  void edit_block(const Edit& edit, LooseBlock& block) const;
  void edit_point(const Edit& edit, LooseBlock& block) const;
  void edit_message(const Edit& edit, Message& message) const;
  void edit_value(const Edit& edit, Value& value) const;
  void edit_inode(const Edit& edit, Value& value) const;

  BlockAddr place(std::string_view bytes);
  void give_back(BlockAddr first, uint64_t blocks);
  bool in_place(const NodeEntry& row) const;
  void seal_nodes();
  void seal_log();
  void seal_table();
  void seal_space();
  void seal_superblock_block();

  Ref<MemoryImage> image_;
  FoundSuperblock found_;
  std::map<uint64_t, LooseNode> nodes_;
  std::map<uint64_t, uint64_t> node_counts_, blob_counts_;
  std::map<uint64_t, bool> dead_;
  std::vector<std::string> records_;  ///< of the log
  bool log_changed_ = false;
  RegionBits bits_{};
  int64_t free_error_ = 0;
  uint64_t next_free_ = 0;
  std::vector<Patched> page_patches_;
  std::vector<Patched> region_patches_;
  std::vector<Patched> superblock_patches_;
};

}  // namespace caw
