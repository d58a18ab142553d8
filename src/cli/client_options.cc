#include "cli/client_options.h"

#include <algorithm>
#include <cstdio>
#include <string>

#include "cli/report.h"

namespace caw {

bool ClientArguments::has(std::string_view flag) const {
  return std::find(flags.begin(), flags.end(), flag) != flags.end();
}

std::optional<ClientArguments> parse_client(const ClientCommand& command, Arguments arguments,
                                            int& exit_code) {
  ClientArguments out;
  bool flags_over = false;
  for (const char* argument : arguments) {
    const std::string_view text = argument;
    if (flags_over || text.size() < 2 || !text.starts_with('-')) {
      out.operands.push_back(argument);
    } else if (text == "--") {
      flags_over = true;
    } else if (text == "--help" || text == "-h") {
      std::fwrite(command.help.data(), 1, command.help.size(), stdout);
      exit_code = kExitDone;
      return std::nullopt;
    } else if (std::find(command.flags.begin(), command.flags.end(), text) != command.flags.end()) {
      out.flags.push_back(text);
    } else {
      exit_code = usage_error(command.name, "unknown option " + std::string(text));
      return std::nullopt;
    }
  }
  if (out.operands.size() < command.min_operands || out.operands.size() > command.max_operands) {
    const char* what =
        out.operands.size() < command.min_operands ? "too few arguments" : "too many arguments";
    exit_code = usage_error(command.name, what);
    return std::nullopt;
  }
  return out;
}

}  // namespace caw
