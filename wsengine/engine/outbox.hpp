// outbox.hpp: frames of one connection on their way from those who send to the reader, and how many bytes they are.
#ifndef WSENGINE_OUTBOX_HPP
#define WSENGINE_OUTBOX_HPP

#include <cstdlib>

#include "parker.hpp"
#include "stack.hpp"

namespace wsengine {

// A frame on its way out, masked and ready. Made by any thread, freed by the reader.
struct OutFrame {
  Plain<OutFrame*> next;
  std::uint32_t size;    // bytes at data()
  std::uint32_t charge;  // bytes of it that count against the bound: data frames', 0 for control frames
  std::uint32_t epoch;   // for this generation alone; 0: of the reader's own making
  std::uint8_t opcode;   // control frames overtake between data frames
  std::uint8_t* data() { return reinterpret_cast<std::uint8_t*>(this + 1); }
  static OutFrame* make(std::uint32_t size, std::uint8_t opcode, std::uint32_t epoch = 0) {
    void* memory = std::malloc(sizeof(OutFrame) + size);
    return memory ? new (memory) OutFrame{{}, size, opcode < 8 && epoch ? size : 0, epoch, opcode} : nullptr;
  }
};

// Senders bound themselves: they look whether the box admits a frame, and wait in `room` if not. As the look and the
// push are two steps, several may pass the bound by a frame each; those of one connection take turns (Connection.send).
class Outbox {
 public:
  Outbox() { queued_.store(0, WS_ORDER(outbox_init, relaxed)); }
  ~Outbox() {
    for (OutFrame* frame = stack_.take(); frame;) {
      OutFrame* next = frame->next;
      std::free(frame);
      frame = next;
    }
  }
  // A sender.
  std::uint64_t queued() const { return queued_.load(WS_ORDER(outbox_count, relaxed)); }  // a figure by itself
  void push(OutFrame* frame) {
    if (frame->charge) queued_.fetch_add(frame->charge, WS_ORDER(outbox_count, relaxed));
    stack_.push(frame);
  }
  // The reader.
  bool empty() const { return stack_.empty(); }
  OutFrame* take_in_order() { return stack_.take_in_order(); }
  void done(OutFrame* frame) {  // sent, or dropped
    const std::uint32_t charge = frame->charge;
    std::free(frame);
    if (!charge) return;
    queued_.fetch_sub(charge, WS_ORDER(outbox_count, relaxed));
    room.notify();  // orders the subtraction before a waiter's look: Parker says how
  }

  Parker room;  // senders wait here for less to be queued

 private:
  Stack<OutFrame> stack_;
  Atomic<std::uint64_t> queued_;  // bytes pushed and neither sent nor dropped; senders add, the reader subtracts
};

}  // namespace wsengine
#endif
