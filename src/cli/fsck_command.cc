// caw fsck: checks and repairs a volume that is not mounted.  Exit codes are those of fsck(8).
#include <CLI/CLI.hpp>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "check/check.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/report.h"
#include "dev/block_device.h"
#include "dev/overlay_device.h"
#include "repair/repair.h"

namespace caw {
namespace {

constexpr int kSound = 0;
constexpr int kCorrected = 1;
constexpr int kErrorsLeft = 4;
constexpr int kTrouble = 8;
constexpr int kFsckUsage = 16;

using Json = nlohmann::ordered_json;

struct Request {
  std::string image;
  bool as_json = false;
  bool repair = false;
  bool dry_run = false;
};

/// What was found, and, with a repair, what it came to.
struct Outcome {
  CheckReport found;
  std::optional<RepairReport> repair;
  std::optional<CheckReport> after;
};

Json figures_json(const CheckReport& report) {
  const CheckFigures& figures = report.figures;
  Json findings = Json::array();
  for (const Finding& finding : report.findings) {
    findings.push_back({{"code", static_cast<unsigned>(finding.code)},
                        {"name", name_of(finding.code)},
                        {"where", finding.where},
                        {"text", finding.text}});
  }
  return {{"sound", report.is_sound()},
          {"finding_count", report.finding_count},
          {"findings", findings},
          {"checkpoint", figures.epoch},
          {"unmounted_in_order", figures.clean},
          {"trees", figures.trees},
          {"interiors", figures.interiors},
          {"leaves", figures.leaves},
          {"runs", figures.runs},
          {"shared_nodes", figures.shared_nodes},
          {"reference_cycles", figures.reference_cycles},
          {"dead_nodes", figures.dead_nodes},
          {"blobs", figures.blobs},
          {"shared_blobs", figures.shared_blobs},
          {"lost_blobs", figures.lost_blobs},
          {"used_blocks", figures.used_blocks},
          {"free_blocks", figures.free_blocks}};
}

void print_json(const Request& request, const Outcome& outcome) {
  Json out = figures_json(outcome.found);
  if (outcome.repair) {
    out["repair"] = {{"dry_run", request.dry_run},
                     {"count", outcome.repair->note_count},
                     {"done", outcome.repair->notes},
                     {"sound", outcome.after->is_sound()}};
  }
  const auto replace = Json::error_handler_t::replace;
  std::printf("%s\n", out.dump(2, ' ', true, replace).c_str());
}

void print_text(const std::string& image, const CheckReport& report) {
  for (const Finding& finding : report.findings) std::printf("%s\n", finding.text.c_str());
  if (report.finding_count > report.findings.size()) {
    std::printf("... and more\n");
  }
  const CheckFigures& figures = report.figures;
  std::printf("%s: %s; %llu trees, %llu nodes, %llu pieces of file data, %llu blocks in use\n",
              image.c_str(),
              report.is_sound()
                  ? "sound"
                  : ("damaged in " + std::to_string(report.finding_count) + " places").c_str(),
              static_cast<unsigned long long>(figures.trees),
              static_cast<unsigned long long>(figures.interiors + figures.leaves + figures.runs),
              static_cast<unsigned long long>(figures.blobs),
              static_cast<unsigned long long>(figures.used_blocks));
}

void print_repair(const Request& request, const Outcome& outcome) {
  const RepairReport& repair = *outcome.repair;
  const char* prefix = request.dry_run ? "would repair: " : "repaired: ";
  for (const std::string& note : repair.notes) std::printf("%s%s\n", prefix, note.c_str());
  if (repair.note_count > repair.notes.size()) {
    std::printf("%s... and %llu more\n", prefix,
                static_cast<unsigned long long>(repair.note_count - repair.notes.size()));
  }
  print_text(request.image, *outcome.after);
}

int trouble(const Request& request, const Error& error) {
  complain("fsck", request.image, error);
  return kTrouble;
}

bool needs_repair(const CheckReport& report) {
  return !report.is_sound() || report.figures.damaged_superblocks > 0;
}

int report(const Request& request, const Outcome& outcome) {
  if (request.as_json) {
    print_json(request, outcome);
  } else if (outcome.repair) {
    print_repair(request, outcome);
  }
  if (!outcome.repair) return outcome.found.is_sound() ? kSound : kErrorsLeft;
  if (request.dry_run) return kErrorsLeft;
  if (outcome.after->is_sound()) return kCorrected;
  complain("fsck", request.image, "damage is left that this program cannot repair",
           "mount it with -o ro and copy what can be read");
  return kErrorsLeft;
}

int check_and_repair(const Request& request) {
  FileDeviceOptions options;
  options.read_only = !request.repair || request.dry_run;
  options.patience = kOpenPatience;
  const auto device = open_file_device(request.image, options);
  if (!device) return trouble(request, device.error());
  const CheckOptions check{.files = true};
  Result<CheckReport> found = check_volume(**device, check);
  if (!found) return trouble(request, found.error());
  Outcome outcome{*std::move(found), {}, {}};
  if (!request.as_json) print_text(request.image, outcome.found);
  if ((request.repair || request.dry_run) && needs_repair(outcome.found)) {
    OverlayDevice overlay(**device);
    BlockDevice& target = request.dry_run ? static_cast<BlockDevice&>(overlay) : **device;
    Result<RepairReport> repair = repair_volume(target, {});
    if (!repair) return trouble(request, repair.error());
    outcome.repair = *std::move(repair);
    Result<CheckReport> after = check_volume(target, check);
    if (!after) return trouble(request, after.error());
    outcome.after = *std::move(after);
  }
  return report(request, outcome);
}

}  // namespace

int run_fsck(Arguments arguments) {
  Request request;
  bool ignored = false;
  CLI::App app(
      "Reads a whole volume, which must not be mounted, and says what is wrong with it.\n"
      "With --repair, puts it right: keeps all that can be read, and puts what has lost its place\n"
      "into lost+found.\n"
      "Exit code: 0 sound, 1 repaired, 4 damaged, 8 trouble, 16 wrong usage.",
      "caw fsck");
  app.add_flag("--json", request.as_json, "as JSON");
  app.add_flag("-y,-a,-p,--repair", request.repair, "repair what is wrong");
  app.add_flag("-n,--dry-run", request.dry_run, "say what --repair would do; change nothing");
  app.add_flag("-f,-C,-V,-T", ignored, "taken, without meaning here")->group("");
  app.add_option("IMAGE", request.image, "file or block device")->required();
  if (const std::optional<int> ended = parse_command_line(app, "fsck", arguments)) {
    return *ended == kExitDone ? kSound : kFsckUsage;
  }
  return check_and_repair(request);
}

}  // namespace caw
