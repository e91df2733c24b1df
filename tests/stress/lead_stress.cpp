// lead_stress.cpp: a reader's loop that changes hands, under real threads, for speed and under ThreadSanitizer.
//
//   lead_stress [--millis N] [--seed N]
//
// A peer writes single bytes and bursts into a pipe, a user pushes into an inbox and asks questions of the loop. A reader
// and one processor read the pipe, whoever has the lead; the processor handles everything, sometimes for longer than the
// reader stands by. Every byte, push and question is seen to, no sleep outlasts its reason, and two threads are never in
// the loop at once: its state is plain, so that ThreadSanitizer sees it if they are. It prints its figures as name=value
// and exits 0, or says what is wrong and exits 1; wrong options exit 2.
//
// Here belongs the lead with real threads and polls. Its orders are the matter of tests/model.
#include "options.hpp"
#include "parker.hpp"
#include "ring.hpp"
#include "stack.hpp"

#include <chrono>
#include <cstdio>
#include <fcntl.h>
#include <poll.h>
#include <random>
#include <string>
#include <thread>

using namespace wsengine;

namespace {

constexpr std::int64_t kLost = 5'000'000'000;  // ns; whoever waits so long was forgotten
constexpr std::uint32_t kBurst = 64;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "lead_stress: %s\n", what.c_str());
  std::fflush(nullptr);
  std::_Exit(1);  // other threads may be asleep for ever
}
void expect(bool holds, const char* what) {
  if (!holds) fail(what);
}
void pause_us(std::uint64_t us) {
  if (us) std::this_thread::sleep_for(std::chrono::microseconds(us));
}

struct Question {
  Question* next = nullptr;
  bool last = false;  // ends the loop
};

// What the loop owns is plain: only whoever has the lead may touch it.
struct Engine {
  Ring<std::uint64_t> ring{1 << 16}, inbox{1 << 10};
  Parker parker;
  Lead lead;
  Doorbell bell;
  Stack<Question> questions;
  std::atomic<std::uint64_t> asked{0}, answered{0}, handled{0};
  std::atomic<bool> ending{false};
  int socket[2];
  bool stopping = false;
  std::uint64_t read = 0, rounds = 0, lends = 0;
  std::mt19937_64 dice;

  explicit Engine(std::uint64_t seed) : dice(seed) {
    expect(::pipe(socket) == 0, "no pipe");
    fcntl(socket[0], F_SETFL, O_NONBLOCK);
    bell.set_lead(&lead);
    lead.set_loop(&Engine::lead_a_while, this);
    parker.set_bell(&bell);
  }
  ~Engine() {
    ::close(socket[0]);
    ::close(socket[1]);
  }
  void ask(bool last) {
    Question* question = new Question;
    question->last = last;
    questions.push(question);
    bell.ring();
  }

  void round(bool lent, int timeout_ms) {
    pollfd both[2] = {{bell.wire().fd(), POLLIN, 0}, {socket[0], POLLIN, 0}};
    ::poll(both, 2, timeout_ms);
    ++rounds;
    if (both[0].revents) answer();
    if (both[1].revents) take(lent);
  }
  void answer() {
    bell.answer();
    for (Question* question = questions.take_in_order(); question;) {
      Question* const next = question->next;
      stopping |= question->last;
      answered.fetch_add(!question->last, std::memory_order_relaxed);
      delete question;
      question = next;
    }
  }
  void take(bool lent) {
    char bytes[kBurst];
    const ssize_t got = ::read(socket[0], bytes, sizeof bytes);
    for (ssize_t i = 0; i < got; ++i) {
      const std::uint64_t value = read++;
      while (ring.push(&value, 1) == 0) std::this_thread::yield();  // the bound is the account's matter
    }
    if (got > 0 && !lent) parker.notify();
  }
  void run() {  // the reader
    while (!stopping) {
      round(false, static_cast<int>(kLost / 1'000'000));
      if (stopping || dice() % 4) continue;
      ++lends;
      bell.hand_over(false);
      parker.notify();
      lead.stand_by();
    }
  }
  static void lead_a_while(void* context, Parker* parker, std::uint32_t seen, std::int64_t) {
    Engine& e = *static_cast<Engine*>(context);
    e.lead.count_turn();
    while (!e.stopping && !parker->changed(seen) && !e.ring.ready()) e.round(true, static_cast<int>(kLost / 1'000'000));
    e.bell.hand_over(e.stopping || e.dice() % 8 == 0);
  }
};

class Processor {
 public:
  Processor(Engine& engine, std::uint64_t seed) : engine_(engine), dice_(seed) {}
  void run() {
    for (;;) {
      engine_.parker.arrive();
      if (claim()) continue;
      const std::uint32_t seen = engine_.parker.prepare();
      if (engine_.ring.ready() || engine_.inbox.ready()) engine_.parker.leave();
      else if (engine_.ending.load(std::memory_order_acquire)) return engine_.parker.leave();
      else park(seen);
    }
  }

 private:
  bool claim() {
    std::uint64_t values[16], pushed[4];
    const std::uint32_t n = engine_.ring.pop(values, 16), m = engine_.inbox.pop(pushed, 4);
    for (std::uint32_t i = 0; i < n; ++i) expect(values[i] == next_++, "a message was lost, or came out of order");
    for (std::uint32_t i = 0; i < m; ++i) expect(pushed[i] == next_pushed_++, "a push was lost, or came out of order");
    if (n + m == 0) return false;
    if (dice_() % 64 == 0) pause_us(dice_() % 6000);  // the reader shall take the loop back, at times
    engine_.handled.fetch_add(n + m, std::memory_order_relaxed);
    return true;
  }
  void park(std::uint32_t seen) {
    const std::int64_t start = monotonic_ns();
    if (engine_.parker.wait_in_poll(seen, 0)) engine_.parker.leave();
    else engine_.parker.wait(seen, kLost);
    expect(monotonic_ns() - start < kLost, "the processor was forgotten");
  }
  Engine& engine_;
  std::mt19937_64 dice_;
  std::uint64_t next_ = 0, next_pushed_ = 0;
};

std::uint64_t send(Engine& e, std::uint64_t seed, std::int64_t until) {
  std::mt19937_64 dice(seed);
  const char bytes[kBurst] = {};
  std::uint64_t sent = 0;
  while (monotonic_ns() < until) {
    const std::size_t n = dice() % 16 ? 1 : 1 + dice() % kBurst;
    const ssize_t wrote = ::write(e.socket[1], bytes, n);
    expect(wrote > 0, "the pipe took nothing");
    sent += static_cast<std::uint64_t>(wrote);
    pause_us(dice() % 4 ? 0 : dice() % 300);
  }
  return sent;
}
std::uint64_t use(Engine& e, std::uint64_t seed, std::int64_t until) {
  std::mt19937_64 dice(seed);
  std::uint64_t pushed = 0;
  while (monotonic_ns() < until) {
    if (dice() % 2) {
      e.asked.fetch_add(1, std::memory_order_relaxed);
      e.ask(false);
    } else if (e.inbox.push(&pushed, 1)) {
      ++pushed;
      e.parker.notify();
    }
    pause_us(dice() % 400);
  }
  return pushed;
}

void flow(std::uint64_t millis, std::uint64_t seed) {
  Engine engine(seed);
  Processor processor(engine, seed * 101 + 1);
  std::uint64_t sent = 0, pushed = 0;
  const std::int64_t until = monotonic_ns() + static_cast<std::int64_t>(millis) * 1'000'000;
  std::thread reading([&engine] { engine.run(); });
  std::thread handling([&processor] { processor.run(); });
  std::thread sending([&] { sent = send(engine, seed * 103 + 2, until); });
  std::thread using_it([&] { pushed = use(engine, seed * 107 + 3, until); });
  sending.join();
  using_it.join();
  const std::int64_t lost = monotonic_ns() + kLost;
  while (engine.handled.load(std::memory_order_relaxed) < sent + pushed ||
         engine.answered.load(std::memory_order_relaxed) < engine.asked.load(std::memory_order_relaxed)) {
    expect(monotonic_ns() < lost, "something sent, pushed or asked was never seen to");
    pause_us(200);
  }
  engine.ending.store(true, std::memory_order_release);
  engine.parker.notify_all();
  handling.join();
  engine.ask(true);
  reading.join();
  expect(engine.parker.waiters() == 0, "the parker counts waiters that are gone");
  expect(engine.read == sent, "more was read than sent");
  std::printf("sent=%llu pushed=%llu asked=%llu rounds=%llu lends=%llu turns=%llu\n", (unsigned long long)sent,
              (unsigned long long)pushed, (unsigned long long)engine.asked.load(), (unsigned long long)engine.rounds,
              (unsigned long long)engine.lends, (unsigned long long)engine.lead.turns());
}
}  // namespace

int main(int argc, char** argv) {
  const Options options("lead_stress", argc, argv);
  std::printf("seed=%llu ", (unsigned long long)options.seed);
  flow(options.millis, options.seed);
}
