#include "cli/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>
#include <vector>

#include "cli/report.h"

namespace caw {

std::optional<int> parse_command_line(CLI::App& app, std::string_view command,
                                      Arguments arguments) {
  // CLI11 takes them last one first.
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  try {
    app.parse(std::move(reversed));
    return std::nullopt;
  } catch (const CLI::CallForHelp&) {
    std::fputs(app.help().c_str(), stdout);
    return kExitDone;
  } catch (const CLI::ParseError& error) {
    return usage_error(command, error.what());
  }
}

}  // namespace caw
