// lead.hpp: which thread runs a reader's loop. What the loop does is not known here, nor who wants to run it.
#ifndef WSENGINE_LEAD_HPP
#define WSENGINE_LEAD_HPP

#include "wait_word.hpp"

namespace wsengine {

class Parker;

// A message that wakes the reader, which then wakes a processor, costs two wakes; where the processor that has nothing
// to do polls in the reader's place, it costs one. So the reader lends its loop to such a processor, which gives it up
// before it handles what it has read. The reader stands by: it takes the loop back when it is called, or when nobody has
// taken it for a while because the handler takes its time (leaders and followers: Schmidt et al., POSA2 2000).
//
//   held     somebody runs the loop; at first the reader
//   deep     the same, a processor, and the reader sleeps until that one gives it up
//   free     nobody does: a processor may begin, and the reader does if none has between two looks
//   called   nobody does, and the reader is on its way
//
//   reader     held -> free (gives)   free, called -> held (takes)   held -> deep (sinks, while a processor runs it)
//   processor  free -> held (takes)   held, deep -> free or called (gives)
//   anyone     free -> called (summons)
//
// The loop and all that belongs to it are plain data of whoever runs it: taking and giving carry them over. Where other
// files say "the reader" of such data, they mean that thread.
class Lead {
 public:
  using Loop = void (*)(void* context, Parker* parker, std::uint32_t seen, std::int64_t spin_ns);
  static constexpr std::int64_t kLook = 2000000;  // ns between looks of a reader that stands by: a peer may wait for two

  Lead() {
    state_.store(kHeld, WS_ORDER(lead_init, relaxed));
    turns_.store(0, WS_ORDER(lead_init, relaxed));
    lent_.store(false, WS_ORDER(lead_init, relaxed));
  }
  // Before there are threads: what a processor runs.
  void set_loop(Loop loop, void* context) {
    loop_ = loop;
    context_ = context;
  }
  // Any thread: whether the reader should look for a processor that is idle. A hint: it lends nothing by itself.
  void set_lent(bool lent) { lent_.store(lent, WS_ORDER(lead_lent, relaxed)); }
  bool lent() const { return lent_.load(WS_ORDER(lead_lent, relaxed)); }

  // A processor: run the loop, which ends by giving the lead up; false if it may not.
  bool run(Parker* parker, std::uint32_t seen, std::int64_t spin_ns) {
    if (!take(kFree)) return false;
    loop_(context_, parker, seen, spin_ns);
    return true;
  }
  // A processor, within its loop, when it is about to poll: the reader need not take the lead soon.
  void count_turn() { turns_.fetch_add(1, WS_ORDER(lead_turns, relaxed)); }
  // Whoever has run the loop. `call` the reader, where there is too much to read for one who has messages to handle.
  void give(bool call) {
    const std::uint32_t before = state_.exchange(call ? kCalled : kFree, WS_ORDER(lead_give, release));
    if (call || before == kDeep) word_.bump_and_wake(1);  // pairs with lead_take
  }
  // Anyone who wants the loop to look at something: if nobody runs it, the reader shall, now.
  void summon() {
    // Changed, not looked at: that finds the newest, after bell_ring has ordered it (Doorbell::hand_over).
    std::uint32_t free = state_.fetch_add(0, WS_ORDER(lead_summon, relaxed));
    if (free == kFree && move(free, kCalled)) word_.bump_and_wake(1);
  }

  // The reader, after it has given the lead up: until it has it again. Between two looks a processor that handles quickly
  // leads many times, so the lead is only taken where none has since the look before.
  void stand_by() {
    for (std::uint32_t before = turns() - 1;;) {
      const std::uint32_t seen = word_.load(), now = turns();
      const bool still = now == before;
      if (take(kCalled) || (still && take(kFree))) return;
      const bool deep = still && sink();  // a processor polls, and nothing came all the while
      before = deep ? now - 1 : now;      // the one that ends a deep sleep by giving up will be back soon
      word_.wait(seen, deep ? -1 : kLook);
    }
  }
  std::uint32_t turns() const { return turns_.load(WS_ORDER(lead_turns, relaxed)); }  // of processors: a figure

 private:
  enum : std::uint32_t { kFree, kHeld, kDeep, kCalled };

  bool move(std::uint32_t& from, std::uint32_t to) {
    return state_.compare_exchange_strong(from, to, WS_ORDER(lead_take, acquire), WS_ORDER(lead_missed, relaxed));
  }                                                                             // pairs with lead_give
  bool take(std::uint32_t state) { return move(state, kHeld); }
  bool sink() {
    std::uint32_t state = kHeld;
    return move(state, kDeep) || state == kDeep;
  }

  alignas(kLine) Atomic<std::uint32_t> state_;  // as above
  Atomic<std::uint32_t> turns_;                 // how often a processor has polled in it; processors, in turn
  WaitWord word_;                               // the reader sleeps on it
  Loop loop_ = nullptr;                         // set before there are threads, like the next two
  void* context_ = nullptr;
  Atomic<bool> lent_;                           // the control plane; the reader reads
};

}  // namespace wsengine
#endif
