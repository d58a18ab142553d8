// CLI11, kept inside this module: its exceptions end here.
#pragma once

#include <optional>
#include <string_view>

#include "cli/commands.h"

namespace CLI {
class App;
}

namespace caw {

/// Parses into what `app` was given.  Returns an exit code if the command is to end: --help was
/// asked for, or the usage is wrong (said on stderr).
std::optional<int> parse_command_line(CLI::App& app, std::string_view command, Arguments arguments);

}  // namespace caw
