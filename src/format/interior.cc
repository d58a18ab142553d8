#include "format/interior.h"

#include <algorithm>

#include "base/assert.h"
#include "base/bytes.h"
#include "format/node.h"
#include "format/sorted_block.h"
#include "format/superblock.h"

namespace caw {
namespace {

// Flags of an edge or run reference.
constexpr uint8_t kSameTranslation = 1;  ///< as the one before (the first: identity)
constexpr uint8_t kNoChild = 2;          ///< edge only

constexpr Height kMaxHeight = 63;

std::unexpected<Error> malformed(const char* where) {
  return fail(Code::interior_malformed, 0, where);
}

/// Keys and translations are coded against the ones before: neighbours mostly agree.
class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}

  void key(std::string& before, std::string_view key) {
    size_t shared = 0;
    while (shared < before.size() && shared < key.size() && before[shared] == key[shared]) ++shared;
    put_varint(out_, shared);
    put_sized(out_, key.substr(shared));
    before.assign(key);
  }
  void translation(uint8_t flags, const Translation& translation) {
    const bool same = translation == before_;
    out_.push_back(static_cast<char>(same ? flags | kSameTranslation : flags));
    if (same) return;
    put_sized(out_, translation.strip);
    put_sized(out_, translation.prepend);
    before_ = translation;
  }

 private:
  std::string& out_;
  Translation before_;
};

class Parser {
 public:
  explicit Parser(Reader& reader) : reader_(reader) {}

  /// False: the bytes are damaged.
  bool key(std::string& before, std::string* out) {
    const uint64_t shared = reader_.varint();
    const std::string_view suffix = reader_.sized();
    if (!reader_.ok() || shared > before.size() || shared + suffix.size() > kMaxKeyBytes) {
      return false;
    }
    before.resize(shared);
    before.append(suffix);
    *out = before;
    return true;
  }
  bool translation(uint8_t known_flags, uint8_t* flags, Translation* out) {
    *flags = reader_.fixed<uint8_t>();
    if ((*flags & ~(known_flags | kSameTranslation)) != 0) return false;
    if ((*flags & kSameTranslation) == 0) {
      before_.strip = reader_.sized();
      before_.prepend = reader_.sized();
    }
    *out = before_;
    return reader_.ok() && before_.strip.size() <= kMaxKeyBytes &&
           before_.prepend.size() <= kMaxKeyBytes;
  }

 private:
  Reader& reader_;
  Translation before_;
};

bool starts_with_end_byte(std::string_view key) { return !key.empty() && key.front() == '\xff'; }
bool bounds_allowed(std::string_view lo, std::string_view hi) {
  return lo < hi && !starts_with_end_byte(lo) && (hi == kKeyEnd || !starts_with_end_byte(hi));
}

void encode_edges(std::string& out, const std::vector<Edge>& edges) {
  Writer writer(out);
  std::string before;
  put_varint(out, edges.size());
  for (const Edge& edge : edges) {
    writer.translation(edge.child == kNoNode ? kNoChild : 0, edge.translation);
    writer.key(before, edge.lo);
    put_varint(out, edge.applied_pos);
    put_varint(out, edge.max_seq);
    if (edge.child == kNoNode) continue;
    put_varint(out, raw(edge.child));
    put_varint(out, edge.child_bytes);
    out.push_back(static_cast<char>(edge.child_height));
  }
}

void encode_runs(std::string& out, const std::vector<RunRef>& runs) {
  Writer writer(out);
  std::string lo_before;
  std::string hi_before;
  put_varint(out, runs.size());
  for (const RunRef& run : runs) {
    writer.translation(0, run.translation);
    writer.key(lo_before, run.lo);
    writer.key(hi_before, run.hi);
    put_varint(out, raw(run.run));
    put_varint(out, run.pos);
    put_varint(out, run.bytes);
    put_varint(out, run.weight);
    put_varint(out, run.max_seq);
  }
}

uint64_t memory_bytes(const Translation& translation) {
  return translation.strip.size() + translation.prepend.size();
}
uint64_t memory_bytes(const Edge& edge) {
  return sizeof(Edge) + edge.lo.size() + memory_bytes(edge.translation);
}
uint64_t memory_bytes(const RunRef& run) {
  return sizeof(RunRef) + run.lo.size() + run.hi.size() + memory_bytes(run.translation);
}

/// Takes `bytes` off what is left for a node.
bool charge(uint64_t bytes, uint64_t* left) {
  if (bytes > *left) return false;
  *left -= bytes;
  return true;
}

Result<void> parse_edges(Reader& reader, Interior* node, uint64_t* left) {
  const uint64_t count = reader.varint();
  if (!reader.ok() || count == 0 || count > reader.rest().size() || count > kMaxEdges) {
    return malformed("edge count");
  }
  Parser parser(reader);
  std::string before;
  for (uint64_t i = 0; i < count; ++i) {
    Edge edge;
    uint8_t flags = 0;
    if (!parser.translation(kNoChild, &flags, &edge.translation)) return malformed("translation");
    if (!parser.key(before, &edge.lo)) return malformed("edge bound");
    edge.applied_pos = reader.varint();
    edge.max_seq = reader.varint();
    if ((flags & kNoChild) == 0) {
      edge.child = NodeId{reader.varint()};
      const uint64_t bytes = reader.varint();
      edge.child_height = reader.fixed<uint8_t>();
      if (edge.child == kNoNode || bytes > kMaxNodePayload) return malformed("child");
      edge.child_bytes = static_cast<uint32_t>(bytes);
    }
    if (!reader.ok() || edge.applied_pos >= node->next_pos) return malformed("edge");
    if (edge.child_height >= node->height) return malformed("child height");
    if (!charge(memory_bytes(edge), left)) return malformed("size");
    node->edges.push_back(std::move(edge));
  }
  return {};
}

Result<void> check_edges(const Interior& node) {
  for (size_t i = 0; i < node.edges.size(); ++i) {
    const Edge& edge = node.edges[i];
    const std::string& hi = i + 1 < node.edges.size() ? node.edges[i + 1].lo : node.hi;
    if (!bounds_allowed(edge.lo, hi)) return malformed("edge order");
  }
  return {};
}

Result<void> parse_runs(Reader& reader, Interior* node, uint64_t* left) {
  const uint64_t count = reader.varint();
  if (!reader.ok() || count > reader.rest().size() || count > kMaxRuns) {
    return malformed("run count");
  }
  Parser parser(reader);
  std::string lo_before;
  std::string hi_before;
  uint64_t newer_pos = node->next_pos;
  for (uint64_t i = 0; i < count; ++i) {
    RunRef run;
    uint8_t flags = 0;
    if (!parser.translation(0, &flags, &run.translation)) return malformed("run translation");
    if (!parser.key(lo_before, &run.lo) || !parser.key(hi_before, &run.hi)) {
      return malformed("run bound");
    }
    run.run = NodeId{reader.varint()};
    run.pos = reader.varint();
    const uint64_t bytes = reader.varint();
    run.weight = reader.varint();
    run.max_seq = reader.varint();
    if (!reader.ok() || run.run == kNoNode || bytes > kMaxNodePayload) return malformed("run");
    run.bytes = static_cast<uint32_t>(bytes);
    if (!bounds_allowed(run.lo, run.hi)) return malformed("run bounds");
    if (run.pos >= newer_pos) return malformed("run order");
    newer_pos = run.pos;
    if (!charge(memory_bytes(run), left)) return malformed("size");
    node->runs.push_back(std::move(run));
  }
  return {};
}

Result<void> parse_inline(Reader& reader, Interior* node) {
  node->inline_pos = reader.varint();
  node->inline_block = reader.rest();
  if (!reader.ok() || node->inline_pos >= node->next_pos) return malformed("inline position");
  if (node->inline_block.empty()) return {};
  for (const RunRef& run : node->runs) {
    if (run.pos == node->inline_pos) return malformed("inline position");
  }
  CAW_TRY(SortedBlock::open(node->inline_block));
  return {};
}

}  // namespace

Result<void> check_limits(const Interior& node) {
  if (node.edges.size() > kMaxEdges || node.runs.size() > kMaxRuns) return malformed("count");
  uint64_t left = kMaxInteriorMemoryBytes;
  const auto fits = [&left](const auto& each) { return charge(memory_bytes(each), &left); };
  if (!std::ranges::all_of(node.edges, fits) || !std::ranges::all_of(node.runs, fits)) {
    return malformed("size");
  }
  return {};
}

std::string encode_interior(const Interior& node) {
  CAW_ASSERT(!node.edges.empty());
  std::string out;
  out.push_back(static_cast<char>(node.height));
  put_sized(out, node.hi);
  put_varint(out, node.next_pos);
  put_varint(out, node.max_seq);
  encode_edges(out, node.edges);
  encode_runs(out, node.runs);
  put_varint(out, node.inline_pos);
  out.append(node.inline_block);
  return out;
}

Result<Interior> decode_interior(std::string_view payload) {
  Reader reader(payload);
  Interior node;
  node.height = reader.fixed<uint8_t>();
  node.hi = reader.sized();
  node.next_pos = reader.varint();
  node.max_seq = reader.varint();
  if (!reader.ok() || node.height == 0 || node.height > kMaxHeight) return malformed("height");
  if (node.hi.size() > kMaxKeyBytes) return malformed("upper bound");
  if (node.next_pos >= kMaxNumber) return malformed("next position");
  uint64_t left = kMaxInteriorMemoryBytes;
  CAW_TRY(parse_edges(reader, &node, &left));
  CAW_TRY(check_edges(node));
  CAW_TRY(parse_runs(reader, &node, &left));
  CAW_TRY(parse_inline(reader, &node));
  return node;
}

}  // namespace caw
