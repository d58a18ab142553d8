#include "cli/image_file.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "cli/volume_client.h"

namespace caw {
namespace {

constexpr size_t kProbeBytes = 1U << 20;

Result<Descriptor> open_image(const std::string& path, int flags) {
  Descriptor fd(open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK, 0600));
  if (!fd) return fail(Code::device_open, 0, "open", errno);
  return fd;
}

Result<std::string> read_front(int fd, size_t bytes) {
  std::string out(bytes, '\0');
  size_t done = 0;
  while (done < bytes) {
    const ssize_t got = pread(fd, out.data() + done, bytes - done, static_cast<off_t>(done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail(Code::device_read, 0, "pread", errno);
    if (got == 0) break;
    done += static_cast<size_t>(got);
  }
  out.resize(done);
  return out;
}

Result<ImageState> state_of(int fd) {
  struct stat status {};
  if (fstat(fd, &status) != 0) return fail(Code::device_open, 0, "fstat", errno);
  ImageState state;
  state.is_regular = S_ISREG(status.st_mode);
  if (state.is_regular) {
    state.size_bytes = static_cast<uint64_t>(status.st_size);
  } else if (!S_ISBLK(status.st_mode)) {
    return fail(Code::device_kind);
  } else if (ioctl(fd, BLKGETSIZE64, &state.size_bytes) != 0) {
    return fail(Code::device_open, 0, "BLKGETSIZE64", errno);
  }
  return state;
}

/// Either slot decodes, or says that it was one of ours.
bool looks_like_volume(std::string_view front) {
  for (size_t at = 0; at + kBlockSize <= front.size() && at < 2 * kBlockSize; at += kBlockSize) {
    const Result<Superblock> found = decode_superblock(front.substr(at, kBlockSize));
    if (found || found.error().code != Code::not_a_volume) return true;
  }
  return false;
}

}  // namespace

Result<ImageState> inspect_image(const std::string& path) {
  const Result<Descriptor> opened = open_image(path, O_RDONLY);
  if (!opened) {
    if (opened.error().sys_errno == ENOENT) return ImageState{};
    return std::unexpected(opened.error());
  }
  const int fd = opened->get();
  ImageState state = CAW_TRY(state_of(fd));
  const std::string front = CAW_TRY(read_front(fd, kProbeBytes));
  const bool zeros = std::all_of(front.begin(), front.end(), [](char c) { return c == 0; });
  const bool all_hole = !state.is_regular || (lseek(fd, 0, SEEK_DATA) < 0 && errno == ENXIO);
  if (looks_like_volume(front)) {
    state.contents = ImageContents::volume;
  } else {
    state.contents = zeros && all_hole ? ImageContents::empty : ImageContents::foreign;
  }
  return state;
}

Result<void> size_image(const std::string& path, uint64_t size_bytes) {
  const Descriptor fd = CAW_TRY(open_image(path, O_RDWR | O_CREAT));
  if (ftruncate(fd.get(), static_cast<off_t>(size_bytes)) != 0) {
    return fail(Code::device_write, 0, "ftruncate", errno);
  }
  return {};
}

Result<Superblock> read_superblock(const std::string& path) {
  const Descriptor fd = CAW_TRY(open_image(path, O_RDONLY));
  const ImageState state = CAW_TRY(state_of(fd.get()));
  const std::string front = CAW_TRY(read_front(fd.get(), 2 * kBlockSize));
  std::optional<Superblock> newest;
  Error error{Code::not_a_volume};
  for (size_t at = 0; at + kBlockSize <= front.size(); at += kBlockSize) {
    Result<Superblock> slot = decode_superblock(std::string_view(front).substr(at, kBlockSize));
    if (!slot) {
      if (slot.error().code != Code::not_a_volume) error = slot.error();
    } else if (!newest || newest->epoch < slot->epoch) {
      newest = std::move(*slot);
    }
  }
  if (!newest) return std::unexpected(error);
  if (state.size_bytes / kBlockSize < newest->block_count) return fail(Code::volume_truncated);
  return std::move(*newest);
}

}  // namespace caw
