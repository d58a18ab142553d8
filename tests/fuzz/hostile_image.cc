#include "fuzz/hostile_image.h"

#include <algorithm>
#include <utility>

#include "base/bytes.h"
#include "format/log_record.h"
#include "fuzz/fuzz.h"
#include "log/log_reader.h"
#include "schema/keys.h"
#include "schema/records.h"

namespace caw {
namespace {

template <typename T>
T take_from(Result<T> result) {
  FUZZ_CHECK(result.has_value());
  return std::move(*result);
}

bool key_allowed(std::string_view key) { return key.size() <= kMaxKeyBytes && key < kKeyEnd; }

/// `text` over, before, or instead of a part of `string`.
void change_text(const Edit& edit, std::string& string) {
  const size_t at = string.empty() ? 0 : edit.value % string.size();
  switch (edit.form % 5) {
    case 0:
      string.replace(at, edit.text().size(), edit.text());
      break;
    case 1:
      string.insert(at, edit.text());
      break;
    case 2:
      string.erase(at, edit.length % 16U);
      break;
    case 3:
      string = edit.text();
      break;
    default:
      string.append(size_t{edit.length} * 16, edit.bytes[0]);
  }
}

LooseBlock take_apart(std::string_view bytes) {
  LooseBlock out;
  const Result<SortedBlock> block = SortedBlock::open(bytes);
  if (!block) return out;
  out.ranges = block->range_erases();
  SortedBlock::Iterator it(*block);
  for (it.seek_to_first(); it.valid(); it.next()) {
    out.points.emplace(it.key(), take_from(decode_message(it.kind(), it.body())));
  }
  return out;
}

/// In order again, without what no writer could write.
std::string put_together(LooseBlock block) {
  SortedBlockBuilder builder;
  std::ranges::sort(block.ranges, {}, &RangeErase::lo);
  std::string end;
  for (const RangeErase& range : block.ranges) {
    const bool fits = key_allowed(range.lo) && (range.hi == kKeyEnd || key_allowed(range.hi)) &&
                      range.lo < range.hi && end <= range.lo;
    if (!fits) continue;
    builder.add_range_erase(range);
    end = range.hi;
  }
  for (const auto& [key, message] : block.points) {
    if (key_allowed(key) && builder.size_bytes() < kMaxNodePayload / 4) builder.add(key, message);
  }
  return builder.finish();
}

std::string encode_record(const LogRecord& record) {
  LogRecordBuilder builder;
  if (record.clone_source != kNoNode) {
    builder.add_clone(record.clone_source, record.clone_id);
    for (const auto& [from, to] : record.clone_prefixes) builder.add_clone_prefix(from, to);
  }
  for (const NodeId id : record.new_trees) builder.add_new_tree(id);
  for (const LogRecord::Op& op : record.ops) {
    if (op.range_end.empty()) {
      builder.add_message(op.tree, op.key, op.message);
    } else {
      builder.add_range_erase(op.tree, op.key, op.range_end, op.message.dead_bytes);
    }
  }
  std::string bytes = builder.finish();
  set_record_seq(bytes, record.seq);
  return bytes;
}

}  // namespace

// ---- taking apart

HostileImage::HostileImage(const Ref<MemoryImage>& sound) : image_(sound->clone()) {
  const std::unique_ptr<BlockDevice> device = make_memory_device(image_, true);
  found_ = take_from(find_superblock(*device));
  Findings findings(1);
  const RegionTable regions = read_region_table(*device, found_.superblock, findings);
  FUZZ_CHECK(findings.count() == 0 && regions.rows.size() == 1);
  const VolumeLayout layout(found_.superblock.block_count);
  const AlignedBuffer bitmap = take_from(read_bitmap(*device, layout, 0, regions.rows[0]));
  std::memcpy(bits_.data(), bitmap.data(), kBlockSize);
  // The upper half is free: not even a blob that only the log names is there.
  next_free_ = found_.superblock.block_count / 2;
  const auto end = static_cast<uint32_t>(found_.superblock.block_count);
  FUZZ_CHECK(find_set(bits_, static_cast<uint32_t>(next_free_), end) == end);
  load_table(*device);
  load_log(*device);
}

void HostileImage::load_table(BlockDevice& device) {
  Findings findings(1);
  const NodeTable table = read_node_table(device, found_.superblock, findings);
  FUZZ_CHECK(findings.count() == 0);
  for (const NodeRow& row : table.nodes) {
    OpenedNode opened = take_from(read_node(device, row));
    NodeEntry entry;
    entry.addr = row.addr;
    entry.stored_bytes = row.stored_bytes;
    entry.checksum = row.checksum;
    entry.kind = row.kind;
    entry.owns_refs = row.owns_refs;
    entry.height = row.height;
    entry.compression = row.compression;
    entry.birth = row.birth;
    entry.max_seq = row.max_seq;
    nodes_[raw(row.id)] = {opened.info, std::move(opened.payload), entry, false};
  }
  for (const CountRow& row : table.node_counts) node_counts_[row.id] = row.count;
  for (const CountRow& row : table.blob_counts) blob_counts_[row.id] = row.count;
  for (const uint64_t id : table.dead) dead_[id] = true;
  for (const BlockAddr page : table.pages) give_back(page, 1);  // all are written anew
}

void HostileImage::give_back(BlockAddr first, uint64_t blocks) {
  clear_bits(bits_, static_cast<uint32_t>(raw(first)), static_cast<uint32_t>(blocks));
}

void HostileImage::load_log(BlockDevice& device) {
  const LogRing ring(found_.superblock.log_segments);
  if (ring.blocks() == 0) return;
  const LogContents log = take_from(
      read_log(device, ring, found_.superblock.uuid, found_.superblock.log_position));
  std::string_view rest(log.bytes);
  while (const size_t bytes = log_record_bytes(rest)) {
    records_.emplace_back(rest.substr(0, bytes));
    rest.remove_prefix(bytes);
  }
}

// ---- edits

void HostileImage::apply(const Edit& edit) {
  switch (static_cast<EditKind>(static_cast<uint8_t>(edit.kind) % kEditKinds)) {
    case EditKind::interior:
      return edit_interior(edit);
    case EditKind::entry:
      return edit_entry(edit);
    case EditKind::embedded_entry:
      return edit_embedded(edit);
    case EditKind::payload_bytes:
      return edit_payload(edit);
    case EditKind::node_header:
      return edit_header(edit);
    case EditKind::node_row:
      return edit_row(edit);
    case EditKind::count:
      return edit_count(edit);
    case EditKind::bitmap:
      return edit_bitmap(edit);
    case EditKind::log_op:
      return edit_log_op(edit);
    case EditKind::log_bytes:
      return edit_log_bytes(edit);
    case EditKind::superblock:
      return edit_superblock(edit);
    case EditKind::superblock_bytes:
      return superblock_patches_.push_back(
          {0, 16 + edit.index % (kBlockSize - 32), std::string(edit.text())});
    case EditKind::page_bytes:
      return page_patches_.push_back(
          {edit.object, edit.index % (kBlockSize - 8U), std::string(edit.text())});
    case EditKind::region_bytes:
      return region_patches_.push_back(
          {0, 8 + edit.index % (kBlockSize - 16U), std::string(edit.text())});
  }
}

/// The edit's value, or one near a limit, or an id that exists.
uint64_t HostileImage::number(const Edit& edit) const {
  switch (edit.form % 6) {
    case 0:
      return edit.value;
    case 1:
      return edit.value % 16;
    case 2:
      return ~uint64_t{0} - edit.value % 16;
    case 3:
      return uint64_t{1} << (edit.value % 64);
    default:
      if (nodes_.empty()) return 1;
      return std::next(nodes_.begin(), static_cast<std::ptrdiff_t>(edit.value % nodes_.size()))
          ->first;
  }
}

HostileImage::LooseNode* HostileImage::pick(const Edit& edit, std::optional<NodeKind> kind,
                                            bool with_embedded) {
  std::vector<LooseNode*> fit;
  for (auto& [id, node] : nodes_) {
    if (kind && node.info.kind != *kind) continue;
    if (with_embedded) {
      const Result<Interior> interior = decode_interior(node.payload);
      if (!interior || interior->inline_block.empty()) continue;
    }
    fit.push_back(&node);
  }
  return fit.empty() ? nullptr : fit[edit.object % fit.size()];
}

void HostileImage::edit_interior(const Edit& edit) {
  LooseNode* const picked = pick(edit, NodeKind::interior);
  if (picked == nullptr) return;
  Result<Interior> decoded = decode_interior(picked->payload);
  if (!decoded) return;
  Interior& node = *decoded;
  switch (edit.field % 16) {
    case 0:
      node.next_pos = number(edit);
      break;
    case 1:
      change_text(edit, node.hi);
      break;
    case 2:
      node.height = picked->info.height = picked->row.height = static_cast<Height>(edit.value % 66);
      break;
    case 3:
      node.inline_pos = number(edit);
      break;
    case 4:
      node.inline_block.clear();
      break;
    case 5:
      if (const LooseNode* other = pick(edit, NodeKind::run)) node.inline_block = other->payload;
      node.inline_pos = node.next_pos - 1;
      break;
    case 6:
      node.max_seq = number(edit);
      break;
    default:
      if (edit.field % 2 == 0 && !node.runs.empty()) {
        edit_run(edit, node);
      } else {
        edit_edge(edit, node);
      }
  }
  if (node.edges.empty()) return;
  picked->payload = encode_interior(node);
  picked->changed = true;
}

void HostileImage::edit_edge(const Edit& edit, Interior& node) {
  const size_t at = edit.index % node.edges.size();
  Edge& edge = node.edges[at];
  switch (edit.field / 16 % 9) {
    case 0:
      edge.child = NodeId{number(edit)};
      break;
    case 1:
      edge.applied_pos = number(edit);
      break;
    case 2:
      edge.child_height = static_cast<Height>(edit.value);
      break;
    case 3:
      edge.child_bytes = static_cast<uint32_t>(number(edit));
      break;
    case 4:
      change_text(edit, edge.lo);
      break;
    case 5:
      change_text(edit, edge.translation.strip);
      break;
    case 6:
      change_text(edit, edge.translation.prepend);
      break;
    case 7:
      node.edges.erase(node.edges.begin() + static_cast<std::ptrdiff_t>(at));
      break;
    default: {
      // So many more, above it.
      Edge copy = edge;
      for (unsigned i = 0; i < edit.length; ++i) {
        copy.lo.push_back('\0');
        node.edges.insert(node.edges.begin() + static_cast<std::ptrdiff_t>(at + 1 + i), copy);
      }
    }
  }
}

void HostileImage::edit_run(const Edit& edit, Interior& node) {
  const size_t at = edit.index % node.runs.size();
  RunRef& run = node.runs[at];
  switch (edit.field / 16 % 9) {
    case 0:
      run.run = NodeId{number(edit)};
      break;
    case 1:
      run.pos = number(edit);
      break;
    case 2:
      run.bytes = static_cast<uint32_t>(number(edit));
      break;
    case 3:
      run.weight = number(edit);
      break;
    case 4:
      change_text(edit, run.lo);
      break;
    case 5:
      change_text(edit, run.hi);
      break;
    case 6:
      change_text(edit, run.translation.strip);
      break;
    case 7:
      change_text(edit, run.translation.prepend);
      break;
    default:
      // So many more references to it.
      const RunRef copy = run;
      for (RunRef& newer : node.runs) newer.pos += edit.length;
      for (unsigned i = 0; i < edit.length; ++i) {
        node.runs.push_back(copy);
        node.runs.back().pos = copy.pos + i;
      }
      node.next_pos += edit.length;
      std::ranges::stable_sort(node.runs, std::ranges::greater{}, &RunRef::pos);
  }
}

void HostileImage::edit_entry(const Edit& edit) {
  LooseNode* const picked =
      pick(edit, edit.field % 2 == 0 ? NodeKind::leaf : NodeKind::run);
  if (picked == nullptr) return;
  LooseBlock block = take_apart(picked->payload);
  edit_block(edit, block);
  picked->payload = put_together(std::move(block));
  picked->changed = true;
}

void HostileImage::edit_embedded(const Edit& edit) {
  LooseNode* const picked = pick(edit, NodeKind::interior, true);
  if (picked == nullptr) return;
  Interior node = take_from(decode_interior(picked->payload));
  LooseBlock block = take_apart(node.inline_block);
  edit_block(edit, block);
  node.inline_block = put_together(std::move(block));
  picked->payload = encode_interior(node);
  picked->changed = true;
}

void HostileImage::edit_block(const Edit& edit, LooseBlock& block) const {
  const std::string key =
      block.points.empty()
          ? std::string()
          : std::next(block.points.begin(),
                      static_cast<std::ptrdiff_t>(edit.index % block.points.size()))
                ->first;
  switch (edit.field / 2 % 8) {
    case 0:
      block.points.erase(key);
      break;
    case 1: {
      // Under another key as well.
      std::string other = key;
      change_text(edit, other);
      if (!block.points.empty()) block.points[other] = block.points[key];
      break;
    }
    case 2: {
      RangeErase range{key, key, number(edit)};
      change_text(edit, range.hi);
      block.ranges.push_back(range);
      break;
    }
    case 3:
      if (!block.ranges.empty()) {
        block.ranges[edit.index % block.ranges.size()].dead_bytes = number(edit);
      }
      break;
    default:
      edit_point(edit, block);
  }
}

void HostileImage::edit_point(const Edit& edit, LooseBlock& block) const {
  if (block.points.empty()) return;
  auto at = std::next(block.points.begin(),
                      static_cast<std::ptrdiff_t>(edit.index % block.points.size()));
  // Records of inodes are few among data.
  if (edit.field / 16 % 4 == 3) {
    const auto is_record = [](const auto& point) {
      const Value& value = point.second.value;
      return point.second.kind == MessageKind::put && value.is_inline() &&
             decode_inode(inline_bytes(value)).has_value();
    };
    at = std::find_if(at, block.points.end(), is_record);
    if (at == block.points.end()) return;
    return edit_inode(edit, at->second.value);
  }
  edit_message(edit, at->second);
}

void HostileImage::edit_message(const Edit& edit, Message& message) const {
  switch (edit.field / 64 % 4) {
    case 0:
      message = edit.form % 2 == 0 ? Message::erase(number(edit))
                                   : Message::make_patch(write_patch(
                                         static_cast<uint32_t>(edit.value % kMaxValueBytes / 2),
                                         std::string(size_t{edit.length} * 1024, 'p')));
      break;
    case 1:
      if (message.kind == MessageKind::patch) {
        message.patch.cut = static_cast<uint32_t>(number(edit));
        message.patch.extend = std::max(message.patch.extend,
                                        static_cast<uint32_t>(number(edit) % kMaxValueBytes));
        break;
      }
      [[fallthrough]];
    default:
      if (message.kind == MessageKind::put) edit_value(edit, message.value);
  }
}

void HostileImage::edit_value(const Edit& edit, Value& value) const {
  switch (edit.length % 9) {
    case 0:
      value.tree = NodeId{number(edit)};
      break;
    case 1:
      value.blob.addr = BlockAddr{number(edit)};
      break;
    case 2:
      value.blob.raw_bytes = static_cast<uint32_t>(number(edit) % kMaxBlobBytes);
      break;
    case 3:
      value.blob.stored_bytes = static_cast<uint32_t>(number(edit) % kMaxBlobBytes);
      break;
    case 4:
      value.blob.compression = static_cast<Compression>(edit.value % 3);
      break;
    case 5:
      value.length = static_cast<uint32_t>(number(edit) % (kMaxValueBytes + 1));
      break;
    case 6:
      value.blob_length = static_cast<uint32_t>(number(edit) % (kMaxBlobBytes + 1));
      break;
    case 7:
      value.pieces.clear();
      break;
    default:
      if (value.pieces.empty()) {
        apply_patch(value, write_patch(edit.index, std::string(edit.value % 70'000, 'v')));
      } else {
        std::string& bytes = value.pieces.front().bytes;
        change_text(edit, bytes);
        value.length = std::max(value.length, value.pieces.front().end());
      }
  }
}

void HostileImage::edit_inode(const Edit& edit, Value& value) const {
  InodeRecord record = take_from(decode_inode(inline_bytes(value)));
  switch (edit.length % 12) {
    case 0:
      record.fields.mode = static_cast<uint32_t>(edit.value);
      break;
    case 1:
      record.fields.mode = (record.fields.mode & 07777U) |
                           static_cast<uint32_t>(edit.value % 2 == 0 ? S_IFDIR : S_IFREG);
      break;
    case 2:
      record.fields.size = number(edit);
      break;
    case 3:
      record.number = number(edit);
      break;
    case 4:
      record.home = number(edit);
      record.domain = edit.value + 1;
      break;
    case 5:
      change_text(edit, record.name);
      record.name.resize(std::min(record.name.size(), kMaxNameBytes));
      break;
    case 6:
      record.target = edit.text();
      break;
    case 7:
      record.fields.flags = static_cast<uint32_t>(edit.value);
      break;
    case 8:
      record.fields.nlink = static_cast<uint32_t>(number(edit));
      break;
    case 9:
      record.fields.mtime = {static_cast<int64_t>(number(edit)), edit.index};
      break;
    case 10:
      value.tree = kNoNode;
      break;
    default:
      value.tree = NodeId{number(edit)};
  }
  const NodeId tree = value.tree;
  value = inline_value(encode_inode(record), tree);
}

void HostileImage::edit_payload(const Edit& edit) {
  LooseNode* const picked = pick(edit, std::nullopt);
  if (picked == nullptr) return;
  change_text(edit, picked->payload);
  picked->changed = true;
}

void HostileImage::edit_header(const Edit& edit) {
  LooseNode* const picked = pick(edit, std::nullopt);
  if (picked == nullptr) return;
  const auto kind = static_cast<NodeKind>(1 + edit.value % 3);
  switch (edit.field % 6) {
    case 0:
      picked->info.kind = picked->row.kind = kind;
      break;
    case 1:
      picked->info.height = picked->row.height = static_cast<Height>(edit.value);
      break;
    case 2:
      picked->info.owns_refs = picked->row.owns_refs = !picked->info.owns_refs;
      break;
    case 3:
      picked->info.id = NodeId{number(edit) | 1U};
      break;
    case 4:
      picked->info.max_seq = number(edit);
      break;
    default:
      picked->info.birth = number(edit);
  }
  picked->changed = true;
}

void HostileImage::edit_row(const Edit& edit) {
  if (nodes_.empty()) return;
  LooseNode* const picked = pick(edit, std::nullopt);
  switch (edit.field % 7) {
    case 0:
      picked->row.addr = BlockAddr{number(edit) | 1U};
      break;
    case 1:
      picked->row.stored_bytes = static_cast<uint32_t>(number(edit));
      break;
    case 2:
      picked->row.kind = static_cast<NodeKind>(1 + edit.value % 3);
      break;
    case 3:
      picked->row.birth = number(edit);
      break;
    case 4:
      picked->row.compression = static_cast<Compression>(edit.value % 4);
      break;
    case 5:
      nodes_.erase(raw(picked->info.id));
      break;
    default: {
      // The node under another id, or in place of another.
      LooseNode copy = *picked;
      copy.info.id = NodeId{number(edit) | 1U};
      copy.changed = true;
      nodes_[raw(copy.info.id)] = std::move(copy);
    }
  }
}

void HostileImage::edit_count(const Edit& edit) {
  LooseNode* const picked = pick(edit, std::nullopt);
  const uint64_t id = picked == nullptr ? 1 : raw(picked->info.id);
  switch (edit.field % 6) {
    case 0:
      node_counts_[id] = number(edit);
      break;
    case 1:
      node_counts_.erase(id);
      break;
    case 2:
      dead_[id] = true;
      break;
    case 3:
      dead_.clear();
      break;
    case 4:
      if (!blob_counts_.empty()) blob_counts_.erase(blob_counts_.begin());
      break;
    default:
      blob_counts_[edit.value % image_->block_count()] = 2 + edit.index;
  }
}

void HostileImage::edit_bitmap(const Edit& edit) {
  const auto first = static_cast<uint32_t>(edit.value % image_->block_count());
  const auto count =
      std::min<uint32_t>(1U + edit.index, static_cast<uint32_t>(image_->block_count()) - first);
  if (edit.field % 2 == 0) {
    set_bits(bits_, first, count);
  } else {
    clear_bits(bits_, first, count);
  }
  if (edit.form % 4 == 0) free_error_ = static_cast<int8_t>(edit.length);
}

void HostileImage::edit_log_op(const Edit& edit) {
  if (records_.empty()) return;
  log_changed_ = true;
  std::string& bytes = records_[edit.object % records_.size()];
  Result<LogRecord> record = decode_log_record(bytes);
  if (!record) return;
  switch (edit.field % 8) {
    case 0:
      record->new_trees.push_back(NodeId{number(edit) | 1U});
      break;
    case 1:
      record->clone_source = NodeId{number(edit) | 1U};
      record->clone_id = NodeId{edit.value | 1U};
      record->clone_prefixes.emplace_back(edit.text(), std::string(edit.index % 5000, 'k'));
      break;
    case 2:
      record->clone_id = NodeId{number(edit) | 1U};
      break;
    case 3:
      record->seq = number(edit);
      break;
    case 4:
      if (auto& prefixes = record->clone_prefixes; !prefixes.empty()) {
        change_text(edit, prefixes[edit.index % prefixes.size()].second);
      }
      break;
    default: {
      if (record->ops.empty()) break;
      LogRecord::Op& op = record->ops[edit.index % record->ops.size()];
      if (edit.field % 8 == 5) {
        op.tree = NodeId{number(edit) | 1U};
      } else if (edit.field % 8 == 6) {
        change_text(edit, op.key);
      } else {
        edit_message(edit, op.message);
      }
    }
  }
  bytes = encode_record(*record);
}

void HostileImage::edit_log_bytes(const Edit& edit) {
  if (records_.empty()) return;
  log_changed_ = true;
  std::string& bytes = records_[edit.object % records_.size()];
  if (edit.field % 2 == 0) {
    records_.push_back(bytes);
  } else {
    change_text(edit, bytes);
  }
}

void HostileImage::edit_superblock(const Edit& edit) {
  Superblock& block = found_.superblock;
  switch (edit.field % 13) {
    case 0:
      block.counters[edit.index % kCounters] = number(edit);
      break;
    case 1:
      block.next_seq = number(edit);
      break;
    case 2:
      block.system_tree = NodeId{number(edit)};
      break;
    case 3:
      block.log_position = number(edit);
      break;
    case 4:
      block.log_segments[edit.index % kLogSegments] = {BlockAddr{edit.value % 4200},
                                                       uint64_t{edit.length} * 8};
      break;
    case 5:
      block.epoch = number(edit);
      break;
    case 6:
      block.shape.fanout = static_cast<uint32_t>(edit.value % 300);
      break;
    case 7:
      block.shape.leaf_bytes = static_cast<uint32_t>(number(edit));
      break;
    case 8:
      block.shape.buffer_bytes = static_cast<uint32_t>(number(edit));
      break;
    case 9:
      block.shape.run_bytes = static_cast<uint32_t>(number(edit));
      break;
    case 10:
      block.shape.inline_value_bytes = static_cast<uint32_t>(number(edit));
      break;
    case 11:
      block.shape.inline_bytes = static_cast<uint32_t>(number(edit));
      break;
    default:
      block.compression = static_cast<Compression>(edit.value % 3);
  }
}

}  // namespace caw
