// parker.hpp: the only place where a processor waits for work.
#ifndef WSENGINE_PARKER_HPP
#define WSENGINE_PARKER_HPP

#include "doorbell.hpp"
#include "wait_word.hpp"

namespace wsengine {

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
    polling_.store(0, WS_ORDER(parker_init, relaxed));
    polls_.store(true, WS_ORDER(parker_init, relaxed));
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
    ring_poller();
    return true;
  }
  void notify_all() {  // for a stop: the reason must be published before
    word_.bump_and_wake(INT32_MAX);
    ring_poller();
  }

  // In place of wait(): run the loop that the bell wakes, until there is work or a wake; then leave(). False if there is
  // none, or another thread runs it. At most one thread of a parker does so, as the reader lends its loop to one alone. It is rung, not
  // woken, and no wake is lost: both sides modify `polling_`, so either the notifier finds it set, or the look at the
  // word that the loop begins with happens after the notifier's bump.
  bool wait_in_poll(std::uint32_t seen, std::int64_t spin_ns) {
    if (!bell_ || !polls_.load(WS_ORDER(poll_allowed, relaxed))) return false;
    polling_.exchange(1, WS_ORDER(poll_begin, acquire));  // pairs with poll_peek
    const bool led = bell_->lead()->run(this, seen, spin_ns);
    polling_.store(0, WS_ORDER(poll_end, relaxed));  // alone: a ring too many does no harm
    return led;
  }
  void set_bell(Doorbell* bell) { bell_ = bell; }  // before there are threads
  // Any thread: whether a waiting thread may poll; allowed only while no more than one waits. Who polls already goes on until
  // it is woken.
  void allow_polls(bool allowed) { polls_.store(allowed, WS_ORDER(poll_allowed, relaxed)); }

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
  void ring_poller() {
    if (polling_.fetch_add(0, WS_ORDER(poll_peek, release)) != 0) bell_->ring();  // pairs with poll_begin
  }

  alignas(kLine) WaitWord word_;
  alignas(kLine) Atomic<std::uint32_t> waiters_;  // threads between prepare() and leave(); those threads
  Atomic<std::uint32_t> waking_;                  // 1: a woken thread has not arrived yet; both sides
  Atomic<std::uint32_t> foretold_;                // sources between foretell() and fulfil(); those sources
  Atomic<std::uint32_t> polling_;                 // 1: a waiting thread is, or will be, in a poll; that thread
  Atomic<bool> polls_;                            // whether one may; the control plane
  Doorbell* bell_ = nullptr;                      // of that poll; set before there are threads
};

}  // namespace wsengine
#endif
