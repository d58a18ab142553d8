#include "fuzz/walk.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/stat.h>

#include <array>

namespace caw {
namespace {

constexpr size_t kMaxFound = 250;
constexpr size_t kMaxFailures = 40;  ///< some wait a little: others might be at work
const Caller kRoot{};
const Caller kUser{.uid = 1000, .gid = 1000, .pid = 1, .privileged = false};

}  // namespace

Walk::~Walk() {
  for (const Found& found : found_) fs_.forget(*found.inode, 1);
}

bool Walk::look() {
  list(*fs_.root());
  for (size_t i = 0; i < found_.size() && failures_ < kMaxFailures; ++i) {
    const Found found = found_[i];
    look_at(found);
    if (S_ISDIR(found.mode)) list(*found.inode);
  }
  return failures_ == 0;
}

void Walk::list(Inode& directory) {
  const Result<void> listed = fs_.readdirplus(
      directory, 0, [&](const DirectoryEntry& entry, const Entry& looked_up) {
        if (found_.size() >= kMaxFound) return false;
        if (looked_up.inode != nullptr) {
          found_.push_back({looked_up.inode, &directory, std::string(entry.name),
                            looked_up.attributes.mode});
        }
        return true;
      });
  note(listed);
  size_t entries = 0;
  note(fs_.readdir(directory, 1, [&](const DirectoryEntry&) { return ++entries < kMaxFound; }));
}

void Walk::look_at(const Found& found) {
  note(fs_.getattr(*found.inode));
  const Result<Entry> again = fs_.lookup(*found.parent, found.name);
  note(again);
  if (again) fs_.forget(*again->inode, 1);
  note(fs_.same(*found.inode, *found_.front().inode));
  if (S_ISLNK(found.mode)) note(fs_.readlink(*found.inode));
  if (!S_ISREG(found.mode)) return;
  std::array<char, 3000> buffer{};
  uint64_t at = 0;
  for (int i = 0; i < 100; ++i) {
    const Result<size_t> read = fs_.read(*found.inode, at, buffer);
    note(read);
    if (!read || *read == 0) break;
    at += *read;
  }
  static_cast<void>(fs_.read(*found.inode, uint64_t{1} << 40, buffer));
  static_cast<void>(fs_.seek_data(*found.inode, 0, false));
  static_cast<void>(fs_.seek_data(*found.inode, at / 2, true));
}

void Walk::change() {
  const size_t count = found_.size();
  for (size_t step = 0; step < 14 && count != 0; ++step) {
    change_at(found_[step * 7919 % count], step);
  }
  static_cast<void>(fs_.mkdir(*fs_.root(), "made", 0755, kRoot));
  static_cast<void>(fs_.symlink(*fs_.root(), "made link", "nowhere", kRoot));
  for (size_t i = 0; i < 40; ++i) {
    const Result<Entry> made =
        fs_.create(*fs_.root(), "new" + std::to_string(i), S_IFREG | 0600, 0, kUser);
    if (!made) continue;
    static_cast<void>(fs_.write(*made->inode, i * 100, std::string(i * 20, 'n')));
    fs_.forget(*made->inode, 1);
  }
}

void Walk::change_at(const Found& found, size_t step) {
  const std::string name = "change" + std::to_string(step);
  switch (step % 7) {
    case 0: {
      const Result<Entry> cloned = fs_.clone(*found.inode, *fs_.root(), name, kRoot);
      if (cloned) fs_.forget(*cloned->inode, 1);
      break;
    }
    case 1: {
      static_cast<void>(fs_.write(*found.inode, 100, std::string(200, 'w')));
      static_cast<void>(fs_.write(*found.inode, 130'000, std::string(20'000, 'x')));
      static_cast<void>(fs_.fallocate(*found.inode,
                                      FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 10, 140'000));
      break;
    }
    case 2: {
      SetAttributes set;
      set.mode = 0600;
      set.size = 50;
      static_cast<void>(fs_.setattr(*found.inode, set, kRoot));
      break;
    }
    case 3:
      static_cast<void>(fs_.rename(*found.parent, found.name, *fs_.root(), name, {}));
      break;
    case 4:
      if (fs_.open_file(*found.inode, OpenFor::mapping, false)) {
        static_cast<void>(fs_.unlink(*found.parent, found.name));
        fs_.release_file(*found.inode, OpenFor::mapping);
      }
      break;
    case 5: {
      const Result<Entry> linked = fs_.link(*found.inode, *fs_.root(), name);
      if (linked) fs_.forget(*linked->inode, 1);
      break;
    }
    default:
      static_cast<void>(fs_.remove_tree(*found.parent, found.name, step < 6 ? kRoot : kUser));
  }
}

}  // namespace caw
