// Drives a fuzzing program without libFuzzer: its seeds, then mutations of them.
//
//   X_fuzz                all seeds, and CAW_RUNS (200) mutations from CAW_SEED (1)
//   X_fuzz FILE...        these inputs
//
// Each input is written to the file CAW_INPUT before it is tried, if that is set, so that one that
// ends the program is at hand.
#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/random.h"
#include "fuzz/fuzz.h"
#include "fuzz/seeds.h"

extern "C" __attribute__((weak)) size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size,
                                                                size_t max_size, unsigned seed);

namespace {

constexpr size_t kMaxBytes = 1U << 16;

caw::Random& random_numbers() {
  static caw::Random random(1);
  return random;
}

uint64_t number_from(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

void run(const std::string& input) {
  if (const char* const file = std::getenv("CAW_INPUT")) std::ofstream(file) << input;
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

std::string mutated(std::string input, uint64_t seed) {
  size_t size = std::min(input.size(), kMaxBytes);
  input.resize(kMaxBytes);
  auto* const data = reinterpret_cast<uint8_t*>(input.data());
  if (LLVMFuzzerCustomMutator != nullptr) {
    size = LLVMFuzzerCustomMutator(data, size, kMaxBytes, static_cast<unsigned>(seed));
  } else {
    size = LLVMFuzzerMutate(data, size, kMaxBytes);
  }
  input.resize(size);
  return input;
}

}  // namespace

/// One to four small changes.
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size) {
  caw::Random& random = random_numbers();
  for (uint64_t changes = 1 + random.below(4); changes > 0; --changes) {
    const size_t at = size == 0 ? 0 : random.below(size);
    switch (random.below(6)) {
      case 0:
        if (size < max_size) {
          std::memmove(data + at + 1, data + at, size - at);
          data[at] = static_cast<uint8_t>(random.next());
          ++size;
        }
        break;
      case 1:
        if (size > 1) {
          std::memmove(data + at, data + at + 1, size - at - 1);
          --size;
        }
        break;
      case 2:
        if (size != 0) data[at] = static_cast<uint8_t>(1U << random.below(8));
        break;
      case 3:
        if (size != 0) data[at] = random.one_in(2) ? 0 : 0xff;
        break;
      default:
        if (size != 0) data[at] = static_cast<uint8_t>(data[at] ^ (1U << random.below(8)));
    }
  }
  return size;
}

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    run({std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()});
  }
  if (argc > 1) return 0;
  const std::vector<std::string> seeds = caw::seeds_of(CAW_FUZZ_TARGET);
  FUZZ_CHECK(!seeds.empty());
  for (const std::string& seed : seeds) run(seed);
  const uint64_t first = number_from("CAW_SEED", 1);
  const uint64_t runs = number_from("CAW_RUNS", CAW_FUZZ_RUNS);
  random_numbers() = caw::Random(first);
  std::string input = seeds.front();
  for (uint64_t i = 0; i < runs; ++i) {
    // Some mutations pile up.
    if (i % 4 == 0) input = seeds[random_numbers().below(seeds.size())];
    input = mutated(std::move(input), random_numbers().next());
    run(input);
  }
  std::printf("%s: %zu seeds, %llu mutations from CAW_SEED=%llu\n", CAW_FUZZ_TARGET, seeds.size(),
              static_cast<unsigned long long>(runs), static_cast<unsigned long long>(first));
  return 0;
}
