#include "fuzz/kernel.h"

#include <fcntl.h>

#include <algorithm>

#include "base/bytes.h"
#include "fuzz/fuzz.h"

namespace caw {
namespace {

Kernel* current = nullptr;  // libfuse gives the callbacks the server, which does not know us

constexpr uint32_t kMinorVersion = 36;

SessionOptions some_options() {
  SessionOptions options;
  options.fill_info = [](caw_info& info) { info.format_version = kFormatVersion; };
  return options;
}

}  // namespace

Kernel::Kernel(FileSystem& fs) : options_(some_options()), server_(fs, options_) {
  current = this;
  char name[] = "fuzz";
  char* argv[] = {name, nullptr};
  fuse_args args{1, argv, 0};
  session_ = fuse_session_new(&args, &fuse_operations(), sizeof(fuse_lowlevel_ops), &server_);
  FUZZ_CHECK(session_ != nullptr);
  const fuse_custom_io io{take_answer, no_read, nullptr, nullptr};
  FUZZ_CHECK(fuse_session_custom_io(session_, &io, ::open("/dev/null", O_RDWR | O_CLOEXEC)) == 0);
  server_.set_session(session_);
  fuse_init_in init{};
  init.major = FUSE_KERNEL_VERSION;
  init.minor = kMinorVersion;
  init.flags = ~uint32_t{0} & ~uint32_t{FUSE_INIT_EXT};
  FUZZ_CHECK(request(FUSE_INIT, 0, bytes_of(init)).error == 0);
}

Kernel::~Kernel() {
  server_.stop();
  fuse_session_destroy(session_);
  current = nullptr;
}

ssize_t Kernel::no_read(int, void*, size_t, void*) { return 0; }

ssize_t Kernel::take_answer(int, iovec* parts, int count, void*) {
  std::string bytes;
  for (int i = 0; i < count; ++i) {
    bytes.append(static_cast<const char*>(parts[i].iov_base), parts[i].iov_len);
  }
  FUZZ_CHECK(bytes.size() >= sizeof(fuse_out_header));
  const auto header = load_fixed<fuse_out_header>(bytes.data());
  FUZZ_CHECK(header.len == bytes.size());
  if (header.unique == 0) return static_cast<ssize_t>(bytes.size());  // a notification
  Reply& reply = current->reply_;
  FUZZ_CHECK(header.unique == current->unique_ && !reply.answered);
  FUZZ_CHECK(header.error <= 0 && header.error > -1000);
  reply.answered = true;
  reply.error = header.error;
  reply.data = bytes.substr(sizeof(fuse_out_header));
  FUZZ_CHECK(header.error == 0 || reply.data.empty());
  return static_cast<ssize_t>(bytes.size());
}

void Kernel::send(uint32_t opcode, uint64_t node, std::string_view body) {
  fuse_in_header header{};
  header.len = static_cast<uint32_t>(sizeof header + body.size());
  header.opcode = opcode;
  header.unique = ++unique_;
  header.nodeid = node;
  header.uid = unique_ % 3 == 0 ? 1000 : 0;
  header.pid = 1;
  reply_ = Reply{};
  std::string bytes(bytes_of(header));
  bytes += body;
  fuse_buf buffer{};
  buffer.size = bytes.size();
  buffer.mem = bytes.data();
  fuse_session_process_buf(session_, &buffer);
}

Reply Kernel::request(uint32_t opcode, uint64_t node, std::string_view body) {
  send(opcode, node, body);
  FUZZ_CHECK(reply_.answered);
  return reply_;
}

uint64_t Kernel::node(size_t index) const {
  const size_t i = index % (nodes_.size() + 1);
  return i == 0 ? kRootNode : nodes_[i - 1].id;
}

void Kernel::learn(uint64_t id) {
  if (id == 0 || id == kRootNode) return;
  const auto at = std::ranges::find(nodes_, id, &Node::id);
  if (at == nodes_.end()) {
    nodes_.push_back({id, 1});
  } else {
    ++at->lookups;
  }
}

/// An open file is looked up as long as it is open.
void Kernel::forget(size_t index, uint64_t lookups) {
  if (nodes_.empty()) return;
  const size_t at = index % nodes_.size();
  Node& node = nodes_[at];
  const bool open =
      std::ranges::any_of(handles_, [&](const Handle& each) { return each.node == node.id; });
  const uint64_t most = node.lookups - (open ? 1 : 0);
  const fuse_forget_in forget{std::min(lookups, most)};
  if (forget.nlookup == 0) return;
  const uint64_t id = node.id;
  node.lookups -= forget.nlookup;
  if (node.lookups == 0) nodes_.erase(nodes_.begin() + static_cast<std::ptrdiff_t>(at));
  send(FUSE_FORGET, id, bytes_of(forget));
  FUZZ_CHECK(!reply_.answered);
}

void Kernel::release(size_t index) {
  if (handles_.empty()) return;
  const size_t at = index % handles_.size();
  const Handle handle = handles_[at];
  handles_.erase(handles_.begin() + static_cast<std::ptrdiff_t>(at));
  fuse_release_in in{};
  in.fh = handle.fh;
  FUZZ_CHECK(request(FUSE_RELEASE, handle.node, bytes_of(in)).error == 0);
}

void Kernel::request_entry(uint32_t opcode, uint64_t node, std::string_view body) {
  const Reply reply = request(opcode, node, body);
  if (reply.error != 0) return;
  FUZZ_CHECK(reply.data.size() >= sizeof(fuse_entry_out));
  const auto entry = load_fixed<fuse_entry_out>(reply.data.data());
  learn(entry.nodeid);
  if (opcode != FUSE_CREATE) return;
  const auto opened = load_fixed<fuse_open_out>(reply.data.data() + sizeof(fuse_entry_out));
  handles_.push_back({entry.nodeid, opened.fh});
}

void Kernel::open(uint64_t node, uint32_t flags) {
  fuse_open_in in{};
  in.flags = flags;
  const Reply reply = request(FUSE_OPEN, node, bytes_of(in));
  if (reply.error != 0) return;
  FUZZ_CHECK(reply.data.size() == sizeof(fuse_open_out));
  handles_.push_back({node, load_fixed<fuse_open_out>(reply.data.data()).fh});
}

void Kernel::read_directory_plus(uint64_t node, uint64_t offset, uint32_t size) {
  fuse_read_in in{};
  in.offset = offset;
  in.size = size;
  const Reply reply = request(FUSE_READDIRPLUS, node, bytes_of(in));
  FUZZ_CHECK(reply.data.size() <= size);
  for (size_t at = 0; at < reply.data.size();) {
    FUZZ_CHECK(reply.data.size() - at >= FUSE_NAME_OFFSET_DIRENTPLUS);
    const auto entry = load_fixed<fuse_entry_out>(reply.data.data() + at);
    const auto names = load_fixed<uint32_t>(reply.data.data() + at + sizeof entry + 16);
    learn(entry.nodeid);
    at += FUSE_DIRENT_ALIGN(FUSE_NAME_OFFSET_DIRENTPLUS + size_t{names});
  }
}

void Kernel::ioctl(uint64_t node, uint32_t command, std::string_view argument) {
  fuse_ioctl_in in{};
  in.cmd = command;
  in.in_size = static_cast<uint32_t>(argument.size());
  in.out_size = _IOC_SIZE(command);
  const Reply reply = request(FUSE_IOCTL, node, std::string(bytes_of(in)) + std::string(argument));
  if (reply.error != 0) return;
  FUZZ_CHECK(reply.data.size() >= sizeof(fuse_ioctl_out));
  const std::string_view out = std::string_view(reply.data).substr(sizeof(fuse_ioctl_out));
  FUZZ_CHECK(out.size() <= in.out_size);
  if (command == CAW_IOC_TOKEN) tokens_.push_back(load_fixed<caw_token>(out.data()));
}

}  // namespace caw
