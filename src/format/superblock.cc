#include "format/superblock.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "base/assert.h"
#include "base/bytes.h"

namespace caw {
namespace {

/// Superblock.  Integers are little-endian.
///   off size field
///     0    8 magic            "CAWFSVOL"
///     8    8 checksum         XXH3-64 of bytes [16, 4096)
///    16    4 version          3; 2 is read, too: it had no extended attributes, no hard links
///    20    4 block_bytes      4096
///    24    8 features         bits a reader must know; none so far
///    32   16 uuid
///    48   64 label            UTF-8, zero-padded
///   112    8 block_count
///   120    8 epoch            the checkpoint it stands for
///   128    8 next_seq
///   136   64 counters         8 x u64, high-water marks
///   200    8 meta_root addr   0: no node table yet
///   208    8 meta_root checksum
///   216    1 meta_height
///   217    1 compression      for new nodes and blobs
///   218    1 flags            bit 0: unmounted in order
///   219    5 reserved         zero
///   224    8 system_tree      node id of its root
///   232   40 shape            10 x u32, in the order of TreeShape
///   272    8 used_blocks
///   280  256 region_table_slots  one bit per region-table block
///   536    8 region_table_hash
///   544    8 log_position     of the first frame not contained
///   552  128 log_segments     8 x (u64 first block, u64 blocks)
///   680 3416 reserved         zero on write, checked on read
struct Layout {
  char magic[8];
  uint64_t checksum;
  uint32_t version;
  uint32_t block_bytes;
  uint64_t features;
  uint8_t uuid[16];
  char label[kMaxLabelBytes];
  uint64_t block_count;
  uint64_t epoch;
  uint64_t next_seq;
  uint64_t counters[kCounters];
  uint64_t meta_root_addr;
  uint64_t meta_root_checksum;
  uint8_t meta_height;
  uint8_t compression;
  uint8_t flags;
  uint8_t reserved0[5];
  uint64_t system_tree;
  uint32_t shape[10];
  uint64_t used_blocks;
  uint64_t region_table_slots[32];
  uint64_t region_table_hash;
  uint64_t log_position;
  uint64_t log_segments[kLogSegments][2];
  uint8_t reserved1[3416];
};
static_assert(sizeof(Layout) == kBlockSize && std::has_unique_object_representations_v<Layout>);
static_assert(offsetof(Layout, counters) == 136 && offsetof(Layout, system_tree) == 224 &&
              offsetof(Layout, region_table_hash) == 536 && offsetof(Layout, log_position) == 544);

constexpr char kMagic[8] = {'C', 'A', 'W', 'F', 'S', 'V', 'O', 'L'};
constexpr size_t kChecksumFrom = 16;
constexpr uint8_t kClean = 1;
constexpr uint64_t kKnownFeatures = 0;
/// 32 x 64 region-table blocks of 338 regions each: about 84 TiB.
constexpr uint64_t kMostBlocks = uint64_t{32} * 64 * 338 * kRegionBlocks;
constexpr uint8_t kMaxMetaHeight = 16;

void store_shape(uint32_t (&out)[10], const TreeShape& shape) {
  const uint32_t fields[10] = {shape.leaf_bytes,        shape.fanout,    shape.buffer_bytes,
                               shape.alpha_num,         shape.alpha_den, shape.floor_bytes,
                               shape.run_bytes,         shape.max_runs,  shape.inline_bytes,
                               shape.inline_value_bytes};
  std::copy(std::begin(fields), std::end(fields), out);
}

TreeShape load_shape(const uint32_t (&in)[10]) {
  TreeShape shape;
  shape.leaf_bytes = in[0];
  shape.fanout = in[1];
  shape.buffer_bytes = in[2];
  shape.alpha_num = in[3];
  shape.alpha_den = in[4];
  shape.floor_bytes = in[5];
  shape.run_bytes = in[6];
  shape.max_runs = in[7];
  shape.inline_bytes = in[8];
  shape.inline_value_bytes = in[9];
  return shape;
}

bool label_is_padded(const char (&label)[kMaxLabelBytes]) {
  const char* const end = std::find(std::begin(label), std::end(label), '\0');
  return std::all_of(end, std::end(label), [](char byte) { return byte == '\0'; });
}

/// Each within the volume, behind the superblocks; all that are not there come last.
bool log_is_valid(const Layout& in) {
  bool ended = false;
  for (const auto& [first, blocks] : in.log_segments) {
    if (blocks == 0) {
      ended = true;
      if (first != 0) return false;
      continue;
    }
    const bool within = first >= 2 && first < in.block_count &&
                        blocks <= kMaxLogSegmentBlocks && blocks <= in.block_count - first;
    if (ended || !within) return false;
  }
  return true;
}

bool numbers_are_valid(const Layout& in) {
  const auto valid = [](uint64_t number) { return number < kMaxNumber; };
  return valid(in.epoch) && valid(in.next_seq) && valid(in.log_position) &&
         std::all_of(std::begin(in.counters), std::end(in.counters), valid);
}

bool fields_are_valid(const Layout& in) {
  const auto zero = [](uint8_t byte) { return byte == 0; };
  const bool meta_root_valid = in.meta_root_addr < in.block_count;
  return in.block_bytes == kBlockSize && label_is_padded(in.label) &&
         in.block_count >= kMinVolumeBlocks && in.block_count <= kMostBlocks && meta_root_valid &&
         in.meta_height <= kMaxMetaHeight &&
         in.compression <= static_cast<uint8_t>(Compression::zstd) && (in.flags & ~kClean) == 0 &&
         in.used_blocks <= in.block_count && log_is_valid(in) && numbers_are_valid(in) &&
         shape_is_valid(load_shape(in.shape)) &&
         std::all_of(std::begin(in.reserved0), std::end(in.reserved0), zero) &&
         std::all_of(std::begin(in.reserved1), std::end(in.reserved1), zero);
}

}  // namespace

bool shape_is_valid(const TreeShape& shape) {
  const auto within = [](uint32_t value, uint32_t low, uint32_t high) {
    return value >= low && value <= high;
  };
  // The pigeonhole: a full buffer always has a child with α · leaf pending.
  const bool buffer_suffices = uint64_t{shape.fanout} * shape.leaf_bytes * shape.alpha_num <=
                               uint64_t{shape.buffer_bytes} * shape.alpha_den;
  return within(shape.leaf_bytes, 64, 1U << 20) && within(shape.fanout, 2, 256) &&
         within(shape.buffer_bytes, 64, 64U << 20) && within(shape.alpha_den, 1, 64) &&
         within(shape.alpha_num, 1, shape.alpha_den) && within(shape.floor_bytes, 0, 1U << 20) &&
         within(shape.run_bytes, 64, 1U << 20) && within(shape.max_runs, 1, 256) &&
         within(shape.inline_bytes, 0, 1U << 16) &&
         within(shape.inline_value_bytes, 0, kMaxInlineValueBytes) && buffer_suffices;
}

AlignedBuffer encode_superblock(const Superblock& superblock) {
  CAW_ASSERT(superblock.label.size() <= kMaxLabelBytes && shape_is_valid(superblock.shape));
  Layout out{};
  std::memcpy(out.magic, kMagic, sizeof(kMagic));
  out.version = kFormatVersion;
  out.block_bytes = kBlockSize;
  out.features = superblock.features_incompatible;
  std::copy(superblock.uuid.begin(), superblock.uuid.end(), out.uuid);
  std::copy(superblock.label.begin(), superblock.label.end(), out.label);
  out.block_count = superblock.block_count;
  out.epoch = superblock.epoch;
  out.next_seq = superblock.next_seq;
  std::copy(superblock.counters.begin(), superblock.counters.end(), out.counters);
  out.meta_root_addr = raw(superblock.meta_root.addr);
  out.meta_root_checksum = superblock.meta_root.checksum;
  out.meta_height = superblock.meta_height;
  out.compression = static_cast<uint8_t>(superblock.compression);
  out.flags = superblock.clean ? kClean : 0;
  out.system_tree = raw(superblock.system_tree);
  store_shape(out.shape, superblock.shape);
  out.used_blocks = superblock.used_blocks;
  std::copy(superblock.region_table_slots.begin(), superblock.region_table_slots.end(),
            out.region_table_slots);
  out.region_table_hash = superblock.region_table_hash;
  out.log_position = superblock.log_position;
  for (size_t i = 0; i < kLogSegments; ++i) {
    out.log_segments[i][0] = raw(superblock.log_segments[i].first);
    out.log_segments[i][1] = superblock.log_segments[i].blocks;
  }

  AlignedBuffer block(kBlockSize);
  std::memcpy(block.data(), &out, sizeof(out));
  store_fixed(block.chars() + offsetof(Layout, checksum),
              checksum64(block.view().substr(kChecksumFrom)));
  return block;
}

Result<Superblock> decode_superblock(std::string_view block) {
  if (block.size() != kBlockSize || std::memcmp(block.data(), kMagic, sizeof(kMagic)) != 0) {
    return fail(Code::not_a_volume, 0, "decode_superblock");
  }
  // Magic, checksum, version and features stay where they are in every version.
  Layout in;
  std::memcpy(&in, block.data(), sizeof(in));
  if (checksum64(block.substr(kChecksumFrom)) != in.checksum) {
    return fail(Code::superblock_damaged, 0, "checksum");
  }
  if (in.version < kOldestVersion || in.version > kFormatVersion ||
      (in.features & ~kKnownFeatures) != 0) {
    return fail(Code::format_version, in.version, "decode_superblock");
  }
  if (!fields_are_valid(in)) return fail(Code::superblock_damaged, 0, "fields");

  Superblock out;
  out.version = in.version;
  out.features_incompatible = in.features;
  std::copy(std::begin(in.uuid), std::end(in.uuid), out.uuid.begin());
  out.label.assign(in.label, std::find(std::begin(in.label), std::end(in.label), '\0'));
  out.block_count = in.block_count;
  out.epoch = in.epoch;
  out.next_seq = in.next_seq;
  std::copy(std::begin(in.counters), std::end(in.counters), out.counters.begin());
  out.meta_root = {BlockAddr{in.meta_root_addr}, in.meta_root_checksum};
  out.meta_height = in.meta_height;
  out.system_tree = NodeId{in.system_tree};
  out.compression = static_cast<Compression>(in.compression);
  out.shape = load_shape(in.shape);
  out.used_blocks = in.used_blocks;
  out.clean = (in.flags & kClean) != 0;
  std::copy(std::begin(in.region_table_slots), std::end(in.region_table_slots),
            out.region_table_slots.begin());
  out.region_table_hash = in.region_table_hash;
  out.log_position = in.log_position;
  for (size_t i = 0; i < kLogSegments; ++i) {
    out.log_segments[i] = {BlockAddr{in.log_segments[i][0]}, in.log_segments[i][1]};
  }
  return out;
}

}  // namespace caw
