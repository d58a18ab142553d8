#include "schema/keys.h"

#include "base/assert.h"

namespace caw {

namespace {

constexpr char kMetadata = '\0';
constexpr char kData = '\1';
constexpr char kNameSection = '\1';
constexpr char kRecordSection = '\2';
constexpr char kXattrSection = '\3';
constexpr char kBodySection = '\4';
constexpr char kDomainMap = '\2';
constexpr char kChunkMap = '\3';
constexpr char kLinks = '\4';

std::string start_key(char index, std::string_view path, char section, size_t more) {
  std::string key;
  key.reserve(path.size() + 2 + more);
  key.push_back(index);
  key.append(path);
  key.push_back(section);
  return key;
}

std::unexpected<Error> malformed(const char* where) {
  return fail(Code::record_malformed, 0, where);
}

bool is_valid_xattr_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name.find('\0') == name.npos;
}

/// Both maps of the system tree: `count` numbers and nothing after them.
Result<ParsedKey> parse_map_key(std::string_view rest, KeyKind kind, int count) {
  for (int i = 0; i < count; ++i) {
    if (!take_ordered(rest)) return malformed("map key");
  }
  if (!rest.empty()) return malformed("map key");
  ParsedKey parsed;
  parsed.kind = kind;
  return parsed;
}

}  // namespace

void put_ordered(std::string& out, uint64_t number) {
  int bytes = 1;
  while (bytes < 8 && (number >> (8 * bytes)) != 0) ++bytes;
  out.push_back(static_cast<char>(bytes));
  for (int i = bytes - 1; i >= 0; --i) {
    out.push_back(static_cast<char>((number >> (8 * i)) & 0xff));
  }
}

std::optional<uint64_t> take_ordered(std::string_view& bytes) {
  if (bytes.empty()) return std::nullopt;
  const auto count = static_cast<unsigned char>(bytes.front());
  if (count < 1 || count > 8 || bytes.size() < size_t{1} + count) return std::nullopt;
  uint64_t number = 0;
  for (size_t i = 1; i <= count; ++i) {
    number = (number << 8) | static_cast<unsigned char>(bytes[i]);
  }
  if (count > 1 && bytes[1] == '\0') return std::nullopt;
  bytes.remove_prefix(size_t{1} + count);
  return number;
}

std::string body_path(std::string_view path, uint64_t entry) {
  std::string body(path);
  body.push_back(kBodySection);
  put_ordered(body, entry);
  return body;
}

std::string dirent_key(std::string_view path, std::string_view name) {
  std::string key = start_key(kMetadata, path, kNameSection, name.size());
  key.append(name);
  return key;
}

std::string record_key(std::string_view path, uint64_t entry) {
  std::string key = start_key(kMetadata, path, kRecordSection, 9);
  put_ordered(key, entry);
  return key;
}

std::string xattr_prefix(std::string_view path, uint64_t entry) {
  std::string key = start_key(kMetadata, path, kXattrSection, 9 + kMaxNameBytes / 8);
  put_ordered(key, entry);
  return key;
}

std::string records_end(std::string_view path) {
  return start_key(kMetadata, path, kXattrSection, 0);
}

std::string chunk_prefix(std::string_view path, uint64_t entry) {
  std::string key = start_key(kData, path, kRecordSection, 18);
  put_ordered(key, entry);
  return key;
}

std::string chunk_key(std::string_view path, uint64_t entry, uint64_t chunk) {
  std::string key = chunk_prefix(path, entry);
  put_ordered(key, chunk);
  return key;
}

std::string owned_chunk_prefix() { return std::string(1, kData); }

std::string owned_chunk_key(uint64_t chunk) {
  std::string key = owned_chunk_prefix();
  put_ordered(key, chunk);
  return key;
}

std::string metadata_prefix(std::string_view path) { return kMetadata + std::string(path); }
std::string data_prefix(std::string_view path) { return kData + std::string(path); }

std::string link_key(std::string_view path, uint64_t entry) {
  std::string key = start_key(kLinks, path, kRecordSection, 9);
  put_ordered(key, entry);
  return key;
}

std::string links_prefix(std::string_view path) { return kLinks + std::string(path); }

std::string after_prefix(std::string prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.pop_back();
  CAW_ASSERT(!prefix.empty());
  prefix.back() = static_cast<char>(static_cast<unsigned char>(prefix.back()) + 1);
  return prefix;
}

std::string domain_map_key(uint64_t context, uint64_t home, uint64_t domain) {
  std::string key(1, kDomainMap);
  put_ordered(key, context);
  put_ordered(key, home);
  put_ordered(key, domain);
  return key;
}

std::string chunk_map_key(uint64_t domain, uint64_t high) {
  std::string key(1, kChunkMap);
  put_ordered(key, domain);
  put_ordered(key, high);
  return key;
}

bool is_valid_name(std::string_view name) {
  return !name.empty() && name.size() <= kMaxNameBytes && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == name.npos;
}

Result<uint64_t> chunk_of_key(std::string_view key, size_t prefix_bytes) {
  if (key.size() < prefix_bytes) return malformed("chunk key");
  key.remove_prefix(prefix_bytes);
  const std::optional<uint64_t> chunk = take_ordered(key);
  if (!chunk || !key.empty()) return malformed("chunk key");
  return *chunk;
}

Result<ParsedKey> parse_key(std::string_view key, TreeKind tree) {
  if (key.empty()) return malformed("empty key");
  ParsedKey parsed;
  const char index = key.front();
  std::string_view rest = key.substr(1);
  if (tree == TreeKind::file) {
    if (index != kData) return malformed("index of a file's tree");
    parsed.kind = KeyKind::owned_chunk;
    parsed.chunk = CAW_TRY(chunk_of_key(key, 1));
    return parsed;
  }
  if (tree == TreeKind::system && index == kDomainMap) {
    return parse_map_key(rest, KeyKind::domain_map, 3);
  }
  if (tree == TreeKind::system && index == kChunkMap) {
    return parse_map_key(rest, KeyKind::chunk_map, 2);
  }
  if (index != kMetadata && index != kData && index != kLinks) return malformed("index");
  while (!rest.empty() && rest.front() == kBodySection) {
    rest.remove_prefix(1);
    const std::optional<uint64_t> component = take_ordered(rest);
    if (!component) return malformed("path");
    parsed.path.push_back(*component);
  }
  if (rest.empty()) return malformed("section");
  const char section = rest.front();
  rest.remove_prefix(1);
  if (index == kMetadata && section == kNameSection) {
    if (!is_valid_name(rest)) return malformed("name");
    parsed.kind = KeyKind::dirent;
    parsed.name = rest;
    return parsed;
  }
  const std::optional<uint64_t> entry = take_ordered(rest);
  if (!entry) return malformed("entry");
  parsed.entry = *entry;
  if (index == kData && section == kRecordSection) {
    parsed.kind = KeyKind::chunk;
    parsed.chunk = CAW_TRY(chunk_of_key(rest, 0));
    return parsed;
  }
  if (index != kData && section == kRecordSection && rest.empty()) {
    parsed.kind = index == kLinks ? KeyKind::link : KeyKind::record;
    return parsed;
  }
  if (index == kMetadata && section == kXattrSection && is_valid_xattr_name(rest)) {
    parsed.kind = KeyKind::xattr;
    parsed.name = rest;
    return parsed;
  }
  return malformed("section");
}

}  // namespace caw
