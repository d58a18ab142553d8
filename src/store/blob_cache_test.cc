#include "store/blob_cache.h"

#include <gtest/gtest.h>

namespace caw {
namespace {

using Found = BlobCache::Found;

BlobRef blob_at(uint64_t addr, uint64_t checksum) {
  return BlobRef{BlockAddr{addr}, 4096, 4096, checksum, Compression::none};
}

Result<BlobDataRef> data_of(char fill) {
  return BlobDataRef(make_ref<const BlobData>(std::string(4096, fill)));
}

TEST(BlobCache, AddressAndChecksumAreTheKey) {
  BlobCache cache(1 << 20);
  BlobDataRef data;
  ASSERT_EQ(cache.find_or_claim(blob_at(9, 1), true, &data), Found::claimed);
  EXPECT_EQ(cache.find_or_claim(blob_at(9, 1), false, &data), Found::busy);
  EXPECT_EQ(cache.find_or_claim(blob_at(9, 2), false, &data), Found::bypass);
  cache.finish_load(blob_at(9, 1), data_of('a'));
  ASSERT_EQ(cache.find_or_claim(blob_at(9, 1), true, &data), Found::data);
  EXPECT_EQ(data->bytes()[0], 'a');
  ASSERT_EQ(cache.find_or_claim(blob_at(9, 2), true, &data), Found::claimed);
  cache.finish_load(blob_at(9, 2), data_of('b'));
  ASSERT_EQ(cache.find_or_claim(blob_at(9, 2), true, &data), Found::data);
  EXPECT_EQ(data->bytes()[0], 'b');
  EXPECT_EQ(cache.bytes(), 4096U);
}

TEST(BlobCache, FreedWhileBeingReadIsNotKept) {
  BlobCache cache(1 << 20);
  BlobDataRef data;
  ASSERT_EQ(cache.find_or_claim(blob_at(9, 1), true, &data), Found::claimed);
  cache.erase(BlockAddr{9});
  EXPECT_EQ(cache.find_or_claim(blob_at(9, 1), true, &data), Found::bypass);
  cache.finish_load(blob_at(9, 1), data_of('a'));
  EXPECT_EQ(cache.bytes(), 0U);
  EXPECT_EQ(cache.find_or_claim(blob_at(9, 1), true, &data), Found::claimed);
  cache.finish_load(blob_at(9, 1), fail(Code::device_read));
  EXPECT_EQ(cache.find_or_claim(blob_at(9, 1), true, &data), Found::claimed);
  cache.finish_load(blob_at(9, 1), data_of('a'));
  cache.erase(BlockAddr{9});
  EXPECT_EQ(cache.bytes(), 0U);
}

TEST(BlobCache, StaysWithinItsBound) {
  BlobCache cache(20 * 4096);
  BlobDataRef data;
  for (uint64_t addr = 1; addr <= 200; ++addr) {
    ASSERT_EQ(cache.find_or_claim(blob_at(addr, 1), true, &data), Found::claimed);
    cache.finish_load(blob_at(addr, 1), data_of('a'));
    EXPECT_LE(cache.bytes(), 20U * 4096U);
  }
  EXPECT_GT(cache.bytes(), 10U * 4096U);
}

}  // namespace
}  // namespace caw
