// Words for what is on disk, for `caw dump`.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "format/compression.h"
#include "format/interior.h"
#include "format/node.h"
#include "format/value.h"

namespace caw {

const char* kind_text(NodeKind kind);
const char* compression_text(Compression compression);
/// "12 B", "3.5 KiB", …
std::string size_text(uint64_t bytes);
/// Printable, as in C: backslashes as \\, quotes as \", bytes that cannot be shown as \xNN; long
/// ones are cut.
std::string quoted(std::string_view bytes);
/// `text` inside a double-quoted string of Graphviz.
std::string dot_text(std::string_view text);
/// A key of a file system's tree in words, as far as it is one: `meta /17/18 name "x"`,
/// `data /17 #20 +3`; the rest of it, or all, as quoted bytes.
std::string key_text(std::string_view key);
/// "" for the identity.
std::string translation_text(const Translation& translation);
/// The name in the inode record that `value` holds; else empty.
std::string record_name(const Value& value);
/// One line.
std::string message_text(MessageKind kind, std::string_view body);

}  // namespace caw
