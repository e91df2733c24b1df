// zlib_binding.hpp: the system's zlib, or its absence.
//
// Where the build found no zlib.h (setup.py), WSENGINE_NO_ZLIB is defined, and what stands here in zlib's place fails at
// the first call. Nobody gets that far: kHaveZlib is asked before compression is offered to a server.
#ifndef WSENGINE_ZLIB_BINDING_HPP
#define WSENGINE_ZLIB_BINDING_HPP

#ifndef WSENGINE_NO_ZLIB

#include <zlib.h>
constexpr bool kHaveZlib = true;

#else

constexpr bool kHaveZlib = false;
struct z_stream {
  unsigned char* next_in;
  unsigned avail_in;
  unsigned char* next_out;
  unsigned avail_out;
  int data_type;
};
enum {
  Z_OK = 0, Z_STREAM_END = 1, Z_STREAM_ERROR = -2, Z_MEM_ERROR = -4, Z_BUF_ERROR = -5,
  Z_SYNC_FLUSH = 2, Z_DEFLATED = 8, Z_DEFAULT_STRATEGY = 0
};
inline int inflateInit2(z_stream*, int) { return Z_STREAM_ERROR; }
inline int inflate(z_stream*, int) { return Z_STREAM_ERROR; }
inline int inflateReset(z_stream*) { return Z_STREAM_ERROR; }
inline int inflateResetKeep(z_stream*) { return Z_STREAM_ERROR; }
inline int inflateEnd(z_stream*) { return Z_STREAM_ERROR; }
inline int deflateInit2(z_stream*, int, int, int, int, int) { return Z_STREAM_ERROR; }
inline int deflate(z_stream*, int) { return Z_STREAM_ERROR; }
inline int deflateReset(z_stream*) { return Z_STREAM_ERROR; }
inline int deflateEnd(z_stream*) { return Z_STREAM_ERROR; }

#endif
#endif
