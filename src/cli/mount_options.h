// Options of `caw mount -o`, as also mount(8) and /etc/fstab pass them.
#pragma once

#include <chrono>
#include <cstdint>
#include <expected>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace caw {

struct MountOptions {
  bool read_only = false;
  bool allow_other = false;
  bool no_atime = false;
  bool acls = true;          ///< enforced; else there are none
  uint64_t cache_bytes = 0;  ///< 0: default_cache_bytes()
  std::chrono::seconds commit_interval{5};
  std::string source;                       ///< fsname=; empty: the image's path
  std::vector<std::string> kernel_options;  ///< for the kernel or fusermount3, as they are
};

/// Adds the comma-separated options in `text` to `options`.  Fails with what is wrong with which
/// option.
std::expected<void, std::string> add_mount_options(std::string_view text, MountOptions& options);

/// An eighth of the memory, at least 32 MiB and at most 1 GiB.
uint64_t default_cache_bytes();

}  // namespace caw
