#include "cli/volume_client.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>

namespace caw {
namespace {
constexpr long kFuseMagic = 0x65735546;  // FUSE_SUPER_MAGIC
}  // namespace

void Descriptor::reset() {
  if (fd_ >= 0) close(fd_);
  fd_ = -1;
}

Descriptor open_for_control(const std::string& path, int extra_flags) {
  return Descriptor(open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY | extra_flags));
}

bool may_be_cawfs(int fd) {
  struct statfs status {};
  return fstatfs(fd, &status) == 0 && status.f_type == kFuseMagic;
}

int request(int fd, unsigned long command, void* argument) {
  if (!may_be_cawfs(fd)) return ENOTTY;
  if (ioctl(fd, command, argument) == 0) return 0;
  if (errno == ENOSYS || errno == EOPNOTSUPP) return ENOTTY;
  return errno;
}

DirectoryAndName split_path(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  DirectoryAndName out;
  const size_t slash = path.rfind('/');
  if (slash == path.npos) {
    out.directory = ".";
    out.name = path;
    return out;
  }
  out.name = path.substr(slash + 1);
  std::string_view directory = path.substr(0, slash);
  while (directory.ends_with('/')) directory.remove_suffix(1);
  out.directory = directory.empty() ? "/" : std::string(directory);
  return out;
}

}  // namespace caw
