#include "dev/memory_device.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <utility>

#include "base/assert.h"

namespace caw {
namespace {

constexpr std::array<std::byte, kBlockSize> kZeros{};

/// What a block adds to the digest of its image; nothing if it is zeros.
uint64_t digest_of(uint64_t block, const BlockContentRef& content) {
  if (!content || content->bytes == kZeros) return 0;
  const std::array<uint64_t, 2> both{block, content->hash};
  return XXH3_64bits(both.data(), sizeof both);
}

class MemoryDevice final : public BlockDevice {
 public:
  MemoryDevice(Ref<MemoryImage> image, bool read_only)
      : image_(std::move(image)), read_only_(read_only) {}

  uint64_t block_count() const override { return image_->block_count(); }
  bool read_only() const override { return read_only_; }

  Result<void> read(BlockAddr first, std::span<std::byte> out) override {
    CAW_TRY(check_bounds(first, out.size()));
    image_->read(first, out);
    return {};
  }
  Result<void> write(BlockAddr first, std::span<const std::byte> data) override {
    CAW_TRY(check_writable(first, data.size()));
    image_->write(first, data);
    return {};
  }
  Result<void> read_batch(std::span<const ReadRequest> requests) override {
    for (const ReadRequest& request : requests) CAW_TRY(read(request.first, request.out));
    return {};
  }
  Result<void> write_batch(std::span<const WriteRequest> requests) override {
    for (const WriteRequest& request : requests) CAW_TRY(write(request.first, request.data));
    return {};
  }
  Result<void> flush() override { return {}; }
  Result<void> ensure_backed(BlockAddr first, uint64_t blocks) override {
    return check_writable(first, blocks * kBlockSize);
  }
  Result<void> discard(BlockAddr first, uint64_t blocks) override {
    CAW_TRY(check_writable(first, blocks * kBlockSize));
    image_->clear(first, blocks);
    return {};
  }

 private:
  Result<void> check_bounds(BlockAddr first, uint64_t size_bytes) const {
    CAW_ASSERT(size_bytes % kBlockSize == 0);
    const uint64_t blocks = size_bytes / kBlockSize;
    if (raw(first) > block_count() || blocks > block_count() - raw(first)) {
      return fail(Code::device_bounds, raw(first), "memory device");
    }
    return {};
  }
  Result<void> check_writable(BlockAddr first, uint64_t size_bytes) const {
    if (read_only_) return fail(Code::read_only, raw(first), "memory device");
    return check_bounds(first, size_bytes);
  }

  Ref<MemoryImage> image_;
  const bool read_only_;
};

}  // namespace

BlockContent::BlockContent(std::span<const std::byte, kBlockSize> data)
    : hash(XXH3_64bits(data.data(), data.size())) {
  std::copy(data.begin(), data.end(), bytes.begin());
}

std::vector<BlockContentRef> make_block_contents(std::span<const std::byte> data) {
  CAW_ASSERT(data.size() % kBlockSize == 0);
  std::vector<BlockContentRef> contents;
  contents.reserve(data.size() / kBlockSize);
  for (; !data.empty(); data = data.subspan(kBlockSize)) {
    contents.emplace_back(make_ref<BlockContent>(data.first<kBlockSize>()));
  }
  return contents;
}

void MemoryImage::read(BlockAddr first, std::span<std::byte> out) const {
  std::shared_lock lock(mutex_);
  CAW_ASSERT(raw(first) + out.size() / kBlockSize <= contents_.size());
  for (uint64_t i = 0; i < out.size() / kBlockSize; ++i) {
    const BlockContentRef& content = contents_[raw(first) + i];
    std::byte* at = out.data() + i * kBlockSize;
    if (content) {
      std::memcpy(at, content->bytes.data(), kBlockSize);
    } else {
      std::memset(at, 0, kBlockSize);
    }
  }
}

void MemoryImage::write(BlockAddr first, std::span<const std::byte> data) {
  std::vector<BlockContentRef> contents = make_block_contents(data);
  std::unique_lock lock(mutex_);
  CAW_ASSERT(raw(first) + contents.size() <= contents_.size());
  for (uint64_t i = 0; i < contents.size(); ++i) {
    replace(raw(first) + i, std::move(contents[i]));
  }
}

void MemoryImage::put(BlockAddr at, BlockContentRef content) {
  std::unique_lock lock(mutex_);
  CAW_ASSERT(raw(at) < contents_.size());
  replace(raw(at), std::move(content));
}

void MemoryImage::clear(BlockAddr first, uint64_t blocks) {
  std::unique_lock lock(mutex_);
  CAW_ASSERT(raw(first) + blocks <= contents_.size());
  for (uint64_t i = 0; i < blocks; ++i) replace(raw(first) + i, nullptr);
}

void MemoryImage::replace(uint64_t block, BlockContentRef content) {
  digest_ += digest_of(block, content) - digest_of(block, contents_[block]);
  contents_[block] = std::move(content);
}

uint64_t MemoryImage::digest() const {
  std::shared_lock lock(mutex_);
  return digest_;
}

Ref<MemoryImage> MemoryImage::clone() const {
  auto copy = make_ref<MemoryImage>(uint64_t{0});
  std::shared_lock lock(mutex_);
  copy->contents_ = contents_;
  copy->digest_ = digest_;
  return copy;
}

std::unique_ptr<BlockDevice> make_memory_device(Ref<MemoryImage> image, bool read_only) {
  return std::make_unique<MemoryDevice>(std::move(image), read_only);
}

std::unique_ptr<BlockDevice> make_memory_device(uint64_t blocks) {
  return make_memory_device(make_ref<MemoryImage>(blocks));
}

}  // namespace caw
