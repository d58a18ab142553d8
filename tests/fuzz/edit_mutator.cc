// Mutates edit by edit, so that most inputs make sense.
#include <algorithm>

#include "base/random.h"
#include "fuzz/edits.h"
#include "fuzz/fuzz.h"

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  caw::Random random(seed);
  if (random.one_in(8)) return LLVMFuzzerMutate(data, size, max_size);
  caw::EditScript script = caw::decode_script(caw::as_input(data, size));
  for (uint64_t changes = 1 + random.below(3); changes > 0; --changes) {
    caw::mutate(script, random);
  }
  const std::string bytes = caw::encode_script(script);
  const size_t kept = std::min(bytes.size(), max_size);
  std::memcpy(data, bytes.data(), kept);
  return kept;
}
