// stack.hpp: a mailbox without locks, and nothing else.
#ifndef WSENGINE_STACK_HPP
#define WSENGINE_STACK_HPP

#include "atomic.hpp"

namespace wsengine {

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

}  // namespace wsengine
#endif
