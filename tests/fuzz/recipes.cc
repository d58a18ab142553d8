#include "fuzz/recipes.h"

#include <sys/stat.h>

#include <array>
#include <string>

#include "base/clock.h"
#include "format/superblock.h"
#include "fs/file_system.h"
#include "fuzz/fuzz.h"
#include "volume/volume.h"

namespace caw {
namespace {

class StillClock final : public Clock {
 public:
  Timestamp now() override { return {1'700'000'000, 0}; }
};

const Caller kRoot{};

/// Trees of a few records, so that a few files make them tall.
TreeShape small_shape() {
  TreeShape shape;
  shape.leaf_bytes = 512;
  shape.fanout = 4;
  shape.buffer_bytes = 2048;
  shape.alpha_num = 1;
  shape.alpha_den = 8;
  shape.floor_bytes = 64;
  shape.run_bytes = 512;
  shape.max_runs = 4;
  shape.inline_bytes = 256;
  shape.inline_value_bytes = 256;
  return shape;
}

/// A volume while it is being filled.
class Maker {
 public:
  explicit Maker(Compression compression) : image_(make_ref<MemoryImage>(kMinVolumeBlocks)) {
    MakeOptions options;
    options.label = "fuzz";
    options.compression = compression;
    options.shape = small_shape();
    const std::unique_ptr<BlockDevice> device = make_memory_device(image_);
    FUZZ_CHECK(Volume::make(*device, options).has_value());
    VolumeOptions open;
    open.cache_bytes = 4U << 20;
    open.background = false;
    Result<std::unique_ptr<Volume>> volume = Volume::open(make_memory_device(image_), open);
    FUZZ_CHECK(volume.has_value());
    volume_ = std::move(*volume);
    FUZZ_CHECK(FileSystem::make(*volume_, still_clock(), 0, 0).has_value());
    Result<std::unique_ptr<FileSystem>> fs =
        FileSystem::open(*volume_, {.clock = &still_clock(), .no_atime = true});
    FUZZ_CHECK(fs.has_value());
    fs_ = std::move(*fs);
  }

  FileSystem& fs() { return *fs_; }
  Inode& root() { return *fs_->root(); }
  void settle() {
    FUZZ_CHECK(volume_->maintain().has_value());
    FUZZ_CHECK(fs_->checkpoint().has_value());
  }
  /// What a crash leaves, all that was done synced.
  Ref<MemoryImage> cut() {
    FUZZ_CHECK(fs_->sync().has_value());
    return image_->clone();
  }
  Ref<MemoryImage> close() {
    settle();
    fs_.reset();
    FUZZ_CHECK(volume_->close().has_value());
    volume_.reset();
    return image_;
  }

  Inode& directory(Inode& parent, const std::string& name) {
    const Result<Entry> made = fs_->mkdir(parent, name, 0755, kRoot);
    FUZZ_CHECK(made.has_value());
    return *made->inode;
  }
  Inode& file(Inode& parent, const std::string& name, size_t bytes) {
    const Result<Entry> made = fs_->create(parent, name, S_IFREG | 0644, 0, kRoot);
    FUZZ_CHECK(made.has_value());
    std::string text;
    while (text.size() < bytes) text += name + std::to_string(text.size() * 7919);
    text.resize(bytes);
    FUZZ_CHECK(fs_->write(*made->inode, 0, text).has_value());
    return *made->inode;
  }
  void fill(Inode& parent, size_t files, size_t bytes) {
    for (size_t i = 0; i < files; ++i) file(parent, "f" + std::to_string(i), bytes * (i % 3));
  }
  void link(Inode& file, Inode& parent, const std::string& name) {
    FUZZ_CHECK(fs_->link(file, parent, name).has_value());
  }
  void clone(Inode& source, Inode& parent, const std::string& name) {
    FUZZ_CHECK(fs_->clone(source, parent, name, kRoot).has_value());
  }

 private:
  Ref<MemoryImage> image_;
  std::unique_ptr<Volume> volume_;
  std::unique_ptr<FileSystem> fs_;
};

Ref<MemoryImage> make_plain() {
  Maker maker(Compression::none);
  Inode& a = maker.directory(maker.root(), "a");
  maker.fill(a, 5, 100);
  maker.file(maker.root(), "big", 40'000);
  FUZZ_CHECK(maker.fs().symlink(maker.root(), "link", "a/f1", kRoot).has_value());
  maker.settle();
  maker.clone(a, maker.root(), "b");
  return maker.close();
}

/// Trees of several levels, shared by clones within clones; then work that only the log has.
void make_clones(Maker& maker) {
  Inode& a = maker.directory(maker.root(), "a");
  Inode& below = maker.directory(a, "below");
  maker.fill(a, 30, 60);
  maker.fill(below, 20, 300);
  maker.settle();
  maker.file(below, "big", 150'000);
  maker.clone(a, maker.root(), "b");
  maker.settle();
  const Result<Entry> b = maker.fs().lookup(maker.root(), "b");
  FUZZ_CHECK(b.has_value());
  maker.fill(maker.directory(*b->inode, "more"), 12, 90);
  maker.clone(*b->inode, below, "c");
  maker.settle();
  FUZZ_CHECK(maker.fs().rename(a, "below", maker.root(), "moved", {}).has_value());
  maker.fill(maker.directory(maker.root(), "late"), 6, 50);
  maker.file(maker.root(), "late big", 30'000);
  maker.clone(a, maker.root(), "d");
}

Ref<MemoryImage> make_cloned() {
  Maker maker(Compression::lz4);
  make_clones(maker);
  return maker.cut();
}

Ref<MemoryImage> make_removed() {
  Maker maker(Compression::zstd);
  make_clones(maker);
  Inode& open = maker.file(maker.root(), "open", 20'000);
  FUZZ_CHECK(maker.fs().open_file(open, OpenFor::mapping, false).has_value());
  FUZZ_CHECK(maker.fs().unlink(maker.root(), "open").has_value());
  FUZZ_CHECK(maker.fs().remove_tree(maker.root(), "b", kRoot).has_value());
  FUZZ_CHECK(maker.fs().checkpoint().has_value());  // without reclaim: dead nodes stay
  FUZZ_CHECK(maker.fs().remove_tree(maker.root(), "d", kRoot).has_value());
  return maker.cut();
}

/// Within the root and clones, shared and counted, and between them.
Ref<MemoryImage> make_linked() {
  Maker maker(Compression::lz4);
  Inode& a = maker.directory(maker.root(), "a");
  Inode& below = maker.directory(a, "below");
  for (size_t i = 0; i < 6; ++i) {
    Inode& file = maker.file(a, "f" + std::to_string(i), i * 30'000);
    maker.link(file, below, "g" + std::to_string(i));
    maker.link(file, i % 2 == 0 ? a : maker.root(), "h" + std::to_string(i));
  }
  maker.settle();
  maker.clone(below, maker.root(), "part");
  maker.clone(maker.root(), maker.root(), "whole");
  const Result<Entry> whole = maker.fs().lookup(maker.root(), "whole");
  FUZZ_CHECK(whole.has_value());
  maker.link(maker.file(*whole->inode, "new", 500), a, "from whole");
  FUZZ_CHECK(maker.fs().remove_tree(*whole->inode, "a", kRoot).has_value());
  maker.settle();
  maker.clone(a, maker.root(), "last");
  return maker.cut();
}

Ref<MemoryImage> make_empty() { return Maker(Compression::lz4).close(); }

}  // namespace

Clock& still_clock() {
  static StillClock clock;
  return clock;
}

const Ref<MemoryImage>& recipe_image(uint8_t recipe) {
  static const std::array<Ref<MemoryImage>, kRecipes> images{make_plain(), make_cloned(),
                                                             make_removed(), make_empty(),
                                                             make_linked()};
  return images[recipe % kRecipes];
}

}  // namespace caw
