#include "fuse/control.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace caw {
namespace {

/// The name in a request, whose bytes come from any program.  Fails: name_too_long (no NUL).
Result<std::string_view> name_in(const char (&name)[CAW_NAME_BYTES]) {
  const void* end = std::memchr(name, 0, CAW_NAME_BYTES);
  if (end == nullptr) return fail(Code::name_too_long);
  return std::string_view(name, static_cast<size_t>(static_cast<const char*>(end) - name));
}

template <typename T, size_t n>
bool all_zero(const T (&members)[n]) {
  return std::all_of(members, members + n, [](T member) { return member == 0; });
}

}  // namespace

Result<void> check_new_name(std::string_view name) {
  if (name.empty()) return fail(Code::not_found);
  if (name.size() > 255) return fail(Code::name_too_long);
  if (name == "." || name == "..") return fail(Code::exists);
  if (name.find('/') != name.npos) return fail(Code::invalid_argument);
  return {};
}

Control::Control(FileSystem& fs, KernelCaches& caches, std::function<void(caw_info&)> fill_info)
    : fs_(fs),
      caches_(caches),
      fill_info_(std::move(fill_info)),
      tokens_(std::chrono::seconds(CAW_TOKEN_SECONDS),
              [this](Inode& inode, uint64_t lookups) { fs_.forget(inode, lookups); }) {}

Result<caw_token> Control::token(Inode& inode) {
  const TokenBytes bytes = CAW_TRY(tokens_.issue(inode, TokenTable::Clock::now()));
  caw_token token;
  static_assert(sizeof token.bytes == sizeof bytes);
  std::memcpy(token.bytes, bytes.data(), bytes.size());
  return token;
}

Result<TokenTable::Pin> Control::resolve(const caw_token& token) {
  TokenBytes bytes;
  std::memcpy(bytes.data(), token.bytes, bytes.size());
  std::optional<TokenTable::Pin> pin = tokens_.find(bytes, TokenTable::Clock::now());
  if (!pin) return fail(Code::cross_device);
  return std::move(*pin);
}

void Control::flush_writers(Inode& inode) {
  for (const uint64_t node : fs_.writers_below(inode)) {
    caches_.invalidate_node(node);
    flushed_writers_.fetch_add(1, std::memory_order_relaxed);
  }
}

Result<void> Control::clone(Inode& parent, caw_clone& request, const Caller& caller) {
  if ((request.flags & ~CAW_SYNC) != 0 || request.reserved0 != 0 || !all_zero(request.reserved1)) {
    return fail(Code::invalid_argument);
  }
  const std::string_view name = CAW_TRY(name_in(request.name));
  CAW_TRY(check_new_name(name));
  const TokenTable::Pin source = CAW_TRY(resolve(request.source));

  flush_writers(source.inode());
  const Entry made = CAW_TRY(fs_.clone(source.inode(), parent, name, caller));
  request.ino = made.attributes.ino;
  fs_.forget(*made.inode, 1);
  clones_.fetch_add(1, std::memory_order_relaxed);

  const uint64_t parent_node = node_of(fs_, parent);
  caches_.expire_entry(parent_node, name);
  caches_.invalidate_node(parent_node);
  if ((request.flags & CAW_SYNC) != 0) CAW_TRY(fs_.sync());
  return {};
}

Result<void> Control::remove_tree(Inode& parent, const caw_remove& request, const Caller& caller) {
  if ((request.flags & ~CAW_SYNC) != 0 || request.reserved0 != 0 || !all_zero(request.reserved1)) {
    return fail(Code::invalid_argument);
  }
  const std::string_view name = CAW_TRY(name_in(request.name));
  if (const Result<void> checked = check_new_name(name); !checked) {
    const bool dots = checked.error().code == Code::exists;
    return dots ? fail(Code::invalid_argument) : std::unexpected(checked.error());
  }
  const std::vector<uint64_t> changed = CAW_TRY(fs_.remove_tree(parent, name, caller));

  const uint64_t parent_node = node_of(fs_, parent);
  caches_.expire_entry(parent_node, name);
  caches_.invalidate_node(parent_node);
  for (const uint64_t node : changed) caches_.invalidate_node(node);
  if ((request.flags & CAW_SYNC) != 0) CAW_TRY(fs_.sync());
  return {};
}

Result<void> Control::same(Inode& inode, caw_same& request) {
  const TokenTable::Pin other = CAW_TRY(resolve(request.other));
  flush_writers(inode);
  flush_writers(other.inode());
  request.same = CAW_TRY(fs_.same(inode, other.inode())) ? 1 : 0;
  return {};
}

caw_info Control::info() const {
  caw_info info{};
  info.version = 1;
  info.clones = clones_.load(std::memory_order_relaxed);
  info.flushed_writers = flushed_writers_.load(std::memory_order_relaxed);
  fill_info_(info);
  return info;
}

void Control::forget(Inode& inode, uint64_t lookups) {
  if (!tokens_.keep_back(inode, lookups)) fs_.forget(inode, lookups);
}

}  // namespace caw
