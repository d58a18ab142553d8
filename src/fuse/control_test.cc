#include "fuse/control.h"

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <string>
#include <vector>

namespace caw {
namespace {

using Log = std::vector<std::string>;

/// Logs what the ioctl interface asks of a file system; knows nothing else.
class FakeFileSystem final : public FileSystem {
 public:
  explicit FakeFileSystem(Log& log) : log_(log) {}
  Inode& inode(size_t i) { return *reinterpret_cast<Inode*>(&places_[i]); }

  Inode* root() override { return &inode(0); }
  void forget(Inode& inode, uint64_t lookups) override {
    log_.push_back("forget " + std::to_string(index_of(inode)) + " x" + std::to_string(lookups));
  }
  std::vector<uint64_t> writers_below(Inode&) override { return writers; }
  Result<Entry> clone(Inode& source, Inode& parent, std::string_view name,
                      const Caller& caller) override {
    log_.push_back("clone " + std::to_string(index_of(source)) + " to " +
                   std::to_string(index_of(parent)) + "/" + std::string(name) + " for " +
                   std::to_string(caller.uid));
    if (failure != Code::unknown) return fail(failure);
    Entry made;
    made.inode = &inode(3);
    made.attributes.ino = 77;
    return made;
  }
  Result<std::vector<uint64_t>> remove_tree(Inode& parent, std::string_view name,
                                            const Caller&) override {
    log_.push_back("remove " + std::to_string(index_of(parent)) + "/" + std::string(name));
    if (failure != Code::unknown) return fail(failure);
    return changed;
  }
  Result<bool> same(Inode& a, Inode& b) override { return &a == &b; }
  Result<void> checkpoint() override { return sync(); }
  Result<void> sync() override {
    log_.emplace_back("sync");
    return {};
  }

  Result<Entry> lookup(Inode&, std::string_view) override { return no(); }
  Result<Entry> create(Inode&, std::string_view, uint32_t, uint32_t, const Caller&) override {
    return no();
  }
  Result<Entry> mkdir(Inode&, std::string_view, uint32_t, const Caller&) override { return no(); }
  Result<Entry> symlink(Inode&, std::string_view, std::string_view, const Caller&) override {
    return no();
  }
  Result<std::string> readlink(Inode&) override { return no(); }
  Result<Entry> link(Inode&, Inode&, std::string_view) override { return no(); }
  Result<void> unlink(Inode&, std::string_view) override { return no(); }
  Result<void> rmdir(Inode&, std::string_view) override { return no(); }
  Result<void> rename(Inode&, std::string_view, Inode&, std::string_view, RenameFlags) override {
    return no();
  }
  Result<void> readdir(Inode&, uint64_t,
                       const std::function<bool(const DirectoryEntry&)>&) override {
    return no();
  }
  Result<void> readdirplus(
      Inode&, uint64_t, const std::function<bool(const DirectoryEntry&, const Entry&)>&) override {
    return no();
  }
  Result<Attributes> getattr(Inode&) override { return no(); }
  Result<Attributes> setattr(Inode&, const SetAttributes&, const Caller&) override { return no(); }
  Result<Entry> create_unnamed(Inode&, uint32_t, const Caller&) override { return no(); }
  Result<void> open_file(Inode&, OpenFor, bool, bool) override { return no(); }
  void release_file(Inode&, OpenFor) override {}
  Result<size_t> read(Inode&, uint64_t, std::span<char>) override { return no(); }
  Result<size_t> write(Inode&, uint64_t, std::string_view, bool) override { return no(); }
  Result<size_t> copy_data(Inode&, uint64_t, Inode&, uint64_t, uint64_t) override { return no(); }
  Result<std::string> get_xattr(Inode&, std::string_view) override { return no(); }
  Result<std::string> list_xattrs(Inode&, const Caller&) override { return no(); }
  Result<void> set_xattr(Inode&, std::string_view, std::string_view, const XattrFlags&) override {
    return no();
  }
  Result<void> remove_xattr(Inode&, std::string_view) override { return no(); }
  Result<uint64_t> seek_data(Inode&, uint64_t, bool) override { return no(); }
  Result<void> fallocate(Inode&, uint32_t, uint64_t, uint64_t) override { return no(); }
  Result<StatFs> statfs() override { return no(); }

  std::vector<uint64_t> changed;
  std::vector<uint64_t> writers;
  Code failure = Code::unknown;

 private:
  static std::unexpected<Error> no() { return fail(Code::not_supported); }
  size_t index_of(Inode& inode) const {
    return static_cast<size_t>(reinterpret_cast<uint64_t*>(&inode) - places_.data());
  }
  Log& log_;
  std::array<uint64_t, 4> places_{};
};

class FakeCaches final : public KernelCaches {
 public:
  explicit FakeCaches(Log& log) : log_(log) {}
  void expire_entry(uint64_t parent, std::string_view name) override {
    log_.push_back("expire " + std::to_string(parent) + "/" + std::string(name));
  }
  void invalidate_node(uint64_t node) override {
    log_.push_back("invalidate " + std::to_string(node));
  }

 private:
  Log& log_;
};

class ControlTest : public ::testing::Test {
 protected:
  caw_clone request_for(Inode& source, const char* name) {
    caw_clone request{};
    request.source = *control_.token(source);
    std::strncpy(request.name, name, sizeof request.name - 1);
    return request;
  }

  Log log_;
  FakeFileSystem fs_{log_};
  FakeCaches caches_{log_};
  Control control_{fs_, caches_, [](caw_info& info) { info.total_bytes = 5; }};
  const Caller caller_{.uid = 9};
};

TEST_F(ControlTest, FlushesThenClonesThenTellsTheKernel) {
  fs_.writers = {501, 502};
  caw_clone request = request_for(fs_.inode(1), "new");
  request.flags = CAW_SYNC;
  ASSERT_TRUE(control_.clone(*fs_.root(), request, caller_));
  EXPECT_EQ(request.ino, 77U);
  EXPECT_EQ(log_, (Log{"invalidate 501", "invalidate 502", "clone 1 to 0/new for 9", "forget 3 x1",
                       "expire 1/new", "invalidate 1", "sync"}));
  EXPECT_EQ(control_.info().clones, 1U);
  EXPECT_EQ(control_.info().flushed_writers, 2U);
  EXPECT_EQ(control_.info().total_bytes, 5U);
}

TEST_F(ControlTest, FailedCloneLeavesTheKernelAlone) {
  fs_.failure = Code::no_space;
  caw_clone request = request_for(fs_.inode(1), "new");
  const Result<void> done = control_.clone(fs_.inode(2), request, caller_);
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().as_errno(), ENOSPC);
  EXPECT_EQ(log_, (Log{"clone 1 to 2/new for 9"}));
}

TEST_F(ControlTest, RefusesBadRequestsBeforeAnythingHappens) {
  const caw_clone good = request_for(fs_.inode(1), "new");
  const auto refused_with = [this](caw_clone request) {
    const Result<void> done = control_.clone(fs_.inode(2), request, caller_);
    return done ? 0 : done.error().as_errno();
  };
  caw_clone bad = good;
  bad.flags = 2;
  EXPECT_EQ(refused_with(bad), EINVAL);
  bad = good;
  bad.reserved1[3] = 1;
  EXPECT_EQ(refused_with(bad), EINVAL);
  bad = good;
  bad.source.bytes[0] ^= 1;
  EXPECT_EQ(refused_with(bad), EXDEV);
  bad = good;
  std::memset(bad.name, 'n', sizeof bad.name);
  EXPECT_EQ(refused_with(bad), ENAMETOOLONG);
  const std::array<std::pair<const char*, int>, 4> names = {
      {{"", ENOENT}, {".", EEXIST}, {"..", EEXIST}, {"a/b", EINVAL}}};
  for (const auto& [name, wanted] : names) {
    bad = good;
    std::memset(bad.name, 0, sizeof bad.name);
    std::strncpy(bad.name, name, sizeof bad.name - 1);
    EXPECT_EQ(refused_with(bad), wanted) << name;
  }
  EXPECT_TRUE(log_.empty());
}

TEST_F(ControlTest, RemovesThenTellsTheKernel) {
  caw_remove request{};
  std::strcpy(request.name, "old");
  ASSERT_TRUE(control_.remove_tree(*fs_.root(), request, caller_));
  EXPECT_EQ(log_, (Log{"remove 0/old", "expire 1/old", "invalidate 1"}));
  std::strcpy(request.name, "..");
  EXPECT_EQ(control_.remove_tree(*fs_.root(), request, caller_).error().as_errno(), EINVAL);
  EXPECT_EQ(log_.size(), 3U);
}

TEST_F(ControlTest, SamenessFlushesBothSides) {
  fs_.writers = {501};
  caw_same request{};
  request.other = *control_.token(fs_.inode(1));
  ASSERT_TRUE(control_.same(fs_.inode(1), request));
  EXPECT_EQ(request.same, 1U);
  ASSERT_TRUE(control_.same(fs_.inode(2), request));
  EXPECT_EQ(request.same, 0U);
  EXPECT_EQ(log_, Log(4, "invalidate 501"));
}

TEST_F(ControlTest, ForgetsWaitForTokens) {
  control_.forget(fs_.inode(2), 1);
  EXPECT_EQ(log_, (Log{"forget 2 x1"}));
  ASSERT_TRUE(control_.token(fs_.inode(1)));
  control_.forget(fs_.inode(1), 4);
  EXPECT_EQ(log_.size(), 1U);
  EXPECT_TRUE(control_.has_tokens());
}

}  // namespace
}  // namespace caw
