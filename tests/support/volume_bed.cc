#include "support/volume_bed.h"

#include <cstdio>
#include <utility>

#include "base/assert.h"
#include "base/random.h"
#include "check/check.h"

namespace caw {

TreeShape tiny_shape(uint64_t seed) {
  Random random(seed);
  TreeShape shape;
  shape.leaf_bytes = 256 + static_cast<uint32_t>(random.below(257));
  shape.fanout = 4;
  shape.buffer_bytes = 1024 + static_cast<uint32_t>(random.below(1025));
  shape.alpha_num = 1;
  shape.alpha_den = 8;
  shape.floor_bytes = 64;
  shape.run_bytes = 256;
  shape.max_runs = 6 + static_cast<uint32_t>(random.below(6));
  shape.inline_bytes = 128;
  shape.inline_value_bytes = 64;
  return shape;
}

VolumeBed::VolumeBed(const VolumeBedOptions& options)
    : VolumeBed(options, make_ref<MemoryImage>(options.blocks)) {
  MakeOptions make;
  make.label = "test";
  make.compression = options.compression;
  make.shape = options.shape;
  const std::unique_ptr<BlockDevice> target = device();
  const Result<void> made = Volume::make(*target, make);
  if (!made) std::fprintf(stderr, "make: %s\n", made.error().to_string().c_str());
  CAW_ASSERT(made.has_value());
  const Result<void> opened = open();
  if (!opened) std::fprintf(stderr, "open: %s\n", opened.error().to_string().c_str());
  CAW_ASSERT(opened.has_value());
}

VolumeBed::VolumeBed(const VolumeBedOptions& options, Ref<MemoryImage> image)
    : options_(options), image_(std::move(image)) {}

VolumeBed::~VolumeBed() = default;

std::unique_ptr<BlockDevice> VolumeBed::device() {
  std::unique_ptr<BlockDevice> memory = make_memory_device(image_, options_.read_only);
  return options_.wrap ? options_.wrap(std::move(memory)) : std::move(memory);
}

Result<void> VolumeBed::open() {
  VolumeOptions options;
  options.cache_bytes = options_.cache_bytes;
  options.background = options_.background;
  options.read_only = options_.read_only;
  options.wrap_allocator = options_.wrap_allocator;
  volume_ = CAW_TRY(Volume::open(device(), options));
  return {};
}

Result<void> VolumeBed::close() {
  const Result<void> closed = volume_->close();
  volume_.reset();
  return closed;
}

Result<void> VolumeBed::maintain() {
  CAW_TRY(volume_->maintain());
  return {};
}

Result<void> VolumeBed::reopen() {
  CAW_TRY(close());
  return open();
}

Result<void> VolumeBed::crash() {
  image_ = image_->clone();              // the old volume may still write: to the old image
  volume_.reset();
  return open();
}

std::string VolumeBed::check() {
  if (!options_.check_structure) return {};
  if (std::string text = check_image(); !text.empty()) return "as it is: " + text;
  if (const Result<void> done = volume_->checkpoint(); !done) {
    return "a checkpoint fails: " + done.error().to_string();
  }
  return check_image();
}

std::string VolumeBed::drain_and_check() {
  constexpr int kRoundsMax = 50;         // a removed tree goes level by level
  for (int round = 0; round < kRoundsMax; ++round) {
    for (const Result<void>& done : {maintain(), volume_->checkpoint()}) {
      if (!done) return "draining fails: " + done.error().to_string();
    }
    if (volume_->figures().store.dead_nodes == 0) return check();
  }
  return "dead nodes are left: " + std::to_string(volume_->figures().store.dead_nodes);
}

std::string VolumeBed::check_image() const {
  const std::unique_ptr<BlockDevice> still = make_memory_device(image_->clone(), true);
  const Result<CheckReport> report = check_volume(*still);
  if (!report) return "check fails: " + report.error().to_string();
  std::string text;
  for (const Finding& finding : report->findings) {
    text += (text.empty() ? "check finds: " : "; ") + finding.text + " (" +
            std::to_string(finding.where) + ")";
  }
  if (report->figures.reference_cycles > 0) {
    text += std::string(text.empty() ? "check finds: " : "; ") + "references form a cycle";
  }
  return text;
}

}  // namespace caw
