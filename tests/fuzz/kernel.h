// The kernel's side of the FUSE protocol, for one file system in this process: no mount, no
// /dev/fuse.  Requests go through libfuse to our operations as they do in a mount.
//
// It keeps to what the kernel keeps to: node ids and handles are those it was given and has not
// given back, names end with a NUL, and structures are whole.  All else may be anything.
#pragma once

#include <fuse_lowlevel.h>
#include <linux/fuse.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "caw/ioctl.h"
#include "fuse/server.h"

namespace caw {

struct Reply {
  bool answered = false;
  int error = 0;  ///< as in the protocol: 0 or negative
  std::string data;
};

class Kernel {
 public:
  explicit Kernel(FileSystem& fs);
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  struct Handle {
    uint64_t node = 0;
    uint64_t fh = 0;
  };
  /// Any of the nodes known; the root if `index` says so.
  uint64_t node(size_t index) const;
  const std::vector<Handle>& handles() const { return handles_; }
  const std::vector<caw_token>& tokens() const { return tokens_; }

  /// Checks that there is one answer, of a form that the kernel takes.
  Reply request(uint32_t opcode, uint64_t node, std::string_view body);
  void forget(size_t index, uint64_t lookups);
  void release(size_t index);

  /// Requests whose answer names a node or a handle.
  void request_entry(uint32_t opcode, uint64_t node, std::string_view body);
  void open(uint64_t node, uint32_t flags);
  void read_directory_plus(uint64_t node, uint64_t offset, uint32_t size);
  void ioctl(uint64_t node, uint32_t command, std::string_view argument);

 private:
  struct Node {
    uint64_t id = 0;
    uint64_t lookups = 0;
  };
  static ssize_t take_answer(int fd, iovec* parts, int count, void* user);
  static ssize_t no_read(int fd, void* buffer, size_t bytes, void* user);
  void send(uint32_t opcode, uint64_t node, std::string_view body);
  void learn(uint64_t id);

  SessionOptions options_;
  Server server_;
  fuse_session* session_ = nullptr;
  uint64_t unique_ = 0;
  Reply reply_;
  std::vector<Node> nodes_;
  std::vector<Handle> handles_;
  std::vector<caw_token> tokens_;
};

template <typename T>
std::string_view bytes_of(const T& structure) {
  return {reinterpret_cast<const char*>(&structure), sizeof structure};
}

}  // namespace caw
