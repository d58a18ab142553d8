// The engine as a bed for file systems: check() looks at the files on it, too.
#pragma once

#include <string>

#include "check/check.h"
#include "support/volume_bed.h"

namespace caw {

class FsVolumeBed final : public ForestBed {
 public:
  explicit FsVolumeBed(VolumeBedOptions options) : bed_(without_check(options)) {}
  Forest& forest() override { return bed_.forest(); }
  Result<void> maintain() override { return bed_.maintain(); }
  Result<void> reopen() override { return bed_.reopen(); }
  Result<void> crash() override { return bed_.crash(); }
  /// The last checkpoint, and one made now.
  std::string check() override {
    if (std::string wrong = check_image(); !wrong.empty()) return "as it is: " + wrong;
    const Result<void> synced = bed_.volume().checkpoint();
    return synced ? check_image() : "sync: " + synced.error().to_string();
  }

 private:
  static VolumeBedOptions without_check(VolumeBedOptions& options) {
    options.check_structure = false;
    return options;
  }
  std::string check_image() const {
    CheckOptions options;
    options.files = true;
    const std::unique_ptr<BlockDevice> still = make_memory_device(bed_.image()->clone(), true);
    const Result<CheckReport> report = check_volume(*still, options);
    if (!report) return "check fails: " + report.error().to_string();
    std::string wrong;
    for (const Finding& finding : report->findings) {
      wrong += (wrong.empty() ? "check: " : "; ") + finding.text;
    }
    if (report->figures.reference_cycles > 0) {
      wrong += std::string(wrong.empty() ? "check: " : "; ") + "references form a cycle";
    }
    return wrong;
  }

  VolumeBed bed_;
};

}  // namespace caw
