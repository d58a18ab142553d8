// Cost of single operations of the file-system layer, without FUSE: time here, instructions with
// bench/instructions.  Each benchmark does a fixed number of operations, CAW_OPS (default 2,000),
// on a tree of CAW_FILES files (default 20,000) that is at rest on a device in memory.
#include <benchmark/benchmark.h>
#include <sys/stat.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "base/assert.h"
#include "dev/memory_device.h"
#include "fs/file_system.h"
#include "volume/volume.h"

namespace caw {
namespace {

uint64_t number(const char* name, uint64_t otherwise) {
  const char* const text = std::getenv(name);
  return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}
uint64_t ops() { return number("CAW_OPS", 2'000); }

/// Ends the program on failure: what is measured must have worked.
template <typename T>
T must(Result<T> result) {
  if (!result) std::fprintf(stderr, "%s\n", result.error().to_string().c_str());
  CAW_ASSERT(result.has_value());
  if constexpr (!std::is_void_v<T>) return *std::move(result);
}

/// A mounted volume with `files` small files in directories of a hundred, all worked in.
class Bed {
 public:
  static constexpr uint64_t kBlocks = 1U << 18;  // 1 GiB
  static constexpr uint64_t kPerDirectory = 100;

  Bed() : image_(make_ref<MemoryImage>(kBlocks)) {
    const auto device = make_memory_device(image_);
    must(Volume::make(*device, {}));
    volume_ = must(Volume::open(make_memory_device(image_), {.background = false}));
    must(FileSystem::make(*volume_, Clock::system(), 0, 0));
    fs_ = must(FileSystem::open(*volume_, {}));
    top_ = must(fs_->mkdir(*fs_->root(), "tree", 0755, {})).inode;
    const uint64_t files = number("CAW_FILES", 20'000);
    for (uint64_t i = 0; i < files; ++i) {
      if (i % kPerDirectory == 0) {
        directories_.push_back(
            must(fs_->mkdir(*top_, std::to_string(directories_.size()), 0755, {})).inode);
      }
      const Entry made = must(fs_->create(*directories_.back(), name(i), S_IFREG | 0644, 0, {}));
      must(fs_->write(*made.inode, 0, std::string(1000, 'x')));
      files_.push_back(made.inode);
      if (i % 5'000 == 0) settle();
    }
    must(fs_->write(*files_[0], 0, std::string(1 << 20, 'y')));
    settle();
  }
  void settle() {
    must(volume_->checkpoint());
    must(volume_->maintain());
    must(volume_->checkpoint());
  }

  FileSystem& fs() { return *fs_; }
  Inode& top() { return *top_; }
  Inode& file(uint64_t i) { return *files_[i % files_.size()]; }
  Inode& directory(uint64_t i) { return *directories_[i % directories_.size()]; }
  static std::string name(uint64_t i) { return "file-" + std::to_string(i); }
  /// Where file i is.
  Inode& parent(uint64_t i) { return *directories_[(i % files_.size()) / kPerDirectory]; }
  std::string name_of(uint64_t i) const { return name(i % files_.size()); }

 private:
  Ref<MemoryImage> image_;
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<FileSystem> fs_;
  Inode* top_ = nullptr;
  std::vector<Inode*> directories_, files_;
};

/// Far from the last one, so that neighbours do not help.
uint64_t spread(uint64_t i) { return i * 7'919; }

template <typename Operation>
void run(benchmark::State& state, const Operation& operation) {
  Bed bed;
  uint64_t i = 0;
  for (auto _ : state) operation(bed, i++);
}

void create(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    must(bed.fs().create(bed.directory(i / 50), "new-" + std::to_string(i), S_IFREG | 0644, 0, {}));
  });
}
void lookup(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    must(bed.fs().lookup(bed.parent(spread(i)), bed.name_of(spread(i))));
  });
}
void lookup_absent(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    CAW_ASSERT(!bed.fs().lookup(bed.directory(i), "absent-" + std::to_string(i)));
  });
}
void getattr(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) { must(bed.fs().getattr(bed.file(spread(i)))); });
}
void setattr(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    SetAttributes set;
    set.mode = 0600;
    must(bed.fs().setattr(bed.file(spread(i)), set, {}));
  });
}
void write_small(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    must(bed.fs().write(bed.file(spread(i)), 100, std::string(100, 'a')));
  });
}
void write_page(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    must(bed.fs().write(bed.file(0), spread(i) % 256 * 4096, std::string(4096, 'b')));
  });
}
void read_small(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    std::vector<char> out(4096);
    must(bed.fs().read(bed.file(1 + spread(i)), 0, out));
  });
}
void read_large(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    std::vector<char> out(128 * 1024);
    must(bed.fs().read(bed.file(0), i % 8 * out.size(), out));
  });
}
void list_hundred(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    must(bed.fs().readdirplus(bed.directory(i), 0, [&](const DirectoryEntry&, const Entry& entry) {
      if (entry.inode != nullptr) bed.fs().forget(*entry.inode, 1);
      return true;
    }));
  });
}
void rename(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    must(bed.fs().rename(bed.parent(i), bed.name_of(i), bed.parent(i),
                         "renamed-" + std::to_string(i), {}));
  });
}
void unlink(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) { must(bed.fs().unlink(bed.parent(i), bed.name_of(i))); });
}
void clone(benchmark::State& state) {
  run(state, [](Bed& bed, uint64_t i) {
    must(bed.fs().clone(bed.top(), *bed.fs().root(), "clone-" + std::to_string(i), {}));
  });
}

}  // namespace
}  // namespace caw

int main(int argc, char** argv) {
  const std::pair<const char*, void (*)(benchmark::State&)> all[] = {
      {"create", caw::create},           {"lookup", caw::lookup},
      {"lookup_absent", caw::lookup_absent}, {"getattr", caw::getattr},
      {"setattr", caw::setattr},         {"write_small", caw::write_small},
      {"write_page", caw::write_page},   {"read_small", caw::read_small},
      {"read_large", caw::read_large},   {"list_hundred", caw::list_hundred},
      {"rename", caw::rename},           {"unlink", caw::unlink},
      {"clone", caw::clone}};
  for (const auto& [name, function] : all) {
    benchmark::RegisterBenchmark(name, function)
        ->Iterations(static_cast<benchmark::IterationCount>(caw::ops()))
        ->Unit(benchmark::kMicrosecond);
  }
  benchmark::Initialize(&argc, argv);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
  return 0;
}
