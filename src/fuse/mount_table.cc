#include "fuse/mount_table.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <string_view>

namespace caw {
namespace {

/// Octal escapes (\040 for a space) undone.
std::string unescaped(std::string_view text) {
  const auto is_octal = [](char c) { return c >= '0' && c <= '7'; };
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && is_octal(text[i + 1]) && is_octal(text[i + 2]) &&
        is_octal(text[i + 3])) {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                               (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> out;
  while (!text.empty()) {
    const size_t end = std::min(text.find(separator), text.size());
    out.push_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return out;
}

}  // namespace

// 36 35 98:0 /root /mnt rw,noatime shared:1 - ext3 /dev/root rw,errors=continue
std::vector<MountEntry> parse_mount_table(const std::string& text) {
  std::vector<MountEntry> out;
  for (const std::string_view line : split(text, '\n')) {
    const std::vector<std::string_view> fields = split(line, ' ');
    size_t dash = 6;
    while (dash < fields.size() && fields[dash] != "-") ++dash;
    if (dash + 2 >= fields.size()) continue;
    out.push_back({std::string(fields[2]), unescaped(fields[4]), unescaped(fields[dash + 1]),
                   unescaped(fields[dash + 2])});
  }
  return out;
}

std::vector<MountEntry> read_mount_table() {
  std::string text;
  const int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
  if (fd < 0) return {};
  std::array<char, 16384> buffer;
  ssize_t bytes = 0;
  while ((bytes = read(fd, buffer.data(), buffer.size())) > 0) {
    text.append(buffer.data(), static_cast<size_t>(bytes));
  }
  close(fd);
  return parse_mount_table(text);
}

std::optional<MountEntry> find_mount(const std::string& directory) {
  std::optional<MountEntry> found;
  for (MountEntry& entry : read_mount_table()) {
    if (entry.directory == directory) found = std::move(entry);
  }
  return found;
}

}  // namespace caw
