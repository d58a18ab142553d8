// Opens images that were edited and sealed again (edits.h), looks at everything, changes some of
// it, and closes.
#include "check/check.h"
#include "fs/file_system.h"
#include "fuzz/edits.h"
#include "fuzz/fuzz.h"
#include "fuzz/hostile_image.h"
#include "fuzz/recipes.h"
#include "fuzz/walk.h"
#include "volume/volume.h"

namespace {

constexpr uint8_t kReadOnly = 1;
constexpr uint8_t kChange = 2;
constexpr uint8_t kMaintainFirst = 4;
constexpr uint8_t kTwice = 8;

void work(caw::Volume& volume, caw::FileSystem& fs, uint8_t options, bool is_sound) {
  if ((options & kReadOnly) == 0 && (options & kMaintainFirst) != 0) {
    static_cast<void>(volume.maintain());
  }
  caw::Walk walk(fs);
  const bool all_well = walk.look();
  if (is_sound && !all_well) {
    std::fprintf(stderr, "%s\n", walk.failure().to_string().c_str());
    std::abort();
  }
  if ((options & kChange) == 0 && (options & kReadOnly) == 0) return;
  walk.change();
  static_cast<void>(fs.sync());
  if ((options & kReadOnly) != 0) return;
  static_cast<void>(volume.maintain());
  static_cast<void>(fs.checkpoint());
  static_cast<void>(walk.look());
  static_cast<void>(volume.maintain());
}

void mount(const caw::Ref<caw::MemoryImage>& image, uint8_t options, bool is_sound) {
  caw::VolumeOptions open;
  open.cache_bytes = 1U << 20;
  open.background = false;
  open.read_only = (options & kReadOnly) != 0;
  auto volume = caw::Volume::open(caw::make_memory_device(image, open.read_only), open);
  if (is_sound) FUZZ_CHECK(volume.has_value());
  if (!volume) return;
  auto fs = caw::FileSystem::open(
      **volume, {.clock = &caw::still_clock(), .read_only = open.read_only});
  if (is_sound) FUZZ_CHECK(fs.has_value());
  if (fs) work(**volume, **fs, options, is_sound);
  if (fs) fs->reset();
  const caw::Result<void> closed = (*volume)->close();
  if (is_sound) FUZZ_CHECK(closed.has_value());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const caw::EditScript script = caw::decode_script(caw::as_input(data, size));
  const bool is_sound = script.edits.empty();
  caw::HostileImage hostile(caw::recipe_image(script.recipe));
  for (const caw::Edit& edit : script.edits) hostile.apply(edit);
  const caw::Ref<caw::MemoryImage> image = hostile.seal();
  mount(image, script.options, is_sound);
  if ((script.options & kTwice) != 0) mount(image, kChange, is_sound);
  if (!is_sound) return 0;
  const std::unique_ptr<caw::BlockDevice> device = caw::make_memory_device(image, true);
  const caw::Result<caw::CheckReport> report =
      caw::check_volume(*device, {.read_blobs = true, .files = true, .max_findings = 5});
  FUZZ_CHECK(report && report->is_sound());
  return 0;
}
