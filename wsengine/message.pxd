# The design page of message: one payload on its way through the pipeline.
#
# Belongs here: the Message object and its verdict. Does not: how messages are claimed or acknowledged (pipeline).
# A Message belongs to one thread at a time: the processor that claimed it, then whoever that hands it to.
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef class Details:
    # What most messages never have; made when first asked for.
    cdef object metadata              # dict, or None
    cdef object acknowledger          # (acknowledger, ack_ref, ack_data), or None
    cdef object batch_mode            # "bulk" or "flush"

cdef object batch_key_of(object group)

cdef enum:
    # Of Message.acked, which is 0 before
    ACKED = 1                         # acknowledged; as what, its verdict says, unless that was before the others
    ACKED_FAILED = 2                  # before the others, as failed; whatever becomes of it, it counts as that

cdef class Message:
    # What was received
    cdef object payload               # `data`: bytes; a handler may put anything here
    cdef uint32_t room                # bytes that may be written into `payload` again, 0: none (pipeline/payload.hpp)
    cdef readonly uint64_t seq        # per connection and epoch, from 0, given before any drop
    cdef readonly int64_t received_ns # monotonic
    cdef readonly uint32_t connection_index
    cdef readonly uint32_t epoch      # connection generation, from 1; 0: from no connection
    cdef readonly uint8_t opcode      # 1 text, 2 binary; 0: from no connection
    cdef object origin                # the source; knows connections; None for messages made by hand

    # Where it goes, and what became of it
    cdef object destination           # `batcher`, a str; None stands for "default"
    cdef object group                 # `batch_key`, hashable; None stands for "default", see batch_key_of
    cdef Details details              # None until one of them is asked for
    cdef object verdict               # None: ok; else a Failed
    cdef object holder                # the chunk that will acknowledge it; None once that has happened
    cdef int acked                    # whether it was acknowledged, and as what; under the chunk's lock
    cdef uint32_t charged             # bytes that the pipeline's account holds for it
    cdef void set_verdict(self, object failed) noexcept
    cdef Details detailed(self)
    # Have the cyclic collector leave it alone, as long as nothing of the user's is in it; and look at it again.
    cdef void untrack(self) noexcept
    cdef void track(self) noexcept
