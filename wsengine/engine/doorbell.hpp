// doorbell.hpp: how whoever runs a reader's loop is woken out of its poll. What it then finds is not known here.
#ifndef WSENGINE_DOORBELL_HPP
#define WSENGINE_DOORBELL_HPP

#include "lead.hpp"

#ifndef WS_MODEL
#include <cerrno>
#include <poll.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#else
#include <fcntl.h>
#endif
#endif

namespace wsengine {

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
  void shut() {  // nobody waits any more, nor raises it
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
  Doorbell() { state_.store(0, WS_ORDER(bell_init, relaxed)); }
  // Any thread, after it has published what the reader shall find. Also later than shut(), and to no purpose then.
  void ring() {
    std::uint32_t before = state_.load(WS_ORDER(bell_look, relaxed));  // alone: a guess
    // pairs with bell_answer, bell_peek; also where the bell is rung already
    while (!state_.compare_exchange_weak(before, before & kRung ? before : before + kRung + kRinger,
                                         WS_ORDER(bell_ring, acq_rel), WS_ORDER(bell_look, relaxed))) {
    }
    if (before & kRung) return;
    wire_.raise();
    if (lead_) lead_->summon();                                // nobody may be in the poll
    state_.fetch_sub(kRinger, WS_ORDER(bell_leave, release));  // pairs with bell_left
  }
  // Whoever runs the loop, before it looks.
  void answer() {
    wire_.lower();
    // pairs with bell_ring: a ring not written is seen by the look
    state_.fetch_and(~kRung, WS_ORDER(bell_answer, acq_rel));
  }
  // The control plane, when nobody runs the loop any more. The descriptor's number may be another's right after, and a
  // ringer would write to that, so rings are as good as rung from here on, and those under way are waited for. A thread
  // that a fork has left behind never gets out of ring(): in the child the descriptor then stays until the bell goes.
  void shut() {
    state_.fetch_or(kRung, WS_ORDER(bell_shut, relaxed));  // alone: a ring finds the newest
    const std::int64_t until = monotonic_ns() + kPatience;
    while (state_.load(WS_ORDER(bell_left, acquire)) >= kRinger) {  // pairs with bell_leave
      if (monotonic_ns() > until) return;
      WS_YIELD();
    }
    wire_.shut();
  }
  BellWire& wire() { return wire_; }

  // Before there are threads: the loop that this bell wakes may change hands.
  void set_lead(Lead* lead) { lead_ = lead; }
  Lead* lead() { return lead_; }
  // Whoever has run the loop gives it up. No ring is lost: ring() changes `state_` and then the lead, this the other way
  // round, so either this finds the bell rung, or the ringer comes after it and finds the lead free.
  void hand_over(bool call) {
    lead_->give(call);
    if (!call && (state_.fetch_add(0, WS_ORDER(bell_peek, release)) & kRung)) lead_->summon();  // pairs with bell_ring
  }

 private:
  static constexpr std::uint32_t kRung = 1, kRinger = 2;
  static constexpr std::int64_t kPatience = 100000000;  // ns; a ringer takes thousands, unless its core is wanted

  Atomic<std::uint32_t> state_;  // kRung: not yet answered; and a kRinger for each thread within ring(). Both sides
  BellWire wire_;
  Lead* lead_ = nullptr;  // set before there are threads
};

}  // namespace wsengine
#endif
