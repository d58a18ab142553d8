// POSIX access control lists, in the form in which the kernel passes them as extended attributes:
//   u32 version (2), then entries of u16 tag, u16 permissions, u32 id; little-endian.
// Pure; the kernel enforces them, here they are kept in step with the permission bits.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"

namespace caw {

inline constexpr std::string_view kAccessAcl = "system.posix_acl_access";
inline constexpr std::string_view kDefaultAcl = "system.posix_acl_default";
inline constexpr size_t kMaxAclBytes = 4096;  ///< as on other file systems

enum class AclTag : uint16_t {
  owner = 1,
  user = 2,
  group_owner = 4,
  group = 8,
  mask = 16,
  other = 32,
};

struct AclEntry {
  AclTag tag = AclTag::owner;
  uint16_t permissions = 0;  ///< rwx, as one digit of a mode
  uint32_t id = 0;           ///< of users and groups
};
using Acl = std::vector<AclEntry>;

/// Fails: invalid_argument, unless it is empty or has its entries in order, each of owner, group
/// and others once, and a mask if it names anyone.
Result<Acl> decode_acl(std::string_view bytes);
std::string encode_acl(const Acl& acl);

/// Permission bits (0777) that show it; the group's are the mask, if there is one.
uint32_t acl_mode(const Acl& acl);
/// True if permission bits say all there is.
bool is_mode_only(const Acl& acl);
/// chmod: what acl_mode() gives afterwards.
void set_acl_mode(Acl& acl, uint32_t mode);
/// Whether it lets `uid` in group `gid` have the `wanted` permissions (as one digit of a mode) of
/// what belongs to `owner` and `group`.
bool acl_allows(const Acl& acl, uint32_t uid, uint32_t gid, uint32_t owner, uint32_t group,
                uint32_t wanted);
/// Makes the access ACL of a new file out of its directory's default ACL: nobody gets more than the
/// file was made with.  Returns its mode.
uint32_t inherit_acl(Acl& acl, uint32_t mode);

}  // namespace caw
