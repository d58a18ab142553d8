#include "dev/recording_device.h"

#include <cstring>
#include <utility>

#include "base/assert.h"
#include "base/random.h"

namespace caw {
namespace {

constexpr size_t kSectorSize = 512;
constexpr size_t kSectorsPerBlock = kBlockSize / kSectorSize;

void apply_whole(MemoryImage& image, const LoggedOperation& write) {
  for (size_t i = 0; i < write.contents.size(); ++i) {
    image.put(write.first + i, write.contents[i]);
  }
}

/// Which sectors of a torn write are new: half of the time a prefix, else any; never all or none.
std::vector<bool> choose_sectors(size_t count, Random& random) {
  std::vector<bool> is_new(count);
  if (random.one_in(2)) {
    const uint64_t prefix = 1 + random.below(count - 1);
    for (size_t i = 0; i < prefix; ++i) is_new[i] = true;
    return is_new;
  }
  for (size_t i = 0; i < count; ++i) is_new[i] = random.one_in(2);
  const uint64_t pivot = random.below(count);
  is_new[pivot] = true;
  is_new[(pivot + 1) % count] = false;
  return is_new;
}

void apply_torn(MemoryImage& image, const LoggedOperation& write, Random& random) {
  const std::vector<bool> is_new = choose_sectors(write.contents.size() * kSectorsPerBlock, random);
  for (size_t i = 0; i < write.contents.size(); ++i) {
    std::array<std::byte, kBlockSize> block;
    image.read(write.first + i, block);
    for (size_t sector = 0; sector < kSectorsPerBlock; ++sector) {
      if (!is_new[i * kSectorsPerBlock + sector]) continue;
      std::byte* at = block.data() + sector * kSectorSize;
      if (write.contents[i]) {
        std::memcpy(at, write.contents[i]->bytes.data() + sector * kSectorSize, kSectorSize);
      } else {
        std::memset(at, 0, kSectorSize);
      }
    }
    image.write(write.first + i, block);
  }
}

}  // namespace

uint64_t WriteLog::point() const {
  std::lock_guard lock(mutex_);
  return point_;
}

size_t WriteLog::begin(LoggedKind kind, BlockAddr first, std::vector<BlockContentRef> contents) {
  std::lock_guard lock(mutex_);
  operations_.push_back({kind, ++point_, LoggedOperation::kNever, first, std::move(contents)});
  return operations_.size() - 1;
}

void WriteLog::end(size_t number) {
  std::lock_guard lock(mutex_);
  CAW_ASSERT(operations_[number].end == LoggedOperation::kNever);
  operations_[number].end = ++point_;
}

std::vector<LoggedOperation> WriteLog::operations() const {
  std::lock_guard lock(mutex_);
  return operations_;
}

Result<void> RecordingDevice::read(BlockAddr first, std::span<std::byte> out) {
  return inner_->read(first, out);
}

Result<void> RecordingDevice::read_batch(std::span<const ReadRequest> requests) {
  return inner_->read_batch(requests);
}

Result<void> RecordingDevice::write(BlockAddr first, std::span<const std::byte> data) {
  const WriteRequest request{first, data};
  return write_batch({&request, 1});
}

Result<void> RecordingDevice::write_batch(std::span<const WriteRequest> requests) {
  for (const WriteRequest& request : requests) {
    const uint64_t blocks = request.data.size() / kBlockSize;
    if (raw(request.first) > block_count() || blocks > block_count() - raw(request.first)) {
      return fail(Code::device_bounds, raw(request.first), "recording device");
    }
  }
  std::vector<size_t> numbers;
  for (const WriteRequest& request : requests) {
    if (request.data.empty()) continue;
    numbers.push_back(
        log_.begin(LoggedKind::write, request.first, make_block_contents(request.data)));
  }
  CAW_TRY(inner_->write_batch(requests));
  for (size_t number : numbers) log_.end(number);
  return {};
}

Result<void> RecordingDevice::flush() {
  const size_t number = log_.begin(LoggedKind::flush, BlockAddr{0}, {});
  CAW_TRY(inner_->flush());
  log_.end(number);
  return {};
}

Result<void> RecordingDevice::ensure_backed(BlockAddr first, uint64_t blocks) {
  return inner_->ensure_backed(first, blocks);
}

Result<void> RecordingDevice::discard(BlockAddr first, uint64_t blocks) {
  if (raw(first) > block_count() || blocks > block_count() - raw(first)) {
    return fail(Code::device_bounds, raw(first), "recording device");
  }
  if (blocks == 0) return {};
  const size_t number =
      log_.begin(LoggedKind::discard, first, std::vector<BlockContentRef>(blocks));
  CAW_TRY(inner_->discard(first, blocks));
  log_.end(number);
  return {};
}

CrashExplorer::CrashExplorer(const WriteLog& log)
    : operations_(log.operations()), durable_(log.base()->clone()) {
  for (const LoggedOperation& operation : operations_) {
    for (uint64_t at : {operation.begin, operation.end}) {
      if (at == LoggedOperation::kNever) continue;
      if (events_.size() < at) events_.resize(at);
      events_[at - 1] = {&operation, at == operation.end};
    }
  }
}

bool CrashExplorer::advance() {
  if (point_ == events_.size()) return false;
  const auto [operation, ended] = events_[point_];
  ++point_;
  has_new_images_ = false;
  if (operation->kind == LoggedKind::flush) {
    if (ended) settle(*operation);
  } else if (!ended) {
    in_flight_.push_back(operation);
    has_new_images_ = true;
  }
  return true;
}

std::vector<std::vector<Fate>> CrashExplorer::cases(size_t most, Random& random) const {
  const size_t writes = in_flight_.size();
  std::vector<std::vector<Fate>> cases{std::vector<Fate>(writes, Fate::absent)};
  if (writes == 0 || !has_new_images_) return cases;
  const auto next_case = [](std::vector<Fate> fates) {
    for (Fate& fate : fates) {
      fate = static_cast<Fate>((static_cast<int>(fate) + 1) % 3);
      if (fate != Fate::absent) break;
    }
    return fates;
  };
  while (cases.size() <= most) {
    std::vector<Fate> next = next_case(cases.back());
    if (next == cases.front()) return cases;
    cases.push_back(std::move(next));
  }
  cases.resize(1);
  cases.emplace_back(writes, Fate::whole);
  while (cases.size() < most) {
    std::vector<Fate>& fates = cases.emplace_back(writes);
    for (Fate& fate : fates) fate = static_cast<Fate>(random.below(3));
  }
  return cases;
}

/// What had returned before `flush` began is on the medium now.
void CrashExplorer::settle(const LoggedOperation& flush) {
  std::vector<const LoggedOperation*> rest;
  for (const LoggedOperation* write : in_flight_) {
    if (write->end < flush.begin) {
      apply_whole(*durable_, *write);
    } else {
      rest.push_back(write);
    }
  }
  in_flight_ = std::move(rest);
}

Ref<MemoryImage> CrashExplorer::image(std::span<const Fate> fates, uint64_t seed) const {
  CAW_ASSERT(fates.size() == in_flight_.size());
  Ref<MemoryImage> image = durable_->clone();
  Random random(seed);
  for (size_t i = 0; i < fates.size(); ++i) {
    if (fates[i] == Fate::whole) apply_whole(*image, *in_flight_[i]);
    if (fates[i] == Fate::torn) apply_torn(*image, *in_flight_[i], random);
  }
  return image;
}

}  // namespace caw
