// Random damage to the blocks of a volume with clones: whatever it hits, a repair ends with a sound
// volume that can be mounted and written to, and a second repair finds nothing to do.
//   CAW_SEED, CAW_SEEDS (default 40), CAW_HITS (blocks damaged at most; default 6)
#include <gtest/gtest.h>

#include <cstdlib>
#include <utility>

#include "check/sample_volume.h"
#include "dev/overlay_device.h"
#include "repair/repair.h"

namespace caw {
namespace {

uint64_t setting(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr ? std::strtoull(text, nullptr, 10) : otherwise;
}

std::vector<uint64_t> blocks_with_data(BlockDevice& device) {
  std::vector<uint64_t> out;
  AlignedBuffer block(kBlockSize);
  for (uint64_t i = 0; i < device.block_count(); ++i) {
    EXPECT_TRUE(device.read(BlockAddr{i}, block.span()));
    if (block.view().find_first_not_of('\0') != std::string_view::npos) out.push_back(i);
  }
  return out;
}

/// A bit, some bytes, or all of a block; or it holds what another one should.
void hit(BlockDevice& device, uint64_t block, const std::vector<uint64_t>& used, Random& random) {
  AlignedBuffer bytes(kBlockSize);
  const uint64_t source = random.one_in(4) ? used[random.below(used.size())] : block;
  ASSERT_TRUE(device.read(BlockAddr{source}, bytes.span()));
  switch (random.below(3)) {
    case 0:
      bytes.chars()[random.below(kBlockSize)] ^= static_cast<char>(1U << random.below(8));
      break;
    case 1:
      for (uint64_t i = random.below(kBlockSize); i < kBlockSize; ++i) {
        bytes.chars()[i] = static_cast<char>(random.next());
      }
      break;
    default:
      if (source == block) bytes = AlignedBuffer(kBlockSize);
      break;
  }
  ASSERT_TRUE(device.write(BlockAddr{block}, bytes.span()));
}

std::string texts(const CheckReport& report) {
  std::string out;
  for (const Finding& finding : report.findings) out += finding.text + "\n";
  return out;
}

/// A volume on which one can work.
void expect_usable(const Ref<MemoryImage>& image) {
  auto volume = Volume::open(make_memory_device(image), {.background = false});
  ASSERT_TRUE(volume) << volume.error().to_string();
  FsClient client(**volume);
  ASSERT_EQ(client.mount(), 0);
  ASSERT_EQ(client.mkdir("new"), 0);
  ASSERT_EQ(client.create("new/file"), 0);
  ASSERT_EQ(client.write("new/file", 0, "text"), 0);
  ASSERT_EQ(client.clone("new", "copy"), 0);
  ASSERT_EQ(client.remove_tree("new"), 0);
  EXPECT_EQ(client.read("copy/file"), "text");
  client.unmount();
  const Result<uint64_t> maintained = (*volume)->maintain();
  ASSERT_TRUE(maintained) << maintained.error().to_string();
  ASSERT_TRUE((*volume)->close());
  const CheckReport report = SampleVolume::check(image);
  EXPECT_TRUE(report.is_sound()) << "after use:\n" << texts(report);
}

class RandomDamage {
 public:
  explicit RandomDamage(uint64_t seed) : random_(seed) {}

  void run(const Ref<MemoryImage>& sample, const std::vector<uint64_t>& used, uint64_t hits) {
    const Ref<MemoryImage> image = sample->clone();
    const auto device = make_memory_device(image);
    for (uint64_t left = 1 + random_.below(hits); left > 0; --left) {
      hit(*device, used[random_.below(used.size())], used, random_);
    }
    const Result<CheckReport> found = check_volume(*device, {.files = true});
    OverlayDevice overlay(*device);
    const Result<RepairReport> rehearsal = repair_volume(overlay, {});
    const Result<RepairReport> done = repair_volume(*device, {});
    ASSERT_EQ(rehearsal.has_value(), done.has_value());
    if (!done) {
      EXPECT_FALSE(found) << "given up: " << done.error().to_string();
      return;
    }
    EXPECT_EQ(rehearsal->note_count, done->note_count);
    const CheckReport report = SampleVolume::check(image);
    ASSERT_TRUE(report.is_sound()) << texts(report) << notes(*done);
    const Result<RepairReport> again = repair_volume(*device, {});
    ASSERT_TRUE(again);
    EXPECT_EQ(again->note_count, 0U) << notes(*again);
    expect_usable(image);
  }

 private:
  static std::string notes(const RepairReport& report) {
    std::string out;
    for (const std::string& note : report.notes) out += note + "\n";
    return out;
  }

  Random random_;
};

TEST(RandomDamage, RepairEndsWithASoundVolume) {
  const uint64_t first = setting("CAW_SEED", 1);
  const uint64_t hits = setting("CAW_HITS", 6);
  for (const auto& [closed, links] : {std::pair{true, false}, {false, false}, {true, true}}) {
    const Ref<MemoryImage> sample = SampleVolume::make(1, closed, links);
    const std::vector<uint64_t> used = blocks_with_data(*make_memory_device(sample));
    for (uint64_t seed = first; seed < first + setting("CAW_SEEDS", 40); ++seed) {
      RandomDamage(seed).run(sample, used, hits);
      if (testing::Test::HasFailure()) {
        FAIL() << "replay: CAW_SEED=" << seed << " CAW_SEEDS=1 CAW_HITS=" << hits
               << (closed ? " (closed)" : " (crashed)") << (links ? " (links)" : "");
      }
    }
  }
}

}  // namespace
}  // namespace caw
