"""Descriptors become messages: each payload is copied into a Python object, then the slabs are let go.

Messages and small payloads that nobody has kept are used again for the next chunk, which spares most of their making.
When to claim, and how much, is the processor's matter.
"""
from wsengine.message import Failed

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from wsengine.engine.ring cimport Account, Arrival, Descriptor, Ring, Slab, SlabPool
from wsengine.message cimport Message
from wsengine.pipeline.chunk cimport Chunk

#: Why a message failed that its partition's key extractor found no key in.
NO_KEY = "partition_by found no key in the payload"

cdef extern from "Python.h":
    PyObject* PyList_GET_ITEM(object list, Py_ssize_t i)
    list PyList_GetSlice(list whole, Py_ssize_t low, Py_ssize_t high)
    void PyErr_Clear()
    void Py_DECREF(object o)

cdef extern from *:
    """
    #define plain(object, type) (Py_TYPE((PyObject*)(object)) == (PyTypeObject*)(type))  /* and of no subclass */
    #define prefetch(address) __builtin_prefetch(address)
    /* Whether a reference count of one means that nobody else has the object. Without the GIL counts are split. */
    #ifdef Py_GIL_DISABLED
    #define unique_references() 0
    #define ws_refcnt(o) 0
    #else
    #define unique_references() 1
    #define ws_refcnt(o) Py_REFCNT(o)
    #endif
    """
    void prefetch(const void* address) nogil
    bint plain(PyObject* o, object type)
    bint unique_references()
    Py_ssize_t ws_refcnt(PyObject* o)

cdef extern from "payload.hpp" namespace "wsengine":
    PyObject* payload_new(const uint8_t* data, uint32_t size, uint32_t* room)
    bint payload_again(PyObject* bytes, uint32_t room, const uint8_t* data, uint32_t size)
    bint payload_stays(PyObject* bytes, uint32_t room)


cdef inline int give_payload(Message message, Descriptor* one) except -1:
    """A copy of the payload; without memory for it, an empty one and a failed message."""
    cdef PyObject* data
    if message.room and payload_again(<PyObject*>message.payload, message.room, one.data, one.size):
        return 0
    data = payload_new(one.data, one.size, &message.room)
    if data == NULL:
        PyErr_Clear()
        message.set_verdict(Failed("no memory for the payload"))
        message.payload = b""
        return 0
    message.payload = <object>data
    Py_DECREF(message.payload)
    return 0


cdef class Materialiser:
    """Makes the messages of one processor. Used by its thread alone."""

    def __cinit__(self, Account account not None, spares=None):
        self.account = account
        self.spares = spares
        self.usual = 1
        self.pool = []

    cdef list spare(self, Py_ssize_t n):
        """Up to n messages to be used again."""
        cdef list messages
        cdef Py_ssize_t left
        if self.kept is not None:
            messages, self.kept = self.kept, None
            if len(messages) > n:
                del messages[n:]
            return messages
        if self.spares is None:
            return []
        if len(self.pool) < n:
            try:
                self.pool += self.spares.popleft()
            except IndexError:                   # nothing has come back
                pass
        left = max(len(self.pool) - n, 0)
        messages = PyList_GetSlice(self.pool, left, len(self.pool))
        del self.pool[left:]
        return messages

    cdef list claim(self, Ring ring, uint32_t most, object origin, Chunk chunk):
        """Copy descriptors out, free their slots, then make messages. References to slabs are dropped a run at a time."""
        cdef uint32_t n = ring.c.pop(self.batch, min(most, <uint32_t>CHUNK))
        if n == 0:
            return None
        cdef list messages = self.spare(n)
        cdef Message message
        cdef Descriptor* one
        cdef const Arrival* arrival = NULL
        cdef Slab* slab = self.batch[0].arrival.slab
        cdef uint64_t first = 0
        cdef int64_t received_ns = 0
        cdef uint32_t epoch = 0, index = 0
        cdef uint32_t i, run = 0, soon = min(n, ring.c.depth())    # of the next claim, as it looks now
        cdef uint64_t head = ring.c.head()
        cdef Py_ssize_t usable = len(messages)
        cdef uint64_t size = 0, all_size = 0
        self.keyless = 0
        for i in range(n):
            one = &self.batch[i]
            if i < soon:
                ring.c.fetch(head + i)
            if i + AHEAD < n:
                prefetch(self.batch[i + AHEAD].data)   # the reader has written it long ago: it is in no near cache
                prefetch(self.batch[i + AHEAD].data + 64)
            if one.arrival != arrival:
                arrival = one.arrival
                if arrival.slab != slab:
                    self.account.c.charge(0, size)    # the copies, before the slab is let go
                    SlabPool.drop(slab, run)
                    slab = arrival.slab
                    all_size += size
                    size = run = 0
                first = arrival.sequence
                received_ns = arrival.received_ns
                epoch = arrival.epoch
                index = arrival.index
            run += 1
            size += one.size
            if i < usable:
                message = <Message>PyList_GET_ITEM(messages, i)
            else:
                message = Message.__new__(Message)
                message.untrack()
                messages.append(message)
            give_payload(message, one)
            message.seq = first + one.ordinal
            message.received_ns = received_ns
            message.connection_index = index
            message.epoch = epoch
            message.opcode = <uint8_t>one.opcode
            if message.origin is not origin:
                message.origin = origin
            message.charged = one.size
            message.acked = False
            message.holder = chunk
            if one.keyless:
                message.set_verdict(Failed(NO_KEY))
                self.keyless += 1
        self.account.c.charge(0, size)
        SlabPool.drop(slab, run)
        all_size += size
        self.size = all_size
        self.usual = <uint32_t>(all_size // n)
        return messages

    cdef keep(self, list messages):
        """Use the messages of a chunk again for the next, if nobody has kept one."""
        self.kept = messages if let_go_of(messages) else None


cdef bint let_go_of(list messages):
    """Make acknowledged messages ready to be used again: True if nobody has kept one. Those that were kept stay as they are,
    but for their chunk, which is done."""
    cdef Message message
    cdef Py_ssize_t i
    cdef bint all_ours = unique_references(), touched
    for i in range(len(messages)):
        if ws_refcnt(PyList_GET_ITEM(messages, i)) != 1 or not plain(PyList_GET_ITEM(messages, i), Message):
            all_ours = False
            (<Message>PyList_GET_ITEM(messages, i)).acked = True
            (<Message>PyList_GET_ITEM(messages, i)).holder = None
            continue
        message = <Message>PyList_GET_ITEM(messages, i)
        message.acked = True
        touched = False
        if not payload_stays(<PyObject*>message.payload, message.room):
            message.payload = None               # it is not accounted for any more
            message.room = 0
            touched = True
        if message.verdict is not None:
            message.verdict = None
            touched = True
        if message.details is not None:
            message.details = None
            touched = True
        if message.destination is not None:
            message.destination = None
            touched = True
        if message.group is not None:
            message.group = None
            touched = True
        if touched:                              # something of the user's was in it, and is no more
            message.untrack()
    return all_ours


cdef give_back(list messages, object spares):
    """Hand messages that another thread has done with to the materialisers of that deque, unless they have plenty."""
    if let_go_of(messages) and len(spares) * len(messages) < SPARE:
        if len(messages) > SPARE:
            del messages[SPARE:]
        spares.append(messages)
