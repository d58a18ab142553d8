// A file system as plain nodes, and operations on it as plain data: the model of the fs model test.
#pragma once

#include <sys/stat.h>

#include <cerrno>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/random.h"
#include "model/fs_harness.h"

namespace caw::fsm {

enum class Kind : uint8_t {
  create,
  mkdir,
  symlink,
  write,
  truncate,
  punch,
  unlink,
  rmdir,
  rename,
  rename_new,
  exchange,
  link,
  clone,
  remove_tree,
  chmod,
  set_xattr,
  remove_xattr,
  copy,
  open,
  close,
  write_open,
  read_open,
  check,
  remount,
  reopen,
  sync,
  maintain,
  crash,
};
inline constexpr const char* kKindNames[] = {
    "create", "mkdir", "symlink", "write", "truncate", "punch", "unlink", "rmdir", "rename",
    "rename_new", "exchange", "link", "clone", "remove_tree", "chmod", "set_xattr", "remove_xattr",
    "copy", "open", "close", "write_open", "read_open", "check", "remount", "reopen", "sync",
    "maintain", "crash"};

/// Numbers by kind: write, write_open, punch: offset, length, seed of the bytes; truncate: size;
/// chmod: mode; copy: offset in `a`, length, seed of the offset in `b`; set_xattr, remove_xattr:
/// name in x, length of the value in y; open, close, write_open, read_open: slot in `slot`.
struct Op {
  Kind kind = Kind::check;
  std::string a = "/", b = "/";
  uint64_t x = 0, y = 0, z = 0;
  uint32_t slot = 0;
};

inline std::string to_line(const Op& op) {
  std::ostringstream out;
  out << kKindNames[static_cast<size_t>(op.kind)] << ' ' << op.a << ' ' << op.b << ' ' << op.x
      << ' ' << op.y << ' ' << op.z << ' ' << op.slot;
  return out.str();
}

inline std::optional<Op> from_line(const std::string& line) {
  std::istringstream in(line);
  std::string name;
  Op op;
  if (!(in >> name >> op.a >> op.b >> op.x >> op.y >> op.z >> op.slot)) return std::nullopt;
  for (size_t i = 0; i < std::size(kKindNames); ++i) {
    if (name != kKindNames[i]) continue;
    op.kind = static_cast<Kind>(i);
    return op;
  }
  return std::nullopt;
}

inline std::string op_bytes(uint64_t length, uint64_t seed) {
  std::string out(length, '\0');
  for (size_t i = 0; i < length; ++i) out[i] = static_cast<char>('A' + (i / 3 + seed * 7) % 58);
  return out;
}

/// Few names, so that they are met again.
inline std::string xattr_name(uint64_t number) {
  static constexpr const char* kNames[] = {"user.a", "user.b", "trusted.\xff", "security.c"};
  return kNames[number % std::size(kNames)];
}

struct Node;
using NodePtr = std::shared_ptr<Node>;
struct Node {
  uint32_t mode = 0;
  std::string data;  ///< or the target of a link
  std::map<std::string, NodePtr> children;
  std::map<std::string, std::string> xattrs;
  uint64_t ino = 0;  ///< as first seen; 0: not seen yet
  bool is_directory() const { return S_ISDIR(mode); }
  bool is_file() const { return S_ISREG(mode); }
};

/// Names of one node are names of one node in the copy.
using Copies = std::map<const Node*, NodePtr>;
inline NodePtr deep_copy(const Node& node, bool keep_ino, Copies& copies) {
  NodePtr& out = copies[&node];
  if (out) return out;
  out = std::make_shared<Node>(node);
  NodePtr copy = out;
  if (!keep_ino) copy->ino = 0;
  for (auto& [name, child] : copy->children) child = deep_copy(*child, keep_ino, copies);
  return copy;
}
inline NodePtr deep_copy(const Node& node, bool keep_ino) {
  Copies copies;
  return deep_copy(node, keep_ino, copies);
}

/// How many names each node has at and below `node`.
inline void count_names(const Node& node, std::map<const Node*, uint32_t>& names) {
  for (const auto& [name, child] : node.children) {
    ++names[child.get()];
    count_names(*child, names);
  }
}

inline void count(const Node& node, uint64_t& nodes, uint64_t& bytes) {
  ++nodes;
  bytes += node.data.size();
  for (const auto& [name, child] : node.children) count(*child, nodes, bytes);
}

inline bool is_within(const Node* node, const Node& top) {
  if (node == &top) return true;
  for (const auto& [name, child] : top.children) {
    if (is_within(node, *child)) return true;
  }
  return false;
}

/// Operations by path; they return 0 or the errno.
class Model {
 public:
  Model() : root_(std::make_shared<Node>()) { root_->mode = S_IFDIR | 0755; }
  explicit Model(NodePtr root) : root_(std::move(root)) {}
  Model durable_copy() const { return Model(deep_copy(*root_, true)); }
  const NodePtr& root() const { return root_; }

  std::pair<NodePtr, int> find(std::string_view path) const {
    NodePtr at = root_;
    for (const std::string& part : split_path(path)) {
      if (!at->is_directory()) return {nullptr, ENOTDIR};
      const auto child = at->children.find(part);
      if (child == at->children.end()) return {nullptr, ENOENT};
      at = child->second;
    }
    return {at, 0};
  }
  /// The directory that `path` is in, and the last name.
  int find_parent(std::string_view path, NodePtr& parent, std::string& name) const {
    const size_t slash = path.rfind('/');
    name = path.substr(slash + 1);
    int error = 0;
    std::tie(parent, error) = find(path.substr(0, slash));
    return error;
  }

  int make(std::string_view path, uint32_t mode, std::string_view data) {
    NodePtr parent;
    std::string name;
    if (const int error = find_parent(path, parent, name)) return error;
    if (!parent->is_directory()) return ENOTDIR;
    if (parent->children.contains(name)) return EEXIST;
    auto node = std::make_shared<Node>();
    node->mode = mode;
    node->data = data;
    parent->children[name] = node;
    return 0;
  }
  static int write(Node& node, uint64_t offset, std::string_view bytes) {
    if (!node.is_file()) return EINVAL;
    if (node.data.size() < offset + bytes.size()) node.data.resize(offset + bytes.size(), '\0');
    node.data.replace(offset, bytes.size(), bytes);
    return 0;
  }
  int truncate(std::string_view path, uint64_t size) {
    const auto [node, error] = find(path);
    if (error != 0) return error;
    if (node->is_directory()) return EISDIR;
    if (!node->is_file()) return EINVAL;
    node->data.resize(size, '\0');
    return 0;
  }
  int copy(std::string_view from, uint64_t offset, std::string_view to, uint64_t to_offset,
           uint64_t length) {
    const auto [source, error] = find(from);
    const auto [target, target_error] = find(to);
    if (error != 0 || target_error != 0) return error != 0 ? error : target_error;
    if (!source->is_file() || !target->is_file()) return EINVAL;
    if (offset >= source->data.size()) return 0;
    const uint64_t most = std::min<uint64_t>(length, source->data.size() - offset);
    const bool overlap = offset < to_offset + most && to_offset < offset + most;
    if (source == target && overlap && most > 0) return EINVAL;
    return write(*target, to_offset, source->data.substr(offset, length));
  }
  int punch(std::string_view path, uint64_t offset, uint64_t length) {
    const auto [node, error] = find(path);
    if (error != 0) return error;
    if (!node->is_file()) return EINVAL;
    for (uint64_t i = offset; i < offset + length && i < node->data.size(); ++i) {
      node->data[i] = '\0';
    }
    return 0;
  }
  int remove(std::string_view path, Kind kind) {
    NodePtr parent;
    std::string name;
    if (const int error = find_parent(path, parent, name)) return error;
    if (!parent->is_directory()) return ENOTDIR;
    const auto child = parent->children.find(name);
    if (child == parent->children.end()) return ENOENT;
    const Node& node = *child->second;
    if (kind == Kind::unlink && node.is_directory()) return EISDIR;
    if (kind == Kind::rmdir && !node.is_directory()) return ENOTDIR;
    if (kind == Kind::rmdir && !node.children.empty()) return ENOTEMPTY;
    parent->children.erase(child);
    return 0;
  }
  int rename(std::string_view from, std::string_view to, Kind kind) {
    NodePtr from_parent;
    NodePtr to_parent;
    std::string from_name;
    std::string to_name;
    if (const int error = find_parent(from, from_parent, from_name)) return error;
    if (const int error = find_parent(to, to_parent, to_name)) return error;
    if (!to_parent->is_directory() || !from_parent->is_directory()) return ENOTDIR;
    const auto source = from_parent->children.find(from_name);
    if (source == from_parent->children.end()) return ENOENT;
    const auto found = to_parent->children.find(to_name);
    const NodePtr moved = source->second;
    const NodePtr target = found == to_parent->children.end() ? nullptr : found->second;
    const bool exchange = kind == Kind::exchange;
    if (target == nullptr && exchange) return ENOENT;
    if (target != nullptr && kind == Kind::rename_new) return EEXIST;
    if (target == moved) return 0;
    if (target != nullptr && !exchange && target->is_directory() != moved->is_directory()) {
      return target->is_directory() ? EISDIR : ENOTDIR;
    }
    if (from_parent != to_parent && is_within(to_parent.get(), *moved)) return EINVAL;
    if (from_parent != to_parent && exchange && is_within(from_parent.get(), *target)) {
      return EINVAL;
    }
    if (target != nullptr && !exchange && !target->children.empty()) return ENOTEMPTY;
    from_parent->children.erase(source);
    to_parent->children[to_name] = moved;
    if (exchange) from_parent->children[from_name] = target;
    return 0;
  }
  int link(std::string_view from, std::string_view to) {
    const auto [node, error] = find(from);
    if (error != 0) return error;
    NodePtr parent;
    std::string name;
    if (const int parent_error = find_parent(to, parent, name)) return parent_error;
    if (node->is_directory()) return EPERM;
    if (!parent->is_directory()) return ENOTDIR;
    if (parent->children.contains(name)) return EEXIST;
    parent->children[name] = node;
    return 0;
  }
  int clone(std::string_view from, std::string_view to) {
    const auto [source, error] = find(from);
    if (error != 0) return error;
    NodePtr parent;
    std::string name;
    if (const int parent_error = find_parent(to, parent, name)) return parent_error;
    if (!parent->is_directory()) return ENOTDIR;
    if (!source->is_directory() && !source->is_file()) return EINVAL;
    if (parent->children.contains(name)) return EEXIST;
    NodePtr copy = deep_copy(*source, false);
    parent->children[name] = std::move(copy);
    return 0;
  }

 private:
  NodePtr root_;
};

}  // namespace caw::fsm
