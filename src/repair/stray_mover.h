// StrayMover: moves what has no name of its own into /lost+found, through a FileSystem.
#pragma once

#include <string>
#include <string_view>

#include "fs/file_system.h"
#include "repair/file_mender.h"
#include "repair/notes.h"

namespace caw {

class StrayMover {
 public:
  /// Both outlive it.
  StrayMover(FileSystem& fs, RepairNotes& notes) : fs_(fs), notes_(notes) {}
  ~StrayMover() { close(); }
  StrayMover(const StrayMover&) = delete;
  StrayMover& operator=(const StrayMover&) = delete;

  /// What is below something that was moved goes with that; what is there already stays.
  Result<void> move(const Stray& stray);
  void close();

 private:
  Result<void> open_finds();
  Result<void> move_from(Inode& directory, const Stray& stray);

  FileSystem& fs_;
  RepairNotes& notes_;
  Inode* finds_ = nullptr;
  std::string finds_name_;
};

}  // namespace caw
