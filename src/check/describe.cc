#include "check/describe.h"

#include <fmt/format.h>

#include <array>
#include <optional>

#include "schema/keys.h"
#include "schema/records.h"

namespace caw {
namespace {

constexpr size_t kMaxQuotedBytes = 48;

std::string value_text(const Value& value) {
  std::string out = fmt::format("{} B", value.length);
  if (value.tree != kNoNode) out += fmt::format(", tree {}", raw(value.tree));
  if (value.blob) {
    out += fmt::format(", blob at {} ({} stored {} as {}; {} show)", raw(value.blob.addr),
                       value.blob.raw_bytes, value.blob.stored_bytes,
                       compression_text(value.blob.compression), value.blob_length);
  }
  if (const std::string name = record_name(value); !name.empty()) {
    out += fmt::format(", record of \"{}\"", quoted(name));
  } else if (!value.blob && value.pieces.size() == 1) {
    out += fmt::format(" \"{}\"", quoted(value.pieces[0].bytes));
  } else if (!value.pieces.empty()) {
    out += fmt::format(", {} pieces of {} B", value.pieces.size(), piece_bytes(value.pieces));
  }
  return out;
}

std::string patch_text(const Patch& patch) {
  std::string out;
  if (patch.cut != Patch{}.cut) out += fmt::format(" cut to {}", patch.cut);
  out += fmt::format(" extend to {}", patch.extend);
  for (const Piece& piece : patch.pieces) {
    out += fmt::format(", {} B at {}", piece.bytes.size(), piece.offset);
  }
  return out;
}

/// Appends what `section` starts; false if it is nothing known.
bool append_section(std::string& out, char section, std::string_view& rest) {
  if (section == '\1') {
    out += fmt::format(" name \"{}\"", quoted(rest));
    rest = {};
    return true;
  }
  if (section < '\2' || section > '\4') return false;
  const std::optional<uint64_t> number = take_ordered(rest);
  if (!number) return false;
  constexpr std::array<const char*, 3> kMarks = {"#", "xattr #", "/"};
  out += fmt::format(" {}{}", kMarks[static_cast<size_t>(section - '\2')], *number);
  return true;
}

}  // namespace

const char* kind_text(NodeKind kind) {
  switch (kind) {
    case NodeKind::leaf:
      return "leaf";
    case NodeKind::interior:
      return "interior";
    case NodeKind::run:
      return "run";
  }
  return "?";
}

const char* compression_text(Compression compression) {
  switch (compression) {
    case Compression::none:
      return "none";
    case Compression::lz4:
      return "lz4";
    case Compression::zstd:
      return "zstd";
  }
  return "?";
}

std::string size_text(uint64_t bytes) {
  constexpr std::array<const char*, 5> kUnits = {"B", "KiB", "MiB", "GiB", "TiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < kUnits.size(); ++unit) value /= 1024;
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string quoted(std::string_view bytes) {
  std::string out;
  for (const char byte : bytes.substr(0, kMaxQuotedBytes)) {
    const auto code = static_cast<unsigned char>(byte);
    if (byte == '"' || byte == '\\') {
      out += '\\';
      out += byte;
    } else if (code >= 0x20 && code < 0x7f) {
      out += byte;
    } else {
      out += fmt::format("\\x{:02x}", code);
    }
  }
  if (bytes.size() > kMaxQuotedBytes) out += fmt::format("... ({} B)", bytes.size());
  return out;
}

std::string dot_text(std::string_view text) {
  std::string out;
  for (const char byte : text) {
    if (byte == '"' || byte == '\\') out += '\\';
    out += byte;
  }
  return out;
}

std::string key_text(std::string_view key) {
  if (key.empty()) return "(first)";
  if (key == "\xff") return "(end)";
  const bool is_link = key.front() == '\4';
  if (key.front() != '\0' && key.front() != '\1' && !is_link) return quoted(key);
  std::string out = is_link ? "link" : key.front() == '\0' ? "meta" : "data";
  std::string_view rest = key.substr(1);
  while (!rest.empty()) {
    std::string_view tail = rest.substr(1);
    if (!append_section(out, rest.front(), tail)) break;
    const bool is_chunk = key.front() == '\1' && rest.front() == '\2';
    rest = tail;
    if (!is_chunk) continue;
    const std::optional<uint64_t> chunk = take_ordered(tail);
    if (!chunk) continue;
    out += fmt::format(" +{}", *chunk);
    rest = tail;
  }
  if (!rest.empty()) out += fmt::format(" {}", quoted(rest));
  return out;
}

std::string translation_text(const Translation& translation) {
  if (translation.is_identity()) return {};
  const auto side = [](const std::string& bytes) {
    return bytes.empty() ? std::string("-") : key_text(bytes);
  };
  return fmt::format("{} => {}", side(translation.strip), side(translation.prepend));
}

std::string record_name(const Value& value) {
  if (!value.is_inline()) return {};
  const std::string bytes = inline_bytes(value);
  if (is_link_name(bytes)) {
    const Result<LinkName> name = decode_link_name(bytes);
    return name ? name->name : std::string();
  }
  const Result<InodeRecord> record = decode_inode(bytes);
  return record ? record->name : std::string();
}

std::string message_text(MessageKind kind, std::string_view body) {
  const Result<Message> message = decode_message(kind, body);
  if (!message) return "damaged";
  switch (kind) {
    case MessageKind::put:
      return "put " + value_text(message->value);
    case MessageKind::erase:
      return fmt::format("erase ({} B dead)", message->dead_bytes);
    case MessageKind::patch:
      return "patch" + patch_text(message->patch);
  }
  return "?";
}

}  // namespace caw
