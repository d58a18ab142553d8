#include "dag/merge.h"

#include <algorithm>

#include "base/assert.h"

namespace caw {

Layer::Layer(ImageRef holder, const SortedBlock& block, Translation down, std::string_view lo,
             std::string_view hi)
    : holder_(std::move(holder)),
      iterator_(SortedBlock::Iterator(block)),
      up_(inverse(down)),
      down_(std::move(down)),
      lo_(lo),
      hi_(hi) {
  // Only keys with the stripped prefix exist on the other side.
  const std::string first = std::string(max_bound(lo_, down_.strip));
  const std::string end = std::string(min_bound(hi_, key_after_prefix(down_.strip)));
  lo_ = first;
  hi_ = end;
  const std::string block_lo = down_bound(down_, lo_);
  const std::string block_hi = down_bound(down_, hi_);
  for (const RangeErase& range : block.range_erases()) {
    const std::string_view a = max_bound(range.lo, block_lo);
    const std::string_view b = min_bound(range.hi, block_hi);
    if (a < b) ranges_.push_back({down_bound(up_, a), down_bound(up_, b), range.dead_bytes});
  }
  if (lo_ < hi_) {
    iterator_->seek(block_lo);
    settle();
  }
}

Layer::Layer(MessageSlice slice, std::string_view lo, std::string_view hi)
    : slice_(std::make_unique<MessageSlice>(std::move(slice))), lo_(lo), hi_(hi) {
  ranges_ = slice_->ranges;
  settle();
}

MessageKind Layer::kind() const {
  return slice_ ? slice_->points[index_].second.kind : iterator_->kind();
}

std::optional<std::string_view> Layer::body() const {
  if (slice_) return std::nullopt;
  return iterator_->body();
}

Message Layer::message() const {
  if (slice_) return slice_->points[index_].second;
  auto decoded = decode_message(iterator_->kind(), iterator_->body());
  CAW_ASSERT(decoded.has_value());  // the block was validated when it was opened
  return *std::move(decoded);
}

void Layer::next() {
  if (slice_) {
    ++index_;
  } else {
    iterator_->next();
  }
  settle();
}

void Layer::seek(std::string_view key) {
  if (slice_) {
    auto it = std::lower_bound(slice_->points.begin(), slice_->points.end(), key,
                               [](const auto& p, std::string_view k) { return p.first < k; });
    index_ = static_cast<size_t>(it - slice_->points.begin());
  } else if (lo_ < hi_) {
    iterator_->seek(down_bound(down_, max_bound(key, lo_)));
  }
  settle();
}

void Layer::settle() {
  valid_ = false;
  if (slice_) {
    if (index_ >= slice_->points.size()) return;
    key_ = slice_->points[index_].first;
    valid_ = key_ < hi_;
    return;
  }
  if (!(lo_ < hi_) || !iterator_->valid()) return;
  const std::string_view at = iterator_->key();
  if (!at.starts_with(up_.strip)) return;
  key_.assign(up_.prepend).append(at.substr(up_.strip.size()));
  valid_ = key_ < hi_;
}

MergeCursor::MergeCursor(std::vector<Layer> layers, bool complete)
    : layers_(std::move(layers)), complete_(complete) {}

bool MergeCursor::next(Merged& out) {
  while (true) {
    for (size_t i : at_key_) layers_[i].next();
    at_key_.clear();
    std::string_view least;
    for (size_t i = 0; i < layers_.size(); ++i) {
      if (!layers_[i].valid()) continue;
      const std::string_view key = layers_[i].key();
      if (at_key_.empty() || key < least) {
        least = key;
        at_key_.assign(1, i);
      } else if (key == least) {
        at_key_.push_back(i);
      }
    }
    if (at_key_.empty()) return false;
    if (step(out)) return true;
  }
}

bool MergeCursor::step(Merged& out) {
  out.key.assign(layers_[at_key_.front()].key());
  // Newest first; stop at the first message that does not need an older one.
  bool have = false;
  bool done = false;
  out.is_raw = false;
  size_t use = 0;
  for (size_t i = 0; i < layers_.size() && !done; ++i) {
    Layer& layer = layers_[i];
    if (use < at_key_.size() && at_key_[use] == i) {
      ++use;
      if (!have) {
        out.kind = layer.kind();
        if (auto body = layer.body()) {
          out.is_raw = true;
          out.raw_body = *body;
        } else {
          out.message = layer.message();
        }
        have = true;
      } else {
        Message older = layer.message();
        combine(older, out.take());
        out.message = std::move(older);
        out.is_raw = false;
        out.kind = out.message.kind;
      }
      done = out.kind != MessageKind::patch;
    }
    if (!done && !layer.ranges().empty() && covered(layer.ranges(), out.key)) {
      if (!have) return false;  // hidden by a range erase that is newer than all its messages
      Message older = Message::erase(0);
      combine(older, out.take());
      out.message = std::move(older);
      out.is_raw = false;
      out.kind = out.message.kind;
      done = true;
    }
    // All messages for the key consumed and nothing newer hides: older layers may still hold a
    // range erase under a patch, so the loop goes on only for patches.
  }
  if (!have) return false;
  if (!complete_) return true;
  if (out.kind == MessageKind::erase) return false;
  if (out.kind == MessageKind::patch) {
    Message older = Message::erase(0);
    combine(older, out.take());
    out.message = std::move(older);
    out.is_raw = false;
    out.kind = MessageKind::put;
  }
  return true;
}

std::vector<RangeErase> MergeCursor::ranges() const {
  std::vector<RangeErase> all;
  for (const Layer& layer : layers_) {
    for (const RangeErase& range : layer.ranges()) add_range(all, range);
  }
  return all;
}

std::vector<RangeErase> clip_ranges(const std::vector<RangeErase>& ranges, std::string_view lo,
                                    std::string_view hi) {
  std::vector<RangeErase> out;
  for (const RangeErase& range : ranges) {
    const std::string_view a = max_bound(range.lo, lo);
    const std::string_view b = min_bound(range.hi, hi);
    if (a < b) out.push_back({std::string(a), std::string(b), range.dead_bytes});
  }
  return out;
}

Result<void> check_key(std::string_view key) {
  if (key.size() > kMaxKeyBytes) return fail(Code::block_order, key.size(), "key too long");
  return {};
}

Result<void> check_ranges(const std::vector<RangeErase>& ranges) {
  for (const RangeErase& range : ranges) {
    CAW_TRY(check_key(range.lo));
    CAW_TRY(check_key(range.hi));
  }
  return {};
}

Result<std::string> merge_to_block(std::vector<Layer> layers) {
  MergeCursor cursor(std::move(layers), /*complete=*/false);
  SortedBlockBuilder builder;
  const std::vector<RangeErase> ranges = cursor.ranges();
  CAW_TRY(check_ranges(ranges));
  for (const RangeErase& range : ranges) builder.add_range_erase(range);
  Merged merged;
  while (cursor.next(merged)) {
    CAW_TRY(check_key(merged.key));
    if (merged.is_raw) {
      builder.add(merged.key, merged.kind, merged.raw_body);
    } else {
      builder.add(merged.key, merged.message);
    }
  }
  return builder.empty() ? std::string() : builder.finish();
}

}  // namespace caw
