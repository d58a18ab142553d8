// What `caw info` shows of a mounted volume.
#pragma once

#include "caw/ioctl.h"

namespace caw {

class Volume;

/// The members of caw_info that the volume knows: all but pid, flags of the mount, requests and
/// clones.
void fill_info(Volume& volume, caw_info& info);

}  // namespace caw
