// slab.hpp: receive buffers, and how a message that lies in one travels through the ring.
#ifndef WSENGINE_SLAB_HPP
#define WSENGINE_SLAB_HPP

#include "account.hpp"
#include "stack.hpp"

namespace wsengine {

// A receive buffer. The reader holds one reference while it fills it, each message in it one more; whoever drops the
// last one gives it back: to the pool if it is of the pool's size, to the allocator if it was made for one message.
class SlabPool;
struct Slab {
  Atomic<std::uint32_t> refs;  // the reader adds before it publishes, everyone subtracts
  std::uint64_t capacity;      // bytes of data; set before the slab is shared
  SlabPool* pool;
  Plain<Slab*> next;  // while it lies in the pool
  std::uint8_t* data() { return reinterpret_cast<std::uint8_t*>(this + 1); }
};

class SlabPool {
 public:
  SlabPool(std::uint64_t slab_bytes, std::uint32_t most_spare, Account* account)
      : slab_bytes_(slab_bytes), most_spare_(most_spare), account_(account), mine_(nullptr) {
    spare_.store(0, WS_ORDER(pool_init, relaxed));
    live_.store(0, WS_ORDER(pool_init, relaxed));
  }
  ~SlabPool() {
    drop(mine_);
    drop(returned_.take());
  }
  std::uint64_t slab_bytes() const { return slab_bytes_; }
  std::uint32_t live() const { return live_.load(WS_ORDER(pool_live, relaxed)); }  // slabs out of the pool: a figure

  // The reader only. A slab of `bytes` (0: the pool's size) with one reference; nullptr if memory is out.
  Slab* acquire(std::uint64_t bytes = 0) {
    bool own = bytes == 0 || bytes == slab_bytes_;
    Slab* slab = own ? reuse() : nullptr;
    if (!slab) {
      std::uint64_t capacity = own ? slab_bytes_ : bytes;
      void* memory = std::malloc(sizeof(Slab) + capacity);
      if (!memory) return nullptr;
      slab = new (memory) Slab;
      slab->capacity = capacity;
      slab->pool = this;
    }
    slab->refs.store(1, WS_ORDER(slab_first, relaxed));  // alone: not shared yet
    live_.fetch_add(1, WS_ORDER(pool_live, relaxed));
    account_->charge(0, slab->capacity);
    return slab;
  }
  static void add(Slab* slab, std::uint32_t n) {
    slab->refs.fetch_add(n, WS_ORDER(slab_add, relaxed));  // alone: we hold one, and publish them by ring_publish
  }
  static void drop(Slab* slab, std::uint32_t n) {
    // acq_rel: our reads are done before the count falls (release), and the last one sees all others' (acquire)
    if (slab->refs.fetch_sub(n, WS_ORDER(slab_drop, acq_rel)) == n) slab->pool->take_back(slab);
  }
  Account* account() const { return account_; }

 private:
  Slab* reuse() {
    if (!mine_) mine_ = returned_.take();
    Slab* slab = mine_;
    if (!slab) return nullptr;
    mine_ = WS_READ(slab->next);
    spare_.fetch_sub(1, WS_ORDER(pool_spare, relaxed));
    return slab;
  }
  void take_back(Slab* slab) {
    std::uint64_t capacity = slab->capacity;
    live_.fetch_sub(1, WS_ORDER(pool_live, relaxed));
    Account* account = account_;  // the slab may be the reader's again, or gone, as soon as it is pushed
    if (capacity == slab_bytes_ && spare_.fetch_add(1, WS_ORDER(pool_spare, relaxed)) < most_spare_) {
      returned_.push(slab);
    } else {
      if (capacity == slab_bytes_) spare_.fetch_sub(1, WS_ORDER(pool_spare, relaxed));
      destroy(slab);
    }
    account->release(0, capacity);
  }
  static void destroy(Slab* slab) {
    slab->~Slab();
    std::free(slab);
  }
  static void drop(Slab* list) {
    while (list) {
      Slab* next = WS_READ(list->next);
      destroy(list);
      list = next;
    }
  }

  const std::uint64_t slab_bytes_;
  const std::uint32_t most_spare_;
  Account* const account_;
  Slab* mine_;                    // spare slabs taken out of `returned_`; the reader only
  Stack<Slab> returned_;          // slabs given back; everyone pushes, the reader takes
  Atomic<std::uint32_t> spare_;   // about how many lie in both; a bound, so its order carries nothing
  Atomic<std::uint32_t> live_;    // slabs out of the pool; a figure
};

// What the messages of one read have in common. It lies in their slab and lives as long; written by the reader before
// it publishes the first of them (ring_publish), never changed after.
struct Arrival {
  Slab* slab;
  std::uint64_t sequence;    // of the message with ordinal 0, per connection and epoch
  std::int64_t received_ns;  // monotonic, of the recv
  std::uint32_t epoch;       // connection generation
  std::uint32_t index;       // which connection of the producer
};

// One received message, as it travels through the ring. 24 bytes: with its sequence two slots fill a line, and a
// message costs half a line's way from core to core.
struct Descriptor {
  const std::uint8_t* data;
  const Arrival* arrival;
  std::uint32_t size;          // bytes
  std::uint32_t ordinal : 29;  // in its arrival; a read of 2^30 bytes has fewer messages
  std::uint32_t keyless : 1;   // it has no key, where partitions are chosen by keys
  std::uint32_t opcode : 2;    // 1 text, 2 binary
};

#ifndef WS_MODEL
static_assert(sizeof(Descriptor) == 24, "two slots of Ring<Descriptor> fill one cache line");
#endif

}  // namespace wsengine
#endif
