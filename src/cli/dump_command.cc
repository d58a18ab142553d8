// caw dump: how a volume looks inside, for developers.
#include <CLI/CLI.hpp>
#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>

#include "check/dump.h"
#include "cli/command_line.h"
#include "cli/commands.h"
#include "cli/report.h"
#include "dev/block_device.h"

namespace caw {

int run_dump(Arguments arguments) {
  std::string image;
  bool as_dot = false;
  bool superblock_only = false;
  uint64_t node = 0;
  DumpLimits limits;
  CLI::App app(
      "Shows how a volume looks inside; for developers.  Of a mounted one, the last checkpoint.",
      "caw dump");
  CLI::Option* dot = app.add_flag("--dot", as_dot, "the trees, as a picture for Graphviz");
  CLI::Option* superblock = app.add_flag("--superblock", superblock_only, "the superblocks only");
  CLI::Option* one = app.add_option("--node", node, "the contents of one node");
  dot->excludes(superblock)->excludes(one);
  superblock->excludes(one);
  app.add_option("--max-nodes", limits.max_nodes, "how many to list or draw");
  app.add_option("--max-entries", limits.max_entries, "how many to show of a node");
  app.add_option("IMAGE", image, "file or block device")->required();
  if (const std::optional<int> ended = parse_command_line(app, "dump", arguments)) return *ended;

  FileDeviceOptions options;
  options.read_only = true;
  options.exclusive = false;
  const auto device = open_file_device(image, options);
  if (!device) return complain("dump", image, device.error());
  const Result<std::string> text = as_dot              ? dump_dot(**device, limits)
                                   : superblock_only   ? dump_superblocks(**device)
                                   : one->count() != 0 ? dump_node(**device, NodeId{node}, limits)
                                                       : dump_text(**device, limits);
  if (!text) return complain("dump", image, text.error());
  std::fwrite(text->data(), 1, text->size(), stdout);
  return kExitDone;
}

}  // namespace caw
