// ring_stress.cpp: the engine's concurrent header under real threads, for speed and under ThreadSanitizer.
//
//   ring_stress --scenario flow  [--producers N] [--consumers N] [--capacity N] [--millis N] [--seed N]
//   ring_stress --scenario stall [--capacity N] [--rounds N] [--seed N]
//
// flow: producers fill slabs and push descriptors under the account; processors wait on the parker, claim, check, drop
// and release; a stop comes at a random moment. Every message arrives once, whole and in its producer's order, and
// nothing is left: not in the ring, the pools or the account. stall: a consumer is stopped between its claim and its
// release. It prints its figures as name=value and exits 0, or says what is wrong and exits 1; wrong options exit 2.
//
// Here belong scenarios that need real threads. Orders are the matter of tests/model, which sees more schedules.
namespace {
void pause_after_claim();
}
#define WS_PAUSE(point) pause_##point()

#include "parker.hpp"
#include "ring.hpp"
#include "slab.hpp"

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <map>
#include <memory>
#include <mutex>
#include <poll.h>
#include <random>
#include <sched.h>
#include <string>
#include <thread>
#include <vector>

using namespace wsengine;

namespace {

constexpr std::int64_t kLost = 5'000'000'000;  // ns; a sleep of that length with work at hand is a lost wake
constexpr std::uint64_t kSlabBytes = 1024;
constexpr std::uint32_t kMessageBytes = 32;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "ring_stress: %s\n", what.c_str());
  std::fflush(nullptr);
  std::_Exit(1);  // other threads may be asleep for ever
}
void expect(bool holds, const char* what) {
  if (!holds) fail(what);
}

class Dice {
 public:
  explicit Dice(std::uint64_t seed) : engine_(seed) {}
  std::uint32_t upto(std::uint32_t most) { return static_cast<std::uint32_t>(engine_() % (most + 1)); }
  void maybe_pause() {  // mostly none, sometimes a turn for another thread, rarely some microseconds
    const std::uint32_t drawn = upto(255);
    if (drawn == 0) std::this_thread::sleep_for(std::chrono::microseconds(upto(200)));
    else if (drawn < 8) sched_yield();
  }

 private:
  std::mt19937_64 engine_;
};

using Settings = std::map<std::string, std::uint64_t>;

// ---------------------------------------------------------------------------------------------------------------- flow
struct Figures {  // of one thread
  unsigned long long messages = 0, wakes = 0, arrivals = 0, parks = 0, sleeps = 0, refused = 0;
  void add(const Figures& other) {
    messages += other.messages;
    wakes += other.wakes;
    arrivals += other.arrivals;
    parks += other.parks;
    sleeps += other.sleeps;
    refused += other.refused;
  }
};

struct Shop {
  Ring<Descriptor> ring;
  Parker parker;
  Account account;
  std::atomic<bool> stop{false};   // for the producers
  std::atomic<bool> drain{false};  // for the consumers: no more will come
  explicit Shop(std::uint32_t capacity) : ring(capacity), account(capacity, 6 * kSlabBytes) {}
};

std::uint64_t sequence_of(const Descriptor& d) { return d.arrival->sequence + d.ordinal; }
std::uint8_t byte_of(const Descriptor& d) { return static_cast<std::uint8_t>(sequence_of(d) * 7 + d.arrival->index); }

class Producer {
 public:
  Producer(Shop& shop, std::uint32_t index, std::uint64_t seed)
      : shop_(shop), index_(index), dice_(seed), pool_(kSlabBytes, 3, &shop.account) {
    shop.account.set_door(index, &bell_);
  }
  void run() {
    while (!shop_.stop.load(std::memory_order_relaxed)) fill_and_push();
  }
  const Figures& figures() const { return figures_; }
  std::uint32_t live_slabs() const { return pool_.live(); }

 private:
  void fill_and_push() {
    Slab* slab = pool_.acquire(dice_.upto(15) == 0 ? 2 * kSlabBytes : 0);
    expect(slab != nullptr, "out of memory");
    const std::uint32_t n = 1 + dice_.upto(7);
    Descriptor descriptors[8] = {};
    const Arrival* arrival = new (slab->data()) Arrival{slab, next_, 0, 0, index_};
    for (std::uint32_t i = 0; i < n; ++i) descriptors[i] = write(arrival, i);
    next_ += n;
    SlabPool::add(slab, n);
    const std::uint32_t pushed = push(descriptors, n);
    if (pushed < n) SlabPool::drop(slab, n - pushed);
    SlabPool::drop(slab, 1);
    dice_.maybe_pause();
  }
  Descriptor write(const Arrival* arrival, std::uint32_t ordinal) {
    std::uint8_t* data = arrival->slab->data() + sizeof(Arrival) + ordinal * kMessageBytes;
    Descriptor d = {};
    d.data = data;
    d.arrival = arrival;
    d.size = kMessageBytes;
    d.ordinal = ordinal;
    std::memset(data, byte_of(d), kMessageBytes);
    return d;
  }
  // As a reader does: charge what the account has room for, push it, wake one processor, sleep on refusal.
  std::uint32_t push(const Descriptor* descriptors, std::uint32_t n) {
    std::uint32_t done = 0;
    while (done < n && !(shop_.stop.load(std::memory_order_relaxed))) {
      const std::uint64_t room = shop_.account.admits() ? std::max<std::uint64_t>(shop_.account.room(), 1) : 0;
      const std::uint32_t most = static_cast<std::uint32_t>(std::min<std::uint64_t>(room, n - done));
      if (most > 0) shop_.account.charge(most, 0);
      const std::uint32_t got = most > 0 ? shop_.ring.push(descriptors + done, most) : 0;
      if (got < most) shop_.account.release(most - got, 0);
      if (got > 0 && shop_.parker.notify()) ++figures_.wakes;
      if (got == 0) wait_for_room(most > 0);
      done += got;
    }
    figures_.messages += done;
    return done;
  }
  void wait_for_room(bool refused_by_ring) {
    figures_.refused += refused_by_ring;
    if (shop_.account.starve(index_)) {
      ++figures_.sleeps;
      pollfd wait = {bell_.wire().fd(), POLLIN, 0};
      expect(poll(&wait, 1, static_cast<int>(kLost / 1'000'000)) != 0, "a producer was not woken");
    } else {
      sched_yield();  // a consumer stands between its claim and its release
    }
    bell_.answer();
  }

  Shop& shop_;
  const std::uint32_t index_;
  Dice dice_;
  Doorbell bell_;
  SlabPool pool_;
  Figures figures_;
  std::uint64_t next_ = 0;
};

class Consumer {
 public:
  Consumer(Shop& shop, std::uint32_t producers, std::uint64_t seed)
      : shop_(shop), dice_(seed), last_(producers, -1), seen_(producers) {}

  void run() {  // the loop of a processor
    for (;;) {
      shop_.parker.arrive();
      ++figures_.arrivals;
      Descriptor claimed[16];
      const std::uint32_t n = shop_.ring.pop(claimed, 1 + dice_.upto(15));
      if (n > 0) {
        if (shop_.ring.ready() && shop_.parker.notify()) ++figures_.wakes;
        handle(claimed, n);
        continue;
      }
      if (shop_.drain.load(std::memory_order_acquire)) return;
      park();
    }
  }
  const Figures& figures() const { return figures_; }
  const std::vector<std::uint64_t>& seen(std::uint32_t producer) const { return seen_[producer]; }

 private:
  void park() {
    const std::uint32_t word = shop_.parker.prepare();
    ++figures_.parks;
    if (shop_.ring.ready() || shop_.drain.load(std::memory_order_acquire)) return shop_.parker.leave();
    const std::int64_t start = monotonic_ns();
    shop_.parker.wait(word, kLost);
    expect(monotonic_ns() - start < kLost || !shop_.ring.ready(), "a consumer was not woken");
  }
  void handle(const Descriptor* claimed, std::uint32_t n) {
    for (std::uint32_t i = 0; i < n; ++i) check(claimed[i]);
    dice_.maybe_pause();
    for (std::uint32_t i = 0, run = 1; i < n; i += run, run = 1) {
      Slab* const slab = claimed[i].arrival->slab;
      while (i + run < n && claimed[i + run].arrival->slab == slab) ++run;
      SlabPool::drop(slab, run);
    }
    shop_.account.release(n, 0);
    figures_.messages += n;
  }
  void check(const Descriptor& d) {
    const std::uint32_t index = d.arrival->index;
    expect(index < last_.size(), "a descriptor names no producer");
    expect(static_cast<std::int64_t>(sequence_of(d)) > last_[index], "a producer's messages are out of order");
    last_[index] = static_cast<std::int64_t>(sequence_of(d));
    seen_[index].push_back(sequence_of(d));
    for (std::uint32_t i = 0; i < d.size; ++i)
      expect(d.data[i] == byte_of(d), "a message was overwritten while it was held");
  }

  Shop& shop_;
  Dice dice_;
  std::vector<std::int64_t> last_;
  std::vector<std::vector<std::uint64_t>> seen_;  // by producer
  Figures figures_;
};

// All sequences of the producer from 0 on, each once, over all consumers.
void check_once(const std::vector<std::unique_ptr<Consumer>>& consumers, std::uint32_t producer, std::uint64_t pushed) {
  std::vector<std::uint64_t> all;
  for (const auto& consumer : consumers)
    all.insert(all.end(), consumer->seen(producer).begin(), consumer->seen(producer).end());
  std::sort(all.begin(), all.end());
  expect(all.size() == pushed, "messages were lost or came twice");
  for (std::uint64_t i = 0; i < pushed; ++i) expect(all[i] == i, "a message was lost and another came twice");
}

void flow(const Settings& settings) {
  Dice dice(settings.at("seed"));
  Shop shop(static_cast<std::uint32_t>(settings.at("capacity")));
  std::vector<std::unique_ptr<Producer>> producers;
  std::vector<std::unique_ptr<Consumer>> consumers;
  std::vector<std::thread> producing, consuming;
  const auto count = static_cast<std::uint32_t>(settings.at("producers"));
  for (std::uint32_t i = 0; i < count; ++i)
    producers.push_back(std::make_unique<Producer>(shop, i, settings.at("seed") * 101 + i));
  for (std::uint32_t i = 0; i < settings.at("consumers"); ++i)
    consumers.push_back(std::make_unique<Consumer>(shop, count, settings.at("seed") * 103 + i));
  for (auto& consumer : consumers) consuming.emplace_back([&consumer] { consumer->run(); });
  for (auto& producer : producers) producing.emplace_back([&producer] { producer->run(); });

  const auto millis = static_cast<std::uint32_t>(settings.at("millis"));
  std::this_thread::sleep_for(std::chrono::milliseconds(millis / 2 + dice.upto(millis / 2)));
  shop.stop.store(true, std::memory_order_relaxed);
  for (std::thread& thread : producing) thread.join();
  shop.drain.store(true, std::memory_order_release);
  shop.parker.notify_all();
  for (std::thread& thread : consuming) thread.join();

  Figures pushed, handled;
  for (std::uint32_t i = 0; i < count; ++i) {
    pushed.add(producers[i]->figures());
    check_once(consumers, i, producers[i]->figures().messages);
    expect(producers[i]->live_slabs() == 0, "a slab was not given back");
  }
  for (auto& consumer : consumers) handled.add(consumer->figures());
  expect(!shop.ring.ready() && shop.ring.depth() == 0, "the ring is not empty after the drain");
  expect(shop.account.level() == 0, "the account is not empty after the drain");
  expect(shop.parker.waiters() == 0, "the parker counts waiters that are gone");
  // A wake takes waking_ from 0 to 1, and only arrivals and parks take it back.
  expect(pushed.wakes + handled.wakes <= handled.arrivals + handled.parks + 1, "more wakes than one at a time");
  std::printf("messages=%llu wakes=%llu chained=%llu parks=%llu sleeps=%llu refused=%llu\n",
              handled.messages, pushed.wakes, handled.wakes, handled.parks, pushed.sleeps, pushed.refused);
}

// --------------------------------------------------------------------------------------------------------------- stall
class Gate {  // the stalled consumer says that it has claimed, and waits there
 public:
  void pass() {
    std::unique_lock<std::mutex> hold(mutex_);
    claimed_ = true;
    changed_.notify_all();
    changed_.wait(hold, [this] { return open_; });
  }
  void await_claim() {
    std::unique_lock<std::mutex> hold(mutex_);
    changed_.wait(hold, [this] { return claimed_; });
  }
  void open() {
    std::lock_guard<std::mutex> hold(mutex_);
    open_ = true;
    changed_.notify_all();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool claimed_ = false, open_ = false;
};
thread_local Gate* stalls_at = nullptr;
void pause_after_claim() {
  if (stalls_at) stalls_at->pass();
}

// Two consumers that take whatever they can get, until the end of the scope.
class Others {
 public:
  explicit Others(Ring<std::uint64_t>& ring) : ring_(ring) {
    for (std::vector<std::uint64_t>& values : taken_) threads_.emplace_back([this, &values] { take(values); });
  }
  std::uint64_t count() const { return count_.load(std::memory_order_acquire); }  // their slots are let go
  std::vector<std::uint64_t> end() {
    end_.store(true, std::memory_order_release);
    for (std::thread& thread : threads_) thread.join();
    taken_[0].insert(taken_[0].end(), taken_[1].begin(), taken_[1].end());
    return taken_[0];
  }

 private:
  void take(std::vector<std::uint64_t>& values) {
    std::uint64_t some[4];
    while (!end_.load(std::memory_order_acquire)) {
      const std::uint32_t n = ring_.pop(some, 4);
      values.insert(values.end(), some, some + n);
      count_.fetch_add(n, std::memory_order_release);
      if (n == 0) sched_yield();
    }
  }
  Ring<std::uint64_t>& ring_;
  std::atomic<bool> end_{false};
  std::atomic<std::uint64_t> count_{0};
  std::vector<std::uint64_t> taken_[2];
  std::vector<std::thread> threads_;
};

template <class Condition> void await(Condition condition, const char* what) {
  const std::int64_t limit = monotonic_ns() + kLost;
  while (!condition()) {
    expect(monotonic_ns() < limit, what);
    sched_yield();
  }
}

void stall_once(std::uint32_t capacity, Dice& dice) {
  Ring<std::uint64_t> ring(capacity);
  std::uint64_t next = 0, value = 0;
  for (std::uint32_t i = dice.upto(2 * capacity); i > 0; --i) {  // begin anywhere in a lap
    expect(ring.push(&value, 1) == 1 && ring.pop(&value, 1) == 1, "an empty ring refused a value");
  }
  const std::uint32_t held = 1 + dice.upto(capacity - 1);
  for (; next < held; ++next) expect(ring.push(&next, 1) == 1, "a ring with room refused a value");

  Gate gate;
  std::vector<std::uint64_t> all(capacity);
  std::uint32_t got = 0;
  std::thread sleeper([&] {
    stalls_at = &gate;
    got = ring.pop(all.data(), held);
  });
  gate.await_claim();
  Others others(ring);
  for (; next < capacity; ++next)
    await([&] { return ring.push(&next, 1) == 1; }, "the producer did not go on up to the stalled slots");
  await([&] { return others.count() == capacity - held; }, "the other consumers did not go on");
  expect(ring.push(&next, 1) == 0, "the producer went over a stalled slot");
  gate.open();
  sleeper.join();
  expect(got == held, "the stalled claim came back with another size");

  all.resize(held);
  for (; next < 2 * capacity; ++next)
    await([&] { return ring.push(&next, 1) == 1; }, "the stalled slots were not let go");
  await([&] { return others.count() == 2 * capacity - held; }, "the other consumers did not go on after the stall");
  const std::vector<std::uint64_t> taken = others.end();
  all.insert(all.end(), taken.begin(), taken.end());
  std::sort(all.begin(), all.end());
  expect(all.size() == next, "values were lost or came twice");
  for (std::uint64_t i = 0; i < next; ++i) expect(all[i] == i, "a value was lost and another came twice");
}

void stall(const Settings& settings) {
  Dice dice(settings.at("seed"));
  const auto capacity = static_cast<std::uint32_t>(settings.at("capacity"));
  for (std::uint64_t i = 0; i < settings.at("rounds"); ++i) stall_once(capacity, dice);
  std::printf("rounds=%llu\n", (unsigned long long)settings.at("rounds"));
}

// ------------------------------------------------------------------------------------------------------------- options
[[noreturn]] void refuse(const std::string& why) {
  std::fprintf(stderr, "ring_stress: %s\n", why.c_str());
  std::exit(2);
}

}  // namespace

int main(int argc, char** argv) {
  std::string scenario = "flow";
  Settings settings = {{"producers", 1}, {"consumers", 2}, {"capacity", 4},
                       {"millis", 500},  {"rounds", 20},   {"seed", 1}};
  for (int i = 1; i < argc; i += 2) {
    const std::string option = argv[i];
    if (i + 1 == argc) refuse("'" + option + "' lacks its value");
    if (option == "--scenario") scenario = argv[i + 1];
    else if (option.rfind("--", 0) == 0 && settings.count(option.substr(2)))
      settings[option.substr(2)] = std::strtoull(argv[i + 1], nullptr, 10);
    else refuse("'" + option + "' is unknown");
  }
  const std::uint64_t capacity = settings["capacity"];
  if (capacity < 2 || (capacity & (capacity - 1)) != 0) refuse("--capacity wants a power of two from 2 on");
  if (settings["producers"] == 0 || settings["consumers"] == 0) refuse("--producers and --consumers want at least 1");
  std::printf("seed=%llu ", (unsigned long long)settings["seed"]);
  if (scenario == "flow") flow(settings);
  else if (scenario == "stall") stall(settings);
  else refuse("--scenario wants flow or stall, not '" + scenario + "'");
}
