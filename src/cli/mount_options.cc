#include "cli/mount_options.h"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "cli/size.h"

namespace caw {
namespace {

using Parsed = std::expected<void, std::string>;

constexpr uint64_t kMinCache = 32U << 20;
constexpr uint64_t kMaxDefaultCache = 1U << 30;
constexpr int64_t kMaxCommitSeconds = 300;

// Passed on: the kernel keeps these itself.
constexpr std::array kKernel = {"nodev", "dev",   "nosuid",  "suid",       "noexec", "exec",
                                "sync",  "async", "dirsync", "nodiratime", "noatime"};
// Without meaning here, or what happens anyway: fstab and mount(8) may give them.
constexpr std::array kIgnored = {"rw",        "defaults", "default_permissions",
                                 "auto",      "noauto",   "nouser",
                                 "user",      "users",    "owner",
                                 "group",     "nofail",   "_netdev",
                                 "relatime",  "atime",    "diratime",
                                 "norelatime", "user_xattr"};

bool is_one_of(std::string_view name, const auto& names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::unexpected<std::string> wrong(std::string_view option, std::string_view why) {
  return std::unexpected("option " + std::string(option) + ": " + std::string(why));
}

Parsed add_valued(std::string_view name, std::string_view value, std::string_view option,
                  MountOptions& options) {
  if (name == "cache") {
    const std::optional<uint64_t> size = parse_size(value);
    if (!size) return wrong(option, "not a size such as 512M");
    if (*size < kMinCache) return wrong(option, "the cache needs 32M at least");
    options.cache_bytes = *size;
    return {};
  }
  if (name == "commit") {
    int64_t seconds = 0;
    const char* end = value.data() + value.size();
    const auto [rest, error] = std::from_chars(value.data(), end, seconds);
    if (error != std::errc{} || rest != end || seconds < 1 || seconds > kMaxCommitSeconds) {
      return wrong(option, "not a number of seconds from 1 to 300");
    }
    options.commit_interval = std::chrono::seconds(seconds);
    return {};
  }
  if (name == "fsname" && !value.empty()) {
    options.source = value;
    return {};
  }
  if (name == "subtype" && value == "cawfs") return {};
  if (name == "compress") {
    return wrong(option, "compression is a property of the volume; choose it with caw mkfs");
  }
  if (name == "comment" || name.starts_with("x-")) return {};
  return wrong(option, "unknown");
}

Parsed add_one(std::string_view option, MountOptions& options) {
  if (const size_t equals = option.find('='); equals != option.npos) {
    return add_valued(option.substr(0, equals), option.substr(equals + 1), option, options);
  }
  if (option == "ro") {
    options.read_only = true;
  } else if (option == "allow_other") {
    options.allow_other = true;
  } else if (option == "acl" || option == "noacl") {
    options.acls = option == "acl";
  } else if (is_one_of(option, kKernel)) {
    options.no_atime = options.no_atime || option == "noatime";
    options.kernel_options.emplace_back(option);
  } else if (option == "rw") {
    options.read_only = false;
  } else if (!is_one_of(option, kIgnored) && !option.starts_with("x-")) {
    return wrong(option, "unknown");
  }
  return {};
}

}  // namespace

Parsed add_mount_options(std::string_view text, MountOptions& options) {
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    if (comma != 0) {
      if (Parsed added = add_one(text.substr(0, comma), options); !added) return added;
    }
    text.remove_prefix(std::min(comma + 1, text.size()));
  }
  return {};
}

uint64_t default_cache_bytes() {
  const long pages = sysconf(_SC_PHYS_PAGES);
  const long page_bytes = sysconf(_SC_PAGESIZE);
  if (pages <= 0 || page_bytes <= 0) return kMinCache;
  const uint64_t memory = static_cast<uint64_t>(pages) * static_cast<uint64_t>(page_bytes);
  return std::clamp(memory / 8, kMinCache, kMaxDefaultCache);
}

}  // namespace caw
