// Pages of the node table, their checksum made right, and the entries of nodes.
#include "meta/meta_page.h"

#include "base/aligned_buffer.h"
#include "fuzz/fuzz.h"
#include "store/node_entry.h"

namespace {

/// The page as its own writer would write it.
caw::MetaPageContent content_of(const caw::MetaPage& page) {
  caw::MetaPageContent content{page.level(), static_cast<uint16_t>(page.count()), {}};
  for (size_t i = 0; i < page.count(); ++i) {
    if (page.level() == 0) {
      caw::append_leaf_entry(content.entries, page.key(i), page.value(i));
    } else {
      caw::append_interior_entry(content.entries, page.key(i), page.child(i));
    }
  }
  return content;
}

void check_entry(std::string_view value) {
  const caw::Result<caw::NodeEntry> entry = caw::decode_node_entry(value);
  if (!entry) return;
  const caw::Result<caw::NodeEntry> again =
      caw::decode_node_entry(caw::encode_node_entry(*entry));
  FUZZ_CHECK(again && *again == *entry);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(caw::as_input(data, size));
  check_entry(bytes);
  bytes.resize(caw::kBlockSize);
  const auto level = static_cast<uint8_t>(bytes[4]);
  uint64_t addr = 0;
  std::memcpy(&addr, bytes.data() + 8, sizeof addr);
  const caw::PageRef ref{caw::BlockAddr{addr}, caw::checksum64(bytes)};
  const caw::Result<caw::MetaPageHandle> decoded = caw::MetaPage::decode(bytes, ref, level);
  if (!decoded) return 0;
  const caw::MetaPage& page = **decoded;
  for (size_t i = 0; i < page.count(); ++i) {
    FUZZ_CHECK(page.lower_bound(page.key(i)) == i);
    if (level == 0) check_entry(page.value(i));
    if (level != 0) FUZZ_CHECK(page.child_index(page.key(i)) == i);
  }
  const caw::MetaPageContent content = content_of(page);
  caw::AlignedBuffer again(caw::kBlockSize);
  const uint64_t checksum =
      caw::encode_meta_page(content, caw::BlockAddr{addr}, 1, again.chars());
  const caw::Result<caw::MetaPageHandle> redecoded =
      caw::MetaPage::decode(again.view(), {caw::BlockAddr{addr}, checksum}, level);
  FUZZ_CHECK(redecoded && content_of(**redecoded).entries == content.entries);
  return 0;
}
