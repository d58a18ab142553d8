#include "fs/acl.h"

#include <array>

#include "base/bytes.h"

namespace caw {

namespace {

constexpr uint32_t kAclVersion = 2;
constexpr uint32_t kNoId = UINT32_MAX;
constexpr uint16_t kAllPermissions = 7;

bool names_someone(AclTag tag) { return tag == AclTag::user || tag == AclTag::group; }

bool is_known(AclTag tag) {
  switch (tag) {
    case AclTag::owner:
    case AclTag::user:
    case AclTag::group_owner:
    case AclTag::group:
    case AclTag::mask:
    case AclTag::other:
      return true;
  }
  return false;
}

AclEntry* find_entry(Acl& acl, AclTag tag) {
  for (AclEntry& entry : acl) {
    if (entry.tag == tag) return &entry;
  }
  return nullptr;
}

/// Whose permissions the group's bits of a mode are.
AclEntry* group_class(Acl& acl) {
  AclEntry* const mask = find_entry(acl, AclTag::mask);
  return mask != nullptr ? mask : find_entry(acl, AclTag::group_owner);
}

/// Owner, group class, others: by shift of their bits in a mode.
std::array<std::pair<AclEntry*, unsigned>, 3> classes(Acl& acl) {
  return {{{find_entry(acl, AclTag::owner), 6U},
           {group_class(acl), 3U},
           {find_entry(acl, AclTag::other), 0U}}};
}

bool is_valid(const Acl& acl) {
  std::array<unsigned, 33> counts{};
  for (size_t i = 0; i < acl.size(); ++i) {
    const AclEntry& entry = acl[i];
    if (!is_known(entry.tag) || entry.permissions > kAllPermissions) return false;
    if (i > 0 && entry.tag < acl[i - 1].tag) return false;
    if (names_someone(entry.tag) && entry.id == kNoId) return false;
    ++counts[static_cast<size_t>(entry.tag)];
  }
  const auto count = [&](AclTag tag) { return counts[static_cast<size_t>(tag)]; };
  const bool names = count(AclTag::user) + count(AclTag::group) != 0;
  return count(AclTag::owner) == 1 && count(AclTag::group_owner) == 1 &&
         count(AclTag::other) == 1 && count(AclTag::mask) <= 1 &&
         (!names || count(AclTag::mask) == 1);
}

}  // namespace

Result<Acl> decode_acl(std::string_view bytes) {
  Reader reader(bytes);
  Acl acl;
  const auto version = reader.fixed<uint32_t>();
  while (reader.ok() && !reader.at_end()) {
    AclEntry entry;
    entry.tag = AclTag{reader.fixed<uint16_t>()};
    entry.permissions = reader.fixed<uint16_t>();
    entry.id = reader.fixed<uint32_t>();
    if (!names_someone(entry.tag)) entry.id = kNoId;
    acl.push_back(entry);
  }
  if (!reader.ok() || version != kAclVersion || (!acl.empty() && !is_valid(acl))) {
    return fail(Code::invalid_argument, bytes.size(), "ACL");
  }
  return acl;
}

std::string encode_acl(const Acl& acl) {
  std::string out;
  put_fixed(out, kAclVersion);
  for (const AclEntry& entry : acl) {
    put_fixed(out, static_cast<uint16_t>(entry.tag));
    put_fixed(out, entry.permissions);
    put_fixed(out, entry.id);
  }
  return out;
}

uint32_t acl_mode(const Acl& acl) {
  Acl copy = acl;
  uint32_t mode = 0;
  for (const auto& [entry, shift] : classes(copy)) mode |= uint32_t{entry->permissions} << shift;
  return mode;
}

bool is_mode_only(const Acl& acl) { return acl.size() <= 3; }

void set_acl_mode(Acl& acl, uint32_t mode) {
  for (const auto& [entry, shift] : classes(acl)) {
    entry->permissions = static_cast<uint16_t>((mode >> shift) & kAllPermissions);
  }
}

bool acl_allows(const Acl& acl, uint32_t uid, uint32_t gid, uint32_t owner, uint32_t group,
                uint32_t wanted) {
  uint32_t mask = kAllPermissions;
  for (const AclEntry& entry : acl) {
    if (entry.tag == AclTag::mask) mask = entry.permissions;
  }
  bool is_of_a_group = false;
  for (const AclEntry& entry : acl) {
    const bool grants = (entry.permissions & wanted) == wanted;
    const bool grants_masked = grants && (mask & wanted) == wanted;
    const bool is_group = (entry.tag == AclTag::group_owner && gid == group) ||
                          (entry.tag == AclTag::group && gid == entry.id);
    if (entry.tag == AclTag::owner && uid == owner) return grants;
    if (entry.tag == AclTag::user && uid == entry.id) return grants_masked;
    if (is_group && grants_masked) return true;
    is_of_a_group = is_of_a_group || is_group;
    if (entry.tag == AclTag::other) return grants && !is_of_a_group;
  }
  return false;
}

uint32_t inherit_acl(Acl& acl, uint32_t mode) {
  for (const auto& [entry, shift] : classes(acl)) {
    entry->permissions = static_cast<uint16_t>(entry->permissions & (mode >> shift));
    const uint32_t bits = uint32_t{kAllPermissions} << shift;
    mode = (mode & ~bits) | (uint32_t{entry->permissions} << shift);
  }
  return mode;
}

}  // namespace caw
