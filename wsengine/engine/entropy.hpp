// entropy.hpp: random bytes from the kernel, without the GIL. Nothing else belongs here.
#ifndef WSENGINE_ENTROPY_HPP
#define WSENGINE_ENTROPY_HPP
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <sys/random.h>
#include <unistd.h>

namespace wsengine {
// Fill `size` bytes (at most 256, which the kernel never cuts short); false if the system has no source of entropy.
inline bool fill_random(std::uint8_t* out, std::size_t size) {
#ifdef __linux__
  for (;;) {
    ssize_t got = getrandom(out, size, 0);
    if (got == static_cast<ssize_t>(size)) return true;
    if (got < 0 && errno != EINTR) return false;
  }
#else
  return getentropy(out, size) == 0;
#endif
}
}  // namespace wsengine
#endif
