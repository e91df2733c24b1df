// outbox.hpp: frames of one connection on their way from those who send to the reader, and how many bytes they are.
#ifndef WSENGINE_OUTBOX_HPP
#define WSENGINE_OUTBOX_HPP

#include <cstdlib>

#include "parker.hpp"
#include "stack.hpp"

namespace wsengine {

// Senders bound themselves: they look whether the box admits a frame, and wait in `room` if not. As the look and the
// push are two steps, several may pass the bound by a frame each; those of one connection take turns (Connection.send).
template <class Frame> class OutboxOf {
 public:
  OutboxOf() { queued_.store(0, WS_ORDER(outbox_init, relaxed)); }
  ~OutboxOf() {
    for (Frame* frame = stack_.take(); frame;) {
      Frame* next = WS_READ(frame->next);
      Frame::release(frame);
      frame = next;
    }
  }
  // A sender.
  std::uint64_t queued() const { return queued_.load(WS_ORDER(outbox_count, relaxed)); }  // a figure by itself
  void push(Frame* frame) {
    if (frame->charge) queued_.fetch_add(frame->charge, WS_ORDER(outbox_count, relaxed));
    stack_.push(frame);
  }
  // The reader.
  bool empty() const { return stack_.empty(); }
  Frame* take_in_order() { return stack_.take_in_order(); }
  void done(Frame* frame) {  // sent, or dropped
    const std::uint32_t charge = frame->charge;
    Frame::release(frame);
    if (!charge) return;
    queued_.fetch_sub(charge, WS_ORDER(outbox_count, relaxed));
    room.notify();  // orders the subtraction before a waiter's look: Parker says how
  }

  Parker room;  // senders wait here for less to be queued

 private:
  Stack<Frame> stack_;
  Atomic<std::uint64_t> queued_;  // bytes pushed and neither sent nor dropped; senders add, the reader subtracts
};

#ifndef WS_MODEL
// A frame on its way out, masked and ready. Made by any thread, freed by the reader.
struct OutFrame {
  OutFrame* next;
  std::uint32_t size;    // bytes at data()
  std::uint32_t charge;  // bytes of it that count against the bound: data frames', 0 for control frames
  std::uint32_t epoch;   // for this generation alone; 0: of the reader's own making
  std::uint8_t opcode;   // control frames overtake between data frames
  std::uint8_t* data() { return reinterpret_cast<std::uint8_t*>(this + 1); }
  static OutFrame* make(std::uint32_t size, std::uint8_t opcode, std::uint32_t epoch = 0) {
    auto* frame = static_cast<OutFrame*>(std::malloc(sizeof(OutFrame) + size));
    if (frame) *frame = OutFrame{nullptr, size, opcode < 8 && epoch ? size : 0, epoch, opcode};
    return frame;
  }
  static void release(OutFrame* frame) { std::free(frame); }
};

using Outbox = OutboxOf<OutFrame>;
#endif

}  // namespace wsengine
#endif
