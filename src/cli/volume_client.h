// Talks to a mounted volume through its ioctl interface.  Uses nothing of the engine.
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include "caw/ioctl.h"

namespace caw {

/// An open descriptor, or -1.
class Descriptor {
 public:
  explicit Descriptor(int fd = -1) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  void reset();

 private:
  int fd_;
};

/// For reading, without waiting for anything (a FIFO's writer); errno says why if it fails.
Descriptor open_for_control(const std::string& path, int extra_flags = 0);
/// Whether the descriptor's file system is FUSE: the least to check before an ioctl of ours.
bool may_be_cawfs(int fd);
/// ioctl(2) with our argument.  Returns 0 or an errno; ENOTTY also where the kernel or another FUSE
/// file system says that it does not know the request in some other way.
int request(int fd, unsigned long command, void* argument);

/// A path taken apart for a request on its directory: "a/b//" -> "a" and "b".
struct DirectoryAndName {
  std::string directory;
  std::string name;  ///< empty for "/" and ""; may be "." or ".."
};
DirectoryAndName split_path(std::string_view path);

}  // namespace caw
