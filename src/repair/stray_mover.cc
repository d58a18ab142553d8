#include "repair/stray_mover.h"

#include <fmt/format.h>

#include <utility>

#include "check/describe.h"

namespace caw {
namespace {

constexpr std::string_view kFinds = "lost+found";
constexpr unsigned kMostNames = 1'000'000;

std::string numbered(std::string_view name, unsigned attempt) {
  return attempt == 0 ? std::string(name) : fmt::format("{}.{}", name, attempt);
}

}  // namespace

void StrayMover::close() {
  if (finds_ != nullptr) fs_.forget(*finds_, 1);
  finds_ = nullptr;
}

Result<void> StrayMover::open_finds() {
  for (unsigned attempt = 0; finds_ == nullptr; ++attempt) {
    finds_name_ = numbered(kFinds, attempt);
    Result<Entry> entry = fs_.lookup(*fs_.root(), finds_name_);
    if (!entry && entry.error().code == Code::not_found) {
      entry = fs_.mkdir(*fs_.root(), finds_name_, 0700, Caller{});
    }
    if (!entry) return std::unexpected<Error>(entry.error());
    if (S_ISDIR(entry->attributes.mode)) {
      finds_ = entry->inode;
    } else {
      fs_.forget(*entry->inode, 1);
    }
  }
  return {};
}

Result<void> StrayMover::move(const Stray& stray) {
  if (!stray.directory.empty() && stray.directory.front().starts_with(kFinds)) return {};
  CAW_TRY(open_finds());
  Inode* at = fs_.root();
  Result<void> moved;
  for (const std::string& name : stray.directory) {
    const Result<Entry> entry = fs_.lookup(*at, name);
    if (at != fs_.root()) fs_.forget(*at, 1);
    if (!entry) return {};  // it went with what it was in
    at = entry->inode;
  }
  moved = move_from(*at, stray);
  if (at != fs_.root()) fs_.forget(*at, 1);
  return moved;
}

Result<void> StrayMover::move_from(Inode& directory, const Stray& stray) {
  for (unsigned attempt = 0; attempt < kMostNames; ++attempt) {
    const std::string name = numbered(stray.name, attempt);
    const Result<void> moved =
        fs_.rename(directory, stray.name, *finds_, name, RenameFlags{.no_replace = true});
    if (moved) {
      std::string from;
      for (const std::string& part : stray.directory) from += fmt::format("/{}", quoted(part));
      notes_.say(fmt::format("{}/{}: moved to /{}/{}", from, stray.name, finds_name_, name));
      return {};
    }
    if (moved.error().code == Code::not_found) return {};
    if (moved.error().code != Code::exists) return moved;
  }
  return {};
}

}  // namespace caw
