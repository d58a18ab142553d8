// FUSE operations: each turns a request into one call of FileSystem and its Result into one reply.
//
// Called by libfuse (C): noexcept.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "fuse/replies.h"
#include "fuse/server.h"
#include "fuse/wire.h"

namespace caw {
namespace {

constexpr uint32_t kMaxWrite = 1U << 20;    ///< also the most the kernel allows (256 pages)
constexpr size_t kMaxName = 255;            ///< the kernel passes names of up to 4095 bytes
constexpr unsigned kRenameNoReplace = 1;    ///< of renameat2(2)
constexpr unsigned kRenameExchange = 2;
constexpr unsigned kRenameWhiteout = 4;

Timestamp from_timespec(const timespec& time) {
  return {time.tv_sec, static_cast<uint32_t>(time.tv_nsec)};
}

Server& begin(fuse_req_t req) {
  Server& server = server_of(req);
  server.requests.fetch_add(1, std::memory_order_relaxed);
  return server;
}

bool too_long(fuse_req_t req, const char* name) {
  if (std::strlen(name) <= kMaxName) return false;
  fuse_reply_err(req, ENAMETOOLONG);
  return true;
}

void reply(fuse_req_t req, const Result<void>& result) {
  fuse_reply_err(req, result ? 0 : result.error().as_errno());
}

void reply_entry(fuse_req_t req, Server& server, const Result<Entry>& entry) {
  if (!entry) return reply_error(req, entry.error());
  const fuse_entry_param param = to_entry(server.fs, *entry);
  // Not delivered: the kernel does not know of the lookup and will not forget it.
  if (fuse_reply_entry(req, &param) != 0) server.fs.forget(*entry->inode, 1);
}

// ---- session

void op_init(void* userdata, fuse_conn_info* conn) noexcept {
  const auto want = [conn](unsigned capability) { conn->want |= conn->capable & capability; };
  const auto do_not_want = [conn](unsigned capability) { conn->want &= ~capability; };
  want(FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_PARALLEL_DIROPS);
  want(FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_CACHE_SYMLINKS);
  want(FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_IOCTL_DIR);
  // The kernel enforces ACLs; the umask is ours to apply, since a default ACL replaces it.
  const Server& server = *static_cast<Server*>(userdata);
  if (server.options.acls) want(FUSE_CAP_POSIX_ACL | FUSE_CAP_DONT_MASK);
  // The wire asks for its second version, which tells when.
  do_not_want(FUSE_CAP_HANDLE_KILLPRIV);
  // Nobody changes data behind the kernel's back: no request per cached read to find out.
  do_not_want(FUSE_CAP_AUTO_INVAL_DATA);
  // Write-through: what write(2) returned for is ours, and a clone has it.
  do_not_want(FUSE_CAP_WRITEBACK_CACHE);
  // Costs more than it saves where data are copied anyway.
  do_not_want(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
  // Locks are the kernel's own business.
  do_not_want(FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS);
  conn->max_write = kMaxWrite;
  conn->max_readahead = kMaxWrite;
  conn->max_background = 64;
  conn->congestion_threshold = 48;
  conn->time_gran = 1;
  static_cast<Server*>(userdata)->widen_read_ahead_soon();
}

void op_statfs(fuse_req_t req, fuse_ino_t) noexcept {
  Server& server = begin(req);
  const Result<StatFs> figures = server.fs.statfs();
  if (!figures) return reply_error(req, figures.error());
  constexpr uint64_t kUnit = 4096;
  struct statvfs out {};
  out.f_bsize = kUnit;
  out.f_frsize = kUnit;
  out.f_blocks = figures->total_bytes / kUnit;
  out.f_bfree = figures->free_bytes / kUnit;
  out.f_bavail = figures->available_bytes / kUnit;
  out.f_files = figures->files;
  out.f_ffree = figures->free_files;
  out.f_favail = figures->free_files;
  out.f_namemax = kMaxName;
  fuse_reply_statfs(req, &out);
}

// ---- names

void op_lookup(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
  Server& server = begin(req);
  if (too_long(req, name)) return;
  const Result<Entry> entry = server.fs.lookup(server.inode(parent), name);
  if (!entry && entry.error().as_errno() == ENOENT) {
    fuse_entry_param absent{};  // node 0: the kernel may remember that there is nothing
    absent.entry_timeout = kForever;
    fuse_reply_entry(req, &absent);
    return;
  }
  reply_entry(req, server, entry);
}

void op_forget(fuse_req_t req, fuse_ino_t node, uint64_t lookups) noexcept {
  Server& server = begin(req);
  if (node != kRootNode) server.control.forget(server.inode(node), lookups);
  fuse_reply_none(req);
}

void op_forget_multi(fuse_req_t req, size_t count, fuse_forget_data* forgets) noexcept {
  Server& server = begin(req);
  for (size_t i = 0; i < count; ++i) {
    if (forgets[i].ino == kRootNode) continue;
    server.control.forget(server.inode(forgets[i].ino), forgets[i].nlookup);
  }
  fuse_reply_none(req);
}

void op_mknod(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode,
              dev_t rdev) noexcept {
  Server& server = begin(req);
  if (too_long(req, name)) return;
  reply_entry(req, server,
              server.fs.create(server.inode(parent), name, mode, static_cast<uint32_t>(rdev),
                               server.caller_of(req)));
}

void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode) noexcept {
  Server& server = begin(req);
  if (too_long(req, name)) return;
  reply_entry(req, server,
              server.fs.mkdir(server.inode(parent), name, mode, server.caller_of(req)));
}

void op_symlink(fuse_req_t req, const char* target, fuse_ino_t parent, const char* name) noexcept {
  Server& server = begin(req);
  if (too_long(req, name)) return;
  reply_entry(req, server,
              server.fs.symlink(server.inode(parent), name, target, server.caller_of(req)));
}

void op_readlink(fuse_req_t req, fuse_ino_t node) noexcept {
  Server& server = begin(req);
  const Result<std::string> target = server.fs.readlink(server.inode(node));
  if (!target) return reply_error(req, target.error());
  fuse_reply_readlink(req, target->c_str());
}

void op_unlink(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
  Server& server = begin(req);
  if (too_long(req, name)) return;
  reply(req, server.fs.unlink(server.inode(parent), name));
}

void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char* name) noexcept {
  Server& server = begin(req);
  if (too_long(req, name)) return;
  reply(req, server.fs.rmdir(server.inode(parent), name));
}

void op_rename(fuse_req_t req, fuse_ino_t parent, const char* name, fuse_ino_t new_parent,
               const char* new_name, unsigned int flags) noexcept {
  Server& server = begin(req);
  if (too_long(req, name) || too_long(req, new_name)) return;
  if ((flags & ~(kRenameNoReplace | kRenameExchange | kRenameWhiteout)) != 0) {
    fuse_reply_err(req, EINVAL);
    return;
  }
  RenameFlags rename_flags;
  rename_flags.no_replace = (flags & kRenameNoReplace) != 0;
  rename_flags.exchange = (flags & kRenameExchange) != 0;
  rename_flags.whiteout = (flags & kRenameWhiteout) != 0;
  reply(req, server.fs.rename(server.inode(parent), name, server.inode(new_parent), new_name,
                              rename_flags));
}

void op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char* name) noexcept {
  Server& server = begin(req);
  if (too_long(req, name)) return;
  reply_entry(req, server, server.fs.link(server.inode(node), server.inode(parent), name));
}

// ---- directories

// ENOSYS for good: no request per opendir, and the kernel may keep listings.
void op_opendir(fuse_req_t req, fuse_ino_t, fuse_file_info*) noexcept {
  begin(req);
  fuse_reply_err(req, ENOSYS);
}

void op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
                fuse_file_info*) noexcept {
  Server& server = begin(req);
  std::vector<char> buffer(size);
  size_t used = 0;
  const Result<void> result = server.fs.readdir(
      server.inode(node), static_cast<uint64_t>(offset), [&](const DirectoryEntry& entry) {
        struct stat attributes {};
        attributes.st_ino = entry.ino;
        attributes.st_mode = entry.mode;
        const std::string name(entry.name);
        const size_t bytes = fuse_add_direntry(req, buffer.data() + used, size - used, name.c_str(),
                                               &attributes, static_cast<off_t>(entry.cookie));
        if (bytes > size - used) return false;
        used += bytes;
        return true;
      });
  if (!result && used == 0) return reply_error(req, result.error());
  fuse_reply_buf(req, buffer.data(), used);
}

void op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset,
                    fuse_file_info*) noexcept {
  Server& server = begin(req);
  std::vector<char> buffer(size);
  std::vector<Inode*> given;
  size_t used = 0;
  const Result<void> result =
      server.fs.readdirplus(server.inode(node), static_cast<uint64_t>(offset),
                            [&](const DirectoryEntry& entry, const Entry& found) {
                              fuse_entry_param param{};
                              if (found.inode != nullptr) {
                                param = to_entry(server.fs, found);
                              } else {
                                param.attr.st_ino = entry.ino;
                                param.attr.st_mode = entry.mode;
                              }
                              const std::string name(entry.name);
                              const size_t bytes = fuse_add_direntry_plus(
                                  req, buffer.data() + used, size - used, name.c_str(), &param,
                                  static_cast<off_t>(entry.cookie));
                              if (bytes > size - used) return false;
                              used += bytes;
                              if (found.inode != nullptr) given.push_back(found.inode);
                              return true;
                            });
  if (!result && used == 0) return reply_error(req, result.error());
  if (fuse_reply_buf(req, buffer.data(), used) != 0) {
    for (Inode* inode : given) server.fs.forget(*inode, 1);
  }
}

// ---- attributes

void reply_attributes(fuse_req_t req, const Result<Attributes>& attributes) {
  if (!attributes) return reply_error(req, attributes.error());
  const struct stat out = to_stat(*attributes);
  fuse_reply_attr(req, &out, kForever);
}

void op_getattr(fuse_req_t req, fuse_ino_t node, fuse_file_info*) noexcept {
  Server& server = begin(req);
  reply_attributes(req, server.fs.getattr(server.inode(node)));
}

void op_setattr(fuse_req_t req, fuse_ino_t node, struct stat* attributes, int to_set,
                fuse_file_info*) noexcept {
  Server& server = begin(req);
  SetAttributes set;
  if ((to_set & FUSE_SET_ATTR_MODE) != 0) set.mode = attributes->st_mode;
  if ((to_set & FUSE_SET_ATTR_UID) != 0) set.uid = attributes->st_uid;
  if ((to_set & FUSE_SET_ATTR_GID) != 0) set.gid = attributes->st_gid;
  if ((to_set & FUSE_SET_ATTR_SIZE) != 0) set.size = static_cast<uint64_t>(attributes->st_size);
  if ((to_set & FUSE_SET_ATTR_ATIME) != 0) set.atime = from_timespec(attributes->st_atim);
  if ((to_set & FUSE_SET_ATTR_MTIME) != 0) set.mtime = from_timespec(attributes->st_mtim);
  if ((to_set & FUSE_SET_ATTR_CTIME) != 0) set.ctime = from_timespec(attributes->st_ctim);
  if ((to_set & FUSE_SET_ATTR_ATIME_NOW) != 0) set.atime = Clock::system().now();
  if ((to_set & FUSE_SET_ATTR_MTIME_NOW) != 0) set.mtime = Clock::system().now();
  // Nothing set: a chown to whom it belongs, or the kernel before a change by others.
  set.drop_privileges = to_set == 0 || request_extras().drop_privileges;
  reply_attributes(req, server.fs.setattr(server.inode(node), set, server.caller_of(req)));
}

// ---- files

/// What the kernel is told of every open file; `fh` remembers what it was opened for.
void set_open_reply(fuse_file_info& file) {
  file.keep_cache = 1;
  file.fh = static_cast<uint64_t>(purpose_of(file.flags));
}

void op_create(fuse_req_t req, fuse_ino_t parent, const char* name, mode_t mode,
               fuse_file_info* file) noexcept {
  Server& server = begin(req);
  if (too_long(req, name)) return;
  const Result<Entry> entry =
      server.fs.create(server.inode(parent), name, mode, 0, server.caller_of(req));
  if (!entry) {
    // The name was absent when the kernel looked; a clone made it since.  ESTALE lets the kernel
    // look again and open what is there now.
    const bool appeared = entry.error().as_errno() == EEXIST && (file->flags & O_EXCL) == 0;
    fuse_reply_err(req, appeared ? ESTALE : entry.error().as_errno());
    return;
  }
  const OpenFor what = purpose_of(file->flags);
  if (const Result<void> opened = server.fs.open_file(*entry->inode, what, false); !opened) {
    server.fs.forget(*entry->inode, 1);
    return reply_error(req, opened.error());
  }
  set_open_reply(*file);
  const fuse_entry_param param = to_entry(server.fs, *entry);
  if (fuse_reply_create(req, &param, file) != 0) {
    server.fs.release_file(*entry->inode, what);
    server.fs.forget(*entry->inode, 1);
  }
}

void op_open(fuse_req_t req, fuse_ino_t node, fuse_file_info* file) noexcept {
  Server& server = begin(req);
  Inode& inode = server.inode(node);
  const OpenFor what = purpose_of(file->flags);
  const Result<void> opened = server.fs.open_file(inode, what, (file->flags & O_TRUNC) != 0,
                                                  request_extras().drop_privileges);
  if (!opened) return reply_error(req, opened.error());
  set_open_reply(*file);
  if (fuse_reply_open(req, file) != 0) server.fs.release_file(inode, what);
}

void op_release(fuse_req_t req, fuse_ino_t node, fuse_file_info* file) noexcept {
  Server& server = begin(req);
  server.fs.release_file(server.inode(node), static_cast<OpenFor>(file->fh));
  fuse_reply_err(req, 0);
}

// ENOSYS for good: no request per close.
void op_flush(fuse_req_t req, fuse_ino_t, fuse_file_info*) noexcept {
  begin(req);
  fuse_reply_err(req, ENOSYS);
}

void op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t offset, fuse_file_info*) noexcept {
  Server& server = begin(req);
  thread_local std::vector<char> buffer;
  if (buffer.size() < size) buffer.resize(size);
  const Result<size_t> bytes = server.fs.read(server.inode(node), static_cast<uint64_t>(offset),
                                              std::span<char>(buffer.data(), size));
  if (!bytes) return reply_error(req, bytes.error());
  fuse_reply_buf(req, buffer.data(), *bytes);
}

void op_write(fuse_req_t req, fuse_ino_t node, const char* data, size_t size, off_t offset,
              fuse_file_info*) noexcept {
  Server& server = begin(req);
  const Result<size_t> bytes = server.fs.write(server.inode(node), static_cast<uint64_t>(offset),
                                               std::string_view(data, size),
                                               request_extras().drop_privileges);
  if (!bytes) return reply_error(req, bytes.error());
  fuse_reply_write(req, *bytes);
}

// fsync of anything makes durable all that happened before it, on the whole volume.
void op_fsync(fuse_req_t req, fuse_ino_t, int, fuse_file_info*) noexcept {
  reply(req, begin(req).fs.sync());
}

void op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t offset, off_t length,
                  fuse_file_info*) noexcept {
  Server& server = begin(req);
  reply(req, server.fs.fallocate(server.inode(node), static_cast<uint32_t>(mode),
                                 static_cast<uint64_t>(offset), static_cast<uint64_t>(length)));
}

void op_lseek(fuse_req_t req, fuse_ino_t node, off_t offset, int whence, fuse_file_info*) noexcept {
  Server& server = begin(req);
  if (whence != SEEK_DATA && whence != SEEK_HOLE) {
    fuse_reply_err(req, EINVAL);
    return;
  }
  const Result<uint64_t> found =
      server.fs.seek_data(server.inode(node), static_cast<uint64_t>(offset), whence == SEEK_HOLE);
  if (!found) return reply_error(req, found.error());
  fuse_reply_lseek(req, static_cast<off_t>(*found));
}

void op_copy_file_range(fuse_req_t req, fuse_ino_t from, off_t from_offset, fuse_file_info*,
                        fuse_ino_t to, off_t to_offset, fuse_file_info*, size_t length,
                        int) noexcept {
  Server& server = begin(req);
  const Result<size_t> bytes =
      server.fs.copy_data(server.inode(from), static_cast<uint64_t>(from_offset), server.inode(to),
                          static_cast<uint64_t>(to_offset), length);
  if (!bytes) return reply_error(req, bytes.error());
  fuse_reply_write(req, *bytes);
}

// ---- extended attributes

/// Replies if there is nothing of that name to be had on this mount.
bool is_refused(fuse_req_t req, const Server& server, std::string_view name) {
  if (server.options.acls || !name.starts_with("system.")) return false;
  fuse_reply_err(req, EOPNOTSUPP);
  return true;
}

/// As getxattr(2) and listxattr(2) have it: size 0 asks how much there is.
void reply_sized(fuse_req_t req, const Result<std::string>& bytes, size_t size) {
  if (!bytes) return reply_error(req, bytes.error());
  if (size == 0) {
    fuse_reply_xattr(req, bytes->size());
  } else if (bytes->size() > size) {
    fuse_reply_err(req, ERANGE);
  } else {
    fuse_reply_buf(req, bytes->data(), bytes->size());
  }
}

void op_getxattr(fuse_req_t req, fuse_ino_t node, const char* name, size_t size) noexcept {
  Server& server = begin(req);
  if (is_refused(req, server, name)) return;
  const Result<std::string> value = server.fs.get_xattr(server.inode(node), name);
  // ls asks for the label of each file until it hears that there are none on this file system.
  const bool is_label = std::string_view(name) == "security.selinux";
  if (!value && is_label && value.error().as_errno() == ENODATA) {
    fuse_reply_err(req, EOPNOTSUPP);
    return;
  }
  reply_sized(req, value, size);
}

void op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size) noexcept {
  Server& server = begin(req);
  reply_sized(req, server.fs.list_xattrs(server.inode(node), server.caller_of(req)), size);
}

void op_setxattr(fuse_req_t req, fuse_ino_t node, const char* name, const char* value, size_t size,
                 int flags) noexcept {
  Server& server = begin(req);
  if (is_refused(req, server, name)) return;
  XattrFlags xattr_flags;
  xattr_flags.create = (flags & XATTR_CREATE) != 0;
  xattr_flags.replace = (flags & XATTR_REPLACE) != 0;
  xattr_flags.drop_set_gid = request_extras().drop_set_gid;
  reply(req, server.fs.set_xattr(server.inode(node), name, std::string_view(value, size),
                                 xattr_flags));
}

void op_removexattr(fuse_req_t req, fuse_ino_t node, const char* name) noexcept {
  Server& server = begin(req);
  reply(req, server.fs.remove_xattr(server.inode(node), name));
}

}  // namespace

// Left out, and so answered ENOSYS, which the kernel remembers: locks (local to the kernel).
// access is never asked for: the kernel checks permissions itself (default_permissions).
const fuse_lowlevel_ops& fuse_operations() {
  static const fuse_lowlevel_ops table = [] {
    fuse_lowlevel_ops ops{};
    ops.init = op_init;
    ops.lookup = op_lookup;
    ops.forget = op_forget;
    ops.forget_multi = op_forget_multi;
    ops.getattr = op_getattr;
    ops.setattr = op_setattr;
    ops.readlink = op_readlink;
    ops.mknod = op_mknod;
    ops.mkdir = op_mkdir;
    ops.unlink = op_unlink;
    ops.rmdir = op_rmdir;
    ops.symlink = op_symlink;
    ops.rename = op_rename;
    ops.link = op_link;
    ops.open = op_open;
    ops.read = op_read;
    ops.write = op_write;
    ops.flush = op_flush;
    ops.release = op_release;
    ops.fsync = op_fsync;
    ops.opendir = op_opendir;
    ops.readdir = op_readdir;
    ops.readdirplus = op_readdirplus;
    ops.fsyncdir = op_fsync;
    ops.statfs = op_statfs;
    ops.create = op_create;
    ops.ioctl = handle_ioctl;
    ops.fallocate = op_fallocate;
    ops.lseek = op_lseek;
    ops.copy_file_range = op_copy_file_range;
    ops.getxattr = op_getxattr;
    ops.listxattr = op_listxattr;
    ops.setxattr = op_setxattr;
    ops.removexattr = op_removexattr;
    return ops;
  }();
  return table;
}

}  // namespace caw
