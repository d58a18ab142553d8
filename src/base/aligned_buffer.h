// A block-aligned piece of memory, for direct I/O.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "base/assert.h"
#include "base/ids.h"

namespace caw {

/// Owns `size` bytes (rounded up to whole blocks) at a block-aligned address; move-only.
class AlignedBuffer {
 public:
  AlignedBuffer() = default;
  /// Contents are zero.
  explicit AlignedBuffer(size_t size_bytes)
      : size_(blocks_for(size_bytes) * kBlockSize),
        data_(size_ == 0 ? nullptr : static_cast<std::byte*>(std::aligned_alloc(kBlockSize, size_))) {
    CAW_ASSERT(size_ == 0 || data_ != nullptr);
    if (size_ != 0) std::memset(data_.get(), 0, size_);
  }

  size_t size() const { return size_; }
  std::byte* data() { return data_.get(); }
  const std::byte* data() const { return data_.get(); }
  char* chars() { return reinterpret_cast<char*>(data_.get()); }
  const char* chars() const { return reinterpret_cast<const char*>(data_.get()); }
  std::span<std::byte> span() { return {data_.get(), size_}; }
  std::span<const std::byte> span() const { return {data_.get(), size_}; }
  std::string_view view() const { return {chars(), size_}; }

 private:
  struct Free {
    void operator()(std::byte* at) const { std::free(at); }
  };
  size_t size_ = 0;
  std::unique_ptr<std::byte, Free> data_;
};

}  // namespace caw
