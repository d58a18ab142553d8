// Options of the commands that must start fast: a few flags, then operands.
#pragma once

#include <array>
#include <optional>
#include <string_view>
#include <vector>

#include "cli/commands.h"

namespace caw {

struct ClientCommand {
  std::string_view name;
  std::string_view help;                    ///< all of what --help prints
  std::array<std::string_view, 2> flags{};  ///< such as "--sync"; the rest empty
  size_t min_operands = 1;
  size_t max_operands = 1;
};

struct ClientArguments {
  std::vector<std::string_view> flags;
  std::vector<const char*> operands;
  bool has(std::string_view flag) const;
};

/// Parses; prints help or the complaint itself.  Returns nothing if the command is to end with
/// `exit_code`.  "--" ends the flags.
std::optional<ClientArguments> parse_client(const ClientCommand& command, Arguments arguments,
                                            int& exit_code);

}  // namespace caw
