// ring.hpp: the bounded queue between readers and processors, of anything small and plain. It knows nothing of what it
// carries, and nobody waits in it: waiting is the parker's matter, the bound in messages and bytes the account's.
#ifndef WSENGINE_RING_HPP
#define WSENGINE_RING_HPP

#include "atomic.hpp"

namespace wsengine {

// A bounded multi-producer multi-consumer queue after Vyukov: each slot carries a 64-bit sequence number.
//   sequence == position              the slot is free for the producer of that position
//   sequence == position + 1          the slot holds the value of that position
//   sequence == position + capacity   the consumer has let it go: free for the next lap
// Positions never wrap in the life of a process, so there is no ABA. It never waits: a full ring takes nothing, an
// empty one gives nothing. A consumer stalled between claim and release holds back only its own slots.
template <class T> class Ring {
  struct alignas(32) Slot {
    Atomic<std::uint64_t> sequence;  // written by whoever owns the slot: producer, then consumer
    Plain<T> value;                  // the same owner; handed over by `sequence`
  };

 public:
  explicit Ring(std::uint32_t capacity)  // a power of two
      : mask_(capacity - 1), slots_(new Slot[capacity]) {
    for (std::uint32_t i = 0; i < capacity; ++i) slots_[i].sequence.store(i, WS_ORDER(ring_init, relaxed));
    head_.store(0, WS_ORDER(ring_init, relaxed));
    tail_.store(0, WS_ORDER(ring_init, relaxed));
  }
  ~Ring() { delete[] slots_; }
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  std::uint32_t capacity() const { return static_cast<std::uint32_t>(mask_ + 1); }

  // Reserve up to `wanted` positions in a row, from `*position` on; returns how many, 0 if the ring is full.
  // Each must then be given to put(), in any order and soon: consumers cannot pass an unfilled slot.
  std::uint32_t reserve(std::uint32_t wanted, std::uint64_t* position) {
    std::uint64_t at = tail_.load(WS_ORDER(ring_tail_load, relaxed));  // only a hint: the CAS decides
    for (;;) {
      std::uint32_t n = 0;
      std::uint64_t seen = 0;
      while (n < wanted) {
        // pairs with ring_free: the consumer's copy is done before we write over it
        seen = slot(at + n).sequence.load(WS_ORDER(ring_free_seen, acquire));
        if (seen != at + n) break;
        ++n;
      }
      if (n == 0) {
        if (wanted == 0 || static_cast<std::int64_t>(seen - at) < 0) return 0;  // still holds the lap before: full
        at = tail_.load(WS_ORDER(ring_tail_load, relaxed));                     // another producer was first
        continue;
      }
      // relaxed: what a position means is carried by its slot's sequence, not by the tail
      if (tail_.compare_exchange_weak(at, at + n, WS_ORDER(ring_tail_cas, relaxed), WS_ORDER(ring_tail_cas, relaxed))) {
        *position = at;
        return n;
      }
    }
  }

  void put(std::uint64_t position, const T& value) {
    Slot& s = slot(position);
    WS_WRITE(s.value, value);
    s.sequence.store(position + 1, WS_ORDER(ring_publish, release));  // pairs with ring_ready_seen
  }

  // All of `values` that fit, in order; returns how many.
  std::uint32_t push(const T* values, std::uint32_t n) {
    std::uint32_t done = 0;
    std::uint64_t at = 0;
    while (done < n) {
      std::uint32_t got = reserve(n - done, &at);
      if (got == 0) break;
      for (std::uint32_t i = 0; i < got; ++i) put(at + i, values[done + i]);
      done += got;
    }
    return done;
  }

  // Another core wrote the slots that come next, so whoever will soon push or claim them fetches them meanwhile.
  std::uint64_t tail() const { return tail_.load(WS_ORDER(ring_tail_load, relaxed)); }
  std::uint64_t head() const { return head_.load(WS_ORDER(ring_head_load, relaxed)); }
  void fetch(std::uint64_t position) { WS_FETCH(&slot(position)); }

  // Claim up to `most` values in a row by one compare-and-swap, after they are there, never before; returns how many.
  std::uint32_t claim(std::uint32_t most, std::uint64_t* position) {
    std::uint64_t at = head_.load(WS_ORDER(ring_head_load, relaxed));  // only a hint: the CAS decides
    for (;;) {
      std::uint32_t n = 0;
      std::uint64_t seen = 0;
      while (n < most) {
        // pairs with ring_publish: the value is whole before we read it
        seen = slot(at + n).sequence.load(WS_ORDER(ring_ready_seen, acquire));
        if (seen != at + n + 1) break;
        ++n;
      }
      if (n == 0) {
        if (most == 0 || static_cast<std::int64_t>(seen - (at + 1)) < 0) return 0;  // not filled yet: empty
        at = head_.load(WS_ORDER(ring_head_load, relaxed));                         // another consumer was first
        continue;
      }
      if (head_.compare_exchange_weak(at, at + n, WS_ORDER(ring_head_cas, relaxed), WS_ORDER(ring_head_cas, relaxed))) {
        WS_PAUSE(after_claim);
        *position = at;
        return n;
      }
    }
  }

  T take(std::uint64_t position) { return WS_READ(slot(position).value); }

  void release(std::uint64_t position) {
    slot(position).sequence.store(position + mask_ + 1, WS_ORDER(ring_free, release));  // pairs with ring_free_seen
  }

  // Claim, copy out and release; returns how many of `most`.
  std::uint32_t pop(T* values, std::uint32_t most) {
    std::uint64_t at = 0;
    std::uint32_t n = claim(most, &at);
    for (std::uint32_t i = 0; i < n; ++i) {
      values[i] = take(at + i);
      release(at + i);
    }
    return n;
  }

  // Is the next value there? Exact for one consumer; with several, a true may be overtaken.
  bool ready() const {
    std::uint64_t at = head_.load(WS_ORDER(ring_head_load, relaxed));
    for (;;) {
      // acquire, as a parker's re-check: pairs with ring_publish
      std::uint64_t seen = slots_[at & mask_].sequence.load(WS_ORDER(ring_ready_peek, acquire));
      if (seen == at + 1) return true;
      if (static_cast<std::int64_t>(seen - (at + 1)) < 0) return false;
      at = head_.load(WS_ORDER(ring_head_load, relaxed));  // the head went on meanwhile
    }
  }

  // About how many values wait: for sizes of chunks and for figures, never for decisions on emptiness.
  std::uint32_t depth() const {
    std::uint64_t head = head_.load(WS_ORDER(ring_head_load, relaxed));
    std::uint64_t tail = tail_.load(WS_ORDER(ring_tail_load, relaxed));
    return tail > head ? static_cast<std::uint32_t>(tail - head) : 0;
  }

 private:
  Slot& slot(std::uint64_t position) { return slots_[position & mask_]; }

  alignas(kLine) Atomic<std::uint64_t> head_;  // next position to claim; consumers, by CAS
  alignas(kLine) Atomic<std::uint64_t> tail_;  // next position to reserve; producers, by CAS
  alignas(kLine) const std::uint64_t mask_;
  Slot* const slots_;
};

}  // namespace wsengine
#endif
