// The checker and the dumps on images that were edited and sealed again (edits.h).
#include "check/check.h"
#include "check/dump.h"
#include "fuzz/edits.h"
#include "fuzz/fuzz.h"
#include "fuzz/hostile_image.h"
#include "fuzz/recipes.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const caw::EditScript script = caw::decode_script(caw::as_input(data, size));
  caw::HostileImage hostile(caw::recipe_image(script.recipe));
  for (const caw::Edit& edit : script.edits) hostile.apply(edit);
  const std::unique_ptr<caw::BlockDevice> device = caw::make_memory_device(hostile.seal(), true);
  const caw::CheckOptions options{.read_blobs = true, .files = true, .max_findings = 20};
  const caw::Result<caw::CheckReport> report = caw::check_volume(*device, options);
  if (script.edits.empty()) FUZZ_CHECK(report && report->is_sound());
  if (report) FUZZ_CHECK(report->findings.size() <= options.max_findings);
  const caw::DumpLimits limits{.max_nodes = 30, .max_entries = 10};
  static_cast<void>(caw::dump_text(*device, limits));
  static_cast<void>(caw::dump_dot(*device, limits));
  static_cast<void>(caw::dump_node(*device, caw::NodeId{1U + script.options}, limits));
  return 0;
}
