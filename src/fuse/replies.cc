#include "fuse/replies.h"

#include <fcntl.h>

#include "fuse/control.h"

namespace caw {

namespace {

timespec to_timespec(const Timestamp& time) {
  timespec out{};
  out.tv_sec = time.seconds;
  out.tv_nsec = static_cast<long>(time.nanoseconds);
  return out;
}

}  // namespace

struct stat to_stat(const Attributes& attributes) {
  struct stat out {};
  out.st_ino = attributes.ino;
  out.st_mode = attributes.mode;
  out.st_nlink = attributes.nlink;
  out.st_uid = attributes.uid;
  out.st_gid = attributes.gid;
  out.st_rdev = attributes.rdev;
  out.st_size = static_cast<off_t>(attributes.size);
  out.st_blocks = static_cast<blkcnt_t>(attributes.blocks);
  out.st_blksize = kIoBytes;
  out.st_atim = to_timespec(attributes.atime);
  out.st_mtim = to_timespec(attributes.mtime);
  out.st_ctim = to_timespec(attributes.ctime);
  return out;
}

OpenFor purpose_of(int flags) {
  switch (flags & O_ACCMODE) {
    case O_RDONLY:
      return OpenFor::reading;
    case O_WRONLY:
      return OpenFor::writing;
    default:
      return OpenFor::mapping;
  }
}

fuse_entry_param to_entry(FileSystem& fs, const Entry& entry) {
  fuse_entry_param out{};
  out.ino = node_of(fs, *entry.inode);
  // Node ids are used again; with the inode number beside it the kernel cannot take one for
  // another.
  out.generation = entry.attributes.ino;
  out.attr = to_stat(entry.attributes);
  out.attr_timeout = kForever;
  out.entry_timeout = kForever;
  return out;
}

}  // namespace caw
