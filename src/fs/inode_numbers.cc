#include "fs/inode_numbers.h"

#include <mutex>

#include "fs/values.h"
#include "schema/keys.h"
#include "schema/records.h"

namespace caw {

namespace {

constexpr unsigned kLowBits = 28;
constexpr uint64_t kLowMask = (uint64_t{1} << kLowBits) - 1;
constexpr uint64_t kMaxChunk = (uint64_t{1} << 36) - 1;

/// Puts into the system tree, which is private under every generation.
Result<void> put_number(Forest& forest, const std::string& key, uint64_t number) {
  while (true) {
    Batch batch;
    batch.generation = forest.share_generation();
    batch.put(forest.system_tree(), key, inline_value(encode_number(number)));
    const Result<void> applied = forest.apply(batch);
    if (applied || applied.error().code != Code::tree_not_private) return applied;
  }
}

}  // namespace

InodeNumbers::InodeNumbers(Forest& forest)
    : forest_(forest),
      domains_(forest, Counter::domain, kRootDomain + 1, 16),
      chunks_(forest, Counter::chunk, 1, 16) {}

template <typename Key, typename Give>
Result<uint64_t> InodeNumbers::look_up(absl::flat_hash_map<Key, uint64_t>& cache, const Key& key,
                                       const std::string& tree_key, const Give& give) {
  {
    std::shared_lock lock(mutex_);
    const auto at = cache.find(key);
    if (at != cache.end()) return at->second;
  }
  std::unique_lock lock(mutex_);
  const auto at = cache.find(key);
  if (at != cache.end()) return at->second;
  uint64_t number = 0;
  const auto unsaved = unsaved_.find(tree_key);
  if (unsaved != unsaved_.end()) {
    number = unsaved->second;
  } else {
    const std::optional<Value> value = CAW_TRY(forest_.get(forest_.system_tree(), tree_key));
    if (value) {
      number = CAW_TRY(decode_number(CAW_TRY(read_record(forest_, *value))));
    } else {
      number = CAW_TRY(give());
      save_one(tree_key, number);
    }
  }
  if (cache.size() >= kMaxCached) cache.clear();
  cache.emplace(key, number);
  return number;
}

void InodeNumbers::save_one(const std::string& key, uint64_t number) {
  if (forest_.read_only() || !put_number(forest_, key, number)) unsaved_.emplace(key, number);
}

Result<void> InodeNumbers::save() {
  std::unique_lock lock(mutex_);
  if (forest_.read_only()) return {};
  while (!unsaved_.empty()) {
    const auto at = unsaved_.begin();
    CAW_TRY(put_number(forest_, at->first, at->second));
    unsaved_.erase(at);
  }
  return {};
}

Result<uint64_t> InodeNumbers::domain_of(uint64_t context, uint64_t home, uint64_t domain) {
  if (domain == 0) return context;
  if (home == context) return domain;
  return look_up(domain_map_, Triple{context, home, domain}, domain_map_key(context, home, domain),
                 [&]() -> Result<uint64_t> { return domains_.next(); });
}

Result<uint64_t> InodeNumbers::shown(uint64_t domain, uint64_t number) {
  const uint64_t high = number >> kLowBits;
  const uint64_t low = number & kLowMask;
  if (domain == kRootDomain && high == 0) return low;
  const uint64_t chunk = CAW_TRY(look_up(chunk_map_, Pair{domain, high},
                                         chunk_map_key(domain, high), [&]() -> Result<uint64_t> {
                                           const uint64_t next = chunks_.next();
                                           if (next > kMaxChunk)
                                             return fail(Code::no_space, next, "inode numbers");
                                           return next;
                                         }));
  if (chunk == 0 || chunk > kMaxChunk) return fail(Code::record_malformed, chunk, "chunk map");
  return (chunk << kLowBits) | low;
}

}  // namespace caw
