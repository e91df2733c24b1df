// account.hpp: the bound of a pipeline in messages and bytes, and how sources that met it are woken.
#ifndef WSENGINE_ACCOUNT_HPP
#define WSENGINE_ACCOUNT_HPP

#include "doorbell.hpp"

namespace wsengine {

// What a pipeline holds, in messages and bytes, in one word, so that every reading is of one moment. Messages are
// charged at push and released at acknowledgement or drop; bytes are charged as receive buffers (at capacity) from the
// moment they are taken, and as copies from claim to acknowledgement.
//
// Admission is hysteretic: a source that finds it full sets its bit in `starved_` and sleeps; the release that brings
// the level down to half rings every such bell. No wake is lost: both sides modify `starved_`, so either the release
// sees the bit, or the source's second look at the level happens after the release.
class Account {
 public:
  static constexpr unsigned kByteBits = 40;
  static constexpr std::uint64_t kByteMask = (std::uint64_t{1} << kByteBits) - 1;
  static constexpr unsigned kDoors = 64;
  static constexpr std::uint64_t kDeep = std::uint64_t{1} << 21;  // bytes; of 1/2 to 4 MiB the best in a flood

  // `cost`: bytes that each message counts for beside its payload. `whole`: the account of which this one's share is; what
  // is charged and released here is so there, too.
  Account(std::uint64_t max_messages, std::uint64_t max_bytes, std::uint64_t cost = 0, Account* whole = nullptr)
      : max_messages_(max_messages), max_bytes_(max_bytes), cost_(cost), whole_(whole) {
    level_.store(0, WS_ORDER(account_init, relaxed));
    starved_.store(0, WS_ORDER(account_init, relaxed));
    resting_.store(0, WS_ORDER(account_init, relaxed));
    for (auto& door : doors_) door.store(nullptr, WS_ORDER(account_init, relaxed));
  }
  static std::uint64_t messages_of(std::uint64_t level) { return level >> kByteBits; }
  static std::uint64_t bytes_of(std::uint64_t level) { return level & kByteMask; }

  // Before the source starts, and with nullptr after it has ended; relaxed, as starting a thread orders what the bell is.
  void set_door(unsigned door, Doorbell* bell) { doors_[door].store(bell, WS_ORDER(account_door, relaxed)); }

  void charge(std::uint64_t messages, std::uint64_t bytes) {
    enter(messages, bytes);
    if (whole_) whole_->charge(messages, bytes);
  }
  void release(std::uint64_t messages, std::uint64_t bytes) {
    leave(messages, bytes);
    if (whole_) whole_->release(messages, bytes);
  }
  // What the whole holds comes into this share of it, or leaves it and stays with the whole.
  void enter(std::uint64_t messages, std::uint64_t bytes) {
    level_.fetch_add((messages << kByteBits) + bytes, WS_ORDER(account_charge, relaxed));  // alone: a count
  }
  void leave(std::uint64_t messages, std::uint64_t bytes) {
    std::uint64_t amount = (messages << kByteBits) + bytes;
    // pairs with account_level: who sees the room sees the ring slots that were let go before
    std::uint64_t now = level_.fetch_sub(amount, WS_ORDER(account_release, release)) - amount;
    if (low(now)) ring_all(starved_);
    if (bytes_of(now) <= kDeep / 2) wake_resting();
  }
  std::uint64_t level() const { return level_.load(WS_ORDER(account_level, acquire)); }  // pairs with account_release

  // One message is always admitted when none is held, whatever the bytes.
  bool admits() const {
    std::uint64_t now = level();
    return messages_of(now) == 0 || (messages_of(now) < max_messages_ && weight_of(now) < max_bytes_);
  }
  // How many messages may be pushed at once.
  std::uint64_t room() const {
    std::uint64_t held = messages_of(level());
    return held < max_messages_ ? max_messages_ - held : 0;
  }
  // So much is held that what is read now may be far from all caches when its turn comes. All that is charged counts,
  // so a source looks at its own queue, too, before it rests.
  bool deep() const { return bytes_of(level()) > kDeep; }
  // Be rung, once, when half of that is held, or when a consumer finds nothing to do. Both may be missed, as their looks
  // are hints, so who rests sleeps a bounded time.
  void rest(unsigned door) {
    resting_.fetch_or(std::uint64_t{1} << door, WS_ORDER(rest_set, release));  // pairs with starve_take, for the bell
  }
  void wake_resting() {
    if (resting_.load(WS_ORDER(rest_peek, relaxed))) ring_all(resting_);
  }
  bool low(std::uint64_t level) const {
    return messages_of(level) == 0 || (messages_of(level) <= max_messages_ / 2 && weight_of(level) <= max_bytes_ / 2);
  }

  // A source that was not admitted: true if it may sleep on its bell, false if there is room after all.
  bool starve(unsigned door) {
    starved_.fetch_or(std::uint64_t{1} << door, WS_ORDER(starve_set, acq_rel));  // pairs with starve_take
    return !low(level());
  }
  bool starving(unsigned door) const {
    return (starved_.load(WS_ORDER(starve_peek, relaxed)) >> door) & 1;  // a hint; the bell carries the order
  }
  // Whether a source may be asleep for want of room: a hint.
  bool starves() const { return starved_.load(WS_ORDER(starve_peek, relaxed)) != 0; }
  std::uint64_t max_messages() const { return max_messages_; }
  std::uint64_t max_bytes() const { return max_bytes_; }

 private:
  std::uint64_t weight_of(std::uint64_t level) const { return bytes_of(level) + messages_of(level) * cost_; }
  void ring_all(Atomic<std::uint64_t>& waiting) {
    std::uint64_t doors = waiting.exchange(0, WS_ORDER(starve_take, acq_rel));  // pairs with starve_set, rest_set
    for (unsigned door = 0; doors; ++door, doors >>= 1) {
      Doorbell* bell = doors & 1 ? doors_[door].load(WS_ORDER(account_door, relaxed)) : nullptr;
      if (bell) bell->ring();
    }
  }

  alignas(kLine) Atomic<std::uint64_t> level_;    // messages << 40 | bytes; every thread that charges or releases
  alignas(kLine) Atomic<std::uint64_t> starved_;  // a bit a door: its source sleeps; sources set, releases take
  Atomic<std::uint64_t> resting_;                 // the same of sources that rest; they set, releases and consumers take
  alignas(kLine) const std::uint64_t max_messages_;
  const std::uint64_t max_bytes_;
  const std::uint64_t cost_;
  Account* const whole_;  // or nullptr
  Atomic<Doorbell*> doors_[kDoors];  // the control plane, at a source's start and end; releases read
};

}  // namespace wsengine
#endif
