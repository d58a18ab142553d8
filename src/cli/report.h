// What the commands say: one sentence per failure, `caw COMMAND: SUBJECT: WHAT; ADVICE`, on stderr.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/error.h"

namespace caw {

/// Exit codes of all commands but `same` and fsck.
inline constexpr int kExitDone = 0;
inline constexpr int kExitFailed = 1;
inline constexpr int kExitUsage = 2;

/// The sentence, without a newline.  Empty `subject` or `advice` are left out.
std::string sentence(std::string_view command, std::string_view subject, std::string_view what,
                     std::string_view advice = {});
/// Prints the sentence; returns kExitFailed.
int complain(std::string_view command, std::string_view subject, std::string_view what,
             std::string_view advice = {});
/// Prints it; returns kExitUsage.
int usage_error(std::string_view command, std::string_view what);

/// What an error of the engine means to the user of an image, and what to do about it.
std::string what_of(const Error& error);
std::string_view advice_for(const Error& error);
int complain(std::string_view command, std::string_view subject, const Error& error);

/// "No such file or directory", without the C library's locale.
std::string errno_text(int sys_errno);

}  // namespace caw
