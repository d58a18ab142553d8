// The input of the programs that try whole images: which image to begin with, and a list of edits.
//
// An edit names a kind of thing, which one of them, what to change, and to what.  HostileImage
// carries it out on the decoded image and seals everything again, so that what is wrong gets past
// the checksums and reaches the code behind them.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace caw {

class Random;

enum class EditKind : uint8_t {
  interior,        ///< a field of an interior node
  entry,           ///< of an entry of a leaf or run
  embedded_entry,  ///< of an entry of a run embedded in a root
  payload_bytes,   ///< of a node
  node_header,
  node_row,        ///< of the node table
  count,           ///< of references, or the dead list
  bitmap,
  log_op,
  log_bytes,
  superblock,
  superblock_bytes,
  page_bytes,      ///< of the node table
  region_bytes,
};
inline constexpr uint8_t kEditKinds = 14;

struct Edit {
  EditKind kind = EditKind::interior;
  uint8_t field = 0;    ///< what of it
  uint8_t form = 0;     ///< how `value` is meant: HostileImage::number
  uint8_t length = 0;
  uint16_t object = 0;  ///< which node, record, page …
  uint16_t index = 0;   ///< which edge, entry, op …
  uint64_t value = 0;
  std::array<char, 8> bytes{};

  std::string_view text() const { return {bytes.data(), length % (bytes.size() + 1)}; }
};
static_assert(sizeof(Edit) == 24);

struct EditScript {
  uint8_t recipe = 0;
  uint8_t options = 0;  ///< of the program that runs it
  std::vector<Edit> edits;
};

inline constexpr size_t kMaxEdits = 24;
EditScript decode_script(std::string_view bytes);
std::string encode_script(const EditScript& script);
/// One small change.
void mutate(EditScript& script, Random& random);

/// No edit, and one of each kind, on each recipe.
std::vector<std::string> edit_seeds();

}  // namespace caw
