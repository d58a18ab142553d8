// A file system in the process, driven by paths, over any forest.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "fs/file_system.h"
#include "support/map_forest.h"

namespace caw {

/// One second per question, so that times tell the order of changes.
class TickingClock final : public Clock {
 public:
  Timestamp now() override { return {++seconds_, 7}; }

 private:
  std::atomic<int64_t> seconds_{1'000'000};
};

inline std::vector<std::string> split_path(std::string_view path) {
  std::vector<std::string> parts;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    if (slash != 0) parts.emplace_back(path.substr(0, slash));
    path = slash == path.npos ? std::string_view{} : path.substr(slash + 1);
  }
  return parts;
}

/// The errno of `error`.  EIO, which no test provokes here, is told in full.
inline int errno_noted(const Error& error) {
  if (error.as_errno() == EIO) std::fprintf(stderr, "%s\n", error.to_string().c_str());
  return error.as_errno();
}

/// All extended attributes; an errno.
inline int read_xattrs(FileSystem& fs, Inode& inode, std::map<std::string, std::string>& out) {
  out.clear();
  const Result<std::string> names = fs.list_xattrs(inode, {});
  if (!names) return errno_noted(names.error());
  for (size_t at = 0; at < names->size(); at = names->find('\0', at) + 1) {
    const std::string name = names->c_str() + at;
    Result<std::string> value = fs.get_xattr(inode, name);
    if (!value) return errno_noted(value.error());
    out[name] = std::move(*value);
  }
  return 0;
}

/// Mounts and unmounts a FileSystem; calls give 0 or an errno.
class FsClient {
 public:
  explicit FsClient(Forest& forest) : forest_(&forest) {}

  int make_and_mount() {
    const Result<void> made = FileSystem::make(*forest_, clock_, 0, 0);
    return made ? mount() : errno_noted(made.error());
  }
  int mount(bool read_only = false) {
    FsOptions options;
    options.clock = &clock_;
    options.read_only = read_only;
    auto opened = FileSystem::open(*forest_, options);
    if (!opened) return errno_noted(opened.error());
    fs_ = std::move(*opened);
    return 0;
  }
  void unmount() { fs_.reset(); }
  int remount() {
    unmount();
    return mount();
  }
  /// After the forest itself was closed and opened.
  int mount_on(Forest& forest) {
    forest_ = &forest;
    return mount();
  }
  FileSystem& fs() { return *fs_; }

  /// The inode at `path`, with one lookup; put() it.
  Result<Inode*> get(std::string_view path) {
    const std::vector<std::string> parts = split_path(path);
    Inode* at = fs_->root();
    for (const std::string& part : parts) {
      Result<Entry> entry = fs_->lookup(*at, part);
      put(at);
      if (!entry) return std::unexpected<Error>(entry.error());
      at = entry->inode;
    }
    return at;
  }
  void put(Inode* inode) {
    if (inode != fs_->root()) fs_->forget(*inode, 1);
  }
  /// Calls act(parent, name) -> Result.
  template <typename Act>
  int in_parent(std::string_view path, const Act& act) {
    const size_t slash = path.rfind('/');
    const std::string_view above = slash == path.npos ? std::string_view{} : path.substr(0, slash);
    const std::string name(slash == path.npos ? path : path.substr(slash + 1));
    Result<Inode*> parent = get(above);
    if (!parent) return errno_noted(parent.error());
    const int error = act(**parent, name);
    put(*parent);
    return error;
  }
  template <typename Act>
  int at(std::string_view path, const Act& act) {
    Result<Inode*> inode = get(path);
    if (!inode) return errno_noted(inode.error());
    const int error = act(**inode);
    put(*inode);
    return error;
  }
  int finish(const Result<Entry>& entry) {
    if (!entry) return errno_noted(entry.error());
    fs_->forget(*entry->inode, 1);
    return 0;
  }
  template <typename T>
  static int error_of(const Result<T>& result) {
    return result ? 0 : errno_noted(result.error());
  }

  int create(std::string_view path, uint32_t mode = 0644) {
    return in_parent(path, [&](Inode& parent, const std::string& name) {
      return finish(fs_->create(parent, name, S_IFREG | mode, 0, caller_));
    });
  }
  int mkdir(std::string_view path, uint32_t mode = 0755) {
    return in_parent(path, [&](Inode& parent, const std::string& name) {
      return finish(fs_->mkdir(parent, name, mode, caller_));
    });
  }
  int symlink(std::string_view path, std::string_view target) {
    return in_parent(path, [&](Inode& parent, const std::string& name) {
      return finish(fs_->symlink(parent, name, target, caller_));
    });
  }
  int link(std::string_view from, std::string_view to) {
    return at(from, [&](Inode& inode) {
      return in_parent(to, [&](Inode& parent, const std::string& name) {
        return finish(fs_->link(inode, parent, name));
      });
    });
  }
  int unlink(std::string_view path) {
    return in_parent(path, [&](Inode& parent, const std::string& name) {
      return error_of(fs_->unlink(parent, name));
    });
  }
  int rmdir(std::string_view path) {
    return in_parent(path, [&](Inode& parent, const std::string& name) {
      return error_of(fs_->rmdir(parent, name));
    });
  }
  int remove_tree(std::string_view path) {
    return in_parent(path, [&](Inode& parent, const std::string& name) {
      return error_of(fs_->remove_tree(parent, name, caller_));
    });
  }
  int rename(std::string_view from, std::string_view to, RenameFlags flags = {}) {
    return in_parent(from, [&](Inode& from_parent, const std::string& from_name) {
      return in_parent(to, [&](Inode& to_parent, const std::string& to_name) {
        return error_of(fs_->rename(from_parent, from_name, to_parent, to_name, flags));
      });
    });
  }
  int clone(std::string_view from, std::string_view to) {
    return at(from, [&](Inode& source) {
      return in_parent(to, [&](Inode& parent, const std::string& name) {
        return finish(fs_->clone(source, parent, name, caller_));
      });
    });
  }
  int write(std::string_view path, uint64_t offset, std::string_view bytes) {
    return at(path, [&](Inode& inode) {
      const Result<size_t> written = fs_->write(inode, offset, bytes);
      EXPECT_EQ(written.value_or(bytes.size()), bytes.size());
      return error_of(written);
    });
  }
  int copy(std::string_view from, uint64_t offset, std::string_view to, uint64_t to_offset,
           uint64_t length) {
    return at(from, [&](Inode& source) {
      return at(to, [&](Inode& target) {
        const uint64_t size = fs_->getattr(source).value_or(Attributes{}).size;
        const uint64_t most = std::min(length, size - std::min(size, offset));
        uint64_t done = 0;
        do {
          const Result<size_t> copied =
              fs_->copy_data(source, offset + done, target, to_offset + done, most - done);
          if (!copied && done > 0 && copied.error().as_errno() == ENOSPC) continue;  // injected
          if (!copied) return errno_noted(copied.error());
          if (*copied == 0) break;
          done += *copied;
        } while (done < most);
        return 0;
      });
    });
  }
  int truncate(std::string_view path, uint64_t size) {
    SetAttributes set;
    set.size = size;
    return setattr(path, set);
  }
  int setattr(std::string_view path, const SetAttributes& set) {
    return at(path, [&](Inode& inode) { return error_of(fs_->setattr(inode, set, caller_)); });
  }
  int set_xattr(std::string_view path, std::string_view name, std::string_view value,
                const XattrFlags& flags = {}) {
    return at(path, [&](Inode& inode) {
      return error_of(fs_->set_xattr(inode, name, value, flags));
    });
  }
  int remove_xattr(std::string_view path, std::string_view name) {
    return at(path, [&](Inode& inode) { return error_of(fs_->remove_xattr(inode, name)); });
  }
  std::map<std::string, std::string> xattrs(std::string_view path) {
    std::map<std::string, std::string> out;
    EXPECT_EQ(at(path, [&](Inode& inode) { return read_xattrs(*fs_, inode, out); }), 0) << path;
    return out;
  }
  std::string read(std::string_view path) {
    std::string out;
    const int error = at(path, [&](Inode& inode) { return read_inode(inode, out); });
    EXPECT_EQ(error, 0) << path;
    return out;
  }
  /// The whole file, in requests of 100,000 bytes.
  int read_inode(Inode& inode, std::string& out) {
    out.clear();
    while (true) {
      std::string part(100'000, '?');
      const Result<size_t> got = fs_->read(inode, out.size(), part);
      if (!got) return errno_noted(got.error());
      if (*got == 0) return 0;
      out.append(part, 0, *got);
    }
  }
  Attributes stat(std::string_view path) {
    Attributes out;
    const int error = at(path, [&](Inode& inode) {
      const Result<Attributes> got = fs_->getattr(inode);
      if (got) out = *got;
      return error_of(got);
    });
    EXPECT_EQ(error, 0) << path;
    return out;
  }
  /// Names and inode numbers, without "." and "..".
  std::map<std::string, uint64_t> list(std::string_view path) {
    std::map<std::string, uint64_t> out;
    const int error = at(path, [&](Inode& inode) { return list_inode(inode, out); });
    EXPECT_EQ(error, 0) << path;
    return out;
  }
  int list_inode(Inode& inode, std::map<std::string, uint64_t>& out) {
    out.clear();
    return error_of(fs_->readdir(inode, 0, [&](const DirectoryEntry& entry) {
      if (entry.cookie <= 2) return true;
      EXPECT_TRUE(out.emplace(entry.name, entry.ino).second) << entry.name;
      return true;
    }));
  }
  Caller& caller() { return caller_; }

 private:
  TickingClock clock_;
  Forest* forest_;
  Caller caller_;
  std::unique_ptr<FileSystem> fs_;
};

}  // namespace caw
