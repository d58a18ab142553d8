// The k-th reservation of space finds none, for k = 1, 2, …: that one, or all from there on for
// some time, with and without the reserve for removals.  Nothing may be lost: what was refused
// did not happen, all else did; reads are right; once there is space again everything goes on.
//   CAW_SEED, CAW_OPS (default 60), CAW_STEP (every how many k; default 3)
#include <gtest/gtest.h>

#include <string>

#include "base/random.h"
#include "support/faulty_allocator.h"
#include "support/volume_bed.h"

namespace caw {
namespace {

bool is_want_of_space(const Error& error) {
  return error.code == Code::no_space || error.code == Code::device_full;
}

bool only_erases(const ForestOp& op) {
  for (const Action& action : op) {
    if (action.kind != ActionKind::erase && action.kind != ActionKind::erase_range) return false;
  }
  return true;
}

class ShortOfSpace {
 public:
  ShortOfSpace(uint64_t seed, SpacePlan& plan) : plan_(plan), bed_(options(seed)), random_(seed) {}

  void live(uint64_t seed, uint64_t ops) {
    OpSource source(seed, {});
    for (uint64_t i = 0; i < ops && !testing::Test::HasFailure(); ++i) {
      if (i == ops * 3 / 4) plan_.armed = false;
      write_unnamed_blob();
      if (i % 7 == 6) expect_done(bed_.maintain(), "maintain");
      if (i % 10 == 9) expect_done(bed_.forest().sync(), "sync");
      if (i % 15 == 14) expect_done(bed_.volume().checkpoint(), "checkpoint");
      const ForestOp op = sensible(source.next(model_), model_);
      if (op.empty() || op.front().kind > ActionKind::clone) continue;
      const Result<void> done = ForestClient(bed_.forest()).apply(op);
      if (done) {
        apply_to_model(op, model_);
      } else {
        expect_done(done, "an operation");
        if (!plan_.essential_too) {
          EXPECT_FALSE(only_erases(op)) << "a removal was refused";
        }
      }
      if (i % 5 == 4) expect_model("while space is short");
    }
  }

  /// All is well again: everything works and holds what was accepted.
  void check() {
    plan_.armed = false;
    EXPECT_TRUE(bed_.maintain());
    EXPECT_TRUE(bed_.volume().checkpoint());
    expect_model("with space again");
    EXPECT_EQ(bed_.drain_and_check(), "");
    EXPECT_TRUE(bed_.reopen());
    expect_model("opened again");
    EXPECT_EQ(bed_.check(), "");
  }

 private:
  VolumeBedOptions options(uint64_t seed) {
    VolumeBedOptions options;
    options.shape = tiny_shape(seed);
    options.cache_bytes = 8U << 10;
    options.wrap_allocator = [this](std::unique_ptr<Allocator> inner) {
      return std::make_unique<FaultyAllocator>(std::move(inner), plan_);
    };
    return options;
  }
  /// Data that no operation comes to name, as of writers under way.
  void write_unnamed_blob() {
    std::string data(64U << 10, '\0');
    for (char& byte : data) byte = static_cast<char>(random_.next());
    const Result<BlobRef> blob = bed_.forest().write_blob(data);
    if (blob) {
      bed_.forest().cancel_blob(*blob);
    } else {
      EXPECT_TRUE(is_want_of_space(blob.error())) << blob.error().to_string();
    }
  }
  void expect_done(const Result<void>& done, const char* what) {
    if (done) return;
    EXPECT_TRUE(plan_.armed && is_want_of_space(done.error()))
        << what << ": " << done.error().to_string();
  }
  void expect_model(const char* when) {
    const Result<uint64_t> digest = digest_forest(bed_.forest());
    ASSERT_TRUE(digest) << when << ": " << digest.error().to_string();
    EXPECT_EQ(*digest, model_.digest()) << when << ": " << compare_forest(bed_.forest(), model_);
  }

  SpacePlan& plan_;
  VolumeBed bed_;
  Random random_;
  ForestModel model_;
};

/// `length` reservations fail, from the k-th on.
void try_all(uint64_t length, bool essential_too) {
  const uint64_t seed = env_number("CAW_SEED", 1);
  uint64_t tried = 0;
  for (uint64_t k = 1;; k += env_number("CAW_STEP", 3)) {
    SCOPED_TRACE("reservation " + std::to_string(k) + ", seed " + std::to_string(seed));
    SpacePlan plan;
    plan.armed = false;               // not while the volume is made
    ShortOfSpace life(seed, plan);
    plan.first = plan.count + k;
    plan.last = length == 0 ? UINT64_MAX : plan.first + length - 1;
    plan.essential_too = essential_too;
    plan.armed = true;
    life.live(seed, env_number("CAW_OPS", 60));
    const uint64_t hits = plan.hits;
    life.check();
    if (testing::Test::HasFailure()) return;
    if (hits == 0) break;
    ++tried;
  }
  EXPECT_GT(tried, 10U) << "no reservation ever failed";
}

TEST(EngineSpace, OneReservationFails) { try_all(1, true); }
TEST(EngineSpace, SomeReservationsFail) { try_all(6, true); }
TEST(EngineSpace, AllFailFromThenOn) { try_all(0, true); }
TEST(EngineSpace, OnlyRemovalsFindSpaceFromThenOn) { try_all(0, false); }

}  // namespace
}  // namespace caw
