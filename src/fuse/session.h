// Session: a FileSystem served to the kernel through /dev/fuse.
//
// This module is the only one that knows libfuse.  Operations (operations.cc) are adapters that
// turn a request into one call of FileSystem or Control and its Result into one reply; how requests
// come in and replies go out is the transport's business, so that another transport can take
// libfuse's place.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "base/error.h"
#include "caw/ioctl.h"
#include "fs/file_system.h"

namespace caw {

struct SessionOptions {
  std::string directory;                   ///< where to mount; absolute
  std::string source;                      ///< shown as the device in mount tables
  std::vector<std::string> mount_options;  ///< each as after -o: "ro", "allow_other", "nodev" …
  bool shared = false;                     ///< other users may look in (allow_other)
  bool read_only = false;
  bool acls = true;                        ///< POSIX ACLs are kept and enforced
  std::function<void(caw_info&)> fill_info;  ///< volume's members of caw_info
  std::function<Result<void>(caw_scrub&)> scrub;  ///< verifies a slice of the volume
  std::function<void()> ready;               ///< called once, when the directory is usable
};

/// Says what would keep serve() from mounting, and says it better than libfuse and fusermount3 do;
/// to be asked before the volume is opened, which writes.
/// Fails: fuse_device, mount_point, mount_shared.
Result<void> check_mountable(const SessionOptions& options);

/// Mounts, calls ready(), answers requests until the directory is unmounted or SIGINT, SIGTERM or
/// SIGHUP comes, and unmounts.  The caller has these signals blocked in all its threads; they are
/// let through in the calling thread only.
/// Fails: fuse_device, mount_point, mount_shared, fuse_session.
Result<void> serve(FileSystem& fs, const SessionOptions& options);

/// What libfuse or fusermount3 last complained about in this process; empty if nothing.
std::string last_fuse_message();

}  // namespace caw
