// payload.hpp: the bytes object that carries a payload, made, and written again where nobody else has it.
//
// Making and freeing a bytes object costs more than copying a small payload into it. A message that nobody kept keeps
// its bytes object for the next payload, under these conditions, all of them judged here: the object was made here (its
// room is known, and `Message.data` was not assigned since), its count of references is one, its size is small, and the
// payload fits without much slack, as a handler may keep the object for long. CPython does the same where it resizes a
// bytes object in place. Without the GIL a count of one proves nothing, and every payload gets an object of its own.
#ifndef WSENGINE_PAYLOAD_HPP
#define WSENGINE_PAYLOAD_HPP

#include <Python.h>
#include <cstdint>
#include <cstring>

namespace wsengine {

constexpr std::uint32_t kMostAgain = 512;  // bytes: a larger payload is let go when it is acknowledged
constexpr std::uint32_t kMostSlack = 64;   // bytes of room that a payload may leave unused

#ifdef Py_GIL_DISABLED
constexpr bool kAgain = false;
#else
constexpr bool kAgain = true;
#endif

inline void payload_write(PyObject* bytes, const std::uint8_t* data, std::uint32_t size) {
  PyBytesObject* object = reinterpret_cast<PyBytesObject*>(bytes);
  std::memcpy(object->ob_sval, data, size);
  object->ob_sval[size] = 0;
  Py_SET_SIZE(object, static_cast<Py_ssize_t>(size));
  _Py_COMP_DIAG_PUSH
  _Py_COMP_DIAG_IGNORE_DEPR_DECLS
  object->ob_shash = -1;
  _Py_COMP_DIAG_POP
}

// A new object; `*room` is how many bytes payload_again() may write into it, 0: none. NULL with MemoryError set.
inline PyObject* payload_new(const std::uint8_t* data, std::uint32_t size, std::uint32_t* room) {
  *room = 0;
  if (!kAgain || size < 2 || size > kMostAgain)  // bytes of no or one byte are shared by the whole interpreter
    return PyBytes_FromStringAndSize(reinterpret_cast<const char*>(data), size);
  // Up to the next multiple of 16 with the object's head: memory that the allocator would have added anyway.
  const std::uint32_t head = static_cast<std::uint32_t>(sizeof(PyBytesObject));
  const std::uint32_t whole = ((head + size + 15) & ~std::uint32_t{15}) - head;
  PyObject* bytes = PyBytes_FromStringAndSize(nullptr, whole);
  if (!bytes) return nullptr;
  payload_write(bytes, data, size);
  *room = whole;
  return bytes;
}

// Whether the object may stay with its message, for the next payload: nobody else has it, so nobody else can get it.
inline bool payload_stays(PyObject* bytes, std::uint32_t room) { return kAgain && room != 0 && Py_REFCNT(bytes) == 1; }

// Write the payload into an object that stayed; false if it does not suit, and nothing has happened.
inline bool payload_again(PyObject* bytes, std::uint32_t room, const std::uint8_t* data, std::uint32_t size) {
  if (size < 2 || size > room || room - size > kMostSlack) return false;
  payload_write(bytes, data, size);
  return true;
}

}  // namespace wsengine
#endif
