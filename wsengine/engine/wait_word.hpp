// wait_word.hpp: a word that threads sleep on until it changes: futex on Linux, mutex and condition elsewhere. What is
// waited for is not known here (parker, lead). The models have one of their own.
#ifndef WSENGINE_WAIT_WORD_HPP
#define WSENGINE_WAIT_WORD_HPP

#include "atomic.hpp"

#if !defined(WS_MODEL) && defined(__linux__)
#include <climits>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#elif !defined(WS_MODEL)
#include <chrono>
#include <condition_variable>
#include <mutex>
#endif

namespace wsengine {

#ifndef WS_MODEL
class WaitWord {
 public:
  WaitWord() : value_(0) {}
  std::uint32_t load() const { return value_.load(WS_ORDER(word_load, acquire)); }  // pairs with word_bump
  // Sleep while the word is `seen`, at most `ns` (below 0: no limit). Returns early on signals and for no reason.
#ifdef __linux__
  void wait(std::uint32_t seen, std::int64_t ns) {
    timespec limit{static_cast<time_t>(ns / 1000000000), static_cast<long>(ns % 1000000000)};
    syscall(SYS_futex, &value_, FUTEX_WAIT_PRIVATE, seen, ns < 0 ? nullptr : &limit, nullptr, 0);
  }
  void bump_and_wake(std::uint32_t threads) {
    value_.fetch_add(1, WS_ORDER(word_bump, release));  // pairs with word_load
    syscall(SYS_futex, &value_, FUTEX_WAKE_PRIVATE, threads, nullptr, nullptr, 0);
  }
#else
  void wait(std::uint32_t seen, std::int64_t ns) {
    std::unique_lock<std::mutex> hold(mutex_);
    if (value_.load(WS_ORDER(word_load, acquire)) != seen) return;
    if (ns < 0) condition_.wait(hold);
    else condition_.wait_for(hold, std::chrono::nanoseconds(ns));
  }
  void bump_and_wake(std::uint32_t threads) {
    {
      std::lock_guard<std::mutex> hold(mutex_);
      value_.fetch_add(1, WS_ORDER(word_bump, release));
    }
    if (threads == 1) condition_.notify_one();
    else condition_.notify_all();
  }
  std::mutex mutex_;
  std::condition_variable condition_;
#endif
 private:
  Atomic<std::uint32_t> value_;  // counts wakes; notifiers
};
#endif

}  // namespace wsengine
#endif
