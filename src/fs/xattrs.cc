// FileSystemImpl: extended attributes.
//
// They stand beside the record of their file, each under its name; kInodeXattrs says that there may
// be some, so that files without cost no read.  All of a file together are few bytes, so they are
// copied wherever its record goes.
#include <utility>

#include "fs/acl.h"
#include "fs/file_system_impl.h"
#include "fs/values.h"

namespace caw {

namespace {

constexpr uint64_t kMaxListBytes = 65536;        ///< as the kernel takes them (XATTR_LIST_MAX)
constexpr uint64_t kMaxXattrsBytes = 128 * 1024;  ///< names and values of one file

constexpr std::string_view kTrusted = "trusted.";
constexpr std::string_view kCapability = "security.capability";

bool is_acl(std::string_view name) { return name == kAccessAcl || name == kDefaultAcl; }

/// Fails unless a file can have an attribute of that name.
Result<void> check_xattr_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes) {
    return fail(Code::invalid_argument, name.size(), "xattr name", ERANGE);
  }
  if (is_acl(name)) return {};
  for (const std::string_view prefix : {std::string_view("user."), kTrusted,
                                        std::string_view("security.")}) {
    if (!name.starts_with(prefix)) continue;
    if (name.size() == prefix.size()) return fail(Code::invalid_argument, 0, "xattr name");
    return {};
  }
  return fail(Code::xattr_unsupported, 0, "xattr name");
}

/// What is kept of an ACL, nothing if permission bits say it all; these are put into `fields`.
Result<std::string> plan_acl(std::string_view name, std::optional<std::string_view> value,
                             const XattrFlags& flags, InodeFields& fields) {
  if (fields.is_symlink()) return fail(Code::xattr_unsupported, 0, "ACL of a link");
  if (value && value->size() > kMaxAclBytes) return fail(Code::xattr_too_large, 0, "ACL");
  const Acl acl = value ? CAW_TRY(decode_acl(*value)) : Acl{};
  if (acl.empty()) return std::string();
  if (name == kDefaultAcl) {
    if (!fields.is_directory()) return fail(Code::access_denied, 0, "default ACL");
    return encode_acl(acl);
  }
  fields.mode = (fields.mode & ~0777U) | acl_mode(acl);
  if (flags.drop_set_gid) fields.mode &= ~uint32_t{S_ISGID};
  return is_mode_only(acl) ? std::string() : encode_acl(acl);
}

}  // namespace

/// All extended attributes of a file.
struct FileSystemImpl::XattrSizes {
  std::vector<std::string> names;
  uint64_t name_bytes = 0;  ///< each with its NUL
  uint64_t value_bytes = 0;
};

struct FileSystemImpl::XattrChange {
  std::string_view name;
  std::optional<std::string_view> value;  ///< none: it is removed
  XattrFlags flags;
};

Result<FileSystemImpl::XattrSizes> FileSystemImpl::xattr_sizes(const Spot& xattrs) {
  XattrSizes out;
  const auto cursor = forest_.scan(xattrs.tree, xattrs.key, after_prefix(xattrs.key));
  while (CAW_TRY(cursor->next())) {
    out.names.emplace_back(cursor->key().substr(xattrs.key.size()));
    out.name_bytes += out.names.back().size() + 1;
    out.value_bytes += cursor->value().length;
  }
  return out;
}

Result<std::optional<Value>> FileSystemImpl::find_xattr(const Spot& xattrs, std::string_view name) {
  return forest_.get(xattrs.tree, xattrs.key + std::string(name));
}

Result<std::string> FileSystemImpl::get_xattr(Inode& inode, std::string_view name) {
  CAW_TRY(check_xattr_name(name));
  const auto absent = [&] { return fail(Code::xattr_absent, inode.number, "get_xattr"); };
  if (!may_have_xattrs(inode)) return absent();
  return topology_.read(
      [&] { return topology_.xattrs(inode); },
      [&](const Spot& xattrs) -> Result<std::string> {
        const std::optional<Value> value = CAW_TRY(find_xattr(xattrs, name));
        if (!value) return absent();
        if (value->length > kMaxXattrBytes) return fail(Code::record_malformed, 0, "xattr");
        std::string bytes(value->length, '\0');
        CAW_TRY(forest_.read(*value, 0, bytes));
        return bytes;
      });
}

Result<std::string> FileSystemImpl::list_xattrs(Inode& inode, const Caller& caller) {
  if (!may_have_xattrs(inode)) return std::string();
  const XattrSizes found =
      CAW_TRY(topology_.read([&] { return topology_.xattrs(inode); },
                             [&](const Spot& xattrs) { return xattr_sizes(xattrs); }));
  std::string out;
  for (const std::string& name : found.names) {
    if (name.starts_with(kTrusted) && caller.uid != 0) continue;
    out += name;
    out += '\0';
  }
  return out;
}

Result<void> FileSystemImpl::set_xattr(Inode& inode, std::string_view name, std::string_view value,
                                       const XattrFlags& flags) {
  if (value.size() > kMaxXattrBytes) return fail(Code::xattr_too_large, value.size(), "set_xattr");
  return change_xattr(inode, {name, value, flags});
}

Result<void> FileSystemImpl::remove_xattr(Inode& inode, std::string_view name) {
  return change_xattr(inode, {name, std::nullopt, {.replace = true}});
}

Result<void> FileSystemImpl::change_xattr(Inode& inode, const XattrChange& change) {
  CAW_TRY(begin_change());
  CAW_TRY(check_xattr_name(change.name));
  InodeLocks::Held held(locks_, {&inode});
  InodeFields fields;
  const MutateOptions options{.essential = !change.value};
  CAW_TRY(topology_.mutate({record_of(inode)}, options, [&](Batch& batch) -> Result<void> {
    fields = inode.load_fields();
    fields.ctime = now();
    fields.attribute_seq = next_stamp();
    CAW_TRY(plan_xattr(batch, inode, change, fields));
    const Spot record = CAW_TRY(topology_.record(inode));
    batch.patch(record.tree, record.key, attributes_patch(fields));
    return forest_.apply(batch);
  }));
  inode.store_fields(fields);
  return {};
}

Result<void> FileSystemImpl::plan_xattr(Batch& batch, const Inode& inode, XattrChange change,
                                        InodeFields& fields) {
  const Spot xattrs = CAW_TRY(topology_.xattrs(inode));
  XattrSizes sizes;
  std::optional<Value> old;
  if (may_have_xattrs(inode)) {
    sizes = CAW_TRY(xattr_sizes(xattrs));
    old = CAW_TRY(find_xattr(xattrs, change.name));
  }
  std::string acl;
  if (is_acl(change.name)) {
    acl = CAW_TRY(plan_acl(change.name, change.value, change.flags, fields));
    change.value.reset();
    if (!acl.empty()) change.value = acl;
    if (acl.empty() && !old) return {};
  }
  if (old && change.value && change.flags.create) return fail(Code::exists, 0, "xattr");
  if (!old && change.flags.replace) return fail(Code::xattr_absent, inode.number, "xattr");
  std::string key = xattrs.key + std::string(change.name);
  if (!change.value) {
    batch.erase(xattrs.tree, std::move(key), old->length);
    if (sizes.names.size() == 1) fields.flags &= ~kInodeXattrs;
    return {};
  }
  if (!old) sizes.name_bytes += change.name.size() + 1;
  sizes.value_bytes += change.value->size() - (old ? old->length : 0);
  if (sizes.name_bytes > kMaxListBytes || sizes.name_bytes + sizes.value_bytes > kMaxXattrsBytes) {
    return fail(Code::xattr_no_space, inode.number, "xattr");
  }
  batch.put(xattrs.tree, std::move(key), inline_value(*change.value));
  fields.flags |= kInodeXattrs;
  return {};
}

Result<void> FileSystemImpl::change_acl_mode(Batch& batch, const Inode& inode,
                                             const InodeFields& fields) {
  if (!may_have_xattrs(inode)) return {};
  const Spot xattrs = CAW_TRY(topology_.xattrs(inode));
  const std::optional<Value> value = CAW_TRY(find_xattr(xattrs, kAccessAcl));
  if (!value) return {};
  Acl acl = CAW_TRY(decode_acl(CAW_TRY(read_record(forest_, *value))));
  if (acl.empty()) return {};
  set_acl_mode(acl, fields.mode);
  batch.put(xattrs.tree, xattrs.key + std::string(kAccessAcl), inline_value(encode_acl(acl)));
  return {};
}

Result<Acl> FileSystemImpl::access_acl(const Inode& inode) {
  if (!may_have_xattrs(inode)) return Acl{};
  return topology_.read([&] { return topology_.xattrs(inode); },
                        [&](const Spot& xattrs) -> Result<Acl> {
                          const auto value = CAW_TRY(find_xattr(xattrs, kAccessAcl));
                          if (!value) return Acl{};
                          return decode_acl(CAW_TRY(read_record(forest_, *value)));
                        });
}

Result<void> FileSystemImpl::drop_capabilities(Batch& batch, const Inode& inode) {
  if (!may_have_xattrs(inode)) return {};
  const Spot xattrs = CAW_TRY(topology_.xattrs(inode));
  const std::optional<Value> value = CAW_TRY(find_xattr(xattrs, kCapability));
  if (value) batch.erase(xattrs.tree, xattrs.key + std::string(kCapability), value->length);
  return {};
}

Result<void> FileSystemImpl::inherit_attributes(Batch& batch, const Inode& parent,
                                                const Caller& caller, const Spot& xattrs,
                                                InodeFields& fields) {
  if (fields.is_symlink()) return {};
  std::optional<Value> value;
  if (may_have_xattrs(parent)) {
    value = CAW_TRY(find_xattr(CAW_TRY(topology_.xattrs(parent)), kDefaultAcl));
  }
  if (!value) {
    fields.mode &= ~(caller.umask & 0777U);
    return {};
  }
  const std::string inherited = CAW_TRY(read_record(forest_, *value));
  Acl acl = CAW_TRY(decode_acl(inherited));
  const auto put = [&](std::string_view name, const std::string& bytes) {
    batch.put(xattrs.tree, xattrs.key + std::string(name), inline_value(bytes));
    fields.flags |= kInodeXattrs;
  };
  if (fields.is_directory()) put(kDefaultAcl, inherited);
  fields.mode = inherit_acl(acl, fields.mode);
  if (!is_mode_only(acl)) put(kAccessAcl, encode_acl(acl));
  return {};
}

Result<void> FileSystemImpl::copy_xattrs(Batch& batch, const Inode& inode, const Spot& to,
                                         bool erase) {
  if (!may_have_xattrs(inode)) return {};
  return copy_range(batch, CAW_TRY(topology_.xattrs(inode)), to, erase);
}

bool FileSystemImpl::may_have_xattrs(const Inode& inode) {
  return (inode.load_fields().flags & kInodeXattrs) != 0;
}

}  // namespace caw
