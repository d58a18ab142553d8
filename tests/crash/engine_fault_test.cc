// The k-th read, write, flush or backing of the device fails, for k = 1, 2, … until none does.
// Whatever the engine says then, the volume opens again and holds a prefix that holds every sync
// that returned; and errors of reading are reported, never wrong content.
//   CAW_SEED, CAW_OPS (default 60), CAW_STEP (every how many k; default 3)
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/random.h"
#include "dev/faulty_device.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

class FaultyLife {
 public:
  FaultyLife(uint64_t seed, const Fault& fault) : bed_(options(seed)) {
    states_.emplace_back();
    plan_.arm(fault);
  }

  /// Until the end or the first failure.
  void live(uint64_t seed, uint64_t ops) {
    OpSource source(seed, {});
    ForestClient client(bed_.forest());
    Random random(seed);
    for (uint64_t i = 0; i < ops; ++i) {
      // Data that no operation comes to name, as of writers under way: their space must be found.
      std::string data(256U << 10, '\0');
      for (char& byte : data) byte = static_cast<char>(random.next());
      const Result<BlobRef> blob = bed_.forest().write_blob(data);
      if (!blob && !note(std::unexpected<Error>(blob.error()))) return;
      if (i % 7 == 6 && !note(bed_.maintain())) return;
      if (i % 10 == 9) {
        if (!note(bed_.forest().sync())) return;
        synced_ = states_.size() - 1;
      }
      if (i % 15 == 14 && !note(bed_.volume().checkpoint())) return;
      const ForestOp op = sensible(source.next(states_.back()), states_.back());
      if (op.empty() || op.front().kind > ActionKind::clone) continue;
      states_.push_back(states_.back());
      apply_to_model(op, states_.back());
      if (!note(client.apply(op))) return;
      if (i % 5 == 4 && !read_all()) return;
    }
    if (note(bed_.close())) synced_ = states_.size() - 1;
    closed_ = true;
  }

  /// Opens what is on the medium, without faults.
  void check() {
    plan_.disarm();
    const Result<void> opened = closed_ ? bed_.open() : bed_.crash();
    ASSERT_TRUE(opened) << opened.error().to_string();
    const Result<uint64_t> digest = digest_forest(bed_.forest());
    ASSERT_TRUE(digest) << digest.error().to_string();
    bool found = false;
    for (size_t i = synced_; i < states_.size() && !found; ++i) {
      found = states_[i].digest() == *digest;
    }
    EXPECT_TRUE(found) << "none of the states from " << synced_ << " to " << states_.size() - 1
                       << "; first: " << compare_forest(bed_.forest(), states_[synced_]);
    EXPECT_EQ(bed_.check(), "");
  }

  uint64_t hits() const { return plan_.hits(); }
  const std::string& first_error() const { return first_error_; }

 private:
  VolumeBedOptions options(uint64_t seed) {
    VolumeBedOptions options;
    options.shape = tiny_shape(seed);
    options.cache_bytes = 8U << 10;      // so that it reads
    options.wrap = [this](std::unique_ptr<BlockDevice> inner) -> std::unique_ptr<BlockDevice> {
      return std::make_unique<FaultyDevice>(std::move(inner), plan_);
    };
    return options;
  }
  bool note(const Result<void>& done) {
    if (!done && first_error_.empty()) first_error_ = done.error().to_string();
    return done.has_value();
  }
  /// Everything reads as it should, or fails with an error.
  bool read_all() {
    const Result<uint64_t> digest = digest_forest(bed_.forest());
    if (!digest) return note(std::unexpected<Error>(digest.error()));
    EXPECT_EQ(*digest, states_.back().digest()) << "wrong content";
    return true;
  }

  FaultPlan plan_;
  VolumeBed bed_;
  std::vector<ForestModel> states_;
  size_t synced_ = 0;
  std::string first_error_;
  bool closed_ = false;
};

void try_all(DeviceOp on, FaultKind kind, bool for_ever) {
  const uint64_t seed = env_number("CAW_SEED", 1);
  const uint64_t ops = env_number("CAW_OPS", 60);
  uint64_t errors = 0;
  for (uint64_t k = 1;; k += env_number("CAW_STEP", 3)) {
    SCOPED_TRACE("fault " + std::to_string(k) + ", seed " + std::to_string(seed));
    Fault fault;
    fault.on = on;
    fault.at = k;
    fault.kind = kind;
    fault.for_ever = for_ever;
    FaultyLife life(seed, fault);
    life.live(seed, ops);
    if (life.hits() == 0) break;
    if (!life.first_error().empty()) ++errors;
    life.check();
    if (testing::Test::HasFailure()) {
      ADD_FAILURE() << "first error: " << life.first_error();
      return;
    }
  }
  EXPECT_GT(errors, 0U) << "no fault was ever noticed";
}

TEST(EngineFaults, AWriteFails) { try_all(DeviceOp::write, FaultKind::error, false); }
TEST(EngineFaults, AllWritesFailFromThenOn) { try_all(DeviceOp::write, FaultKind::error, true); }
TEST(EngineFaults, AFlushFails) { try_all(DeviceOp::flush, FaultKind::error, false); }
TEST(EngineFaults, AReadFails) { try_all(DeviceOp::read, FaultKind::error, false); }
TEST(EngineFaults, AReadIsFlipped) { try_all(DeviceOp::read, FaultKind::flip, false); }
TEST(EngineFaults, BackingFails) { try_all(DeviceOp::ensure_backed, FaultKind::error, true); }

}  // namespace
}  // namespace caw
