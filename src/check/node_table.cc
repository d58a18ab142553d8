// The node table: pages of a copy-on-write B+tree, read in key order.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "base/bytes.h"
#include "check/block_map.h"
#include "check/tables.h"
#include "format/compression.h"

namespace caw {
namespace {

constexpr uint32_t kPageMagic = 0x4d574143;  // "CAWM"
constexpr size_t kPageHeaderBytes = 32;
constexpr uint8_t kMaxLevels = 12;
constexpr uint8_t kMaxValue = 64;

constexpr uint8_t kNodeSpace = 1;
constexpr uint8_t kNodeCountSpace = 2;
constexpr uint8_t kBlobCountSpace = 3;
constexpr uint8_t kDeadSpace = 4;

struct Key {
  uint8_t space = 0;
  uint64_t id = 0;
  friend auto operator<=>(const Key&, const Key&) = default;
};
constexpr Key kLastKey{0xff, std::numeric_limits<uint64_t>::max()};

struct PendingPage {
  PageRef ref;
  uint8_t level = 0;
  Key lo;             ///< its keys are >= lo …
  Key hi = kLastKey;  ///< … and < hi
};

bool all_zero(std::string_view bytes) {
  return bytes.find_first_not_of('\0') == std::string_view::npos;
}

Key read_key(Reader& reader) {
  Key key;
  key.space = reader.fixed<uint8_t>();
  key.id = reader.fixed<uint64_t>();
  return key;
}

/// Fails: node_entry.
Result<NodeRow> parse_node_row(uint64_t id, std::string_view value) {
  Reader reader(value);
  const auto shape = reader.fixed<uint8_t>();
  NodeRow row;
  row.id = NodeId{id};
  row.height = reader.fixed<uint8_t>();
  row.checksum = reader.fixed<uint64_t>();
  row.addr = BlockAddr{reader.varint()};
  const uint64_t stored_bytes = reader.varint();
  row.birth = reader.varint();
  row.max_seq = reader.varint();
  row.owner = reader.varint();
  const auto kind = static_cast<uint8_t>(shape & 3U);
  const auto compression = static_cast<uint8_t>(shape >> 3U);
  const bool is_interior = kind == static_cast<uint8_t>(NodeKind::interior);
  if (!reader.ok() || !reader.at_end() || id == 0 || kind == 0 ||
      compression > static_cast<uint8_t>(Compression::zstd) || is_interior != (row.height > 0) ||
      stored_bytes < kNodeHeaderBytes || stored_bytes > kMaxNodePayload + kBlockSize) {
    return fail(Code::node_entry, id, "node table");
  }
  row.stored_bytes = static_cast<uint32_t>(stored_bytes);
  row.kind = NodeKind{kind};
  row.owns_refs = (shape & 4U) != 0;
  row.compression = Compression{compression};
  return row;
}

class TableReader {
 public:
  TableReader(BlockDevice& device, const Superblock& superblock, Findings& findings)
      : device_(device),
        superblock_(superblock),
        findings_(findings),
        seen_(superblock.block_count) {}

  NodeTable run();

 private:
  void read_page(const PendingPage& pending);
  bool parse_page(const PendingPage& pending, std::string_view bytes);
  bool parse_leaf(const PendingPage& pending, Reader& reader, size_t count);
  bool parse_interior(const PendingPage& pending, Reader& reader, size_t count);
  bool take_entry(Key key, std::string_view value);
  bool take_count(std::vector<CountRow>& list, Key key, std::string_view value);

  BlockDevice& device_;
  const Superblock& superblock_;
  Findings& findings_;
  BlockMap seen_;
  NodeTable table_;
  std::vector<PendingPage> stack_;
};

NodeTable TableReader::run() {
  if (superblock_.meta_root) {
    if (superblock_.meta_height == 0 || superblock_.meta_height > kMaxLevels) {
      findings_.add(Code::meta_depth, superblock_.meta_height, "height of the node table");
      table_.complete = false;
      return std::move(table_);
    }
    stack_.push_back(
        {superblock_.meta_root, static_cast<uint8_t>(superblock_.meta_height - 1), {}, kLastKey});
  }
  while (!stack_.empty()) {
    const PendingPage pending = stack_.back();
    stack_.pop_back();
    read_page(pending);
  }
  return std::move(table_);
}

void TableReader::read_page(const PendingPage& pending) {
  const uint64_t addr = raw(pending.ref.addr);
  const auto bad = [&](std::string text) {
    findings_.add(Code::meta_page, addr, std::move(text));
    table_.complete = false;
  };
  if (addr >= superblock_.block_count) {
    return bad(fmt::format("node-table page at {}, past the end", addr));
  }
  if (seen_.mark(addr, 1)) return bad(fmt::format("node-table page at {} used twice", addr));
  AlignedBuffer block(kBlockSize);
  const Result<void> read = device_.read(pending.ref.addr, block.span());
  if (!read) {
    findings_.add(read.error(), addr, "a node-table page");
    table_.complete = false;
    return;
  }
  table_.pages.push_back(pending.ref.addr);
  if (checksum64(block.view()) != pending.ref.checksum) {
    return bad(fmt::format("checksum of the node-table page at {}", addr));
  }
  if (!parse_page(pending, block.view())) bad(fmt::format("node-table page at {}", addr));
}

/// False if something in it cannot be.
bool TableReader::parse_page(const PendingPage& pending, std::string_view bytes) {
  Reader header(bytes.substr(0, kPageHeaderBytes));
  const bool magic_ok = header.fixed<uint32_t>() == kPageMagic;
  const bool level_ok = header.fixed<uint8_t>() == pending.level;
  const bool reserved_ok = header.fixed<uint8_t>() == 0;
  const auto count = header.fixed<uint16_t>();
  const bool address_ok = header.fixed<uint64_t>() == raw(pending.ref.addr);
  const auto epoch = header.fixed<uint64_t>();
  const auto used_bytes = header.fixed<uint16_t>();
  if (!magic_ok || !level_ok || !reserved_ok || !address_ok || count == 0 ||
      epoch > superblock_.epoch || !all_zero(header.rest()) ||
      used_bytes > kBlockSize - kPageHeaderBytes ||
      !all_zero(bytes.substr(kPageHeaderBytes + used_bytes))) {
    return false;
  }
  Reader entries(bytes.substr(kPageHeaderBytes, used_bytes));
  const bool ok = pending.level == 0 ? parse_leaf(pending, entries, count)
                                     : parse_interior(pending, entries, count);
  return ok && entries.ok() && entries.at_end();
}

bool TableReader::parse_leaf(const PendingPage& pending, Reader& reader, size_t count) {
  Key before;
  for (size_t i = 0; i < count; ++i) {
    const Key key = read_key(reader);
    const auto size = reader.fixed<uint8_t>();
    const std::string_view value = reader.bytes(size);
    if (!reader.ok() || size > kMaxValue || (i > 0 && key <= before) || key < pending.lo ||
        key >= pending.hi || !take_entry(key, value)) {
      return false;
    }
    before = key;
  }
  return true;
}

/// Child i holds keys from key i up to key i + 1; child 0 all from the page's own lower bound.
bool TableReader::parse_interior(const PendingPage& pending, Reader& reader, size_t count) {
  std::vector<PendingPage> children(count);
  for (size_t i = 0; i < count; ++i) {
    PendingPage& child = children[i];
    child.lo = read_key(reader);
    child.ref.addr = BlockAddr{reader.fixed<uint64_t>()};
    child.ref.checksum = reader.fixed<uint64_t>();
    child.level = static_cast<uint8_t>(pending.level - 1);
    const bool ordered = i == 0 || child.lo > children[i - 1].lo;
    const bool inside = child.lo >= pending.lo && child.lo < pending.hi;
    if (!reader.ok() || !child.ref || !ordered || !inside) return false;
    if (i > 0) children[i - 1].hi = child.lo;
  }
  children.front().lo = pending.lo;
  children.back().hi = pending.hi;
  // Popped in key order.
  for (size_t i = count; i-- > 0;) stack_.push_back(children[i]);
  return true;
}

bool TableReader::take_entry(Key key, std::string_view value) {
  switch (key.space) {
    case kNodeSpace: {
      const Result<NodeRow> row = parse_node_row(key.id, value);
      if (!row) {
        findings_.add(Code::node_entry, key.id, fmt::format("table entry of node {}", key.id));
        table_.complete = false;
      } else {
        table_.nodes.push_back(*row);
      }
      return true;
    }
    case kNodeCountSpace:
      return take_count(table_.node_counts, key, value);
    case kBlobCountSpace:
      return take_count(table_.blob_counts, key, value);
    case kDeadSpace:
      table_.dead.push_back(key.id);
      return value.empty();
    default:
      return false;
  }
}

bool TableReader::take_count(std::vector<CountRow>& list, Key key, std::string_view value) {
  Reader reader(value);
  const CountRow row{key.id, reader.varint()};
  if (!reader.ok() || !reader.at_end()) return false;
  if (row.count < 2) {
    findings_.add(Code::check_count, key.id,
                  fmt::format("stored count of {} {} is {}",
                              key.space == kNodeCountSpace ? "node" : "blob", key.id, row.count));
  }
  list.push_back(row);
  return true;
}

}  // namespace

NodeTable read_node_table(BlockDevice& device, const Superblock& superblock, Findings& findings) {
  return TableReader(device, superblock, findings).run();
}

}  // namespace caw
