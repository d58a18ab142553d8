#include "log/log.h"

#include <algorithm>
#include <utility>

#include "format/log_record.h"

namespace caw {
namespace {

/// A ring more than half full asks for a checkpoint; so do more records than recovery does again in
/// about a second.
constexpr uint64_t kFillingNum = 1, kFillingDen = 2;
constexpr uint64_t kManyRecords = 300'000;

}  // namespace

Log::Log(BlockDevice& device, LogRing ring, const Uuid& uuid, uint64_t position, Seq next_seq)
    : device_(device),
      ring_(std::move(ring)),
      uuid_(uuid),
      next_seq_(next_seq),
      head_(position),
      tail_(position),
      flushed_(position),
      durable_(next_seq),
      checkpointed_(next_seq) {}

Seq Log::checkpointed() const {
  const std::scoped_lock lock(mutex_);
  return checkpointed_;
}

Seq Log::next_seq() const {
  const std::scoped_lock lock(mutex_);
  return next_seq_;
}

Seq Log::append(std::string record) {
  const std::scoped_lock lock(mutex_);
  const Seq seq = next_seq_++;
  if (ring_.blocks() == 0) return seq;
  set_record_seq(record, seq);
  pending_ += record;
  pending_bytes_ += record.size();
  note_filling();
  return seq;
}

void Log::seal_pending() {
  if (pending_.empty()) return;
  chunks_.push_back({std::exchange(pending_, {}), next_seq_});
}

/// Lays the chunks out in frames.  False: there is no room.
bool Log::plan(Writing& writing) const {
  uint64_t position = tail_;
  for (const Chunk& chunk : writing.chunks) {
    std::string_view rest(chunk.bytes);
    while (!rest.empty()) {
      const uint64_t room = std::min(ring_.at(position).blocks, kMaxFrameBlocks);
      const uint64_t bytes = std::min<uint64_t>(rest.size(), frame_capacity(room));
      writing.frames.push_back({position, rest.substr(0, bytes)});
      rest.remove_prefix(bytes);
      position += frame_blocks(bytes);
    }
    if (chunk.through <= cut_seq_) writing.cut = position;
  }
  writing.end = position;
  return position - head_ <= ring_.blocks();
}

Result<void> Log::write_frames(const Writing& writing) {
  std::vector<AlignedBuffer> buffers;
  std::vector<WriteRequest> requests;
  for (const Frame& frame : writing.frames) {
    const FrameInfo info{.uuid = uuid_, .position = frame.position, .flushed = writing.flushed};
    buffers.push_back(encode_frame(info, frame.records));
    requests.push_back({ring_.at(frame.position).addr, buffers.back().span()});
  }
  if (requests.size() == 1) return device_.write(requests.front().first, requests.front().data);
  if (!requests.empty()) return device_.write_batch(requests);
  return {};
}

/// As the only writer, writes all there is.  Requires: no write under way.
Result<void> Log::write(std::unique_lock<std::mutex>& lock, bool flush) {
  if (failed_) return std::unexpected<Error>(*failed_);
  if (ring_.blocks() == 0 || hole_end_) return fail(Code::log_full, 0, "Log");
  seal_pending();
  Writing writing;
  writing.chunks.swap(chunks_);
  if (!plan(writing)) {
    chunks_.swap(writing.chunks);
    return fail(Code::log_full, 0, "Log");
  }
  pending_bytes_ = 0;
  figures_.frames += writing.frames.size();
  figures_.written_bytes += (writing.end - tail_) * kBlockSize;
  tail_ = writing.end;
  writing.flushed = flushed_;
  writing.through = next_seq_;
  writing.cut_seq = cut_seq_;
  writing_ = true;
  lock.unlock();
  Result<void> result = write_frames(writing);
  if (result && flush) result = device_.flush();
  lock.lock();
  writing_ = false;
  if (!result && result.error().code == Code::device_full) {
    take_back(writing);
    result = fail(Code::log_full, 0, "Log");
  } else if (!result) {
    failed_ = result.error();
  }
  if (result && writing.cut && writing.cut_seq == cut_seq_) cut_position_ = writing.cut;
  if (result && flush) {
    flushed_ = writing.end;
    durable_ = std::max(durable_, writing.through);
    ++figures_.flushes;
  }
  written_.notify_all();
  return result;
}

/// The place stays behind; what was to lie there is for the next checkpoint to hold.
void Log::take_back(Writing& writing) {
  hole_end_ = tail_;
  for (auto chunk = writing.chunks.rbegin(); chunk != writing.chunks.rend(); ++chunk) {
    pending_bytes_ += chunk->bytes.size();
    chunks_.push_front(std::move(*chunk));
  }
}

void Log::drop_chunks(Seq before) {
  while (!chunks_.empty() && chunks_.front().through <= before) {
    pending_bytes_ -= chunks_.front().bytes.size();
    chunks_.pop_front();
  }
}

Result<void> Log::commit(Seq before) {
  std::unique_lock lock(mutex_);
  while (durable_ < before) {
    if (failed_) return std::unexpected<Error>(*failed_);
    if (writing_) {
      written_.wait(lock);
    } else {
      CAW_TRY(write(lock, /*flush=*/true));
    }
  }
  return {};
}

Result<void> Log::write_behind() {
  std::unique_lock lock(mutex_);
  if (writing_) return {};
  const Result<void> written = write(lock, /*flush=*/false);
  if (!written && written.error().code == Code::log_full) return {};
  return written;
}

Seq Log::cut() {
  const std::scoped_lock lock(mutex_);
  seal_pending();
  cut_position_.reset();
  if (chunks_.empty()) cut_position_ = tail_;
  cut_seq_ = next_seq_;
  return next_seq_;
}

Result<uint64_t> Log::position_after_cut() {
  std::unique_lock lock(mutex_);
  while (!cut_position_) {
    if (failed_) return std::unexpected<Error>(*failed_);
    if (writing_) {
      written_.wait(lock);
      continue;
    }
    const Result<void> written = write(lock, /*flush=*/false);
    if (written || cut_position_) continue;
    if (written.error().code != Code::log_full) return std::unexpected<Error>(written.error());
    // The checkpoint holds them.  Should it fail, nothing after them may be written.
    hole_end_ = tail_;
    drop_chunks(cut_seq_);
    cut_position_ = tail_;
  }
  return *cut_position_;
}

void Log::trim(uint64_t position, Seq seq) {
  const std::scoped_lock lock(mutex_);
  drop_chunks(seq);
  head_ = position;
  durable_ = std::max(durable_, seq);
  checkpointed_ = seq;
  if (hole_end_ && position >= *hole_end_) hole_end_.reset();
  note_filling();
  written_.notify_all();
}

void Log::hold_until_trim() {
  const std::scoped_lock lock(mutex_);
  hole_end_ = tail_;
}

void Log::note_filling() {
  const uint64_t used = tail_ - head_ + blocks_for(pending_bytes_);
  filling_.store(next_seq_ - checkpointed_ > kManyRecords ||
                     used * kFillingDen > ring_.blocks() * kFillingNum,
                 std::memory_order_relaxed);
}

LogFigures Log::figures() const {
  const std::scoped_lock lock(mutex_);
  LogFigures out = figures_;
  out.capacity_bytes = ring_.blocks() * kBlockSize;
  out.used_bytes = (tail_ - head_) * kBlockSize;
  out.pending_bytes = pending_bytes_;
  return out;
}

}  // namespace caw
