// atomic.hpp: what the engine's concurrent headers stand on: atomics, plain shared data, memory orders by name.
//
// These headers (ring, stack, wait_word, lead, doorbell, parker, account, slab) are all that two threads of the engine
// touch at once. No Python, no sockets, no statics, no exceptions, no fences: every order belongs to an atomic operation,
// because thread sanitizers cannot see fences.
//
// The same text is compiled three times: into the extensions, into model checks (WS_MODEL, tests/model), which replace
// Atomic and Plain and run mutants with each tagged order weakened, and into a stress binary under ThreadSanitizer.
// Each WS_ORDER(tag, order) is one such order. What it pairs with stands beside it as "pairs with <tag>"; "alone" is
// an order that needs no partner.
#ifndef WSENGINE_ATOMIC_HPP
#define WSENGINE_ATOMIC_HPP

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#ifdef WS_MODEL
#define WS_FETCH(address) ((void)0)
#else
#include <atomic>
#include <ctime>
#include <sched.h>

#define WS_ORDER(tag, order) std::memory_order_##order
#define WS_READ(plain) (plain)
#define WS_WRITE(plain, value) ((plain) = (value))
#ifndef WS_PAUSE
#define WS_PAUSE(point) ((void)0)  // tests stop a thread here: see tests/stress
#endif
#define WS_YIELD() sched_yield()  // another thread is about to do what is waited for
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

#ifndef WS_MODEL
inline std::int64_t monotonic_ns() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000000000 + t.tv_nsec;
}
#endif

}  // namespace wsengine
#endif
