// caw mkfs: makes a volume in a file or on a block device.
#include <sys/random.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <optional>
#include <string>

#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/image_file.h"
#include "cli/report.h"
#include "cli/size.h"
#include "dev/block_device.h"
#include "fs/file_system.h"
#include "volume/volume.h"

namespace caw {
namespace {

constexpr uint64_t kMinBytes = kMinVolumeBlocks * kBlockSize;

struct MkfsRequest {
  std::string image;
  std::string size;
  std::string label;
  std::string compress = "lz4";
  bool force = false;
  TreeShape shape;
};

Result<std::array<uint8_t, 16>> random_uuid() {
  std::array<uint8_t, 16> uuid;
  if (getrandom(uuid.data(), uuid.size(), 0) != static_cast<ssize_t>(uuid.size())) {
    return fail(Code::unknown, 0, "getrandom", errno);
  }
  uuid[6] = static_cast<uint8_t>((uuid[6] & 0x0f) | 0x40);  // RFC 9562: version 4, variant 1
  uuid[8] = static_cast<uint8_t>((uuid[8] & 0x3f) | 0x80);
  return uuid;
}

std::optional<Compression> compression_named(std::string_view name) {
  if (name == "none") return Compression::none;
  if (name == "lz4") return Compression::lz4;
  if (name == "zstd") return Compression::zstd;
  return std::nullopt;
}

/// Refuses what would destroy something, or cannot work, before anything is changed.  Sets `size`
/// to the volume's size in bytes.  Returns an exit code.
int check_request(const MkfsRequest& request, const ImageState& state, uint64_t& size) {
  const auto say = [&request](std::string_view what, std::string_view advice) {
    return complain("mkfs", request.image, what, advice);
  };
  size = state.size_bytes;
  if (!request.size.empty()) {
    const std::optional<uint64_t> wanted = parse_size(request.size);
    if (!wanted)
      return usage_error("mkfs", "--size " + request.size + " is not a size such as 64G");
    if (!state.is_regular && *wanted > state.size_bytes) {
      return say("the device has only " + human_size(state.size_bytes), "choose a smaller --size");
    }
    if (state.is_regular) size = *wanted;
  } else if (state.is_regular && state.size_bytes == 0) {
    const bool absent = state.contents == ImageContents::absent;
    return say(absent ? "does not exist" : "is empty",
               "give the volume's size, such as --size 64G");
  }
  size = size / kBlockSize * kBlockSize;
  if (size < kMinBytes) return say("too small", "a volume needs 16M at least");
  if (request.force) return kExitDone;
  if (state.contents == ImageContents::volume) {
    return say("holds a cawfs volume already", "to lose all that is in it, use --force");
  }
  if (state.contents == ImageContents::foreign) {
    return say("is not empty", "to lose all that is in it, use --force");
  }
  return kExitDone;
}

/// A volume with an empty root directory.
Result<void> make_volume(const std::string& image, const MakeOptions& options) {
  std::unique_ptr<BlockDevice> device = CAW_TRY(open_file_device(image, {}));
  CAW_TRY(Volume::make(*device, options));
  const std::unique_ptr<Volume> volume = CAW_TRY(Volume::open(std::move(device), VolumeOptions{}));
  const Result<void> made = FileSystem::make(*volume, Clock::system(), getuid(), getgid());
  const Result<void> closed = volume->close();
  if (!made) return made;
  return closed;
}

/// Fails with device_in_use if the image is mounted; changes nothing.
Result<void> check_unused(const std::string& image, const ImageState& state) {
  if (state.contents == ImageContents::absent) return {};
  const auto device = open_file_device(image, {});
  // A length that is no volume's cannot be a mounted one.
  if (!device && device.error().code != Code::device_size) return std::unexpected(device.error());
  return {};
}

int run(const MkfsRequest& request, Compression compression) {
  const auto say = [&request](const Error& error) {
    return complain("mkfs", request.image, error);
  };
  const Result<ImageState> state = inspect_image(request.image);
  if (!state) return say(state.error());
  uint64_t size = 0;
  if (const int refused = check_request(request, *state, size); refused != kExitDone) {
    return refused;
  }
  if (const auto unused = check_unused(request.image, *state); !unused) return say(unused.error());

  MakeOptions options;
  options.label = request.label;
  options.compression = compression;
  options.shape = request.shape;
  const auto uuid = random_uuid();
  if (!uuid) return say(uuid.error());
  options.uuid = *uuid;

  Result<void> made;
  if (state->is_regular && size != state->size_bytes) made = size_image(request.image, size);
  if (made) made = make_volume(request.image, options);
  if (!made) {
    if (state->contents == ImageContents::absent) unlink(request.image.c_str());
    return say(made.error());
  }
  std::printf("%s: a cawfs volume of %s\n", request.image.c_str(), human_size(size).c_str());
  return kExitDone;
}

void add_shape_options(CLI::App& app, TreeShape& shape) {
  // For tests: small trees meet splits and flushes after a few operations.
  const std::string hidden;
  app.add_option("--leaf-bytes", shape.leaf_bytes)->group(hidden);
  app.add_option("--fanout", shape.fanout)->group(hidden);
  app.add_option("--buffer-bytes", shape.buffer_bytes)->group(hidden);
  app.add_option("--alpha-num", shape.alpha_num)->group(hidden);
  app.add_option("--alpha-den", shape.alpha_den)->group(hidden);
  app.add_option("--floor-bytes", shape.floor_bytes)->group(hidden);
  app.add_option("--run-bytes", shape.run_bytes)->group(hidden);
  app.add_option("--max-runs", shape.max_runs)->group(hidden);
  app.add_option("--inline-bytes", shape.inline_bytes)->group(hidden);
  app.add_option("--inline-value-bytes", shape.inline_value_bytes)->group(hidden);
}

}  // namespace

int run_mkfs(Arguments arguments) {
  MkfsRequest request;
  CLI::App app("Makes a cawfs volume in a file (which stays sparse) or on a block device.",
               "caw mkfs");
  app.add_option("--size", request.size, "size of the volume, such as 64G; creates the file");
  app.add_option("--label", request.label, "a name for it, up to 64 bytes");
  app.add_option("--compress", request.compress, "zstd, lz4 (the default) or none");
  app.add_flag("--force", request.force, "overwrite what is there");
  app.add_option("IMAGE", request.image, "file or block device")->required();
  add_shape_options(app, request.shape);
  if (const std::optional<int> ended = parse_command_line(app, "mkfs", arguments)) return *ended;

  const std::optional<Compression> compression = compression_named(request.compress);
  if (!compression) {
    return usage_error("mkfs", "--compress " + request.compress + " is none of zstd, lz4, none");
  }
  if (request.label.size() > 64) return usage_error("mkfs", "--label is longer than 64 bytes");
  return run(request, *compression);
}

}  // namespace caw
