# The design page of dispatcher: the thread that sees messages in order before they fan out to the processors.
#
# Belongs here: claiming from the rings of producers with a frame handler, calling it, and handing on what it emits, with the
# account's charge. Does not: what a result means (frame_handler), how messages are made, of descriptors (materialiser) and of
# what was emitted (emission), nor connections, which are numbers here: FrameHandler.sessions owns them. There is one
# dispatcher in a pipeline, or none; it belongs to its thread, but for what is marked. It outlives its thread: another one
# goes on where the first died.
cimport cython
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libcpp.atomic cimport atomic
from wsengine.engine.ring cimport Parker, Ring
from wsengine.message cimport Message
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.frame_handler cimport FrameHandler
from wsengine.pipeline.materialiser cimport Materialiser

cdef enum:
    CLAIM_BYTES = 1048576      # about as many bytes a claim, by the sizes seen before
    SHARE = 16                 # of the bound, the part of a claim from a ring that sheds; as much is shed at a time (overflow)

cdef class Session:            # one connection, in the generation that its messages have come to
    cdef uint32_t index, epoch
    cdef object state          # the handler's; None once broken
    cdef bint broken           # the handler failed: the rest of the generation is dropped
    cdef uint64_t dropped      # so many, and not told yet

cdef class Course:             # one ring with its handler
    cdef Ring ring
    cdef object origin         # knows the ring's connections
    cdef FrameHandler handler
    cdef object transformer    # or None
    cdef bint markers          # each generation begins with a message that says so
    cdef bint sheds            # its reader drops the oldest that wait in it: they are left there, not queued here
    cdef dict sessions         # of Session by index
    cdef object opened         # deque of markers to be delivered, each (place in the ring, Message): see Dispatcher.open
    # figures, read by anyone; `dropped` behind a failure, `mute` replies whose generation was over
    cdef uint64_t taken, emitted, dropped, mute

cdef class Dispatcher:
    cdef readonly Parker parker      # of the rings; it waits here
    cdef readonly object thread_name
    cdef readonly object queue       # deque of what was emitted: processors claim from the left
    cdef Crew crew
    cdef list courses                # fixed before it starts
    cdef int turn                    # course to look at first
    cdef Materialiser materialiser
    cdef Parker room                 # it waits here for room; whoever acknowledges notifies
    cdef atomic[int]* ending         # 1: leave once there is nothing to claim; drain stores release, run acquires
    cdef atomic[int]* closed         # 1: call no handler and emit nothing more; drain stores release, run acquires
    # the claim in hand
    cdef Course course
    cdef list frames
    cdef Session working             # its handler is running, or what it wanted is being done
    cdef list emission               # messages that the frame in hand has emitted, until they are delivered
    cdef bint untold                 # a session has drops that are not told yet
    cdef Py_ssize_t wanted           # messages that room is awaited for
    cdef int64_t wanted_size         # bytes likewise
    cdef cython.pymutex lock
    cdef Py_ssize_t at               # the next of `frames`; under lock
    cdef bint taken                  # whoever stops the pipeline has taken over what is in hand; under lock

    cdef bint ready(self) noexcept
    cdef bint held_back(self) noexcept
    cdef uint32_t most_of(self, Course course) noexcept
    cdef bint claim(self)
    cdef bint mark_due(self, Course course)
    cdef mark_before(self, Message frame)
    cdef bint mark(self, Course course, tuple entry)
    cdef bint handle(self)
    cdef bint dispatch(self, Message frame)
    cdef object ask(self, Message frame, object state)
    cdef Session session_of(self, Message frame)
    cdef break_session(self, Session session, object error)
    cdef bint fits(self, Py_ssize_t messages, int64_t size) noexcept
    cdef bint await_room(self, Py_ssize_t messages, int64_t size)
    cdef bint deliver(self, Session session, Message frame, list messages)
    cdef settle_replies(self, Session session, object replies)
