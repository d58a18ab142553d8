// Makes checksums right again in bytes that were changed.
#pragma once

#include <string>

#include "base/bytes.h"
#include "format/compression.h"

namespace caw {

/// Requires of these two: at least the header.
inline void seal_superblock(std::string& block) {
  block.replace(0, 8, "CAWFSVOL");
  store_fixed(block.data() + 8, checksum64(std::string_view(block).substr(16)));
}
inline void seal_region_table_block(std::string& block) {
  store_fixed(block.data(), checksum64(std::string_view(block).substr(8)));
}
inline void seal_log_frame(char* frame, size_t bytes) {
  store_fixed(frame + 8, checksum64({frame + 16, bytes - 16}));
}

}  // namespace caw
