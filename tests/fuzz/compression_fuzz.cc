// decompress on any bytes, open_blob, and compress back and forth.
#include "format/compression.h"

#include "format/node.h"
#include "fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  caw::Input input(caw::as_input(data, size));
  const auto method = static_cast<caw::Compression>(input.take<uint8_t>() % 3);
  const auto raw_bytes = input.take<uint32_t>();
  const std::string_view stored = input.rest();
  const caw::Result<std::string> raw = caw::decompress(method, stored, raw_bytes);
  if (raw) FUZZ_CHECK(raw->size() == raw_bytes && raw_bytes <= caw::kMaxNodePayload);

  std::string packed;
  const caw::Compression used = caw::compress(method, stored, &packed);
  const caw::Result<std::string> again =
      caw::decompress(used, packed, static_cast<uint32_t>(stored.size()));
  FUZZ_CHECK(again && *again == stored);

  caw::BlobRef blob;
  blob.addr = caw::BlockAddr{7};
  blob.stored_bytes = static_cast<uint32_t>(stored.size());
  blob.raw_bytes = raw_bytes;
  blob.compression = method;
  blob.checksum = caw::checksum64(stored);
  const caw::Result<std::string> opened = caw::open_blob(blob, stored);
  FUZZ_CHECK(!opened || (raw && *opened == *raw));
  return 0;
}
