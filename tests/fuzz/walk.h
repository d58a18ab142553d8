// Uses a file system as a program would that finds a tree: looks at all of it, then changes some.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "fs/file_system.h"

namespace caw {

class Walk {
 public:
  explicit Walk(FileSystem& fs) : fs_(fs) {}
  Walk(const Walk&) = delete;
  Walk& operator=(const Walk&) = delete;
  /// Forgets what was looked up.
  ~Walk();

  /// Breadth first, up to so many entries or failures; false if anything failed.
  bool look();
  /// The last of them.
  const Error& failure() const { return failure_; }
  /// Writes, clones, renames and removes here and there.
  void change();

 private:
  struct Found {
    Inode* inode = nullptr;
    Inode* parent = nullptr;
    std::string name;
    uint32_t mode = 0;
  };
  template <typename T>
  void note(const Result<T>& result) {
    if (result) return;
    ++failures_;
    failure_ = result.error();
  }
  void list(Inode& directory);
  void look_at(const Found& found);
  void change_at(const Found& found, size_t step);

  FileSystem& fs_;
  std::vector<Found> found_;
  size_t failures_ = 0;
  Error failure_;
};

}  // namespace caw
