// parse_key for each kind of tree; what it accepts is the key that its parts make.
#include "schema/keys.h"

#include "fuzz/fuzz.h"

namespace {

using caw::KeyKind;
using caw::ParsedKey;

/// The key of `parsed`, or `key` where this has no function for it.
std::string made_of(const ParsedKey& parsed, std::string_view key) {
  std::string path;
  for (const uint64_t entry : parsed.path) path = caw::body_path(path, entry);
  switch (parsed.kind) {
    case KeyKind::dirent:
      return caw::dirent_key(path, parsed.name);
    case KeyKind::record:
      return caw::record_key(path, parsed.entry);
    case KeyKind::chunk:
      return caw::chunk_key(path, parsed.entry, parsed.chunk);
    case KeyKind::owned_chunk:
      return caw::owned_chunk_key(parsed.chunk);
    case KeyKind::link:
      return caw::link_key(path, parsed.entry);
    case KeyKind::xattr:
    case KeyKind::domain_map:
    case KeyKind::chunk_map:
      break;
  }
  return std::string(key);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view key = caw::as_input(data, size);
  for (const auto tree :
       {caw::TreeKind::directory, caw::TreeKind::file, caw::TreeKind::system}) {
    const caw::Result<ParsedKey> parsed = caw::parse_key(key, tree);
    if (parsed) FUZZ_CHECK(made_of(*parsed, key) == key);
  }
  std::string_view rest = key;
  if (const std::optional<uint64_t> number = caw::take_ordered(rest)) {
    std::string again;
    caw::put_ordered(again, *number);
    FUZZ_CHECK(again == key.substr(0, key.size() - rest.size()));
  }
  static_cast<void>(caw::chunk_of_key(key, size % 7));
  return 0;
}
