#include "dag/translate.h"

namespace caw {

std::string key_after_prefix(std::string_view prefix) {
  while (!prefix.empty() && prefix.back() == '\xff') prefix.remove_suffix(1);
  if (prefix.empty()) return std::string(kKeyEnd);
  std::string out(prefix);
  out.back() = static_cast<char>(static_cast<unsigned char>(out.back()) + 1);
  return out;
}

std::optional<std::string> down_key(const Translation& t, std::string_view key) {
  if (!key.starts_with(t.strip)) return std::nullopt;
  std::string out;
  out.reserve(t.prepend.size() + key.size() - t.strip.size());
  out.append(t.prepend).append(key.substr(t.strip.size()));
  return out;
}

std::string down_bound(const Translation& t, std::string_view bound) {
  if (auto inside = down_key(t, bound)) return *std::move(inside);
  if (bound < t.strip) return t.prepend;
  return key_after_prefix(t.prepend);
}

std::optional<Translation> compose(const Translation& outer, const Translation& inner) {
  const std::string_view p = outer.prepend;
  const std::string_view s = inner.strip;
  if (p.starts_with(s)) {
    return Translation{outer.strip, inner.prepend + std::string(p.substr(s.size()))};
  }
  if (s.starts_with(p)) {
    return Translation{outer.strip + std::string(s.substr(p.size())), inner.prepend};
  }
  return std::nullopt;
}

}  // namespace caw
