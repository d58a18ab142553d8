// Translated edges: the one place where keys and bounds change coordinates.
//
// Going down an edge: strip `strip`, prepend `prepend`.  A bound is clipped by the caller first and
// then translated; a bound outside the stripped prefix becomes the near end of the child's prefix,
// so an upper end that leaves the prefix becomes prefix_end(prepend), never the end of all keys.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "format/interior.h"
#include "format/sorted_block.h"

namespace caw {

/// First key after all keys that start with `prefix`; kKeyEnd if there is none.
std::string key_after_prefix(std::string_view prefix);

inline Translation inverse(const Translation& t) { return {t.prepend, t.strip}; }

/// The key in the child's coordinates; nothing if it does not start with `strip`.
std::optional<std::string> down_key(const Translation& t, std::string_view key);
/// Lower or upper bound in the child's coordinates.
std::string down_bound(const Translation& t, std::string_view bound);
inline std::string up_bound(const Translation& t, std::string_view bound) {
  return down_bound(inverse(t), bound);
}

/// First `outer`, then `inner`; nothing if no key can pass both.
std::optional<Translation> compose(const Translation& outer, const Translation& inner);

inline std::string_view max_bound(std::string_view a, std::string_view b) { return a < b ? b : a; }
inline std::string_view min_bound(std::string_view a, std::string_view b) { return a < b ? a : b; }

}  // namespace caw
