// models.hpp: small programs over the engine's concurrent header, each with what must hold in every schedule of it.
//
// Here belong the models; what stands under the header is in platform.hpp, and how they are run in runner.cpp.
// A lost wake is a deadlock, a value read or overwritten too early a data race; the rest is asserted.
#ifndef WSENGINE_TESTS_MODEL_MODELS_HPP
#define WSENGINE_TESTS_MODEL_MODELS_HPP

#include "platform.hpp"
#include "outbox.hpp"
#include "parker.hpp"
#include "ring.hpp"
#include "slab.hpp"

namespace wsengine {
namespace model {

// The threads' common state is built anew for each schedule, by a thread of the schedule, as Relacy demands, and on
// the heap, as the header's types are aligned more strictly than Relacy aligns a suite.
template <class Derived, unsigned Threads, class State> struct Model : rl::test_suite<Derived, Threads> {
  State* state = nullptr;
  void before() { state = new State; }
  void after() {
    static_cast<Derived*>(this)->check();
    delete state;
  }
};

// ---------------------------------------------------------------------------------------------------------------- Ring
// Every value that the ring took comes out once, whole, and in the order of its producer, whoever claims it. Nobody
// waits, so every mixture of full, empty, stalled and lapped is met.
struct RingState {
  Ring<int> ring{2};
  std::uint32_t pushed[2] = {0, 0};  // by producer
  int claimed[16];                   // by position
  RingState() {
    for (int& value : claimed) value = -1;
  }
  void claim_all_there() {
    std::uint64_t at = 0;
    const std::uint32_t n = ring.claim(2, &at);
    for (std::uint32_t i = 0; i < n; ++i) {
      RL_ASSERT(claimed[at + i] == -1);
      claimed[at + i] = ring.take(at + i);
    }
    for (std::uint32_t i = n; i-- > 0;) ring.release(at + i);
  }
};
template <unsigned Producers, unsigned Consumers>
struct RingModel : Model<RingModel<Producers, Consumers>, Producers + Consumers, RingState> {
  static constexpr std::uint32_t kEach = 4 / Producers;
  static constexpr int kTries = 3;

  void thread(unsigned index) {
    if (index < Producers) produce(index);
    else
      for (int i = 0; i < kTries; ++i) this->state->claim_all_there();
  }
  void produce(unsigned producer) {
    int values[kEach];
    for (std::uint32_t i = 0; i < kEach; ++i) values[i] = static_cast<int>(producer * 10 + i);
    std::uint32_t& done = this->state->pushed[producer];
    for (int i = 0; i < kTries && done < kEach; ++i) done += this->state->ring.push(values + done, kEach - done);
  }
  void check() {
    RingState& s = *this->state;
    s.claim_all_there();
    RL_ASSERT(s.ring.depth() == 0);
    std::uint32_t next[2] = {0, 0};
    for (std::uint32_t at = 0; at < s.pushed[0] + s.pushed[1]; ++at) {
      const unsigned producer = static_cast<unsigned>(s.claimed[at]) / 10;
      RL_ASSERT(producer < Producers);
      RL_ASSERT(s.claimed[at] == static_cast<int>(producer * 10 + next[producer]));
      ++next[producer];
    }
    for (unsigned p = 0; p < Producers; ++p) RL_ASSERT(next[p] == s.pushed[p]);
  }
};

// -------------------------------------------------------------------------------------------------------------- Parker
// The loop of a processor. `stop` is relaxed throughout: the parker alone must carry it.
struct Workshop {
  Ring<int> ring;
  Parker parker;
  rl::atomic<int> stop;
  rl::atomic<int> handled;
  explicit Workshop(std::uint32_t capacity = 4) : ring(capacity) {
    stop.store(0, rl::mo_relaxed, RL_INFO);
    handled.store(0, rl::mo_relaxed, RL_INFO);
  }
  bool stopping() const { return stop.load(rl::mo_relaxed, RL_INFO) != 0; }
  void end() {
    stop.store(1, rl::mo_relaxed, RL_INFO);
    parker.notify_all();
  }
  void push_and_notify(const int* values, std::uint32_t n) {
    const bool early = rl::rand(2) != 0;
    if (early) parker.foretell();
    RL_ASSERT(ring.push(values, n) == n);
    parker.notify();
    if (early) parker.fulfil();
  }
  template <class Handle> void process(std::uint32_t most, Handle handle) {
    for (;;) {
      parker.arrive();
      int values[2];
      const std::uint32_t n = ring.pop(values, most);
      if (n != 0) {
        if (ring.ready()) parker.notify();  // the chain: before the handler, which may take long
        handle(n);
        continue;
      }
      if (stopping()) return;
      const std::uint32_t seen = parker.prepare();
      if (ring.ready() || stopping()) parker.leave();
      else parker.wait(seen, -1);
    }
  }
  // Whoever handles the last message ends the run; so a lost wake before that leaves everybody asleep.
  void count(std::uint32_t n, int total) {
    const int before = handled.fetch_add(static_cast<int>(n), rl::mo_relaxed, RL_INFO);
    if (before + static_cast<int>(n) == total) end();
  }
};

// Producers push one and then two at once, each with one notify; two processors handle all of it.
template <unsigned Producers> struct ParkerModel : Model<ParkerModel<Producers>, Producers + 2, Workshop> {
  static constexpr int kEach = Producers == 1 ? 3 : 2;
  void thread(unsigned index) {
    Workshop& w = *this->state;
    if (index >= Producers) return w.process(index == Producers ? 1 : 2, [&w](std::uint32_t n) { w.count(n, kTotal); });
    const int values[3] = {0, 1, 2};
    w.push_and_notify(values, 1);
    w.push_and_notify(values + 1, kEach - 1);
  }
  void check() { RL_ASSERT(!this->state->ring.ready()); }

 private:
  static constexpr int kTotal = kEach * static_cast<int>(Producers);
};

// As many messages as processors, one a claim, and a handler that returns only when all are inside: a wake that is
// lost, or comes only after a handler, leaves them there. Pushed one by one or at once, as the schedule has it.
struct Meeting : Workshop {
  Sleepers waiting;
  unsigned inside = 0;
};
template <unsigned Processors> struct ChainModel : Model<ChainModel<Processors>, Processors + 1, Meeting> {
  void thread(unsigned index) {
    Meeting& m = *this->state;
    if (index > 0) return m.process(1, [this, &m](std::uint32_t) { meet(m); });
    const int values[Processors] = {};
    if (rl::rand(2)) m.push_and_notify(values, Processors);
    else
      for (const int& value : values) m.push_and_notify(&value, 1);
  }
  void meet(Meeting& m) {
    rl::ctx().sched();
    if (++m.inside < Processors) m.waiting.park();
    else m.waiting.wake(Processors);
    m.count(1, static_cast<int>(Processors));
  }
  void check() { RL_ASSERT(this->state->inside == Processors); }
};

// A third thread stops the processors at any moment: all of them return, and every message is handled or still there.
struct StopModel : Model<StopModel, 4, Workshop> {
  static constexpr int kMessages = 2;
  void thread(unsigned index) {
    Workshop& w = *this->state;
    const int value = 0;
    if (index == 0) return w.end();
    if (index == 1)
      for (int i = 0; i < kMessages; ++i) w.push_and_notify(&value, 1);
    else w.process(2, [&w](std::uint32_t n) { w.handled.fetch_add(static_cast<int>(n), rl::mo_relaxed, RL_INFO); });
  }
  void check() {
    int left = 0, value = 0;
    while (state->ring.pop(&value, 1)) ++left;
    RL_ASSERT(state->handled.load(rl::mo_relaxed, RL_INFO) + left == kMessages);
  }
};

// --------------------------------------------------------------------------------------------------------------- Slabs
// The reader fills a slab, publishes two messages in it and goes on to the next; whoever drops the last reference gives
// it back, and the reader fills it again. Nobody reads a slab after that, and none is lost or freed twice. One of the
// rounds has a slab of a size of its own, which is freed instead.
struct Depot {
  struct Item {
    Slab* slab;
    int contents;
  };
  static constexpr int kRounds = 3;
  Account account{100, 1 << 20};
  SlabPool pool{16, 1, &account};
  Ring<int> ring{8};
  Item items[2 * kRounds];

  void fill(int round, bool own_size) {
    Slab* slab = pool.acquire(own_size ? 64 : 0);
    RL_ASSERT(slab != nullptr);
    WS_WRITE(contents_of(slab), round);
    SlabPool::add(slab, 2);
    const int numbers[2] = {2 * round, 2 * round + 1};
    for (int number : numbers) items[number] = {slab, round};
    RL_ASSERT(ring.push(numbers, 2) == 2);
    SlabPool::drop(slab, 1);
  }
  std::uint32_t consume() {
    int numbers[2];
    const std::uint32_t n = ring.pop(numbers, 2);
    for (std::uint32_t i = 0; i < n; ++i) {
      const Item& item = items[numbers[i]];
      RL_ASSERT(WS_READ(contents_of(item.slab)) == item.contents);
    }
    // as processors do it: once for a run of messages in the same slab
    const bool same = n == 2 && items[numbers[0]].slab == items[numbers[1]].slab;
    for (std::uint32_t i = 0; i < n; i += same ? 2 : 1) SlabPool::drop(items[numbers[i]].slab, same ? 2 : 1);
    return n;
  }
};
struct SlabModel : Model<SlabModel, 3, Depot> {
  void thread(unsigned index) {
    if (index > 0) {
      for (int i = 0; i < 4; ++i) state->consume();
      return;
    }
    const int own_size = static_cast<int>(rl::rand(Depot::kRounds + 1));
    for (int round = 0; round < Depot::kRounds; ++round) state->fill(round, round == own_size);
  }
  void check() {
    while (state->consume()) continue;
    RL_ASSERT(state->pool.live() == 0);
    RL_ASSERT(state->account.level() == 0);
  }
};

// ------------------------------------------------------------------------------------------------------------- Mailbox
// A reader's inbox: pushers push and ring; the reader answers, looks and sleeps. It finds everything, in order. The
// look is a plain load, as that is the weakest one: a read-modify-write would always find the newest.
struct Letter {
  Plain<Letter*> next;
  Plain<int> text;
};
struct Inbox {
  Stack<Letter> stack;
  Doorbell bell;
  Letter letters[2][2];
};
struct MailboxModel : Model<MailboxModel, 3, Inbox> {
  void thread(unsigned index) {
    if (index == 0) return read();
    for (int i = 0; i < 2; ++i) {
      Letter& letter = state->letters[index - 1][i];
      WS_WRITE(letter.text, static_cast<int>(index * 10) + i);
      state->stack.push(&letter);
      state->bell.ring();
    }
  }
  void read() {
    int next[2] = {0, 0};
    while (next[0] + next[1] < 4) {
      if (!state->stack.empty()) take(next);
      if (next[0] + next[1] == 4) return;
      state->bell.wire().sleep();
      state->bell.answer();
    }
  }
  void take(int* next) {
    for (Letter* letter = state->stack.take_in_order(); letter; letter = WS_READ(letter->next)) {
      const int text = WS_READ(letter->text);
      RL_ASSERT(text % 10 == next[text / 10 - 1]++);
    }
  }
  void check() { RL_ASSERT(state->stack.empty()); }
};

// -------------------------------------------------------------------------------------------------------------- Outbox
// Two senders, each with its turn to look for room and push, and a reader that lets each frame go: the bound holds, all
// comes out in each sender's order, and a sender that waits for room is woken.
struct Sending {
  Plain<Sending*> next;
  std::uint32_t charge;
  Plain<int> text;
  static void release(Sending*) {}
};
struct Outgoing {
  static constexpr std::uint64_t kLimit = 2;
  OutboxOf<Sending> box;
  Doorbell bell;
  Sending frames[2][2];
};
struct OutboxModel : Model<OutboxModel, 3, Outgoing> {
  void thread(unsigned index) {
    if (index == 0) return read();
    for (int i = 0; i < 2; ++i) {
      wait_for_room();
      Sending& frame = state->frames[index - 1][i];
      frame.charge = 2;
      WS_WRITE(frame.text, static_cast<int>(index * 10) + i);
      state->box.push(&frame);
      state->bell.ring();
    }
  }
  void wait_for_room() {
    while (state->box.queued() >= Outgoing::kLimit) {
      const std::uint32_t seen = state->box.room.prepare();
      if (state->box.queued() < Outgoing::kLimit) state->box.room.leave();
      else state->box.room.wait(seen, -1);
      state->box.room.arrive();
    }
  }
  void read() {
    int next[2] = {0, 0};
    while (next[0] + next[1] < 4) {
      for (Sending* frame = state->box.take_in_order(); frame;) {
        Sending* behind = WS_READ(frame->next);
        const int text = WS_READ(frame->text);
        RL_ASSERT(text % 10 == next[text / 10 - 1]++);
        state->box.done(frame);
        frame = behind;
      }
      if (next[0] + next[1] == 4) return;
      state->bell.wire().sleep();
      state->bell.answer();
    }
  }
  void check() {
    RL_ASSERT(state->box.empty());
    RL_ASSERT(state->box.queued() == 0);
  }
};

// ---------------------------------------------------------------------------------------------------------------- Shut
// Ringers and a loop that ends in their midst: once the bell is shut, nobody writes to what may be another's descriptor.
struct alignas(kLine) Hung {  // aligned so that Relacy's own `new` is not asked for it
  Doorbell bell;
};
struct ShutModel : Model<ShutModel, 3, Hung> {
  void thread(unsigned index) {
    if (index != 0) {
      state->bell.ring();
      return state->bell.ring();
    }
    for (unsigned answers = rl::rand(3); answers; --answers) state->bell.answer();
    state->bell.shut();
  }
  void check() { state->bell.ring(); }
};

// ---------------------------------------------------------------------------------------------------------------- Lead
// A reader lends its loop to the one processor, at any moment, and takes it back. A peer sends two messages, a user pushes
// one into an inbox and asks one question of the loop: all four are seen to, whoever sleeps in between, and without help
// from the clock. One thread at a time is in the loop, whose state is plain.
struct Lent : Workshop {
  static constexpr int kAll = 4;
  Lead lead;
  Doorbell bell;
  Ring<int> inbox{2};
  Stack<Letter> questions;
  Letter letters[2];
  Plain<int> stopping;
  int done = 0, read = 0;
  Sleepers waiting;  // for `done` or `read`
  Lent() {
    time_passes() = rl::rand(2);
    WS_WRITE(stopping, 0);
    bell.set_lead(&lead);
    lead.set_loop([](void* lent, Parker*, std::uint32_t seen, std::int64_t) { static_cast<Lent*>(lent)->run_lent(seen); },
                  this);
    parker.set_bell(&bell);
  }
  void await(const int& figure, int least) {
    rl::ctx().sched();
    while (figure < least) waiting.park();
  }
  void advance(int& figure, int n) {
    rl::ctx().sched();
    figure += n;
    waiting.wake(8);
  }
  void ask(Letter& letter, int text) {
    WS_WRITE(letter.text, text);
    questions.push(&letter);
    bell.ring();
  }
  void see_to(int n) {
    advance(done, n);
    if (done != kAll) return;
    stop.store(1, rl::mo_relaxed, RL_INFO);
    parker.notify_all();
    ask(letters[1], 1);
  }
  void round(bool lent) {
    const int values[2] = {0, 0};
    const unsigned arrived = bell.wire().poll();
    const bool rang = bell.wire().raised();
    if (rang) bell.answer();
    RL_ASSERT(ring.push(values, arrived) == arrived);
    if (arrived != 0 && !lent) parker.notify();
    advance(read, static_cast<int>(arrived));
    for (Letter* letter = rang ? questions.take_in_order() : nullptr; letter; letter = WS_READ(letter->next)) {
      if (WS_READ(letter->text)) WS_WRITE(stopping, 1);
      else see_to(1);
    }
  }
  void run() {
    while (!WS_READ(stopping)) {
      round(false);
      if (WS_READ(stopping) || rl::rand(2)) continue;
      bell.hand_over(false);
      parker.notify();
      lead.stand_by();
    }
  }
  void run_lent(std::uint32_t seen) {
    lead.count_turn();
    while (!WS_READ(stopping) && !parker.changed(seen) && !ring.ready()) round(true);
    bell.hand_over(WS_READ(stopping) || rl::rand(2));
  }
  template <class Handle> void process_both(Handle handle) {
    for (;;) {
      parker.arrive();
      int values[2];
      const std::uint32_t n = ring.pop(values, 1), pushed = inbox.pop(values, 1);
      if (n != 0) handle();
      if (n + pushed != 0) {
        see_to(static_cast<int>(n + pushed));
        continue;
      }
      if (Workshop::stopping()) return;
      const std::uint32_t seen = parker.prepare();
      if (ring.ready() || inbox.ready() || Workshop::stopping() || parker.wait_in_poll(seen, 0)) parker.leave();
      else parker.wait(seen, -1);
    }
  }
};
// `Stuck`: no handler returns before all that the peer sends has been read. Then time must pass.
template <bool Stuck> struct LeadModel : Model<LeadModel<Stuck>, 4, Lent> {
  void thread(unsigned index) {
    Lent& l = *this->state;
    if (index == 0) return l.run();
    if (index == 1) return l.process_both([&l] { if (Stuck) l.await(l.read, 2); });
    if (index == 2) return send(l);
    use(l);
  }
  void send(Lent& l) {
    if (Stuck) time_passes() = true;
    l.bell.wire().arrive();
    l.await(l.done, Stuck ? 0 : static_cast<int>(rl::rand(4)));
    l.bell.wire().arrive();
  }
  void use(Lent& l) {
    const int value = 0;
    const bool first = rl::rand(2);
    if (first) l.ask(l.letters[0], 0);
    l.inbox.push(&value, 1);
    l.parker.notify();
    if (!first) l.ask(l.letters[0], 0);
  }
  void check() {
    Lent& l = *this->state;
    RL_ASSERT(!l.ring.ready() && !l.inbox.ready() && l.questions.empty());
  }
};

// ------------------------------------------------------------------------------------------------------------- Account
// Two sources, each with its own bell, charge three messages under a bound of two, in messages or in bytes; two
// consumers release them. No source sleeps for ever, and the bound holds but for one message of each other source:
// they look and charge in two steps.
struct Tally {
  static constexpr std::uint64_t kBytes = 10;
  Account account;
  Doorbell bells[2];
  unsigned ready = 0;  // messages that wait for a consumer
  Sleepers idle;
  Tally() : account(rl::rand(2) ? 2 : 50, 20) {
    for (unsigned door = 0; door < 2; ++door) account.set_door(door, &bells[door]);
  }
  void hand_over() {
    ++ready;
    idle.wake(1);
  }
  void receive() {
    rl::ctx().sched();
    while (ready == 0) idle.park();
    --ready;
  }
};
template <unsigned Sources, unsigned Consumers>
struct AccountModel : Model<AccountModel<Sources, Consumers>, Sources + Consumers, Tally> {
  static constexpr int kEach = 3;
  void thread(unsigned index) {
    if (index < Sources) return charge(index);
    const unsigned all = kEach * Sources, first = index - Sources;
    for (unsigned i = first; i < all; i += Consumers) {
      this->state->receive();
      this->state->account.release(1, Tally::kBytes);
    }
  }
  void charge(unsigned door) {
    Tally& t = *this->state;
    for (int i = 0; i < kEach; ++i) {
      if (rl::rand(4) == 0) t.account.rest(door);  // the next release rings, though nobody sleeps for that
      while (!t.account.admits()) {
        if (t.account.starve(door)) t.bells[door].wire().sleep();
        t.bells[door].answer();
      }
      t.account.charge(1, Tally::kBytes);
      RL_ASSERT(Account::messages_of(t.account.level()) <= 2 + Sources - 1);
      t.hand_over();
    }
  }
  void check() { RL_ASSERT(this->state->account.level() == 0); }
};

// ----------------------------------------------------------------------------------------------------------- Admission
// All of it together: a reader under a bound as large as the ring, and processors that free their slots, then handle,
// then release. What the account admits finds a free slot, if one processor frees the slots in order. With two, one
// that stalls inside its claim may hold the slot that is next, while the other goes on: the reader must take a refusal
// by the ring as one by the account.
struct Engine : Workshop {
  static constexpr std::uint32_t kBound = 2;
  Account account{kBound, 1000};
  Doorbell bell;
  Engine() : Workshop(kBound) { account.set_door(0, &bell); }
  void wait_for_room() {
    if (account.starve(0)) bell.wire().sleep();
    else rl::yield(1, RL_INFO);
    bell.answer();
  }
};
template <unsigned Processors> struct AdmissionModel : Model<AdmissionModel<Processors>, Processors + 1, Engine> {
  static constexpr int kMessages = 5;
  void thread(unsigned index) {
    Engine& e = *this->state;
    if (index == 0) return read(e);
    e.process(2, [&e](std::uint32_t n) {
      e.account.release(n, 10 * n);
      e.count(n, kMessages);
    });
  }
  void read(Engine& e) {
    const int values[2] = {0, 0};
    for (std::uint32_t done = 0; done < kMessages;) {
      const std::uint64_t room = e.account.admits() ? e.account.room() : 0;
      const std::uint32_t n = room < kMessages - done ? static_cast<std::uint32_t>(room) : kMessages - done;
      std::uint32_t got = 0;
      if (n > 0) {
        e.account.charge(n, 10 * n);
        got = e.ring.push(values, n);
        RL_ASSERT(Processors > 1 || got == n);
      }
      if (got < n) e.account.release(n - got, 10 * (n - got));
      if (got > 0) e.parker.notify();
      else e.wait_for_room();
      done += got;
    }
  }
  void check() {
    RL_ASSERT(this->state->account.level() == 0);
    RL_ASSERT(!this->state->ring.ready());
  }
};

}  // namespace model
}  // namespace wsengine
#endif
