#include "fuse/wire.h"

#include <linux/fuse.h>
#include <linux/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>

#include "fuse/replies.h"
#include "fuse/server.h"

namespace caw {
namespace {

// Since Linux 6.6, and so not in the headers of Debian 12.
constexpr uint32_t kStatx = 52;
struct StatxTime {
  int64_t seconds;
  uint32_t nanoseconds;
  int32_t reserved;
};
struct StatxOut {
  uint64_t valid_seconds;
  uint32_t valid_nanoseconds;
  uint32_t flags;
  uint64_t spare0[2];
  uint32_t mask;
  uint32_t block_bytes;
  uint64_t attributes;
  uint32_t nlink, uid, gid;
  uint16_t mode, spare1;
  uint64_t ino, size, blocks;
  uint64_t attributes_mask;
  StatxTime atime, btime, ctime, mtime;
  uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
  uint64_t spare2[14];
};
static_assert(sizeof(StatxOut) == 288);

/// What this thread read last, and so works on: libfuse hands no request to another thread.
struct Current {
  uint64_t unique = 0;
  uint32_t opcode = 0;
  fuse_in_header header{};
  std::string body;         ///< of requests answered here
  uint32_t offered = 0;     ///< INIT: the kernel's flags
  RequestExtras extras;
};
thread_local Current current;

/// libfuse takes the older, shorter form of SETXATTR only.
bool setxattr_is_long = false;  // written while the kernel waits for the answer to INIT

template <typename T>
T field_of(std::string_view body) {
  T out{};
  std::memcpy(&out, body.data(), std::min(body.size(), sizeof out));
  return out;
}

/// Takes the flags from a SETXATTR and leaves what libfuse expects.  Returns its new length.
size_t shorten_setxattr(char* message, size_t bytes) {
  constexpr size_t kShort = 8;
  constexpr size_t kFrom = sizeof(fuse_in_header) + kShort;
  constexpr size_t kTo = sizeof(fuse_in_header) + sizeof(fuse_setxattr_in);
  static_assert(sizeof(fuse_setxattr_in) > kShort);
  if (bytes < kTo) return bytes;
  uint32_t flags = 0;
  std::memcpy(&flags, message + kFrom, sizeof flags);
  current.extras.drop_set_gid = (flags & FUSE_SETXATTR_ACL_KILL_SGID) != 0;
  std::memmove(message + kFrom, message + kTo, bytes - kTo);
  const size_t left = bytes - (kTo - kFrom);
  const auto length = static_cast<uint32_t>(left);
  std::memcpy(message + offsetof(fuse_in_header, len), &length, sizeof length);
  return left;
}

/// Notes what is said beside what libfuse tells.  Returns the message's length.
size_t look_at(char* message, size_t bytes) {
  const std::string_view all(message, bytes);
  const auto header = field_of<fuse_in_header>(all);
  const std::string_view body = all.substr(sizeof header);
  current.unique = header.unique;
  current.opcode = header.opcode;
  current.extras = {};
  bool& drop = current.extras.drop_privileges;
  switch (header.opcode) {
    case FUSE_INIT:
      current.offered = field_of<fuse_init_in>(body).flags;
      break;
    case FUSE_WRITE:
      drop = (field_of<fuse_write_in>(body).write_flags & FUSE_WRITE_KILL_SUIDGID) != 0;
      break;
    case FUSE_SETATTR:
      drop = (field_of<fuse_setattr_in>(body).valid & FATTR_KILL_SUIDGID) != 0;
      break;
    case FUSE_OPEN:
      drop = (field_of<fuse_open_in>(body).open_flags & FUSE_OPEN_KILL_SUIDGID) != 0;
      break;
    case FUSE_SETXATTR:
      if (setxattr_is_long) return shorten_setxattr(message, bytes);
      break;
    case FUSE_TMPFILE:
    case FUSE_SYNCFS:
    case kStatx:
      current.header = header;
      current.body = body;
      break;
    default:
      break;
  }
  return bytes;
}

/// Not noexcept: at the end libfuse cancels threads that wait here, which unwinds them.
ssize_t read_request(int fd, void* buffer, size_t size, void*) {
  const ssize_t got = ::read(fd, buffer, size);
  current.unique = 0;
  if (got < static_cast<ssize_t>(sizeof(fuse_in_header))) return got;
  return static_cast<ssize_t>(look_at(static_cast<char*>(buffer), static_cast<size_t>(got)));
}

// ---- replies

ssize_t send(int fd, int error, std::string_view body) {
  fuse_out_header header{};
  header.len = static_cast<uint32_t>(sizeof header + body.size());
  header.error = -error;
  header.unique = current.unique;
  iovec parts[2] = {{&header, sizeof header}, {const_cast<char*>(body.data()), body.size()}};
  return ::writev(fd, parts, body.empty() ? 1 : 2);
}

template <typename T>
std::string_view bytes_of(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

/// The kernel asks for set-user-id to be dropped where it is due, so that it need not look for
/// capabilities before each write; and says whose ACL drops set-group-id.
ssize_t answer_init(int fd, const iovec* parts, int count) {
  std::string message;
  for (int i = 0; i < count; ++i) {
    message.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  }
  constexpr size_t kFlags = sizeof(fuse_out_header) + offsetof(fuse_init_out, flags);
  if (message.size() >= kFlags + sizeof(uint32_t)) {
    uint32_t flags = 0;
    std::memcpy(&flags, message.data() + kFlags, sizeof flags);
    const bool told_longer = (flags & FUSE_SETXATTR_EXT) != 0;  // libfuse knows of it
    flags |= current.offered & (FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT);
    setxattr_is_long = !told_longer && (flags & FUSE_SETXATTR_EXT) != 0;
    std::memcpy(message.data() + kFlags, &flags, sizeof flags);
  }
  return ::write(fd, message.data(), message.size());
}

StatxTime to_statx(const Timestamp& time) { return {time.seconds, time.nanoseconds, 0}; }

ssize_t answer_statx(int fd, Server& server) {
  const Result<Attributes> got = server.fs.getattr(server.inode(current.header.nodeid));
  if (!got) return send(fd, got.error().as_errno(), {});
  StatxOut out{};
  out.valid_seconds = static_cast<uint64_t>(kForever);
  out.mask = STATX_BASIC_STATS | STATX_BTIME;
  out.block_bytes = kIoBytes;
  out.nlink = got->nlink;
  out.uid = got->uid;
  out.gid = got->gid;
  out.mode = static_cast<uint16_t>(got->mode);
  out.ino = got->ino;
  out.size = got->size;
  out.blocks = got->blocks;
  out.atime = to_statx(got->atime);
  out.btime = to_statx(got->btime);
  out.ctime = to_statx(got->ctime);
  out.mtime = to_statx(got->mtime);
  out.rdev_major = major(got->rdev);
  out.rdev_minor = minor(got->rdev);
  return send(fd, 0, bytes_of(out));
}

fuse_entry_out to_entry_out(FileSystem& fs, const Entry& entry) {
  const fuse_entry_param param = to_entry(fs, entry);
  fuse_entry_out out{};
  out.nodeid = param.ino;
  out.generation = param.generation;
  out.entry_valid = out.attr_valid = static_cast<uint64_t>(kForever);
  const struct stat& from = param.attr;
  fuse_attr& to = out.attr;
  to.ino = from.st_ino;
  to.size = static_cast<uint64_t>(from.st_size);
  to.blocks = static_cast<uint64_t>(from.st_blocks);
  to.atime = static_cast<uint64_t>(from.st_atim.tv_sec);
  to.mtime = static_cast<uint64_t>(from.st_mtim.tv_sec);
  to.ctime = static_cast<uint64_t>(from.st_ctim.tv_sec);
  to.atimensec = static_cast<uint32_t>(from.st_atim.tv_nsec);
  to.mtimensec = static_cast<uint32_t>(from.st_mtim.tv_nsec);
  to.ctimensec = static_cast<uint32_t>(from.st_ctim.tv_nsec);
  to.mode = from.st_mode;
  to.nlink = static_cast<uint32_t>(from.st_nlink);
  to.uid = from.st_uid;
  to.gid = from.st_gid;
  to.blksize = kIoBytes;
  return out;
}

/// A file without a name, open.
ssize_t answer_tmpfile(int fd, Server& server) {
  const auto asked = field_of<fuse_create_in>(current.body);
  const fuse_in_header& header = current.header;
  const Caller caller = server.caller_from(header.uid, header.gid, header.pid, asked.umask);
  const Result<Entry> entry =
      server.fs.create_unnamed(server.inode(header.nodeid), asked.mode, caller);
  if (!entry) return send(fd, entry.error().as_errno(), {});
  const OpenFor what = purpose_of(static_cast<int>(asked.flags));
  const Result<void> opened = server.fs.open_file(*entry->inode, what, false);
  fuse_open_out open{};
  open.fh = static_cast<uint64_t>(what);
  open.open_flags = FOPEN_KEEP_CACHE;
  std::string body(bytes_of(to_entry_out(server.fs, *entry)));
  body += bytes_of(open);
  const ssize_t sent =
      opened ? send(fd, 0, body) : send(fd, opened.error().as_errno(), {});
  if (opened && sent < 0) server.fs.release_file(*entry->inode, what);
  if (!opened || sent < 0) server.fs.forget(*entry->inode, 1);
  return sent;
}

ssize_t answer(int fd, Server& server) {
  server.requests.fetch_add(1, std::memory_order_relaxed);
  if (current.opcode == kStatx) return answer_statx(fd, server);
  if (current.opcode == FUSE_TMPFILE) return answer_tmpfile(fd, server);
  const Result<void> done = server.fs.sync();
  return send(fd, done ? 0 : done.error().as_errno(), {});
}

bool is_answered_here(uint32_t opcode) {
  return opcode == FUSE_TMPFILE || opcode == FUSE_SYNCFS || opcode == kStatx;
}

ssize_t write_reply(int fd, iovec* parts, int count, void* userdata) noexcept {
  const auto header = field_of<fuse_out_header>(
      {static_cast<const char*>(parts[0].iov_base), parts[0].iov_len});
  if (header.unique != 0 && header.unique == current.unique) {
    if (current.opcode == FUSE_INIT && header.error == 0) return answer_init(fd, parts, count);
    if (is_answered_here(current.opcode) && header.error == -ENOSYS) {
      const ssize_t sent = answer(fd, *static_cast<Server*>(userdata));
      return sent < 0 ? sent : static_cast<ssize_t>(header.len);
    }
  }
  return ::writev(fd, parts, count);
}

}  // namespace

const RequestExtras& request_extras() { return current.extras; }

Result<void> attach_wire(fuse_session* session) {
  fuse_custom_io io{};
  io.read = read_request;
  io.writev = write_reply;
  const int failed = fuse_session_custom_io(session, &io, fuse_session_fd(session));
  if (failed != 0) return fail(Code::fuse_session, 0, "custom io", -failed);
  return {};
}

}  // namespace caw
