// platform.hpp: what stands under the engine's concurrent header while Relacy checks it.
//
// Here belong the replacements that `atomic.hpp` asks of its includer under WS_MODEL (atomics, plain data, orders, the
// word that processors sleep on, the wire of the doorbell) and the memory that slabs come from. No model belongs here.
//
// Nothing in this file gives an order between threads that the engine's own atomics do not give: sleeping and waking
// synchronise nothing, and bookkeeping is in plain integers, which is sound because Relacy runs one thread at a time
// and changes threads only at an operation on an atomic, at sched() and at park. A mutex and a condition variable in
// their place would add happens-before edges, and orders that are too weak would hide behind those.
#ifndef WSENGINE_TESTS_MODEL_PLATFORM_HPP
#define WSENGINE_TESTS_MODEL_PLATFORM_HPP

// Relacy's own generator of schedules is replaced, by its include guard: with numbers of 32 bits and more it degrades
// until rare interleavings hardly come up. This is SplitMix64 (Steele, Lea, Flood 2014).
#include <relacy/base.hpp>
#define RL_RANDOM_HPP
namespace rl {
struct random_generator {
  uint64_t state;
  void seed(iteration_t number) { state = number * 0xd1342543de82ef95u; }  // far apart for neighbouring schedules
  unsigned rand() {
    uint64_t mixed = state += 0x9e3779b97f4a7c15u;
    mixed = (mixed ^ (mixed >> 30)) * 0xbf58476d1ce4e5b9u;
    mixed = (mixed ^ (mixed >> 27)) * 0x94d049bb133111ebu;
    return static_cast<unsigned>((mixed ^ (mixed >> 31)) >> 33);
  }
  template <typename T, T limit> T get() { return static_cast<T>(rand() % limit); }
};
}  // namespace rl

#include <relacy/relacy.hpp>
// Relacy's macros for user code would rewrite the header and the standard library's.
#undef new
#undef delete
#undef malloc
#undef calloc
#undef realloc
#undef free
#undef assert
#undef errno

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#define WS_MODEL 1
#define WS_PAUSE(point) ((void)0)
#define WS_YIELD() ::rl::yield(1, RL_INFO)
#define WS_READ(plain) ((plain)(RL_INFO).load())
#define WS_WRITE(plain, value) ((plain)(RL_INFO).store(value))
// One look-up a place, not one an operation: a run executes some ten million of them.
#define WS_ORDER(tag, order)                                                                                     \
  ([]() -> rl::memory_order {                                                                                    \
    static const rl::memory_order chosen = ::wsengine::model::mutant().order_of(#tag, rl::mo_##order);           \
    return chosen;                                                                                               \
  }()),                                                                                                          \
      RL_INFO

namespace wsengine {

inline std::int64_t monotonic_ns() { return 0; }  // no limit is ever over, unless a model says so (time_passes)
template <class T> using Atomic = rl::atomic<T>;
template <class T> using Plain = rl::var<T>;

namespace model {

// The orders that this process has other than they are written.
class Mutant {
 public:
  void change(const std::string& tag, rl::memory_order order) { changes_.push_back({tag, order, false}); }
  rl::memory_order order_of(const char* tag, rl::memory_order written) {
    for (Change& change : changes_) {
      if (change.tag != tag) continue;
      change.reached = true;
      return change.order;
    }
    return written;
  }
  bool all_reached() const {  // did some model come past each tag?
    for (const Change& change : changes_)
      if (!change.reached) return false;
    return true;
  }

 private:
  struct Change {
    std::string tag;
    rl::memory_order order;
    bool reached;
  };
  std::vector<Change> changes_;
};
inline Mutant& mutant() {
  static Mutant only;
  return only;
}

// Threads that sleep until somebody wakes them. When every thread sleeps or has ended, Relacy reports a deadlock.
class Sleepers {
 public:
  explicit Sleepers(int spurious = 0) : spurious_(spurious) {}
  void park() {
    const unsigned self = rl::thread_index();
    asleep_[count_++] = self;
    // Spurious wakes are few: each could hide a lost one.
    if (rl::ctx().park_current_thread(false, spurious_ > 0, false, RL_INFO) == rl::unpark_reason_normal) return;
    --spurious_;
    for (unsigned i = 0; i < count_; ++i)
      if (asleep_[i] == self) asleep_[i] = asleep_[--count_];
  }
  void wake(std::uint32_t threads) {  // any of them: the models shall not depend on the kernel's queue
    for (; threads && count_; --threads) {
      const unsigned chosen = rl::rand(count_);
      const unsigned thread = asleep_[chosen];
      asleep_[chosen] = asleep_[--count_];
      rl::ctx().unpark_thread(thread, false, RL_INFO);
    }
  }

 private:
  unsigned asleep_[8];
  unsigned count_ = 0;
  int spurious_;
};

// Whether time limits are over at once in this schedule, or never. A model whose threads set any says which.
inline bool& time_passes() {
  static bool passes;
  return passes;
}

// The contents of a slab: written by its reader, read by consumers, written once more when the memory is freed.
using Contents = rl::var<int>;

// A block of slab memory: this head, the slab with its bytes, the contents that the models use in place of the bytes.
struct alignas(16) Block {
  Contents* contents;
};
inline Contents& contents_of(void* slab) { return *(static_cast<Block*>(slab) - 1)->contents; }

}  // namespace model

// `std::malloc` and `std::free` within the header: Relacy's allocator, which reports what is leaked or freed twice.
namespace std {
using namespace ::std;
inline void* malloc(::std::size_t bytes) {
  const ::std::size_t before_contents = sizeof(model::Block) + (bytes + 15) / 16 * 16;
  char* memory = static_cast<char*>(rl::ctx().alloc(before_contents + sizeof(model::Contents), false, RL_INFO));
  model::Block* block = new (memory) model::Block;
  block->contents = new (memory + before_contents) model::Contents;
  return block + 1;
}
inline void free(void* slab) {
  model::Block* block = static_cast<model::Block*>(slab) - 1;
  WS_WRITE(*block->contents, 0);  // a race with whoever reads it still
  block->contents->~var();
  rl::ctx().free(block, false, RL_INFO);
}
}  // namespace std

// The futex. Linux compares under a lock that every waker takes too, so with the newest value: that is a
// read-modify-write here, relaxed, because the engine may rely on no order from the kernel.
class WaitWord {
 public:
  WaitWord() : sleepers_(rl::rand(4) == 0 ? 1 : 0) { value_.store(0, rl::mo_relaxed, RL_INFO); }
  std::uint32_t load() const { return value_.load(WS_ORDER(word_load, acquire)); }
  // A time limit would hide a lost wake: in a schedule it is over at once every time, or never.
  void wait(std::uint32_t seen, std::int64_t ns) {
    if (ns >= 0 && model::time_passes()) return rl::ctx().sched();
    if (value_.fetch_add(0, rl::mo_relaxed, RL_INFO) == seen) sleepers_.park();
  }
  void bump_and_wake(std::uint32_t threads) {
    value_.fetch_add(1, WS_ORDER(word_bump, release));
    rl::ctx().sched();
    sleepers_.wake(threads);
  }

 private:
  Atomic<std::uint32_t> value_;
  model::Sleepers sleepers_;
};

// The event descriptor and the poll on it, in which one thread at a time may be; a socket is in the same poll set.
class BellWire {
 public:
  BellWire() { WS_WRITE(open_, 1); }
  int fd() const { return -1; }
  void shut() { WS_WRITE(open_, 0); }
  void raise() {
    rl::ctx().sched();
    RL_ASSERT(WS_READ(open_) == 1);  // a race with shut() is one with whoever gets the descriptor's number next
    ++count_;
    sleepers_.wake(1);
  }
  void lower() {
    rl::ctx().sched();
    count_ = 0;
  }
  void sleep() { poll(); }
  bool raised() const { return count_ != 0; }
  void arrive() {  // something to read
    rl::ctx().sched();
    ++arrived_;
    sleepers_.wake(1);
  }
  unsigned poll() {  // how much has arrived
    RL_ASSERT(!polled_);
    polled_ = true;
    rl::ctx().sched();
    while (count_ == 0 && arrived_ == 0) sleepers_.park();
    polled_ = false;
    const unsigned arrived = arrived_;
    arrived_ = 0;
    return arrived;
  }

 private:
  Plain<int> open_;
  unsigned count_ = 0, arrived_ = 0;
  bool polled_ = false;
  model::Sleepers sleepers_;
};

}  // namespace wsengine
#endif
