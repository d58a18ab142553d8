// caw fsck: checks a volume that is not mounted.  Exit codes are those of fsck(8).
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

namespace caw {
namespace {

constexpr int kSound = 0;
constexpr int kErrorsLeft = 4;
constexpr int kTrouble = 8;
constexpr int kFsckUsage = 16;

void print_json(const CheckReport& report) {
  const CheckFigures& figures = report.figures;
  nlohmann::ordered_json findings = nlohmann::ordered_json::array();
  for (const Finding& finding : report.findings) {
    findings.push_back({{"code", static_cast<unsigned>(finding.code)},
                        {"name", name_of(finding.code)},
                        {"where", finding.where},
                        {"text", finding.text}});
  }
  const nlohmann::ordered_json out = {{"sound", report.is_sound()},
                                      {"finding_count", report.finding_count},
                                      {"findings", findings},
                                      {"checkpoint", figures.epoch},
                                      {"unmounted_in_order", figures.clean},
                                      {"trees", figures.trees},
                                      {"interiors", figures.interiors},
                                      {"leaves", figures.leaves},
                                      {"runs", figures.runs},
                                      {"shared_nodes", figures.shared_nodes},
                                      {"dead_nodes", figures.dead_nodes},
                                      {"blobs", figures.blobs},
                                      {"shared_blobs", figures.shared_blobs},
                                      {"used_blocks", figures.used_blocks},
                                      {"free_blocks", figures.free_blocks}};
  const auto replace = nlohmann::ordered_json::error_handler_t::replace;
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

}  // namespace

int run_fsck(Arguments arguments) {
  std::string image;
  bool as_json = false;
  bool repair = false;
  bool ignored = false;
  CLI::App app(
      "Reads a whole volume, which must not be mounted, and says what is wrong with it.\n"
      "Exit code: 0 sound, 4 damaged, 8 trouble, 16 wrong usage.",
      "caw fsck");
  app.add_flag("--json", as_json, "as JSON");
  app.add_flag("--repair,-a,-p,-y", repair)->group("");
  app.add_flag("-n,-f,-C,-V,-T", ignored, "taken, without meaning here")->group("");
  app.add_option("IMAGE", image, "file or block device")->required();
  if (const std::optional<int> ended = parse_command_line(app, "fsck", arguments)) {
    return *ended == kExitDone ? kSound : kFsckUsage;
  }

  FileDeviceOptions options;
  options.read_only = true;
  options.patience = kOpenPatience;
  const auto device = open_file_device(image, options);
  if (!device) {
    complain("fsck", image, device.error());
    return kTrouble;
  }
  CheckOptions check;
  check.files = true;
  const Result<CheckReport> report = check_volume(**device, check);
  if (!report) {
    complain("fsck", image, report.error());
    return kTrouble;
  }
  as_json ? print_json(*report) : print_text(image, *report);
  if (report->is_sound()) return kSound;
  if (repair) {
    complain("fsck", image, "repairing is not offered yet", "restore the image from a copy");
  }
  return kErrorsLeft;
}

}  // namespace caw
