// What `caw info` shows of a mounted volume.
#pragma once

#include "base/error.h"
#include "caw/ioctl.h"

namespace caw {

class Volume;

/// The members of caw_info that the volume knows: all but pid, flags of the mount, requests and
/// clones.
void fill_info(Volume& volume, caw_info& info);
/// One step of CAW_IOC_SCRUB.  Fails: invalid_argument; as NodeStore::scrub().
Result<void> scrub_slice(Volume& volume, caw_scrub& request);

}  // namespace caw
