// Compression and checksums of what is stored.  Pure; no I/O.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace caw {

enum class Compression : uint8_t { none = 0, lz4 = 1, zstd = 2 };

/// Compresses `raw` into `out` (replaced).  Returns the method used: none (and out = raw) where
/// compressing does not save at least one whole 4 KiB block.
Compression compress(Compression wanted, std::string_view raw, std::string* out);

/// Fails: decompress.  `raw_bytes` is known from the reference, so hostile input cannot inflate.
Result<std::string> decompress(Compression method, std::string_view stored, uint32_t raw_bytes);

/// XXH3-64.
uint64_t checksum64(std::string_view bytes);

}  // namespace caw
