#include "store/node_store.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/assert.h"
#include "store/store_impl.h"

namespace caw {
namespace {

/// Numbers kept ahead of use at each checkpoint, so that none is given out twice after a crash; a
/// checkpoint is due when half of them are gone.  Node, entry, file, domain, chunk and change
/// numbers: an operation draws some of the first three and the last; chunk numbers have 36 bits.
constexpr std::array<uint64_t, kCounters> kSlack = {1U << 20, 1U << 20, 1U << 20, 1U << 16,
                                                    1U << 12, 1U << 22, 1U << 12, 1U << 12};

/// Read together, about 1 MiB: a reader that wants one of them waits for no more than that.
constexpr size_t kPrefetchBatch = 8;

Result<void> write_superblock(BlockDevice& device, const Superblock& superblock, unsigned slot) {
  const AlignedBuffer block = encode_superblock(superblock);
  return device.write(BlockAddr{slot}, block.span());
}

struct FoundSuperblock {
  Superblock superblock;
  unsigned slot = 0;
};

Result<FoundSuperblock> read_superblock(BlockDevice& device) {
  std::optional<FoundSuperblock> best;
  Error error{};
  for (unsigned slot = 0; slot < 2; ++slot) {
    AlignedBuffer block(kBlockSize);
    const Result<void> read = device.read(BlockAddr{slot}, block.span());
    Result<Superblock> decoded =
        read ? decode_superblock(block.view()) : std::unexpected<Error>(read.error());
    if (!decoded) {
      const bool says_more = error.code == Code::unknown || error.code == Code::not_a_volume;
      if (says_more) error = decoded.error();
      continue;
    }
    if (!best || decoded->epoch > best->superblock.epoch) {
      best = FoundSuperblock{std::move(*decoded), slot};
    }
  }
  if (!best) return std::unexpected<Error>(error);
  return std::move(*best);
}

}  // namespace

uint64_t number_slack(size_t counter) { return kSlack[counter]; }

Result<void> NodeStore::format(BlockDevice& device, Superblock superblock) {
  ignore_error(device.discard(BlockAddr{0}, device.block_count()), "only saves space");
  const AlignedBuffer zeros(kBlockSize);
  for (unsigned slot = 0; slot < 2; ++slot) {
    CAW_TRY(device.write(BlockAddr{slot}, zeros.span()));
  }
  CAW_TRY(device.flush());
  if (superblock.block_count == 0) superblock.block_count = device.block_count();
  if (superblock.block_count > device.block_count()) {
    return fail(Code::volume_truncated, device.block_count(), "format");
  }
  for (uint64_t& next : superblock.counters) next = std::max<uint64_t>(next, 1);
  uint64_t& next_node = superblock.counters[static_cast<size_t>(Counter::node_id)];
  next_node = std::max(next_node, raw(superblock.system_tree) + 1);
  superblock.next_seq = std::max<Seq>(superblock.next_seq, 1);
  superblock.meta_root = PageRef{};
  superblock.meta_height = 0;
  CAW_TRY(Allocator::format(device, superblock));
  CAW_TRY(device.flush());
  // The second is the older one's copy, so that both are valid from the first moment.
  for (unsigned slot = 0; slot < 2; ++slot) {
    superblock.epoch = 2 - slot;
    CAW_TRY(write_superblock(device, superblock, slot));
  }
  return device.flush();
}

Result<std::unique_ptr<NodeStore>> NodeStore::open(std::unique_ptr<BlockDevice> device,
                                                   const StoreOptions& options) {
  FoundSuperblock found = CAW_TRY(read_superblock(*device));
  if (found.superblock.block_count > device->block_count()) {
    return fail(Code::volume_truncated, device->block_count(), "open");
  }
  NodeStoreImpl::Parts parts;
  parts.allocator = CAW_TRY(Allocator::open(*device, found.superblock));
  if (options.wrap_allocator) parts.allocator = options.wrap_allocator(std::move(parts.allocator));
  parts.meta = MetaStore::open(*device, *parts.allocator, found.superblock.meta_root,
                               found.superblock.meta_height, options.cache_bytes / 100 * 15);
  parts.device = std::move(device);
  parts.superblock = std::move(found.superblock);
  parts.superblock_slot = found.slot;
  parts.options = options;
  parts.options.read_only = options.read_only || parts.device->read_only();
  auto store = std::make_unique<NodeStoreImpl>(std::move(parts));
  CAW_TRY(store->load_dead());
  CAW_TRY(store->check_numbers());
  return store;
}

Result<void> NodeStoreImpl::check_numbers() {
  const uint64_t next = next_numbers_[static_cast<size_t>(Counter::node_id)].load();
  for (const MetaSpace space : {MetaSpace::node, MetaSpace::node_count, MetaSpace::dead_node}) {
    uint64_t beyond = 0;
    ignore_error(meta_->scan(space, next,
                             [&](uint64_t id, std::string_view /*value*/) {
                               beyond = id;
                               return false;
                             }),
                 "a damaged page shows when it is needed");
    if (beyond != 0) return fail(Code::node_entry, beyond, "a number that was never drawn");
  }
  return {};
}

NodeStoreImpl::NodeStoreImpl(Parts parts)
    : device_(std::move(parts.device)),
      allocator_(std::move(parts.allocator)),
      meta_(std::move(parts.meta)),
      superblock_(parts.superblock),
      options_(parts.options),
      open_epoch_(parts.superblock.epoch + 1),
      durable_(parts.superblock),
      durable_slot_(parts.superblock_slot),
      log_segments_(parts.superblock.log_segments),
      images_(options_.cache_bytes / 100 * 60),
      blob_cache_(options_.cache_bytes / 100 * 25),
      node_counts_(*meta_, MetaSpace::node_count),
      blob_counts_(*meta_, MetaSpace::blob_count) {
  for (size_t i = 0; i < kCounters; ++i) {
    next_numbers_[i] = std::max<uint64_t>(superblock_.counters[i], 1);
    safe_numbers_[i] = superblock_.counters[i];
  }
}

uint64_t NodeStoreImpl::draw(Counter counter, uint64_t n) {
  return next_numbers_[static_cast<size_t>(counter)].fetch_add(n);
}

void NodeStoreImpl::keep_number(Counter counter, uint64_t number) {
  std::atomic<uint64_t>& next = next_numbers_[static_cast<size_t>(counter)];
  uint64_t now = next.load();
  while (now <= number && !next.compare_exchange_weak(now, number + 1)) {
  }
}

bool NodeStoreImpl::needs_checkpoint() const {
  for (size_t i = 0; i < kCounters; ++i) {
    const uint64_t next = next_numbers_[i].load();
    if (next > superblock_.counters[i] && next + number_slack(i) / 2 > safe_numbers_[i].load()) {
      return true;
    }
  }
  return false;
}

void NodeStoreImpl::mark_failed(const Error& reason) {
  {
    std::lock_guard lock(failure_mutex_);
    if (failure_) return;
    failure_ = reason;
    failed_ = true;
  }
  options_.on_failure(reason);
}

std::optional<Error> NodeStoreImpl::failure() const {
  std::lock_guard lock(failure_mutex_);
  return failure_;
}

Epoch NodeStoreImpl::live_epoch(Epoch epoch) const {
  const Epoch sealing = sealing_epoch_.load();
  const bool may_change = sealing != 0 && !sealing_closed_;
  return may_change && epoch <= sealing ? sealing : open_epoch();
}

Result<void> NodeStoreImpl::check_writable() const {
  if (options_.read_only) return fail(Code::read_only);
  if (failed()) return fail(Code::volume_failed);
  return {};
}

// ---- images

Result<std::optional<NodeEntry>> NodeStoreImpl::find_entry(NodeId id) {
  const std::optional<std::string> stored = CAW_TRY(meta_->get({MetaSpace::node, raw(id)}));
  if (!stored) return std::nullopt;
  return CAW_TRY(decode_node_entry(*stored));
}

Result<ImageRef> NodeStoreImpl::decode_image(NodeId id, const NodeEntry& entry,
                                             std::string_view stored) {
  OpenedNode node = CAW_TRY(open_node(stored.substr(0, entry.stored_bytes), id, entry.checksum));
  if (node.info.kind != entry.kind || node.info.height != entry.height ||
      node.info.owns_refs != entry.owns_refs) {
    return fail(Code::node_header, raw(id), "header and table differ");
  }
  figures_.node_reads.fetch_add(1, std::memory_order_relaxed);
  figures_.node_read_bytes.fetch_add(stored.size(), std::memory_order_relaxed);
  if (entry.kind == NodeKind::interior) {
    Interior interior = CAW_TRY(decode_interior(node.payload));
    if (interior.height != entry.height) return fail(Code::node_header, raw(id), "height");
    return ImageRef(make_ref<const InteriorImage>(std::move(interior)));
  }
  CAW_TRY(SortedBlock::open(node.payload));
  return ImageRef(make_ref<const BlockImage>(entry.kind, std::move(node.payload),
                                             entry.owns_refs, node.info.max_seq));
}

Result<ImageRef> NodeStoreImpl::load_image(NodeId id) {
  const std::optional<NodeEntry> entry = CAW_TRY(find_entry(id));
  if (!entry) return fail(Code::node_absent, raw(id));
  AlignedBuffer stored(entry->stored_bytes);
  CAW_TRY(device_->read(entry->addr, stored.span()));
  return decode_image(id, *entry, stored.view());
}

Result<ImageRef> NodeStoreImpl::get(NodeId id) {
  ImageRef image;
  switch (images_.find_or_claim(id, /*wait=*/true, &image)) {
    case ImageCache::Found::image:
      return image;
    case ImageCache::Found::claimed:
      break;
    case ImageCache::Found::dropped:
    case ImageCache::Found::busy:
    case ImageCache::Found::missing:
      return fail(Code::node_absent, raw(id));
  }
  Result<ImageRef> loaded = images_.finish_load(id, load_image(id));
  images_.evict();
  return loaded;
}

ImageRef NodeStoreImpl::get_cached(NodeId id) {
  ImageRef image;
  images_.find(id, &image);
  return image;
}

void NodeStoreImpl::prefetch(std::span<const NodeId> ids) {
  std::vector<NodeId> wanted;
  for (const NodeId id : ids) {
    ImageRef image;
    if (images_.find(id, &image) == ImageCache::Found::missing) wanted.push_back(id);
  }
  if (wanted.empty()) return;
  prefetcher_.submit([this, wanted = std::move(wanted)] {
    const std::span<const NodeId> all(wanted);
    for (size_t at = 0; at < all.size(); at += kPrefetchBatch) {
      load_images(all.subspan(at, std::min(kPrefetchBatch, all.size() - at)));
    }
  });
}

/// One batch of reads; errors are left to the reader that wants the node.
void NodeStoreImpl::load_images(std::span<const NodeId> ids) {
  struct Item {
    NodeId id;
    NodeEntry entry;
    AlignedBuffer stored;
  };
  std::vector<Item> items;
  for (const NodeId id : ids) {
    ImageRef image;
    if (images_.find_or_claim(id, /*wait=*/false, &image) != ImageCache::Found::claimed) continue;
    const Result<std::optional<NodeEntry>> entry = find_entry(id);
    if (!entry || !*entry) {
      ignore_error(images_.finish_load(id, fail(Code::node_absent, raw(id))), "a hint");
      continue;
    }
    items.push_back({id, **entry, AlignedBuffer((*entry)->stored_bytes)});
  }
  std::vector<ReadRequest> requests;
  for (Item& item : items) requests.push_back({item.entry.addr, item.stored.span()});
  const Result<void> read = device_->read_batch(requests);
  for (Item& item : items) {
    Result<ImageRef> image = read ? decode_image(item.id, item.entry, item.stored.view())
                                  : std::unexpected<Error>(read.error());
    ignore_error(images_.finish_load(item.id, std::move(image)), "a hint");
  }
  images_.evict();
}

void NodeStoreImpl::publish(NodeId id, ImageRef image, Epoch epoch) {
  CAW_ASSERT(epoch == open_epoch() || (epoch == sealing_epoch_ && !sealing_closed_));
  if (!images_.publish(id, std::move(image), epoch)) {
    mark_failed({Code::node_absent, 0, raw(id), "a change to a node that was dropped"});
  }
}

// ---- counts

void NodeStoreImpl::add_node_ref(NodeId id, int64_t delta, Epoch epoch) {
  if (!node_counts_.add(raw(id), delta, epoch, 0)) {
    mark_failed({Code::count_underflow, 0, raw(id), "a reference to a freed node"});
  }
}

void NodeStoreImpl::add_blob_ref(const BlobRef& blob, int64_t delta, Epoch epoch) {
  if (!blob_counts_.add(raw(blob.addr), delta, epoch, blob.blocks())) {
    mark_failed({Code::count_underflow, 0, raw(blob.addr), "a reference to a freed blob"});
  }
}

void NodeStoreImpl::add_image_refs(const Image& image, int64_t delta, Epoch epoch) {
  visit_refs(image, RefVisitor{
                        .node = [&](NodeId id) { add_node_ref(id, delta, epoch); },
                        .blob = [&](const BlobRef& blob) { add_blob_ref(blob, delta, epoch); },
                    });
}

Result<uint64_t> NodeStoreImpl::node_count(NodeId id) {
  const int64_t count = CAW_TRY(node_counts_.count(raw(id)));
  if (count < 0) return fail(Code::count_underflow, raw(id));
  return static_cast<uint64_t>(count);
}

// ---- blobs

Result<BlobRef> NodeStoreImpl::write_blob(std::string_view raw_bytes, SpaceClass space_class) {
  CAW_TRY(check_writable());
  SealedBlob blob = seal_blob(raw_bytes, superblock_.compression);
  const uint64_t blocks = blob.ref.blocks();
  if (space_class == SpaceClass::ordinary) {
    // Dirty nodes were promised a place before this blob.
    const SpaceFigures figures = space();
    const uint64_t kept = figures.reserve_blocks + blocks_for(dirty_bytes());
    if (figures.used_blocks + kept + blocks > figures.total_blocks) return fail(Code::no_space);
  }
  blob.ref.addr = CAW_TRY(allocator_->reserve(blocks, space_class));
  const Result<void> written = device_->write(blob.ref.addr, blob.bytes.span());
  if (!written) {
    allocator_->cancel(Extent{blob.ref.addr, blocks});
    if (written.error().code != Code::device_full) mark_failed(written.error());
    return std::unexpected<Error>(written.error());
  }
  figures_.blob_writes.fetch_add(1, std::memory_order_relaxed);
  figures_.blob_write_bytes.fetch_add(blob.bytes.size(), std::memory_order_relaxed);
  return blob.ref;
}

void NodeStoreImpl::commit_blob(const BlobRef& blob, Epoch epoch) {
  allocator_->commit(Extent{blob.addr, blob.blocks()}, epoch);
}

void NodeStoreImpl::cancel_blob(const BlobRef& blob) {
  blob_cache_.erase(blob.addr);
  allocator_->cancel(Extent{blob.addr, blob.blocks()});
}

void NodeStoreImpl::free_blob(BlockAddr addr, uint64_t blocks, Epoch epoch) {
  blob_cache_.erase(addr);
  allocator_->free(Extent{addr, blocks}, epoch);
}

Result<BlobDataRef> NodeStoreImpl::load_blob(const BlobRef& blob) {
  AlignedBuffer stored(blob.stored_bytes);
  CAW_TRY(device_->read(blob.addr, stored.span()));
  figures_.blob_reads.fetch_add(1, std::memory_order_relaxed);
  figures_.blob_read_bytes.fetch_add(stored.size(), std::memory_order_relaxed);
  return BlobDataRef(make_ref<const BlobData>(
      CAW_TRY(open_blob(blob, stored.view().substr(0, blob.stored_bytes)))));
}

Result<void> NodeStoreImpl::read_blob(const BlobRef& blob, uint32_t offset, std::span<char> out) {
  CAW_ASSERT(uint64_t{offset} + out.size() <= blob.raw_bytes);
  BlobDataRef data;
  const BlobCache::Found found = blob_cache_.find_or_claim(blob, /*wait=*/true, &data);
  if (found != BlobCache::Found::data) {
    Result<BlobDataRef> loaded = load_blob(blob);
    if (found == BlobCache::Found::claimed) blob_cache_.finish_load(blob, loaded);
    data = CAW_TRY(std::move(loaded));
  }
  if (data->bytes().size() != blob.raw_bytes) {
    return fail(Code::blob_checksum, raw(blob.addr), "length");
  }
  std::copy_n(data->bytes().data() + offset, out.size(), out.data());
  return {};
}

Result<bool> NodeStoreImpl::blob_is_whole(const BlobRef& blob) {
  if (raw(blob.addr) + blob.blocks() > superblock_.block_count) return false;
  const Result<BlobDataRef> loaded = load_blob(blob);
  if (loaded) return true;
  if (loaded.error().code == Code::device_read) return std::unexpected<Error>(loaded.error());
  return false;
}

Result<bool> NodeStoreImpl::claim_blob(const BlobRef& blob) {
  return allocator_->claim(Extent{blob.addr, blob.blocks()});
}

void NodeStoreImpl::prefetch_blobs(std::span<const BlobRef> blobs) {
  if (blobs.empty()) return;
  prefetcher_.submit([this, wanted = std::vector<BlobRef>(blobs.begin(), blobs.end())] {
    const std::span<const BlobRef> all(wanted);
    for (size_t at = 0; at < all.size(); at += kPrefetchBatch) {
      load_blobs(all.subspan(at, std::min(kPrefetchBatch, all.size() - at)));
    }
  });
}

void NodeStoreImpl::load_blobs(std::span<const BlobRef> blobs) {
  struct Item {
    BlobRef blob;
    AlignedBuffer stored;
  };
  std::vector<Item> items;
  for (const BlobRef& blob : blobs) {
    BlobDataRef data;
    if (blob_cache_.find_or_claim(blob, false, &data) != BlobCache::Found::claimed) continue;
    items.push_back({blob, AlignedBuffer(blob.stored_bytes)});
  }
  std::vector<ReadRequest> requests;
  for (Item& item : items) requests.push_back({item.blob.addr, item.stored.span()});
  const Result<void> read = device_->read_batch(requests);
  for (Item& item : items) {
    Result<BlobDataRef> data = fail(Code::device_read, raw(item.blob.addr));
    if (read) {
      figures_.blob_reads.fetch_add(1, std::memory_order_relaxed);
      figures_.blob_read_bytes.fetch_add(item.stored.size(), std::memory_order_relaxed);
      Result<std::string> bytes =
          open_blob(item.blob, item.stored.view().substr(0, item.blob.stored_bytes));
      if (bytes) data = BlobDataRef(make_ref<const BlobData>(std::move(*bytes)));
    }
    blob_cache_.finish_load(item.blob, data);
  }
}

// ---- checkpoints and figures

Epoch NodeStoreImpl::begin_checkpoint() {
  const Epoch epoch = open_epoch_.load();
  if (failed()) return epoch;
  CAW_ASSERT(sealing_epoch_ == 0 || !sealing_closed_);
  if (sealing_epoch_ != 0) give_up_sealing(sealing_epoch_);
  sealing_closed_ = false;
  sealing_epoch_ = epoch;
  open_epoch_ = epoch + 1;
  return epoch;
}

StoreCounters NodeStoreImpl::counters() const {
  StoreCounters out;
  out.node_reads = figures_.node_reads;
  out.node_read_bytes = figures_.node_read_bytes;
  out.node_writes = figures_.node_writes;
  out.node_write_bytes = figures_.node_write_bytes;
  out.blob_reads = figures_.blob_reads;
  out.blob_read_bytes = figures_.blob_read_bytes;
  out.blob_writes = figures_.blob_writes;
  out.blob_write_bytes = figures_.blob_write_bytes;
  out.checkpoints = figures_.checkpoints;
  out.cache_bytes = images_.clean_bytes() + blob_cache_.bytes() + meta_->cached_bytes();
  out.dirty_bytes = images_.dirty_bytes();
  out.dead_nodes = dead_.size();
  return out;
}

}  // namespace caw
