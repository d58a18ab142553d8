// All that a mounted file system shows, as text, so that two moments can be compared.
#pragma once

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "model/fs_harness.h"

namespace caw {

/// Everything that shows, below `path`, as text.  Counts what cannot be read as a failure.
/// `numbers`: the first name of each inode number met so far.
inline void dump(FsClient& client, const std::string& path, std::string& out,
                 std::map<uint64_t, std::string>& numbers) {
  for (const auto& [name, ino] : client.list(path)) {
    const std::string here = path + "/" + name;
    const auto [first, is_new] = numbers.emplace(ino, here);
    const Attributes stat = client.stat(here);
    EXPECT_TRUE(is_new || stat.nlink > 1) << here << ": inode number twice";
    EXPECT_EQ(stat.ino, ino) << here;
    out += here + " mode " + std::to_string(stat.mode) + " mtime " +
           std::to_string(stat.mtime.seconds);
    if (stat.nlink > 1) out += " links " + std::to_string(stat.nlink) + " as " + first->second;
    if (S_ISREG(stat.mode)) {
      const std::string bytes = client.read(here);
      EXPECT_EQ(bytes.size(), stat.size) << here;
      out += " size " + std::to_string(stat.size) + " sum " +
             std::to_string(std::hash<std::string>()(bytes));
    }
    for (const auto& [xattr, value] : client.xattrs(here)) {
      out += " " + xattr + " " + std::to_string(std::hash<std::string>()(value));
    }
    out += '\n';
    if (S_ISDIR(stat.mode)) dump(client, here, out, numbers);
  }
}

inline std::string dump(FsClient& client) {
  std::string out;
  std::map<uint64_t, std::string> numbers;
  dump(client, "", out, numbers);
  return out;
}

/// Where two dumps part.
inline std::string difference(const std::string& a, const std::string& b) {
  size_t at = 0;
  while (at < a.size() && at < b.size() && a[at] == b[at]) ++at;
  while (at > 0 && a[at - 1] != '\n') --at;
  const auto line = [&](const std::string& text) {
    return text.substr(at, text.find('\n', at) - at);
  };
  return "found \"" + line(a) + "\", expected \"" + line(b) + "\"";
}

}  // namespace caw
