"""Owners of the engine's lock-free structures: `Parker`, `Account`, `Door` and `Ring`.

What happens inside them, and why each memory order is what it is, stands in their headers (atomic.hpp lists them). Their
Python faces are for the control plane, for tests and for benchmarks; the hot paths use the C++ objects behind them.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset
from cpython.bytes cimport PyBytes_FromStringAndSize
from wsengine.errors import ConfigurationError, EngineError


cdef uint32_t SPARE_BYTES = 2**25   # receive buffers that a pool keeps for the next burst: mapping them anew costs more
                                    # than reading into them (twice the reader's time in a flood)


cdef class Parker:
    """An eventcount: threads wait here without the GIL, and are woken one at a time. Thread-safe."""

    def __cinit__(self):
        self.c = new CParker()

    def __dealloc__(self):
        del self.c

    def wait(self, ready, double timeout) -> None:
        """Wait without the GIL until notified, at most `timeout` seconds; not at all if `ready()` is true."""
        cdef uint32_t seen = self.c.prepare()
        cdef int64_t ns = <int64_t>(min(max(timeout, 0.0), 1e9) * 1e9)
        try:
            skip = bool(ready())
        except BaseException:
            self.c.leave()
            self.c.arrive()
            raise
        if skip:
            self.c.leave()
        else:
            with nogil:
                self.c.wait(seen, ns)
        self.c.arrive()

    def notify(self) -> bool:
        """Wake one waiting thread, unless nobody waits or one is on its way already; True if it did."""
        return self.c.notify()

    def notify_all(self) -> None:
        """Wake all waiting threads."""
        self.c.notify_all()

    @property
    def waiters(self) -> int:
        """About how many threads wait."""
        return self.c.waiters()


@cython.no_gc_clear  # the whole's counts must be there until the very end of its shares
cdef class Account:
    """What a pipeline holds, in messages and bytes, against its bound. Thread-safe.

    Args:
        max_messages: 1 to 2**23.
        max_bytes: 1 to 2**39.
        cost: bytes that each message counts for beside its payload, where it will be an object for long.
        whole: an account that this one is a share of: what is charged or released here is so there, too.
    """

    def __cinit__(self, uint64_t max_messages, uint64_t max_bytes, uint64_t cost=0, Account whole=None):
        if not 1 <= max_messages <= 2**23:
            raise ConfigurationError("max_queue", max_messages, "give a whole number from 1 to 8388608")
        if not 1 <= max_bytes <= 2**39:
            raise ConfigurationError("max_queue_bytes", max_bytes, "give a number of bytes from 1 to 549755813888")
        cdef CAccount* above = NULL
        if whole is not None:
            above = whole.c
        self.whole = whole
        self.c = new CAccount(max_messages, max_bytes, cost, above)
        self.doors = 0

    def __dealloc__(self):
        cdef CDoorbell* bell
        for bell in self.bells:
            del bell
        del self.c

    cdef CDoorbell* new_bell(self) except NULL:
        """A bell for a source of this account, shut by whoever asks for it."""
        cdef CDoorbell* bell = new CDoorbell()
        self.bells.push_back(bell)
        if bell.wire().fd() < 0:
            raise OSError("no descriptor for a source's bell; raise the limit of open files")
        return bell

    def charge(self, uint64_t messages, uint64_t size) -> None:
        """Count `messages` and `size` bytes as held."""
        self.c.charge(messages, size)

    def release(self, uint64_t messages, uint64_t size) -> None:
        """Count them as let go; wakes sources that wait for room once half of the bound is free."""
        self.c.release(messages, size)

    def admits(self) -> bool:
        """Whether a source may take more: below both bounds, or nothing held at all."""
        return self.c.admits()

    @property
    def messages(self) -> int:
        """Messages held, from push to acknowledgement."""
        return CAccount.messages_of(self.c.level())

    @property
    def bytes(self) -> int:
        """Bytes held: receive buffers at their capacity, and copies that are not acknowledged yet."""
        return CAccount.bytes_of(self.c.level())

    @property
    def max_messages(self) -> int:
        return self.c.max_messages()

    @property
    def max_bytes(self) -> int:
        return self.c.max_bytes()


@cython.no_gc_clear  # its C++ parts use what its attributes own, until the very end
cdef class Door:
    """Where a source that is not a reader waits for room in an account. One thread at a time may wait."""

    def __cinit__(self, Account account not None):
        if account.doors >= 64:
            raise EngineError("one pipeline takes at most 64 sources")
        self.account = account
        self.bell = account.new_bell()
        self.number = account.doors
        account.doors += 1
        account.c.set_door(self.number, self.bell)

    def __dealloc__(self):
        if self.bell != NULL:
            self.shut()

    cdef void shut(self) noexcept:
        self.account.c.set_door(self.number, NULL)
        self.bell.shut()

    def fileno(self) -> int:
        """Readable when the bell rings."""
        return self.bell.wire().fd()

    def starve(self) -> bool:
        """Ask to be rung; False if there is room already, so that nobody needs to wait."""
        return self.account.c.starve(self.number)

    def ring(self) -> None:
        """Wake whoever waits, for another reason."""
        self.bell.ring()

    def close(self) -> None:
        """Give the descriptor back; nobody waits here any more."""
        self.shut()

    def answer(self) -> None:
        """Take note of a ring, before looking for room."""
        self.bell.answer()


@cython.no_gc_clear  # its C++ parts use what its attributes own, until the very end
cdef class Ring:
    """The slab ring of one reader. Any thread may claim; one thread pushes.

    Args:
        capacity: slots, a power of two from 2 to 2**24.
        account: charged for what is pushed and for the slabs.
        parker: where its consumers wait.
        slab_bytes: size of a receive buffer, at least 4096.
        guest: it has no reader of its own that is to be woken; so it needs no descriptor.
        spare_bytes: receive buffers kept for the next burst.
    """

    def __cinit__(self, uint32_t capacity, Account account not None, Parker parker not None, *,
                  uint64_t slab_bytes=2**18, bint guest=False, uint64_t spare_bytes=SPARE_BYTES):
        if capacity < 2 or capacity > 2**24 or capacity & (capacity - 1):
            raise ConfigurationError("capacity", capacity, "give a power of two from 2 to 16777216")
        if slab_bytes < 4096 or slab_bytes > 2**30:
            raise ConfigurationError("slab_bytes", slab_bytes, "give a number of bytes from 4096 to 1073741824")
        self.account = account
        self.parker = parker
        self.pool = new SlabPool(slab_bytes, <uint32_t>min(spare_bytes // slab_bytes, <uint64_t>0xFFFF), account.c)
        self.c = new CRing(capacity)
        if not guest:
            self.lead = new CLead()
            self.bell = account.new_bell()
            self.bell.set_lead(self.lead)

    def __dealloc__(self):
        cdef Descriptor one
        if self.c != NULL:
            while self.c.pop(&one, 1):
                SlabPool.drop(one.arrival.slab, 1)
            del self.c
        del self.pool
        if self.bell != NULL:
            self.bell.shut()
        del self.lead

    @property
    def capacity(self) -> int:
        return self.c.capacity()

    @property
    def depth(self) -> int:
        """About how many messages wait to be claimed."""
        return self.c.depth()

    @property
    def slabs(self) -> int:
        """Receive buffers in use: one that is being filled, and those that messages still lie in."""
        return self.pool.live()

    def push(self, payloads) -> int:
        """Push byte strings as binary messages, for tests and benchmarks; returns how many fitted.

        One thread at a time, and not while a reader pushes. The account is charged but its bound is not looked at.
        """
        cdef Descriptor[256] batch
        cdef uint32_t n = 0, done = 0, pushed
        cdef const uint8_t[::1] view
        try:
            for payload in payloads:
                view = payload
                self.fill(&batch[n], view)
                n += 1
                if n == 256:
                    pushed = self.push_batch(batch, n)
                    n = 0
                    done += pushed
                    if pushed < 256:
                        return done
        finally:
            done += self.push_batch(batch, n)    # also what came before a payload that is no buffer
        return done

    cdef int fill(self, Descriptor* one, const uint8_t[::1] view) except -1:
        cdef size_t size = <size_t>view.shape[0]
        cdef Slab* slab = self.pool.acquire(sizeof(Arrival) + size)
        cdef Arrival* arrival
        if slab == NULL:
            raise MemoryError()
        arrival = <Arrival*>slab.data()
        memset(arrival, 0, sizeof(Arrival))
        arrival.slab = slab
        memset(one, 0, sizeof(Descriptor))
        one.arrival = arrival
        one.data = <const uint8_t*>(arrival + 1)
        if size:
            memcpy(<void*>one.data, &view[0], size)
        one.size = <uint32_t>size
        one.opcode = 2
        return 0

    cdef uint32_t push_batch(self, Descriptor* batch, uint32_t n) noexcept:
        cdef uint32_t i, done
        self.account.c.charge(n, 0)
        done = self.c.push(batch, n)
        for i in range(done, n):
            SlabPool.drop(batch[i].arrival.slab, 1)
        if done < n:
            self.account.c.release(n - done, 0)
        if done:
            self.parker.c.notify()
        return done

    def claim(self, uint32_t most) -> list:
        """Claim up to `most` payloads (at most 256) as bytes, and account for them as acknowledged."""
        cdef Descriptor[256] batch
        cdef uint32_t i, n = self.c.pop(batch, min(most, 256))
        taken = [PyBytes_FromStringAndSize(<const char*>batch[i].data, batch[i].size) for i in range(n)]
        for i in range(n):
            SlabPool.drop(batch[i].arrival.slab, 1)
        if n:
            self.account.c.release(n, 0)
        return taken
