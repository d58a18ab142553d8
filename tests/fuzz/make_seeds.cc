// make_seeds DIRECTORY TARGET...: writes the seeds of each target to DIRECTORY/TARGET/.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "fuzz/seeds.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s DIRECTORY TARGET...\n", argv[0]);
    return 2;
  }
  for (int i = 2; i < argc; ++i) {
    const std::filesystem::path directory = std::filesystem::path(argv[1]) / argv[i];
    std::filesystem::create_directories(directory);
    size_t count = 0;
    for (const std::string& seed : caw::seeds_of(argv[i])) {
      std::ofstream file(directory / ("seed-" + std::to_string(count++)), std::ios::binary);
      file.write(seed.data(), static_cast<std::streamsize>(seed.size()));
      if (!file.flush()) {
        std::fprintf(stderr, "cannot write to %s\n", directory.c_str());
        return 1;
      }
    }
    if (count == 0) {
      std::fprintf(stderr, "no target %s\n", argv[i]);
      return 2;
    }
  }
  return 0;
}
