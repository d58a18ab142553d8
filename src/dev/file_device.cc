// The device behind a mounted volume: a regular file or a block device, with direct I/O.
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "dev/block_device.h"
#include "dev/uring_pool.h"

namespace caw {
namespace {

/// Unaligned memory is copied through a buffer of at most this size.
constexpr size_t kBounceMaxBytes = size_t{1} << 20;

class FileHandle {
 public:
  explicit FileHandle(int fd) : fd_(fd) {}
  FileHandle(FileHandle&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  FileHandle& operator=(FileHandle&&) = delete;
  ~FileHandle() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

bool is_out_of_space(int sys_errno) { return sys_errno == ENOSPC || sys_errno == EDQUOT; }

std::unexpected<Error> transfer_error(Direction direction, uint64_t offset_bytes, int sys_errno) {
  const uint64_t block = offset_bytes / kBlockSize;
  if (direction == Direction::read) return fail(Code::device_read, block, "pread", sys_errno);
  const Code code = is_out_of_space(sys_errno) ? Code::device_full : Code::device_write;
  return fail(code, block, "pwrite", sys_errno);
}

bool is_block_aligned(const void* at) { return reinterpret_cast<uintptr_t>(at) % kBlockSize == 0; }

struct FileTraits {
  uint64_t blocks = 0;
  bool is_block_device = false;
  bool direct = false;
  bool read_only = false;
};

class FileDevice final : public BlockDevice {
 public:
  FileDevice(FileHandle file, const FileTraits& traits) : file_(std::move(file)), traits_(traits) {}

  uint64_t block_count() const override { return traits_.blocks; }
  bool read_only() const override { return traits_.read_only; }

  Result<void> read(BlockAddr first, std::span<std::byte> out) override {
    CAW_TRY(check_bounds(first, out.size()));
    return run_one(Direction::read, piece(first, out));
  }
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override {
    CAW_TRY(check_writable(first, data.size()));
    return run_one(Direction::write, piece(first, data));
  }
  Result<void> read_batch(std::span<const ReadRequest> requests) override;
  Result<void> write_batch(std::span<const WriteRequest> requests) override;
  Result<void> flush() override;
  Result<void> ensure_backed(BlockAddr first, uint64_t blocks) override;
  Result<void> discard(BlockAddr first, uint64_t blocks) override;

 private:
  static Transfer piece(BlockAddr first, std::span<const std::byte> data) {
    // Transfer serves both directions; a write never stores through `at`.
    auto* at = const_cast<char*>(reinterpret_cast<const char*>(data.data()));
    return {raw(first) * kBlockSize, at, data.size(), 0};
  }

  Result<void> check_range(BlockAddr first, uint64_t blocks) const {
    if (raw(first) > traits_.blocks || blocks > traits_.blocks - raw(first)) {
      return fail(Code::device_bounds, raw(first), "file device");
    }
    return {};
  }
  Result<void> check_bounds(BlockAddr first, size_t size_bytes) const {
    CAW_ASSERT(size_bytes % kBlockSize == 0);
    return check_range(first, size_bytes / kBlockSize);
  }
  Result<void> check_writable(BlockAddr first, size_t size_bytes) const {
    if (traits_.read_only) return fail(Code::read_only, raw(first), "file device");
    return check_bounds(first, size_bytes);
  }

  bool needs_bounce(const Transfer& transfer) const {
    return traits_.direct && !is_block_aligned(transfer.at);
  }

  Result<void> run_one(Direction direction, const Transfer& transfer);
  Result<void> run_plain(Direction direction, const Transfer& transfer);
  Result<void> run_bounced(Direction direction, const Transfer& transfer);
  Result<void> run_batch(Direction direction, std::span<Transfer> transfers);
  Result<void> finish(Direction direction, const Transfer& transfer);

  FileHandle file_;
  const FileTraits traits_;
  std::atomic<bool> backing_unsupported_{false};
  std::atomic<bool> discard_unsupported_{false};
  UringPool rings_;
};

Result<void> FileDevice::run_one(Direction direction, const Transfer& transfer) {
  return needs_bounce(transfer) ? run_bounced(direction, transfer) : run_plain(direction, transfer);
}

Result<void> FileDevice::run_plain(Direction direction, const Transfer& transfer) {
  size_t done = 0;
  while (done < transfer.size_bytes) {
    char* at = transfer.at + done;
    const size_t left = transfer.size_bytes - done;
    const uint64_t offset = transfer.offset_bytes + done;
    const ssize_t rc = direction == Direction::read
                           ? ::pread(file_.get(), at, left, static_cast<off_t>(offset))
                           : ::pwrite(file_.get(), at, left, static_cast<off_t>(offset));
    if (rc < 0 && errno == EINTR) continue;
    if (rc < 0) return transfer_error(direction, offset, errno);
    // Nothing moved: the file was cut shorter since it was opened.
    if (rc == 0) return transfer_error(direction, offset, EIO);
    done += static_cast<size_t>(rc);
  }
  return {};
}

Result<void> FileDevice::run_bounced(Direction direction, const Transfer& transfer) {
  AlignedBuffer bounce(std::min(transfer.size_bytes, kBounceMaxBytes));
  for (size_t done = 0; done < transfer.size_bytes;) {
    const size_t size = std::min(transfer.size_bytes - done, bounce.size());
    const Transfer part{transfer.offset_bytes + done, bounce.chars(), size, 0};
    if (direction == Direction::write) std::memcpy(part.at, transfer.at + done, size);
    CAW_TRY(run_plain(direction, part));
    if (direction == Direction::read) std::memcpy(transfer.at + done, part.at, size);
    done += size;
  }
  return {};
}

/// Looks at how `transfer` ended in a ring; does what is left of it by plain calls.
Result<void> FileDevice::finish(Direction direction, const Transfer& transfer) {
  const int64_t moved = transfer.result;
  // EINVAL: an older kernel's ring lacks the request; the plain call says what is really wrong.
  if (moved < 0 && moved != -EAGAIN && moved != -EINTR && moved != -EINVAL) {
    return transfer_error(direction, transfer.offset_bytes, static_cast<int>(-moved));
  }
  const size_t done = moved < 0 ? 0 : static_cast<size_t>(moved);
  if (done == transfer.size_bytes) return {};
  return run_plain(
      direction, {transfer.offset_bytes + done, transfer.at + done, transfer.size_bytes - done, 0});
}

Result<void> FileDevice::run_batch(Direction direction, std::span<Transfer> transfers) {
  if (transfers.size() == 1) return run_one(direction, transfers[0]);

  std::vector<Transfer> direct(transfers.begin(), transfers.end());
  std::vector<AlignedBuffer> bounces(transfers.size());
  for (size_t i = 0; i < transfers.size(); ++i) {
    if (!needs_bounce(transfers[i])) continue;
    bounces[i] = AlignedBuffer(transfers[i].size_bytes);
    direct[i].at = bounces[i].chars();
    if (direction == Direction::write) {
      std::memcpy(direct[i].at, transfers[i].at, transfers[i].size_bytes);
    }
  }
  rings_.run(file_.get(), direction, direct);  // without a ring every result stays 0

  Result<void> first_error;
  for (size_t i = 0; i < transfers.size(); ++i) {
    Result<void> result = finish(direction, direct[i]);
    if (!result) {
      if (first_error) first_error = std::move(result);
    } else if (direction == Direction::read && bounces[i].size() != 0) {
      std::memcpy(transfers[i].at, direct[i].at, transfers[i].size_bytes);
    }
  }
  return first_error;
}

Result<void> FileDevice::read_batch(std::span<const ReadRequest> requests) {
  std::vector<Transfer> transfers;
  transfers.reserve(requests.size());
  for (const ReadRequest& request : requests) {
    CAW_TRY(check_bounds(request.first, request.out.size()));
    if (!request.out.empty()) transfers.push_back(piece(request.first, request.out));
  }
  return run_batch(Direction::read, transfers);
}

Result<void> FileDevice::write_batch(std::span<const WriteRequest> requests) {
  std::vector<Transfer> transfers;
  transfers.reserve(requests.size());
  for (const WriteRequest& request : requests) {
    CAW_TRY(check_writable(request.first, request.data.size()));
    if (!request.data.empty()) transfers.push_back(piece(request.first, request.data));
  }
  return run_batch(Direction::write, transfers);
}

Result<void> FileDevice::flush() {
  if (traits_.read_only) return {};
  // fdatasync also makes the extents durable that ensure_backed() added: without them the data
  // could not be read back.  It is not retried: after a failure the kernel forgets dirty pages.
  if (::fdatasync(file_.get()) != 0) return fail(Code::device_flush, 0, "fdatasync", errno);
  return {};
}

Result<void> FileDevice::ensure_backed(BlockAddr first, uint64_t blocks) {
  if (traits_.read_only) return fail(Code::read_only, raw(first), "ensure_backed");
  CAW_TRY(check_range(first, blocks));
  if (traits_.is_block_device || blocks == 0) return {};
  if (backing_unsupported_.load(std::memory_order_relaxed)) return {};
  int rc = 0;
  do {
    rc = ::fallocate(file_.get(), 0, static_cast<off_t>(raw(first) * kBlockSize),
                     static_cast<off_t>(blocks * kBlockSize));
  } while (rc != 0 && errno == EINTR);
  if (rc == 0) return {};
  if (is_out_of_space(errno)) return fail(Code::device_full, raw(first), "fallocate", errno);
  if (errno == EOPNOTSUPP || errno == ENOSYS) {
    backing_unsupported_.store(true, std::memory_order_relaxed);
    return {};
  }
  return fail(Code::device_write, raw(first), "fallocate", errno);
}

Result<void> FileDevice::discard(BlockAddr first, uint64_t blocks) {
  if (traits_.read_only) return fail(Code::read_only, raw(first), "discard");
  CAW_TRY(check_range(first, blocks));
  if (blocks == 0 || discard_unsupported_.load(std::memory_order_relaxed)) return {};
  uint64_t range_bytes[2] = {raw(first) * kBlockSize, blocks * kBlockSize};
  const int rc =
      traits_.is_block_device
          ? ::ioctl(file_.get(), BLKDISCARD, range_bytes)
          : ::fallocate(file_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                        static_cast<off_t>(range_bytes[0]), static_cast<off_t>(range_bytes[1]));
  // A hint: when the host cannot follow it nothing is lost but space.
  if (rc != 0 && (errno == EOPNOTSUPP || errno == ENOTTY || errno == ENOSYS)) {
    discard_unsupported_.store(true, std::memory_order_relaxed);
  }
  return {};
}

Result<FileHandle> open_handle(const std::string& path, int flags) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC);
  if (fd >= 0) return FileHandle(fd);
  if (errno == EBUSY) return fail(Code::device_in_use, 0, "open", errno);
  return fail(Code::device_open, 0, "open", errno);
}

/// Opens for direct I/O and makes sure that it works there; else opens for buffered I/O.
Result<FileHandle> open_direct(const std::string& path, int flags, FileTraits& traits) {
  Result<FileHandle> file = open_handle(path, flags | O_DIRECT);
  if (!file && file.error().sys_errno == EINVAL) return open_handle(path, flags);
  if (!file) return file;
  AlignedBuffer probe(kBlockSize);
  traits.direct = true;
  if (::pread(file->get(), probe.data(), kBlockSize, 0) < 0 && errno == EINVAL) {
    if (::fcntl(file->get(), F_SETFL, flags & ~O_DIRECT) != 0) {
      return fail(Code::device_open, 0, "fcntl", errno);
    }
    traits.direct = false;
  }
  return file;
}

/// Keeps every other opener of this image out; one that only reads lets other readers in.
/// The lock belongs to the open file, so it survives a fork and goes with the last descriptor.
Result<void> lock_image(int fd, bool read_only) {
  struct flock range {};
  range.l_type = read_only ? F_RDLCK : F_WRLCK;
  range.l_whence = SEEK_SET;
  if (::fcntl(fd, F_OFD_SETLK, &range) == 0) return {};
  if (errno == EAGAIN || errno == EACCES) return fail(Code::device_in_use, 0, "lock");
  return fail(Code::device_open, 0, "lock", errno);
}

Result<void> measure(int fd, FileTraits& traits) {
  struct stat info {};
  if (::fstat(fd, &info) != 0) return fail(Code::device_open, 0, "fstat", errno);
  uint64_t size_bytes = 0;
  if (S_ISBLK(info.st_mode)) {
    traits.is_block_device = true;
    if (::ioctl(fd, BLKGETSIZE64, &size_bytes) != 0) {
      return fail(Code::device_open, 0, "BLKGETSIZE64", errno);
    }
  } else if (S_ISREG(info.st_mode)) {
    size_bytes = static_cast<uint64_t>(info.st_size);
    if (size_bytes % kBlockSize != 0) return fail(Code::device_size, size_bytes, "open");
  } else {
    return fail(Code::device_kind, 0, "open");
  }
  // A block device may end in a part of a block; it stays unused.
  traits.blocks = size_bytes / kBlockSize;
  if (traits.blocks == 0) return fail(Code::device_size, size_bytes, "open");
  return {};
}

Result<std::unique_ptr<BlockDevice>> open_once(const std::string& path,
                                               const FileDeviceOptions& options) {
  // Looked at before it is opened: opening a pipe would wait, opening some devices acts on them.
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return fail(Code::device_open, 0, "stat", errno);
  const bool is_block_device = S_ISBLK(info.st_mode);
  if (!is_block_device && !S_ISREG(info.st_mode)) return fail(Code::device_kind, 0, "open");

  FileTraits traits;
  traits.read_only = options.read_only;
  int flags = options.read_only ? O_RDONLY : O_RDWR;
  // Without O_CREAT this is for block devices only: fails with EBUSY while one is mounted or
  // claimed by another O_EXCL opener.
  if (is_block_device && options.exclusive) flags |= O_EXCL;
  FileHandle file =
      CAW_TRY(options.direct ? open_direct(path, flags, traits) : open_handle(path, flags));
  CAW_TRY(measure(file.get(), traits));
  if (options.exclusive && !traits.is_block_device) {
    CAW_TRY(lock_image(file.get(), options.read_only));
  }
  return std::make_unique<FileDevice>(std::move(file), traits);
}

}  // namespace

Result<std::unique_ptr<BlockDevice>> open_file_device(const std::string& path,
                                                      const FileDeviceOptions& options) {
  const auto end = std::chrono::steady_clock::now() + options.patience;
  while (true) {
    auto device = open_once(path, options);
    if (device || device.error().code != Code::device_in_use) return device;
    if (std::chrono::steady_clock::now() >= end) return device;
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace caw
