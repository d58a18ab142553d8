#include "fs/inode.h"

#include <thread>

namespace caw {

namespace {

constexpr uint32_t kPermissions = 07777;
constexpr unsigned kFlagsShift = 12;
static_assert(kInodeFlags << kFlagsShift <= UINT16_MAX);

}  // namespace

/// A bit that spins, for a few instructions that copy fields; never held over a call that waits.
class Inode::FieldsLock {
 public:
  explicit FieldsLock(std::atomic<uint8_t>& state) : state_(state) {
    while ((state_.fetch_or(kFieldsLocked, std::memory_order_acquire) & kFieldsLocked) != 0) {
      std::this_thread::yield();
    }
  }
  ~FieldsLock() {
    state_.fetch_and(static_cast<uint8_t>(~kFieldsLocked), std::memory_order_release);
  }
  FieldsLock(const FieldsLock&) = delete;
  FieldsLock& operator=(const FieldsLock&) = delete;

 private:
  std::atomic<uint8_t>& state_;
};

void Inode::start_fields(const InodeFields& fields) {
  state_.store(static_cast<uint8_t>((fields.mode & S_IFMT) >> kTypeShift),
               std::memory_order_relaxed);
  nlink_ = fields.nlink;
  pack(fields);
}

void Inode::store_fields(const InodeFields& now) {
  const FieldsLock lock(state_);
  pack(now);
}

uint32_t Inode::nlink() const {
  const FieldsLock lock(state_);
  return nlink_;
}

void Inode::set_links(uint32_t nlink, const Timestamp& ctime) {
  const FieldsLock lock(state_);
  nlink_ = nlink;
  seconds_[kCtime] = ctime.seconds;
  nanoseconds_[kCtime] = ctime.nanoseconds;
}

uint64_t Inode::load_size() const {
  const FieldsLock lock(state_);
  return size_;
}

void Inode::set_tree(TreeRef tree) {
  if (!owned_) owned_ = std::make_unique<OwnedTree>();
  owned_->tree = std::move(tree);
}

void Inode::pack(const InodeFields& fields) {
  permissions_and_flags_ =
      static_cast<uint16_t>((fields.mode & kPermissions) | (fields.flags << kFlagsShift));
  uid_ = fields.uid;
  gid_ = fields.gid;
  rdev_ = fields.rdev;
  size_ = fields.size;
  content_seq_ = fields.content_seq;
  attribute_seq_ = fields.attribute_seq;
  const auto keep = [this](Time which, const Timestamp& time) {
    seconds_[which] = time.seconds;
    nanoseconds_[which] = time.nanoseconds;
  };
  keep(kMtime, fields.mtime);
  keep(kCtime, fields.ctime);
  keep(kAtime, fields.atime);
  keep(kBtime, fields.btime);
}

InodeFields Inode::load_fields() const {
  InodeFields out;
  const FieldsLock lock(state_);
  out.mode = type() | (permissions_and_flags_ & kPermissions);
  out.flags = uint32_t{permissions_and_flags_} >> kFlagsShift;
  out.uid = uid_;
  out.gid = gid_;
  out.nlink = nlink_;
  out.rdev = rdev_;
  out.size = size_;
  out.content_seq = content_seq_;
  out.attribute_seq = attribute_seq_;
  const auto kept = [this](Time which) { return Timestamp{seconds_[which], nanoseconds_[which]}; };
  out.mtime = kept(kMtime);
  out.ctime = kept(kCtime);
  out.atime = kept(kAtime);
  out.btime = kept(kBtime);
  return out;
}

}  // namespace caw
