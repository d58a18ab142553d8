// caw info: a volume, mounted or not, as text or JSON (docs/ioctl.md lists the members).
#include <fcntl.h>
#include <sys/stat.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "check/describe.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/image_file.h"
#include "cli/report.h"
#include "cli/size.h"
#include "cli/volume_client.h"

namespace caw {
namespace {

using Json = nlohmann::ordered_json;

std::string uuid_text(const uint8_t (&uuid)[16]) {
  std::string out;
  for (size_t i = 0; i < 16; ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
    char byte[3];
    std::snprintf(byte, sizeof byte, "%02x", static_cast<unsigned>(uuid[i]));
    out += byte;
  }
  return out;
}

/// Labels are any bytes; JSON is text.
std::string printable(std::string text) {
  for (char& c : text) {
    if (c < 0x20 || c > 0x7e) c = '?';
  }
  return text;
}

Json describe(const Superblock& superblock) {
  uint8_t uuid[16];
  std::copy(superblock.uuid.begin(), superblock.uuid.end(), uuid);
  const TreeShape& shape = superblock.shape;
  return {{"mounted", false},
          {"uuid", uuid_text(uuid)},
          {"label", printable(superblock.label)},
          {"format_version", superblock.version},
          {"features_incompatible", superblock.features_incompatible},
          {"compression", compression_text(superblock.compression)},
          {"total_bytes", superblock.block_count * kBlockSize},
          {"used_bytes", superblock.used_blocks * kBlockSize},
          {"checkpoint", superblock.epoch},
          {"unmounted_in_order", superblock.clean},
          {"leaf_bytes", shape.leaf_bytes},
          {"fanout", shape.fanout},
          {"buffer_bytes", shape.buffer_bytes},
          {"alpha", std::to_string(shape.alpha_num) + "/" + std::to_string(shape.alpha_den)}};
}

Json describe(const caw_info& info) {
  const std::string label(info.label, strnlen(info.label, sizeof info.label));
  return {{"mounted", true},
          {"uuid", uuid_text(info.uuid)},
          {"label", printable(label)},
          {"format_version", info.format_version},
          {"read_only", (info.flags & CAW_INFO_READ_ONLY) != 0},
          {"failure", printable(std::string(info.failure,
                                            strnlen(info.failure, sizeof info.failure)))},
          {"shared", (info.flags & CAW_INFO_SHARED) != 0},
          {"pid", info.pid},
          {"total_bytes", info.total_bytes},
          {"used_bytes", info.used_bytes},
          {"reserve_bytes", info.reserve_bytes},
          {"reclaiming_bytes", info.reclaiming_bytes},
          {"cache_bytes", info.cache_bytes},
          {"dirty_bytes", info.dirty_bytes},
          {"node_reads", info.node_reads},
          {"node_read_bytes", info.node_read_bytes},
          {"node_writes", info.node_writes},
          {"node_write_bytes", info.node_write_bytes},
          {"blob_reads", info.blob_reads},
          {"blob_read_bytes", info.blob_read_bytes},
          {"blob_writes", info.blob_writes},
          {"blob_write_bytes", info.blob_write_bytes},
          {"checkpoints", info.checkpoints},
          {"dead_nodes", info.dead_nodes},
          {"requests", info.requests},
          {"clones", info.clones},
          {"flushed_writers", info.flushed_writers}};
}

void print_text(const Json& description) {
  for (const auto& [name, value] : description.items()) {
    std::string shown = value.is_string() ? value.get<std::string>() : value.dump();
    if (name.ends_with("_bytes")) shown += " (" + human_size(value.get<uint64_t>()) + ")";
    std::printf("%-22s %s\n", name.c_str(), shown.c_str());
  }
}

/// What the mounted volume that holds `path` says.  Returns 0 or an errno.
int ask_volume(const std::string& path, caw_info& info) {
  const Descriptor fd = open_for_control(path);
  return fd ? request(fd.get(), CAW_IOC_INFO, &info) : errno;
}

int run(const std::string& path, bool as_json) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    return complain("info", path, errno_text(errno), "check the name");
  }
  // A file may be an image, also when it lies on a cawfs volume itself.
  const bool may_be_image = S_ISREG(status.st_mode) || S_ISBLK(status.st_mode);
  Result<Superblock> superblock = fail(Code::not_a_volume);
  if (may_be_image) superblock = read_superblock(path);
  Json description;
  if (superblock) {
    description = describe(*superblock);
  } else if (caw_info info{}; ask_volume(path, info) == 0) {
    description = describe(info);
  } else if (may_be_image) {
    return complain("info", path, superblock.error());
  } else {
    return complain("info", path, "not on a mounted cawfs volume",
                    "name an image or a path on one");
  }
  if (as_json) {
    std::printf("%s\n", description.dump(2).c_str());
  } else {
    print_text(description);
  }
  return kExitDone;
}

}  // namespace

int run_info(Arguments arguments) {
  std::string path;
  bool as_json = false;
  CLI::App app(
      "Shows what a volume is and does: an image, or the mounted volume that holds a path.",
      "caw info");
  app.add_flag("--json", as_json, "as JSON");
  app.add_option("PATH", path, "an image, or any path on a mounted volume")->required();
  if (const std::optional<int> ended = parse_command_line(app, "info", arguments)) return *ended;
  return run(path, as_json);
}

}  // namespace caw
