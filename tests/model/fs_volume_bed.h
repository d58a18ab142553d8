// The engine as a bed for file systems: check() looks at the files on it, too.
#pragma once

#include <string>

#include "check/check.h"
#include "support/volume_bed.h"

namespace caw {

class FsVolumeBed final : public ForestBed {
 public:
  explicit FsVolumeBed(const VolumeBedOptions& options) : bed_(options) {}
  Forest& forest() override { return bed_.forest(); }
  Result<void> maintain() override { return bed_.maintain(); }
  Result<void> reopen() override { return bed_.reopen(); }
  Result<void> crash() override { return bed_.crash(); }
  std::string check() override {
    std::string wrong = bed_.check();
    if (!wrong.empty()) return wrong;
    CheckOptions options;
    options.files = true;
    const std::unique_ptr<BlockDevice> still = make_memory_device(bed_.image()->clone(), true);
    const Result<CheckReport> report = check_volume(*still, options);
    if (!report) return "check fails: " + report.error().to_string();
    for (const Finding& finding : report->findings) {
      wrong += (wrong.empty() ? "check of the files: " : "; ") + finding.text;
    }
    return wrong;
  }

 private:
  VolumeBed bed_;
};

}  // namespace caw
