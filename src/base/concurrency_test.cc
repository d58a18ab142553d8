// Ref and Gate, with threads.
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <utility>
#include <vector>

#include "base/gate.h"
#include "base/ref.h"

namespace caw {
namespace {

struct Counted : RefCounted {
  explicit Counted(std::atomic<int>& live_count) : live(live_count) { ++live; }
  ~Counted() override { --live; }
  std::atomic<int>& live;
};
struct Special final : Counted {
  using Counted::Counted;
};

TEST(Ref, TheLastHolderDeletes) {
  std::atomic<int> live{0};
  Ref<Counted> none;
  EXPECT_FALSE(none);
  auto one = make_ref<Counted>(live);
  EXPECT_EQ(one->ref_count(), 1U);
  {
    const Ref<Counted> two = one;
    EXPECT_EQ(one->ref_count(), 2U);
    EXPECT_EQ(one, two);
  }
  EXPECT_EQ(one->ref_count(), 1U);
  Ref<Counted> moved = std::move(one);
  EXPECT_EQ(moved->ref_count(), 1U);
  EXPECT_EQ(live, 1);
  moved = moved.get() == nullptr ? none : moved;  // assigned to itself
  EXPECT_EQ(live, 1);
  moved = nullptr;
  EXPECT_EQ(live, 0);
}

TEST(Ref, ConvertsToItsBaseAndToConst) {
  std::atomic<int> live{0};
  {
    const auto special = make_ref<Special>(live);
    const Ref<Counted> base = special;
    const Ref<const Counted> constant = base;
    EXPECT_EQ(constant->ref_count(), 3U);
  }
  EXPECT_EQ(live, 0);
}

TEST(Ref, ManyThreadsMayCopyAndDrop) {
  std::atomic<int> live{0};
  {
    auto shared = make_ref<Counted>(live);
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < 4; ++thread) {
      threads.emplace_back([mine = shared] {
        for (int round = 0; round < 2000; ++round) {
          const Ref<Counted> copy = mine;
          EXPECT_EQ(copy->live, 1);
        }
      });
    }
    shared = nullptr;
  }
  EXPECT_EQ(live, 0);
}

TEST(Gate, AnExclusiveHolderIsAlone) {
  constexpr int kThreads = 12;  // more than there are stripes
  constexpr int kRounds = 500;
  Gate gate;
  std::atomic<int> inside{0};
  int changes = 0;  // guarded by the exclusive side
  {
    std::vector<std::jthread> threads;
    for (int thread = 0; thread < kThreads; ++thread) {
      threads.emplace_back([&, thread] {
        for (int round = 0; round < kRounds; ++round) {
          if ((round + thread) % 10 == 0) {
            const Gate::Exclusive hold(gate);
            EXPECT_EQ(inside.load(), 0);
            ++changes;
          } else {
            const Gate::Shared hold(gate);
            ++inside;
            const int before = changes;
            std::this_thread::yield();
            EXPECT_EQ(changes, before);
            --inside;
          }
        }
      });
    }
  }
  EXPECT_EQ(changes, kThreads * kRounds / 10);
}

TEST(Gate, SharedHoldersDoNotExcludeEachOther) {
  constexpr int kThreads = 2 * static_cast<int>(Gate::kStripes);
  Gate gate;
  std::atomic<int> inside{0};
  std::vector<std::jthread> threads;
  for (int thread = 0; thread < kThreads; ++thread) {
    threads.emplace_back([&] {
      const Gate::Shared hold(gate);
      ++inside;
      while (inside.load() < kThreads) std::this_thread::yield();  // all of them, at once
    });
  }
  threads.clear();
  EXPECT_EQ(inside.load(), kThreads);
}

}  // namespace
}  // namespace caw
