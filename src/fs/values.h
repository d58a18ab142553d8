// Reads whole values that are records (small).
#pragma once

#include <string>

#include "schema/records.h"
#include "volume/forest.h"

namespace caw {

/// Fails: record_malformed if it is too large for a record.
inline Result<std::string> read_record(Forest& forest, const Value& value) {
  if (value.length > kMaxRecordBytes) return fail(Code::record_malformed, value.length, "record");
  if (value.is_inline()) return inline_bytes(value);
  std::string bytes(value.length, '\0');
  CAW_TRY(forest.read(value, 0, bytes));
  return bytes;
}

}  // namespace caw
