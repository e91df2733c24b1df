// bell_stress.cpp: doorbells that are shut while others ring them, under real threads, for speed and under ThreadSanitizer.
//
//   bell_stress [--millis N] [--seed N]
//
// Two ringers ring whatever bell hangs there. Bell after bell is answered for a while and shut, and its descriptor's number
// given to something else at once, in which no ringer may leave a mark. It prints its figures as name=value and exits 0, or
// says what is wrong and exits 1; wrong options exit 2. But under ThreadSanitizer, which cannot follow it, the process is
// then forked while a thread rings, until a child has one in the midst of it: that child's shut() must come to an end.
//
// Here belongs the end of a bell. That no ring is lost before is the matter of tests/model and of lead_stress.cpp.
#include "doorbell.hpp"
#include "options.hpp"

#include <atomic>
#include <cstdio>
#include <sys/wait.h>
#include <memory>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace wsengine;

namespace {

// What got the number of a descriptor that was just closed.
class Stranger {
 public:
  Stranger() : fd_(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {}
  ~Stranger() { ::close(fd_); }
  int fd() const { return fd_; }
  bool marked() const {
    std::uint64_t count;
    return ::read(fd_, &count, sizeof count) > 0;
  }

 private:
  const int fd_;
};

int end_bells(std::uint64_t millis, std::uint64_t seed) {
  std::mt19937_64 dice(seed);
  std::atomic<Doorbell*> hanging{nullptr};
  std::atomic<bool> stop{false};
  std::atomic<std::uint64_t> rings{0};
  std::vector<std::thread> ringers;
  for (int i = 0; i < 2; ++i)
    ringers.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        Doorbell* const bell = hanging.load(std::memory_order_acquire);
        if (bell) bell->ring(), rings.fetch_add(1, std::memory_order_relaxed);
      }
    });
  std::vector<std::unique_ptr<Doorbell>> ended;  // kept, as a bell's owner does, for whoever rings late
  std::uint64_t same = 0;
  const std::int64_t until = monotonic_ns() + static_cast<std::int64_t>(millis) * 1'000'000;
  bool marked = false;
  while (!marked && monotonic_ns() < until) {
    ended.push_back(std::make_unique<Doorbell>());
    Doorbell& bell = *ended.back();
    const int fd = bell.wire().fd();
    hanging.store(&bell, std::memory_order_release);
    for (std::uint64_t answers = dice() % 64; answers; --answers) bell.answer();
    bell.shut();
    Stranger stranger;
    same += stranger.fd() == fd;
    sched_yield();
    marked = stranger.marked();
  }
  stop.store(true, std::memory_order_relaxed);
  for (std::thread& ringer : ringers) ringer.join();
  std::printf("bells=%zu same=%llu rings=%llu\n", ended.size(), (unsigned long long)same, (unsigned long long)rings.load());
  if (marked) std::fprintf(stderr, "bell_stress: a ringer wrote to another's descriptor\n");
  return marked;
}

#ifndef __SANITIZE_THREAD__
int fork_in_the_midst(std::uint64_t millis) {
  Doorbell bell;
  std::atomic<bool> stop{false};
  std::thread ringer([&] {
    while (!stop.load(std::memory_order_relaxed)) bell.ring(), bell.answer();
  });
  std::uint64_t forks = 0, caught = 0;
  bool ended = true;
  const std::int64_t until = monotonic_ns() + static_cast<std::int64_t>(millis) * 10'000'000;
  while (ended && caught == 0 && monotonic_ns() < until) {
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      bell.shut();
      std::_Exit(bell.wire().fd() >= 0 ? 10 : 0);  // still open: the ringer stayed behind in the parent
    }
    int status = 0;
    waitpid(child, &status, 0);
    ++forks;
    ended = WIFEXITED(status);
    caught += ended && WEXITSTATUS(status) == 10;
  }
  stop.store(true, std::memory_order_relaxed);
  ringer.join();
  std::printf("forks=%llu caught=%llu\n", (unsigned long long)forks, (unsigned long long)caught);
  if (!ended) std::fprintf(stderr, "bell_stress: a bell could not be shut in a forked child\n");
  return !ended;
}
#endif
}  // namespace

int main(int argc, char** argv) {
  const Options options("bell_stress", argc, argv);
  std::printf("seed=%llu ", (unsigned long long)options.seed);
  if (end_bells(options.millis, options.seed) != 0) return 1;
#ifndef __SANITIZE_THREAD__
  return fork_in_the_midst(options.millis);
#endif
}
