// mail.hpp: what travels between a supervisor and its reader, both ways through a Stack. Plain data, no behaviour.
#ifndef WSENGINE_MAIL_HPP
#define WSENGINE_MAIL_HPP

#include "stack.hpp"

namespace wsengine {

enum Order : std::uint32_t {  // supervisor -> reader
  kAdd,                       // take over the wire
  kClose,                     // begin the closing handshake with `code`
  kDiscard,                   // all connections: deliver nothing more, count it
  kRelease,                   // let go of the connection
  kStop,                      // let go of all, and end
};
struct Command {
  Command* next;
  Order order;
  std::uint32_t index, epoch;
  void* wire;
  std::uint8_t* leftover;  // kAdd: bytes behind the handshake, freed by the reader
  std::size_t leftover_size;
  std::uint16_t code;
  bool discard;            // kClose: deliver nothing more of it
  std::uint8_t text_size;
  std::uint8_t text[123];
};

enum Kind : std::uint32_t {  // reader -> supervisor
  kEnded,                    // the reader is off this connection: exactly once a generation
  kHigh,                     // reading paused: the pipeline is full
  kLow,                      // reading resumed
  kDrop,                     // messages were dropped: the counters of the connections say how many
  kPing,
  kPong,
};
struct Note {
  Note* next;
  Kind kind;
  std::uint32_t index, epoch, cause;
  int error;
  std::uint16_t code;
  std::uint8_t text_size;
  std::uint8_t text[125];
  std::uint64_t detail;  // kEnded with 1009: bytes announced; kHigh, kLow: the account's level;
                         // kPing, kPong: when it was read, monotonic nanoseconds
  std::int64_t round_trip_ns;
};

}  // namespace wsengine
#endif
