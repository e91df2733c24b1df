// control.hpp: the control block of one connection, which its reader, the ping timer and the supervisor share.
//
// Every field that more than one of the three touches is here, with who writes it. What one thread alone touches is not:
// see Wire (stream.pxd) for the reader's side and Schedule (keepalive.pxd) for the timer's. A block has a stable address
// for the life of its producer; a new connection in the same place is a new generation (`epoch`), and what an older one
// left behind is recognised by its number.
#ifndef WSENGINE_CONTROL_HPP
#define WSENGINE_CONTROL_HPP

#include "outbox.hpp"

namespace wsengine {

constexpr unsigned kPingsRemembered = 16;

// What the timer asks the reader to look into; the reader takes them and judges by itself.
enum Ask : std::uint32_t {
  kAskIdle = 1,    // nothing heard for ws_timeout
  kAskPong = 2,    // a ping has had no pong for pong_timeout
  kAskClose = 4,   // the closing handshake took longer than close_timeout
};

struct Control {
  // ---- set by the supervisor before it publishes the generation, constant within it; nanoseconds, 0: off. Relaxed: the
  // timer may look at a generation that ends meanwhile, and what it asks then is judged by the reader
  std::atomic<std::int64_t> keepalive_ns{0};
  std::atomic<std::int64_t> ws_timeout_ns{0};
  std::atomic<std::int64_t> pong_timeout_ns{0};
  std::atomic<std::int64_t> close_timeout_ns{0};
  std::atomic<std::int64_t> started_ns{0};

  // ---- supervisor -> timer and reader. 0: nothing to watch.
  std::atomic<std::uint32_t> epoch{0};  // store release after the constants above; load acquire before reading them

  // ---- reader -> timer and Python. All relaxed: each is a figure by itself, and the timer only asks.
  std::atomic<std::int64_t> heard_ns{0};        // last byte received, or the moment reading was resumed
  std::atomic<std::int64_t> resumed_ns{0};      // the moment reading was begun or resumed
  std::atomic<std::uint32_t> paused{0};         // 1: not reading, for want of room
  std::atomic<std::uint32_t> pong_number{0};    // the newest ping that was answered
  std::atomic<std::int64_t> round_trip_ns{-1};  // of the newest answer; below 0: none yet. Also by who takes the
                                                // reader's notes, for a user's ping: the later store is the newer figure
  std::atomic<std::int64_t> close_due_ns{0};    // when a closing handshake must be over; 0: none goes on
  std::atomic<std::uint64_t> messages{0}, bytes{0}, wire_bytes{0}, frames{0}, discarded{0}, dropped{0}, pauses{0}, pings_heard{0};

  // ---- timer -> reader and Python
  std::atomic<std::uint32_t> ping_number{0};  // the newest ping; store release after its time, load acquire before it
  std::atomic<std::int64_t> ping_sent_ns[kPingsRemembered];
  std::atomic<std::uint32_t> asks{0};         // bits of Ask: timer by fetch_or release, reader by exchange acquire

  // ---- anyone -> reader
  Outbox outbox;
  std::atomic<std::uint32_t> awaited{0};  // pings whose pong somebody waits for; those threads; relaxed: a pong comes later

  Control() {
    for (auto& sent : ping_sent_ns) sent.store(0, std::memory_order_relaxed);
  }

  // The supervisor, with the reader off this connection and the timer not watching it.
  void begin(std::uint32_t generation) {
    const std::int64_t now = monotonic_ns();
    started_ns.store(now, std::memory_order_relaxed);
    resume(now);
    paused.store(0, std::memory_order_relaxed);
    pong_number.store(0, std::memory_order_relaxed);
    ping_number.store(0, std::memory_order_relaxed);
    round_trip_ns.store(-1, std::memory_order_relaxed);
    close_due_ns.store(0, std::memory_order_relaxed);
    asks.store(0, std::memory_order_relaxed);
    epoch.store(generation, std::memory_order_release);
  }
  void end() { epoch.store(0, std::memory_order_release); }
  // Silence while we did not listen is not the peer's.
  void resume(std::int64_t now) {
    heard_ns.store(now, std::memory_order_relaxed);
    resumed_ns.store(now, std::memory_order_relaxed);
  }
  void close_within_limit() {
    close_due_ns.store(monotonic_ns() + close_timeout_ns.load(std::memory_order_relaxed), std::memory_order_relaxed);
  }
  void heard(std::int64_t now) { heard_ns.store(now, std::memory_order_relaxed); }
  // Only the reader adds, so a load and a store make an exact count without a locked instruction.
  static void add(std::atomic<std::uint64_t>& count, std::uint64_t n) {
    count.store(count.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
};

}  // namespace wsengine
#endif
