// decode_interior.
#include "format/interior.h"

#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const caw::Result<caw::Interior> node = caw::decode_interior(caw::as_input(data, size));
  if (!node) return 0;
  const caw::Result<caw::Interior> again = caw::decode_interior(caw::encode_interior(*node));
  FUZZ_CHECK(again && *again == *node);
  return 0;
}
