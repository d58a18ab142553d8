// Any requests that a kernel may send, ioctls included, to a mounted file system: each is answered,
// and the volume is sound afterwards.
#include <fcntl.h>
#include <sys/stat.h>

#include <array>

#include "check/check.h"
#include "fuzz/fuzz.h"
#include "fuzz/kernel.h"
#include "fuzz/recipes.h"
#include "volume/volume.h"

namespace {

using caw::bytes_of;
using caw::Input;
using caw::Kernel;

constexpr int kMaxRequests = 100;
constexpr uint32_t kMaxTransfer = 1U << 20;

/// With its NUL: one of a few that come again, or any bytes.
std::string name_from(Input& input) {
  static constexpr std::array<std::string_view, 12> kNames = {
      "a", "b", "c", "f1", "f2", "big", "below", "link", "new", ".", "..", ""};
  const auto choice = input.take<uint8_t>();
  if (choice < 192) return std::string(kNames[choice % kNames.size()]) + '\0';
  std::string name(input.text());
  if (choice >= 250) name.append(size_t{choice} - 240, 'x').append(size_t{choice} * 8, 'y');
  std::erase(name, '\0');
  return name + '\0';
}

/// Near a limit, or any.
uint64_t offset_from(Input& input) {
  const auto choice = input.take<uint8_t>();
  const auto value = input.take<uint16_t>();
  switch (choice % 5) {
    case 0:
      return value;
    case 1:
      return uint64_t{value} << 8;
    case 2:
      return uint64_t{INT64_MAX} - value;
    case 3:
      return ~uint64_t{0} - value;
    default:
      return input.take<uint64_t>() >> (choice % 64);
  }
}

template <typename T>
std::string with_name(const T& structure, Input& input) {
  return std::string(bytes_of(structure)) + name_from(input);
}

caw_token token_from(const Kernel& kernel, Input& input) {
  const auto choice = input.take<uint8_t>();
  if (kernel.tokens().empty() || choice >= 250) return input.take<caw_token>();
  return kernel.tokens()[choice % kernel.tokens().size()];
}

template <size_t n>
void copy_name(char (&out)[n], const std::string& name) {
  std::memcpy(out, name.data(), std::min(n, name.size()));
}

void send_ioctl(Kernel& kernel, uint64_t node, Input& input) {
  const auto choice = input.take<uint8_t>();
  std::string argument;
  uint32_t command = CAW_IOC_TOKEN;
  switch (choice % 8) {
    case 0:
      break;
    case 1: {
      caw_clone clone{};
      clone.source = token_from(kernel, input);
      clone.flags = choice >= 128 ? input.take<uint32_t>() : 0;
      copy_name(clone.name, name_from(input));
      argument = bytes_of(clone);
      command = CAW_IOC_CLONE;
      break;
    }
    case 2: {
      caw_remove remove{};
      remove.flags = choice >= 128 ? input.take<uint32_t>() : 0;
      copy_name(remove.name, name_from(input));
      argument = bytes_of(remove);
      command = CAW_IOC_REMOVE_TREE;
      break;
    }
    case 3: {
      caw_same same{};
      same.other = token_from(kernel, input);
      argument = bytes_of(same);
      command = CAW_IOC_SAME;
      break;
    }
    case 4:
      command = CAW_IOC_INFO;
      break;
    case 5:
      command = CAW_IOC_CHECKPOINT;
      break;
    case 6:
      command = CAW_IOC_SYNC;
      break;
    default:
      command = input.take<uint32_t>();
      argument = input.text();
  }
  // Not always as long as the command says.
  if (choice % 16 == 15) argument.resize(input.take<uint8_t>());
  kernel.ioctl(node, command, argument);
}

void send_names(Kernel& kernel, uint8_t which, uint64_t node, Input& input) {
  switch (which % 9) {
    case 0:
      return kernel.request_entry(FUSE_LOOKUP, node, name_from(input));
    case 1: {
      fuse_mkdir_in in{};
      in.mode = input.take<uint16_t>();
      return kernel.request_entry(FUSE_MKDIR, node, with_name(in, input));
    }
    case 2: {
      fuse_mknod_in in{};
      in.mode = input.take<uint32_t>();
      in.rdev = input.take<uint32_t>();
      return kernel.request_entry(FUSE_MKNOD, node, with_name(in, input));
    }
    case 3: {
      fuse_create_in in{};
      in.flags = input.take<uint16_t>();
      in.mode = S_IFREG | input.take<uint16_t>();
      return kernel.request_entry(FUSE_CREATE, node, with_name(in, input));
    }
    case 4: {
      const std::string name = name_from(input);
      return kernel.request_entry(FUSE_SYMLINK, node, name + name_from(input));
    }
    case 5: {
      fuse_rename2_in in{};
      in.newdir = kernel.node(input.take<uint8_t>());
      in.flags = input.take<uint8_t>() % 5;
      std::string body = with_name(in, input);
      body += name_from(input);
      kernel.request(FUSE_RENAME2, node, body);
      return;
    }
    case 6: {
      fuse_link_in in{};
      in.oldnodeid = kernel.node(input.take<uint8_t>());
      return kernel.request_entry(FUSE_LINK, node, with_name(in, input));
    }
    case 7:
      kernel.request(FUSE_UNLINK, node, name_from(input));
      return;
    default:
      kernel.request(FUSE_RMDIR, node, name_from(input));
  }
}

void send_data(Kernel& kernel, uint8_t which, uint64_t node, Input& input) {
  switch (which % 6) {
    case 0: {
      fuse_read_in in{};
      in.offset = offset_from(input);
      in.size = input.take<uint32_t>() % (kMaxTransfer + 1);
      FUZZ_CHECK(kernel.request(FUSE_READ, node, bytes_of(in)).data.size() <= in.size);
      return;
    }
    case 1: {
      std::string data(input.take<uint16_t>(), 'd');
      fuse_write_in in{};
      in.offset = offset_from(input);
      in.size = static_cast<uint32_t>(data.size());
      kernel.request(FUSE_WRITE, node, std::string(bytes_of(in)) + data);
      return;
    }
    case 2: {
      fuse_setattr_in in{};
      in.valid = input.take<uint16_t>() & ~uint32_t{FATTR_FH};
      in.size = offset_from(input);
      in.mode = input.take<uint32_t>();
      in.mtime = input.take<uint64_t>();
      in.mtimensec = input.take<uint32_t>() % 1'000'000'000;
      kernel.request(FUSE_SETATTR, node, bytes_of(in));
      return;
    }
    case 3: {
      fuse_fallocate_in in{};
      in.offset = offset_from(input);
      in.length = offset_from(input);
      in.mode = input.take<uint8_t>();
      kernel.request(FUSE_FALLOCATE, node, bytes_of(in));
      return;
    }
    case 4: {
      fuse_lseek_in in{};
      in.offset = offset_from(input);
      in.whence = input.take<uint8_t>() % 6;
      kernel.request(FUSE_LSEEK, node, bytes_of(in));
      return;
    }
    default:
      kernel.open(node, input.take<uint16_t>());
  }
}

std::string xattr_from(Input& input) {
  static constexpr std::array<std::string_view, 6> kPrefixes = {
      "user.", "trusted.", "security.", "system.posix_acl_access", "system.posix_acl_default", ""};
  const auto choice = input.take<uint8_t>() % kPrefixes.size();
  const std::string prefix(kPrefixes[choice]);
  return prefix.starts_with("system") ? prefix + '\0' : prefix + name_from(input);
}

/// An ACL that may be one, or any bytes.
std::string xattr_value_from(Input& input) {
  const auto choice = input.take<uint8_t>();
  if (choice < 64) return std::string(input.take<uint16_t>(), 'v');
  if (choice < 128) return std::string(input.text());
  std::string acl(bytes_of(uint32_t{2}));
  for (const uint16_t tag : {uint16_t{1}, uint16_t{2}, uint16_t{4}, uint16_t{16}, uint16_t{32}}) {
    if (tag % 14 == 2 && choice % 2 == 0) continue;  // nobody named, no mask
    const std::array<uint16_t, 2> entry = {tag, static_cast<uint16_t>(input.take<uint8_t>() % 9)};
    acl += bytes_of(entry);
    acl += bytes_of(uint32_t{choice});
  }
  return acl;
}

void send_xattrs(Kernel& kernel, uint8_t which, uint64_t node, Input& input) {
  struct Sizes {
    uint32_t size, flags;
  };
  switch (which % 5) {
    case 0: {
      const Sizes in{input.take<uint16_t>(), 0};
      kernel.request(FUSE_GETXATTR, node, std::string(bytes_of(in)) + xattr_from(input));
      return;
    }
    case 1: {
      const uint32_t flags = input.take<uint8_t>() % 4;
      const std::string name = xattr_from(input);
      const std::string value = xattr_value_from(input);
      const Sizes in{static_cast<uint32_t>(value.size()), flags};
      kernel.request(FUSE_SETXATTR, node, std::string(bytes_of(in)) + name + value);
      return;
    }
    case 2: {
      const Sizes in{input.take<uint16_t>(), 0};
      kernel.request(FUSE_LISTXATTR, node, bytes_of(in));
      return;
    }
    case 3:
      kernel.request(FUSE_REMOVEXATTR, node, xattr_from(input));
      return;
    default: {
      fuse_copy_file_range_in in{};
      in.off_in = offset_from(input);
      in.nodeid_out = kernel.node(input.take<uint8_t>());
      in.off_out = offset_from(input);
      in.len = offset_from(input);
      kernel.request(FUSE_COPY_FILE_RANGE, node, bytes_of(in));
    }
  }
}

void send_other(Kernel& kernel, uint8_t which, uint64_t node, Input& input) {
  switch (which % 8) {
    case 0: {
      const fuse_getattr_in in{};
      kernel.request(FUSE_GETATTR, node, bytes_of(in));
      return;
    }
    case 1:
      return kernel.read_directory_plus(node, offset_from(input), input.take<uint16_t>());
    case 2: {
      fuse_read_in in{};
      in.offset = offset_from(input);
      in.size = input.take<uint16_t>();
      FUZZ_CHECK(kernel.request(FUSE_READDIR, node, bytes_of(in)).data.size() <= in.size);
      return;
    }
    case 3:
      kernel.request(FUSE_READLINK, node, {});
      return;
    case 4:
      kernel.request(FUSE_STATFS, node, {});
      return;
    case 5:
      return kernel.forget(input.take<uint8_t>(), input.take<uint8_t>());
    case 6:
      return kernel.release(input.take<uint8_t>());
    default: {
      const fuse_fsync_in in{};
      kernel.request(FUSE_FSYNC, node, bytes_of(in));
    }
  }
}

void send_all(Kernel& kernel, Input& input) {
  for (int i = 0; i < kMaxRequests && !input.at_end(); ++i) {
    const auto which = input.take<uint8_t>();
    const uint64_t node = kernel.node(input.take<uint8_t>());
    switch (which % 5) {
      case 0:
        send_names(kernel, which / 5, node, input);
        break;
      case 1:
        send_data(kernel, which / 5, node, input);
        break;
      case 2:
        send_ioctl(kernel, node, input);
        break;
      case 3:
        send_xattrs(kernel, which / 5, node, input);
        break;
      default:
        send_other(kernel, which / 5, node, input);
    }
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Input input(caw::as_input(data, size));
  const auto recipe = input.take<uint8_t>();
  const caw::Ref<caw::MemoryImage> image = caw::recipe_image(recipe)->clone();
  caw::VolumeOptions open;
  open.cache_bytes = 2U << 20;
  open.background = false;
  auto volume = caw::Volume::open(caw::make_memory_device(image), open);
  FUZZ_CHECK(volume.has_value());
  auto fs = caw::FileSystem::open(**volume, {.clock = &caw::still_clock()});
  FUZZ_CHECK(fs.has_value());
  {
    Kernel kernel(**fs);
    send_all(kernel, input);
  }
  fs->reset();
  FUZZ_CHECK((*volume)->maintain().has_value());
  FUZZ_CHECK((*volume)->close().has_value());
  const std::unique_ptr<caw::BlockDevice> device = caw::make_memory_device(image, true);
  const caw::Result<caw::CheckReport> report =
      caw::check_volume(*device, {.read_blobs = true, .files = true, .max_findings = 5});
  FUZZ_CHECK(report.has_value());
  for (const caw::Finding& finding : report->findings) {
    std::fprintf(stderr, "check: %s\n", finding.text.c_str());
  }
  FUZZ_CHECK(report->is_sound() && report->figures.reference_cycles == 0);
  return 0;
}
