# The design page of fanout: messages of one slab ring go on to the rings of partitions, by their keys.
#
#     ring ── pop ──▶ key_of ──▶ partition ── room? ──▶ copied into its slabs ──▶ its ring ──▶ its processor
#                                                └ none ──▶ wait, or drop, as the overflow policy says
#
# Belongs here: what is done to descriptors, without the GIL. Does not: the thread that does it, and what waits with it
# (pipeline: partitioner), what a key is (keys), nor connections.
#
# Payloads are copied, so that a partition holds its own messages and nothing else: one small message that waits would
# otherwise hold a whole receive buffer, and a slow partition could use up the bytes of all. A message stays charged to the
# whole account from its push to its end; while it is a partition's, it is in that partition's share, too.
#
# All of a Fan belongs to the partitioner's thread, but for its counts, which anybody may read.
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport atomic
from wsengine.engine.keys cimport KeyExtractor, KeySpec
from wsengine.engine.overflow cimport Overflow
from wsengine.engine.ring cimport Arrival, CAccount, CParker, CRing, Descriptor, Ring, Slab, SlabPool

cdef enum:
    FAN_BATCH = 64             # messages taken at a time
    FAN_SHED = 64              # oldest messages dropped at a time at the most
    FAN_UNIT = 256             # bytes of a message that use up as much credit as a message does

cdef enum Moved:
    MOVED_NONE                 # there is nothing to move
    MOVED_SOME
    MOVED_STUCK                # partition `stuck` has no room, and the policy is to wait; the rest is kept
    MOVED_FAILED               # a message had no room, and its connection is to fail for it: `failed_index`, `failed_epoch`

cdef struct Part:              # one partition
    CRing* ring
    SlabPool* pool
    CAccount* account          # its share
    CParker* parker
    Slab* slab                 # being filled; holds one reference, or NULL
    size_t used                # bytes of it
    const Arrival* seen        # the last arrival that a message came of; NULL once that may be gone
    Arrival* copy              # its copy in `slab`
    Descriptor[FAN_BATCH] staged
    uint32_t count             # of them
    uint64_t credit            # messages that may be staged before the account is asked again
    atomic[uint64_t]* dropped  # messages for which there was no room; this thread adds
    atomic[uint64_t]* stalls   # times that the partitioner found it full; the same

cdef struct Fan:
    CRing* source
    CAccount* whole
    const KeySpec* key
    Overflow overflow
    Part* parts
    uint32_t n                 # of them
    Descriptor[FAN_BATCH] batch
    uint32_t at, count         # of the batch, what comes next, and its end; others read them as a figure
    uint32_t stuck
    bint stalled               # the message at hand has found its partition full
    uint32_t failed_index, failed_epoch   # the last generation that this was said of; no epoch is 0

# Move what is there, a batch at the most. With `force` there is room for all that is in hand, and nothing more is taken.
cdef Moved fan_move(Fan* fan, bint force) noexcept nogil
# Release what is in hand, and move none of it; how many messages those were.
cdef uint32_t fan_drop(Fan* fan) noexcept nogil
# Let go of the receive buffers that are being filled: nothing more is moved for now.
cdef void fan_rest(Fan* fan) noexcept nogil

cdef class Fanout:
    # Owner of a Fan; keeps alive what that points to.
    cdef Fan c
    cdef readonly Ring source
    cdef KeyExtractor key
    cdef readonly tuple targets      # of Ring, one a partition; no list, which a collection empties
    cdef clear(self)
