// Inode records, dirents, links and numbers.
#include "schema/records.h"

#include "fuzz/fuzz.h"

namespace {

void check_inode(const caw::InodeRecord& record) {
  const caw::Result<caw::InodeRecord> again = caw::decode_inode(caw::encode_inode(record));
  FUZZ_CHECK(again && *again == record);
  // The patches of all that can change leave a record behind.
  for (const caw::Patch& patch :
       {caw::all_fields_patch(record.fields), caw::content_patch(record.fields),
        caw::attributes_patch(record.fields),
        caw::links_patch(record.fields.nlink, record.fields.ctime),
        caw::rename_patch(record.fields, record.name, record.target)}) {
    caw::Value value = caw::inline_value(caw::encode_inode(record));
    caw::apply_patch(value, patch);
    const caw::Result<caw::InodeRecord> patched = caw::decode_inode(caw::inline_bytes(value));
    FUZZ_CHECK(patched && *patched == record);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes = caw::as_input(data, size);
  if (const caw::Result<caw::InodeRecord> record = caw::decode_inode(bytes)) check_inode(*record);
  if (const caw::Result<caw::Dirent> dirent = caw::decode_dirent(bytes)) {
    const caw::Result<caw::Dirent> again = caw::decode_dirent(caw::encode_dirent(*dirent));
    FUZZ_CHECK(again && *again == *dirent);
  }
  if (const caw::Result<caw::LinkName> name = caw::decode_link_name(bytes)) {
    FUZZ_CHECK(caw::is_link_name(bytes) && caw::encode_link_name(*name) == bytes);
  }
  FUZZ_CHECK(!caw::is_link_name(bytes) || !caw::decode_inode(bytes));
  if (const caw::Result<caw::LinkEntry> link = caw::decode_link_entry(bytes)) {
    FUZZ_CHECK(caw::decode_link_entry(caw::encode_link_entry(*link)) == *link);
  }
  if (const caw::Result<uint64_t> number = caw::decode_number(bytes)) {
    FUZZ_CHECK(caw::decode_number(caw::encode_number(*number)) == *number);
  }
  return 0;
}
