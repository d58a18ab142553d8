// Wire: what libfuse leaves out of the kernel's protocol.
//
// Requests pass through here before libfuse decodes them and replies after it made them, so that
//   - flags it does not know are added to the answer to INIT,
//   - fields it drops are there for the operation (request_extras()),
//   - requests it does not know (TMPFILE, STATX, SYNCFS) are answered: libfuse says ENOSYS to them,
//     and that reply is replaced here, on the thread that works on the request.
// The form of the messages is the kernel's <linux/fuse.h>.  See docs/adr/0023-wire.md.
#pragma once

#include <fuse_lowlevel.h>

#include <cstdint>

#include "base/error.h"

namespace caw {

/// What libfuse does not tell of a request.
struct RequestExtras {
  bool drop_privileges = false;  ///< the caller may not keep set-user-id and the like
  bool drop_set_gid = false;     ///< of an ACL: nor set-group-id
};

/// Of the request that the calling thread works on.
const RequestExtras& request_extras();

/// Puts the wire between the kernel and `session`, whose userdata is a Server.  After it was
/// mounted, before the first request.  Fails: fuse_session.
Result<void> attach_wire(fuse_session* session);

}  // namespace caw
