#include "cli/report.h"

#include <cstdio>
#include <cstring>

namespace caw {

std::string sentence(std::string_view command, std::string_view subject, std::string_view what,
                     std::string_view advice) {
  std::string out = "caw ";
  out += command;
  out += ": ";
  if (!subject.empty()) {
    out += subject;
    out += ": ";
  }
  out += what;
  if (!advice.empty()) {
    out += "; ";
    out += advice;
  }
  return out;
}

int complain(std::string_view command, std::string_view subject, std::string_view what,
             std::string_view advice) {
  const std::string line = sentence(command, subject, what, advice) + "\n";
  std::fputs(line.c_str(), stderr);
  return kExitFailed;
}

int usage_error(std::string_view command, std::string_view what) {
  std::string advice = "see caw ";
  advice += command;
  advice += " --help";
  complain(command, {}, what, advice);
  return kExitUsage;
}

std::string errno_text(int sys_errno) { return std::strerror(sys_errno); }

std::string what_of(const Error& error) {
  std::string out(text_of(error.code));
  if (error.sys_errno != 0) out += " (" + errno_text(error.sys_errno) + ")";
  return out;
}

std::string_view advice_for(const Error& error) {
  switch (error.code) {
    case Code::device_open:
      if (error.sys_errno == ENOENT) return "check the name, or make a volume with caw mkfs";
      if (error.sys_errno == EACCES) return "you need read and write permission on it";
      if (error.sys_errno == EROFS || error.sys_errno == EPERM) return "mount it with -o ro";
      return "check the name and its permissions";
    case Code::device_in_use:
      return "unmount it there first (caw umount)";
    case Code::device_size:
    case Code::device_kind:
    case Code::not_a_volume:
      return "check the name, or make a volume with caw mkfs";
    case Code::format_version:
      return "use a newer cawfs";
    case Code::volume_truncated:
      return "restore the whole image; nothing was changed";
    case Code::superblock_damaged:
      return "restore the image from a copy; nothing was changed";
    case Code::node_checksum:
    case Code::node_identity:
    case Code::node_header:
    case Code::node_payload:
    case Code::interior_malformed:
    case Code::bitmap_damaged:
    case Code::region_table:
    case Code::meta_page:
    case Code::node_absent:
    case Code::record_malformed:
    case Code::tree_absent:
      return "repair it with caw fsck --repair; nothing was changed";
    case Code::device_full:
    case Code::no_space:
      return "make room and try again";
    case Code::fuse_device:
      if (error.sys_errno == EACCES) return "ask root for access to /dev/fuse, or run as root";
      return "load the fuse module (modprobe fuse), or give the container the device";
    case Code::mount_point:
      if (error.sys_errno == EACCES) return "mount it on a directory of your own";
      return "choose an existing directory";
    case Code::mount_shared:
      return "let root add user_allow_other to /etc/fuse.conf";
    case Code::volume_failed:
      return "unmount it and look at the device that holds it";
    default:
      return {};
  }
}

int complain(std::string_view command, std::string_view subject, const Error& error) {
  return complain(command, subject, what_of(error), advice_for(error));
}

}  // namespace caw
