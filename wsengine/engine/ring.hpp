// ring.hpp: everything that two threads of the engine touch at once, and nothing else.
//
// Ring (bounded queue of T), Parker (the only place where a processor waits), Stack (a lock-free mailbox), Slab and
// SlabPool (reference-counted receive buffers), Account (the bound in messages and bytes) and Doorbell (how a reader is
// woken out of its poll). No Python, no sockets, no statics, no exceptions, no fences: every order belongs to an atomic
// operation, because thread sanitizers cannot see fences.
//
// The same text is compiled three times: into the extensions, into model checks (WS_MODEL, tests/model), which replace
// Atomic and Plain and run mutants with each tagged order weakened, and into a stress binary under ThreadSanitizer.
// Each WS_ORDER(tag, order) is one such order. What it pairs with stands beside it as "pairs with <tag>"; "alone" is
// an order that needs no partner.
#ifndef WSENGINE_RING_HPP
#define WSENGINE_RING_HPP

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifdef WS_MODEL
#define WS_FETCH(address) ((void)0)
#endif
#ifndef WS_MODEL
#include <atomic>
#include <cerrno>
#include <climits>
#include <ctime>
#include <poll.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/futex.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#else
#include <chrono>
#include <condition_variable>
#include <fcntl.h>
#include <mutex>
#endif

#define WS_ORDER(tag, order) std::memory_order_##order
#define WS_READ(plain) (plain)
#define WS_WRITE(plain, value) ((plain) = (value))
#ifndef WS_PAUSE
#define WS_PAUSE(point) ((void)0)  // tests stop a thread here: see tests/stress
#endif
// Fetch a line that is about to be read and written: owned at once, where a plain fetch would have it shared first.
#if defined(__x86_64__)
#define WS_FETCH(address) __asm__ volatile("prefetchw %0" : : "m"(*reinterpret_cast<const char*>(address)))
#else
#define WS_FETCH(address) __builtin_prefetch(address, 1)
#endif
namespace wsengine {
template <class T> using Atomic = std::atomic<T>;
template <class T> using Plain = T;
}
#endif

namespace wsengine {

// Two lines: adjacent-line prefetch on x86 and 128-byte lines on Apple's cores make neighbours of 64-byte lines.
constexpr std::size_t kLine = 128;

// ---------------------------------------------------------------------------------------------------------------- Ring
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

// -------------------------------------------------------------------------------------------------------------- Parker
// A word that threads sleep on until it changes: futex on Linux, mutex and condition elsewhere; the model has its own.
#ifndef WS_MODEL
class WaitWord {
 public:
  WaitWord() : value_(0) {}
  std::uint32_t load() const { return value_.load(WS_ORDER(word_load, acquire)); }  // pairs with word_bump
  // Sleep while the word is `seen`, at most `ns` (below 0: no limit). Returns early on signals and for no reason.
#ifdef __linux__
  void wait(std::uint32_t seen, std::int64_t ns) {
    timespec limit{static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, ns < 0 ? nullptr : &limit, nullptr, 0);
  }
  void bump_and_wake(std::uint32_t threads) {
    value_.fetch_add(1, WS_ORDER(word_bump, release));  // pairs with word_load
    syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, threads, nullptr, nullptr, 0);
  }
#else
  void wait(std::uint32_t seen, std::int64_t ns) {
    std::unique_lock<std::mutex> hold(mutex_);
    if (value_.load(WS_ORDER(word_load, acquire)) != seen) return;
    if (ns < 0) condition_.wait(hold);
    else condition_.wait_for(hold, std::chrono::nanoseconds(ns));
  }
  void bump_and_wake(std::uint32_t threads) {
    {
      std::lock_guard<std::mutex> hold(mutex_);
      value_.fetch_add(1, WS_ORDER(word_bump, release));
    }
    if (threads == 1) condition_.notify_one();
    else condition_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable condition_;
#endif
 private:
  Atomic<std::uint32_t> value_;  // counts wakes; notifiers
};
#endif

// An eventcount. The waiting side: seen = prepare(); if there is work: leave(); else: wait(seen, ns), which leaves.
// Then arrive(), in any case, before it looks for work. The notifying side: publish the work, then notify().
//
// No wake is lost: prepare() and notify() both modify `waiters_`, so one of them sees the other. Either notify() counts
// the waiter, or the waiter's look for work happens after the publication. The same holds for `waking_`, which lets one
// wake at a time be under way: a notify() that finds one under way leaves its work to that thread, whose arrive()
// happens after it. prepare() clears it too, as the wake that was under way may have met nobody asleep.
class Parker {
 public:
  Parker() {
    waiters_.store(0, WS_ORDER(parker_init, relaxed));
    waking_.store(0, WS_ORDER(parker_init, relaxed));
    foretold_.store(0, WS_ORDER(parker_init, relaxed));
  }
  std::uint32_t prepare() {
    std::uint32_t seen = word_.load();
    waiters_.fetch_add(1, WS_ORDER(park_waiters, acq_rel));  // pairs with notify_waiters
    waking_.exchange(0, WS_ORDER(park_waking, acq_rel));     // pairs with notify_waking
    return seen;
  }
  bool changed(std::uint32_t seen) const { return word_.load() != seen; }  // woken, for who looks before it sleeps
  void leave() { waiters_.fetch_sub(1, WS_ORDER(park_leave, acq_rel)); }  // pairs with notify_waiters
  void wait(std::uint32_t seen, std::int64_t ns) {
    word_.wait(seen, ns);
    leave();
  }
  void arrive() { waking_.exchange(0, WS_ORDER(park_arrive, acq_rel)); }  // pairs with notify_waking

  // Wake one waiting thread, unless nobody waits or one is already on its way; true if it did.
  bool notify() {
    if (waiters_.fetch_add(0, WS_ORDER(notify_waiters, acq_rel)) == 0) return false;  // pairs with park_waiters
    if (waking_.exchange(1, WS_ORDER(notify_waking, acq_rel)) != 0) return false;     // pairs with park_arrive
    word_.bump_and_wake(1);
    return true;
  }
  void notify_all() { word_.bump_and_wake(INT32_MAX); }  // for a stop: the reason must be published before

  // Wake a thread for work that is about to be published, so that its wake passes meanwhile; then publish, notify() as
  // ever, and fulfil(). Nothing rests on it: whom it wakes too early finds nothing and waits again. As long as it sees
  // foretold() it may look again first. Hints, which carry no order.
  void foretell() {
    foretold_.fetch_add(1, WS_ORDER(foretell, relaxed));
    notify();
  }
  void fulfil() { foretold_.fetch_sub(1, WS_ORDER(foretell, relaxed)); }
  bool foretold() const { return foretold_.load(WS_ORDER(foretell, relaxed)) != 0; }
  std::uint32_t waiters() const { return waiters_.load(WS_ORDER(parker_peek, relaxed)); }  // a hint

 private:
  alignas(kLine) WaitWord word_;
  alignas(kLine) Atomic<std::uint32_t> waiters_;  // threads between prepare() and leave(); those threads
  Atomic<std::uint32_t> waking_;                  // 1: a woken thread has not arrived yet; both sides
  Atomic<std::uint32_t> foretold_;                // sources between foretell() and fulfil(); those sources
};

// --------------------------------------------------------------------------------------------------------------- Stack
// A mailbox: any thread pushes nodes, one thread takes all of them at once. No node is looked at by a pusher after its
// push and none is popped alone, so there is no ABA. Node needs a member `Plain<Node*> next`.
template <class Node> class Stack {
 public:
  Stack() { top_.store(nullptr, WS_ORDER(stack_init, relaxed)); }

  void push(Node* node) {
    Node* top = top_.load(WS_ORDER(stack_peek, relaxed));
    do {
      WS_WRITE(node->next, top);
    } while (!top_.compare_exchange_weak(top, node, WS_ORDER(stack_push, release), WS_ORDER(stack_push_fail, relaxed)));
  }                                                                        // pairs with stack_take
  bool empty() const { return top_.load(WS_ORDER(stack_peek, relaxed)) == nullptr; }  // a hint

  // Everything pushed so far, latest first.
  Node* take() { return top_.exchange(nullptr, WS_ORDER(stack_take, acquire)); }  // pairs with stack_push

  // Everything pushed so far, in the order of pushing.
  Node* take_in_order() {
    Node* in_order = nullptr;
    for (Node* node = take(); node;) {
      Node* next = WS_READ(node->next);
      WS_WRITE(node->next, in_order);
      in_order = node;
      node = next;
    }
    return in_order;
  }

 private:
  alignas(kLine) Atomic<Node*> top_;  // pushers by CAS, the taker by exchange
};

// ------------------------------------------------------------------------------------------------------------ Doorbell
// How a reader is woken out of its poll: a descriptor, and a flag that keeps it to one write a sleep.
#ifndef WS_MODEL
class BellWire {  // eventfd where there is one, a pipe elsewhere
 public:
  BellWire() {
#ifdef __linux__
    read_ = write_ = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
#else
    int ends[2] = {-1, -1};
    if (pipe(ends) == 0)
      for (int end : ends) fcntl(end, F_SETFL, O_NONBLOCK), fcntl(end, F_SETFD, FD_CLOEXEC);
    read_ = ends[0];
    write_ = ends[1];
#endif
  }
  ~BellWire() { shut(); }
  int fd() const { return read_; }
  void shut() {  // nobody waits any more; a late raise() finds no descriptor, which is what it should find
    if (read_ >= 0) ::close(read_);
    if (write_ >= 0 && write_ != read_) ::close(write_);
    read_ = write_ = -1;
  }
  void raise() {
    std::uint64_t one = 1;
    while (::write(write_, &one, sizeof one) < 0 && errno == EINTR) {}
  }
  void wait(int ms) {  // until it is raised; may return early
    pollfd one{read_, POLLIN, 0};
    ::poll(&one, 1, ms);
  }
  void lower() {
    std::uint64_t count;
    while (::read(read_, &count, sizeof count) < 0 && errno == EINTR) {}
  }

 private:
  int read_, write_;
};
#endif

class Doorbell {
 public:
  Doorbell() { rung_.store(0, WS_ORDER(bell_init, relaxed)); }
  // Any thread, after it has published what the reader shall find.
  void ring() {
    if (rung_.exchange(1, WS_ORDER(bell_ring, acq_rel)) == 0) wire_.raise();  // pairs with bell_answer
  }
  // The reader, before it looks.
  void answer() {
    wire_.lower();
    rung_.exchange(0, WS_ORDER(bell_answer, acq_rel));  // pairs with bell_ring: a ring not written is seen by the look
  }
  BellWire& wire() { return wire_; }

 private:
  Atomic<std::uint32_t> rung_;  // 1: written and not yet answered; both sides
  BellWire wire_;
};

// ------------------------------------------------------------------------------------------------------------- Account
// What a pipeline holds, in messages and bytes, in one word, so that every reading is of one moment. Messages are
// charged at push and released at acknowledgement or drop; bytes are charged as receive buffers (at capacity) from the
// moment they are taken, and as copies from claim to acknowledgement.
//
// Admission is hysteretic: a source that finds it full sets its bit in `starved_` and sleeps; the release that brings
// the level down to half rings every such bell. No wake is lost: both sides modify `starved_`, so either the release
// sees the bit, or the source's second look at the level happens after the release.
class Account {
 public:
  static constexpr unsigned kByteBits = 40;
  static constexpr std::uint64_t kByteMask = (std::uint64_t{1} << kByteBits) - 1;
  static constexpr unsigned kDoors = 64;
  static constexpr std::uint64_t kDeep = std::uint64_t{1} << 21;  // bytes; of 1/2 to 4 MiB the best in a flood

  Account(std::uint64_t max_messages, std::uint64_t max_bytes) : max_messages_(max_messages), max_bytes_(max_bytes) {
    level_.store(0, WS_ORDER(account_init, relaxed));
    starved_.store(0, WS_ORDER(account_init, relaxed));
    resting_.store(0, WS_ORDER(account_init, relaxed));
    for (auto& door : doors_) door.store(nullptr, WS_ORDER(account_init, relaxed));
  }
  static std::uint64_t messages_of(std::uint64_t level) { return level >> kByteBits; }
  static std::uint64_t bytes_of(std::uint64_t level) { return level & kByteMask; }

  // Before the source starts, and with nullptr after it has ended; relaxed, as starting a thread orders what the bell is.
  void set_door(unsigned door, Doorbell* bell) { doors_[door].store(bell, WS_ORDER(account_door, relaxed)); }

  void charge(std::uint64_t messages, std::uint64_t bytes) {
    level_.fetch_add((messages << kByteBits) + bytes, WS_ORDER(account_charge, relaxed));  // alone: a count
  }
  void release(std::uint64_t messages, std::uint64_t bytes) {
    std::uint64_t amount = (messages << kByteBits) + bytes;
    // pairs with account_level: who sees the room sees the ring slots that were let go before
    std::uint64_t now = level_.fetch_sub(amount, WS_ORDER(account_release, release)) - amount;
    if (low(now)) ring_all(starved_);
    if (bytes_of(now) <= kDeep / 2) wake_resting();
  }
  std::uint64_t level() const { return level_.load(WS_ORDER(account_level, acquire)); }  // pairs with account_release

  // One message is always admitted when none is held, whatever the bytes.
  bool admits() const {
    std::uint64_t now = level();
    return messages_of(now) == 0 || (messages_of(now) < max_messages_ && bytes_of(now) < max_bytes_);
  }
  // How many messages may be pushed at once.
  std::uint64_t room() const {
    std::uint64_t held = messages_of(level());
    return held < max_messages_ ? max_messages_ - held : 0;
  }
  // So much is held that what is read now may be far from all caches when its turn comes. All that is charged counts,
  // so a source looks at its own queue, too, before it rests.
  bool deep() const { return bytes_of(level()) > kDeep; }
  // Be rung, once, when half of that is held, or when a consumer finds nothing to do. Both may be missed, as their looks
  // are hints, so who rests sleeps a bounded time.
  void rest(unsigned door) {
    resting_.fetch_or(std::uint64_t{1} << door, WS_ORDER(rest_set, release));  // pairs with starve_take, for the bell
  }
  void wake_resting() {
    if (resting_.load(WS_ORDER(rest_peek, relaxed))) ring_all(resting_);
  }
  bool low(std::uint64_t level) const {
    return messages_of(level) == 0 || (messages_of(level) <= max_messages_ / 2 && bytes_of(level) <= max_bytes_ / 2);
  }

  // A source that was not admitted: true if it may sleep on its bell, false if there is room after all.
  bool starve(unsigned door) {
    starved_.fetch_or(std::uint64_t{1} << door, WS_ORDER(starve_set, acq_rel));  // pairs with starve_take
    return !low(level());
  }
  bool starving(unsigned door) const {
    return (starved_.load(WS_ORDER(starve_peek, relaxed)) >> door) & 1;  // a hint; the bell carries the order
  }
  std::uint64_t max_messages() const { return max_messages_; }
  std::uint64_t max_bytes() const { return max_bytes_; }

 private:
  void ring_all(Atomic<std::uint64_t>& waiting) {
    std::uint64_t doors = waiting.exchange(0, WS_ORDER(starve_take, acq_rel));  // pairs with starve_set, rest_set
    for (unsigned door = 0; doors; ++door, doors >>= 1) {
      Doorbell* bell = doors & 1 ? doors_[door].load(WS_ORDER(account_door, relaxed)) : nullptr;
      if (bell) bell->ring();
    }
  }

  alignas(kLine) Atomic<std::uint64_t> level_;    // messages << 40 | bytes; every thread that charges or releases
  alignas(kLine) Atomic<std::uint64_t> starved_;  // a bit a door: its source sleeps; sources set, releases take
  Atomic<std::uint64_t> resting_;                 // the same of sources that rest; they set, releases and consumers take
  alignas(kLine) const std::uint64_t max_messages_;
  const std::uint64_t max_bytes_;
  Atomic<Doorbell*> doors_[kDoors];  // the control plane, at a source's start and end; releases read
};

// ---------------------------------------------------------------------------------------------------------------- Slab
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

// ---------------------------------------------------------------------------------------------------------- Descriptor
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
  std::uint32_t ordinal : 30;  // in its arrival; a read of 2^30 bytes has fewer messages
  std::uint32_t opcode : 2;    // 1 text, 2 binary
};

#ifndef WS_MODEL
static_assert(sizeof(Descriptor) == 24, "two slots of Ring<Descriptor> fill one cache line");
inline std::int64_t monotonic_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000000000 + t.tv_nsec;
}
#endif

}  // namespace wsengine
#endif
