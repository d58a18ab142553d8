// The ioctl operation: CAW_IOC_* to Control.
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "fuse/server.h"

namespace caw {
namespace {

/// The argument as the kernel copied it in; bytes it does not have are zero.
template <typename T>
T argument_from(const void* in, size_t in_bytes) {
  T argument{};
  if (in != nullptr) std::memcpy(&argument, in, std::min(in_bytes, sizeof argument));
  return argument;
}

template <typename T>
void reply_argument(fuse_req_t req, const T& argument) {
  fuse_reply_ioctl(req, 0, &argument, sizeof argument);
}

void reply_done(fuse_req_t req, const Result<void>& result) {
  if (!result) return reply_error(req, result.error());
  fuse_reply_ioctl(req, 0, nullptr, 0);
}

void clone(fuse_req_t req, Server& server, Inode& parent, caw_clone request) {
  const Caller caller = server.caller_of(req);
  server.run_waiting_task([req, &server, &parent, request, caller]() mutable {
    const Result<void> done = server.control.clone(parent, request, caller);
    if (!done) return reply_error(req, done.error());
    reply_argument(req, request);
  });
}

void remove_tree(fuse_req_t req, Server& server, Inode& parent, const caw_remove& request) {
  const Caller caller = server.caller_of(req);
  server.run_waiting_task([req, &server, &parent, request, caller] {
    reply_done(req, server.control.remove_tree(parent, request, caller));
  });
}

void same(fuse_req_t req, Server& server, Inode& inode, caw_same request) {
  server.run_waiting_task([req, &server, &inode, request]() mutable {
    const Result<void> done = server.control.same(inode, request);
    if (!done) return reply_error(req, done.error());
    reply_argument(req, request);
  });
}

void info(fuse_req_t req, Server& server) {
  caw_info info = server.control.info();
  info.pid = getpid();
  info.flags |= server.options.read_only ? CAW_INFO_READ_ONLY : 0;
  info.flags |= server.options.shared ? CAW_INFO_SHARED : 0;
  info.requests = server.requests.load(std::memory_order_relaxed);
  reply_argument(req, info);
}

/// A slice is short, so it is done where it comes in.
void scrub(fuse_req_t req, Server& server, caw_scrub request) {
  const uint32_t uid = fuse_req_ctx(req)->uid;
  const bool is_clean = request.flags == 0 && request.reserved0 == 0 &&
                        std::ranges::all_of(request.reserved1, [](auto it) { return it == 0; });
  if (uid != 0 && uid != getuid()) return reply_error(req, Error{Code::permission});
  if (!is_clean) return reply_error(req, Error{Code::invalid_argument});
  const Result<void> done = server.options.scrub(request);
  if (!done) return reply_error(req, done.error());
  reply_argument(req, request);
}

void token(fuse_req_t req, Server& server, Inode& inode) {
  const Result<caw_token> issued = server.control.token(inode);
  if (!issued) return reply_error(req, issued.error());
  server.expire_tokens_later();
  reply_argument(req, *issued);
}

}  // namespace

// A request is answered on another thread than it came in on where run_waiting_task() says so: the
// caller's descriptor, and so the inode, stays open until then.
void handle_ioctl(fuse_req_t req, fuse_ino_t node, unsigned int command, void*, fuse_file_info*,
                  unsigned, const void* in, size_t in_bytes, size_t out_bytes) noexcept {
  Server& server = server_of(req);
  server.requests.fetch_add(1, std::memory_order_relaxed);
  static_cast<void>(out_bytes);  // the size is in the command, which is compared whole
  Inode& inode = server.inode(node);
  switch (command) {
    case CAW_IOC_TOKEN:
      return token(req, server, inode);
    case CAW_IOC_CLONE:
      return clone(req, server, inode, argument_from<caw_clone>(in, in_bytes));
    case CAW_IOC_REMOVE_TREE:
      return remove_tree(req, server, inode, argument_from<caw_remove>(in, in_bytes));
    case CAW_IOC_SYNC:
      return reply_done(req, server.control.sync());
    case CAW_IOC_CHECKPOINT:
      return reply_done(req, server.control.checkpoint());
    case CAW_IOC_SAME:
      return same(req, server, inode, argument_from<caw_same>(in, in_bytes));
    case CAW_IOC_INFO:
      return info(req, server);
    case CAW_IOC_SCRUB:
      return scrub(req, server, argument_from<caw_scrub>(in, in_bytes));
    default:
      fuse_reply_err(req, ENOTTY);
  }
}

}  // namespace caw
