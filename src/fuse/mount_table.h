// The kernel's table of mounts, as far as this program needs it.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace caw {

struct MountEntry {
  std::string device_number;  ///< "major:minor"
  std::string directory;
  std::string type;  ///< such as "fuse.cawfs"
  std::string source;
};

/// Mounts of this namespace, oldest first.
std::vector<MountEntry> read_mount_table();
/// The same from the text of /proc/self/mountinfo.
std::vector<MountEntry> parse_mount_table(const std::string& text);
/// What is mounted on `directory` (canonical) now: the last one there.
std::optional<MountEntry> find_mount(const std::string& directory);

}  // namespace caw
