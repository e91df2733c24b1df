# The design page of ring: what Cython sees of the engine's concurrent headers, and the objects that own their structures.
#
# Belongs here: declarations of those headers (atomic.hpp lists them) and owners of their heap-allocated structures (a
# cdef class is only 16-byte aligned, so they are never members by value). Does not: sockets, frames, Python messages. The
# reasons for every memory order stand in the headers.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libcpp cimport bool as cbool
from libcpp.vector cimport vector

cdef extern from "atomic.hpp" namespace "wsengine" nogil:
    int64_t monotonic_ns()

cdef extern from "lead.hpp" namespace "wsengine" nogil:
    ctypedef void (*Loop "wsengine::Lead::Loop")(void* context, CParker* parker, uint32_t seen, int64_t spin_ns) noexcept nogil

    cppclass CLead "wsengine::Lead":
        CLead() except +
        void set_loop(Loop loop, void* context)
        void set_lent(cbool lent)
        cbool lent()
        void count_turn()
        void stand_by()
        uint32_t turns()

cdef extern from "doorbell.hpp" namespace "wsengine" nogil:
    cppclass BellWire:
        int fd()
        void wait(int ms)

    cppclass CDoorbell "wsengine::Doorbell":
        CDoorbell() except +
        void ring()
        void answer()
        void shut()
        BellWire& wire()
        void set_lead(CLead* lead)
        CLead* lead()
        void hand_over(cbool call)

cdef extern from "parker.hpp" namespace "wsengine" nogil:
    cppclass CParker "wsengine::Parker":
        CParker() except +
        uint32_t prepare()
        void leave()
        cbool changed(uint32_t seen)
        void wait(uint32_t seen, int64_t ns)
        cbool wait_in_poll(uint32_t seen, int64_t spin_ns)
        void set_bell(CDoorbell* bell)
        void allow_polls(cbool allowed)
        void arrive()
        cbool notify()
        void notify_all()
        void foretell()
        void fulfil()
        cbool foretold()
        uint32_t waiters()

cdef extern from "account.hpp" namespace "wsengine" nogil:
    cppclass CAccount "wsengine::Account":
        CAccount(uint64_t max_messages, uint64_t max_bytes, uint64_t cost, CAccount* whole) except +
        @staticmethod
        uint64_t messages_of(uint64_t level)
        @staticmethod
        uint64_t bytes_of(uint64_t level)
        void set_door(unsigned door, CDoorbell* bell)
        void charge(uint64_t messages, uint64_t size)
        void release(uint64_t messages, uint64_t size)
        void enter(uint64_t messages, uint64_t size)
        void leave(uint64_t messages, uint64_t size)
        uint64_t level()
        cbool deep()
        void rest(unsigned door)
        void wake_resting()
        cbool admits()
        uint64_t room()
        cbool low(uint64_t level)
        cbool starve(unsigned door)
        cbool starving(unsigned door)
        cbool starves()
        uint64_t max_messages()
        uint64_t max_bytes()

cdef extern from "slab.hpp" namespace "wsengine" nogil:
    cppclass Slab:
        uint64_t capacity
        uint8_t* data()

    cppclass SlabPool:
        SlabPool(uint64_t slab_bytes, uint32_t most_spare, CAccount* account) except +
        uint64_t slab_bytes()
        uint32_t live()
        Slab* acquire(uint64_t size)
        @staticmethod
        void add(Slab* slab, uint32_t n)
        @staticmethod
        void drop(Slab* slab, uint32_t n)

    cppclass Arrival:
        Slab* slab
        uint64_t sequence
        int64_t received_ns
        uint32_t epoch
        uint32_t index

    cppclass Descriptor:
        const uint8_t* data
        const Arrival* arrival
        uint32_t size
        uint32_t ordinal
        uint32_t keyless
        uint32_t opcode

cdef extern from "ring.hpp" namespace "wsengine" nogil:
    cppclass CRing "wsengine::Ring<wsengine::Descriptor>":
        CRing(uint32_t capacity) except +
        uint32_t capacity()
        uint32_t push(const Descriptor* values, uint32_t n)
        uint64_t tail()
        uint64_t head()
        void fetch(uint64_t position)
        uint32_t pop(Descriptor* values, uint32_t most)
        cbool ready()
        uint32_t depth()


cdef class Parker:
    # Where processors, or a supervisor, wait. Any thread may call anything.
    cdef CParker* c                   # set in __cinit__, never changed

cdef class Account:
    # The bound of one pipeline, or of one partition of it. Any thread may call anything; doors are given out before the
    # threads start.
    cdef CAccount* c                  # set in __cinit__, never changed
    cdef readonly Account whole       # the account that this one is a share of, or None; the same
    cdef readonly unsigned int doors  # doors given out; the thread that starts the pipeline
    cdef vector[CDoorbell*] bells     # of its sources, freed with it: whoever releases may ring late; who makes a source
    cdef CDoorbell* new_bell(self) except NULL

cdef class Door:
    # How a source that is not a reader waits for room in the account. One thread at a time waits.
    cdef CDoorbell* bell              # the account's; set in __cinit__, never changed
    cdef readonly Account account
    cdef unsigned int number          # ours in the account
    cdef void shut(self) noexcept

cdef class Ring:
    # The slab ring of one reader, with what its processors need to know of it: descriptors are pushed by whoever runs the
    # reader's loop, claimed by any processor.
    cdef CRing* c                     # set in __cinit__, never changed
    cdef SlabPool* pool               # the same
    cdef CLead* lead                  # the same; NULL for a guest, as the next
    cdef CDoorbell* bell              # the account's; the same
    cdef readonly Account account
    cdef readonly Parker parker       # notified after a push
    cdef int fill(self, Descriptor* one, const uint8_t[::1] view) except -1
    cdef uint32_t push_batch(self, Descriptor* batch, uint32_t n) noexcept
