// Merging: many layers of messages seen as one sorted sequence, in one coordinate system.
//
// A Layer is a block (run, leaf, embedded run) or a copied slice of a memtable, clipped to [lo, hi)
// and translated.  MergeCursor walks layers given newest first and combines, per key, the messages
// of all layers, a layer's range erases hiding everything in older layers.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "dag/memtable.h"
#include "dag/translate.h"
#include "format/sorted_block.h"
#include "store/image.h"

namespace caw {

/// Copied points in key order, and range erases.
struct MessageSlice {
  std::vector<std::pair<std::string, Message>> points;
  std::vector<RangeErase> ranges;
};

class Layer {
 public:
  /// `holder` keeps the block alive.  `down` goes from the outer coordinates to the block's; [lo,
  /// hi) is in outer coordinates.
  Layer(ImageRef holder, const SortedBlock& block, Translation down, std::string_view lo,
        std::string_view hi);
  /// A slice that is already in outer coordinates.
  Layer(MessageSlice slice, std::string_view lo, std::string_view hi);

  bool valid() const { return valid_; }
  std::string_view key() const { return key_; }
  MessageKind kind() const;
  /// Encoded body, if the layer has one (a block).
  std::optional<std::string_view> body() const;
  Message message() const;
  void next();
  /// Positions at the first key >= `key` (outer coordinates).
  void seek(std::string_view key);
  /// Range erases in outer coordinates, clipped.
  const std::vector<RangeErase>& ranges() const { return ranges_; }

 private:
  void settle();
  ImageRef holder_;
  std::optional<SortedBlock::Iterator> iterator_;
  std::unique_ptr<MessageSlice> slice_;
  size_t index_ = 0;
  Translation up_;
  Translation down_;
  std::string lo_;
  std::string hi_;
  std::string key_;
  bool valid_ = false;
  std::vector<RangeErase> ranges_;
};

/// What a key comes to.  `raw_body` is set when one encoded message alone decides.
struct Merged {
  std::string key;
  MessageKind kind = MessageKind::put;
  std::string_view raw_body;  ///< valid until the next step
  bool is_raw = false;
  Message message;  ///< when !is_raw
  Message take() {
    if (!is_raw) return std::move(message);
    return *decode_message(kind, raw_body);
  }
};

class MergeCursor {
 public:
  /// `complete`: the oldest layer is a leaf (or nothing lies below), so every key resolves to a put
  /// or to nothing, and erases are not shown.
  MergeCursor(std::vector<Layer> layers, bool complete);
  /// False at the end.
  bool next(Merged& out);
  /// Range erases of all layers, joined.
  std::vector<RangeErase> ranges() const;

 private:
  bool step(Merged& out);
  std::vector<Layer> layers_;
  std::vector<size_t> at_key_;
  bool complete_;
};

/// Range erases within [lo, hi).
std::vector<RangeErase> clip_ranges(const std::vector<RangeErase>& ranges, std::string_view lo,
                                    std::string_view hi);

/// Translations on a damaged volume can make keys longer than any node may hold.
/// Fail: block_order.
Result<void> check_key(std::string_view key);
Result<void> check_ranges(const std::vector<RangeErase>& ranges);

/// The messages of `layers` (newest first) as one run's block; empty if there are none.
/// Fails: block_order.
Result<std::string> merge_to_block(std::vector<Layer> layers);

}  // namespace caw
