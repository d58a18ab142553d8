// Small sound volumes, always the same, for programs that go on to damage them.
#pragma once

#include <cstdint>

#include "base/ref.h"
#include "dev/memory_device.h"

namespace caw {

inline constexpr uint8_t kRecipes = 5;

/// Recipe `recipe` % kRecipes; made once.  0: unmounted in order, small; 1: clones and flushes, cut
/// off with records in the log; 2: the same with removed and open files; 3: an empty file system;
/// 4: hard links of every kind.
const Ref<MemoryImage>& recipe_image(uint8_t recipe);

/// A clock that stands still.
class Clock;
Clock& still_clock();

}  // namespace caw
