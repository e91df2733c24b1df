"""The loop of a batch processor: take a complete batch, have handle_batch run, acknowledge, again.

One batch at a time is in hand (Broadway's BatchProcessorStage). As with a processor, user code cannot kill the loop: whatever
handle_batch raises fails its messages.
"""
from wsengine import telemetry

from libc.stdint cimport int64_t, uint32_t, uint64_t
from wsengine.engine.ring cimport monotonic_ns
from wsengine.message cimport Message
from wsengine.pipeline.batch cimport Batch
from wsengine.pipeline.batcher cimport BatcherStage
from wsengine.pipeline.callbacks cimport call_batch, call_handle_failed, wall_ns
from wsengine.pipeline.chunk cimport failures, lost
from wsengine.pipeline.lane cimport Lane
from wsengine.pipeline.latency cimport Latency, note_latency
from wsengine.pipeline.listeners cimport current, listeners_of
from wsengine.pipeline.materialiser cimport give_back

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass
    PyObject* PyList_GET_ITEM(object list, Py_ssize_t i)
    list PyList_GetSlice(list whole, Py_ssize_t low, Py_ssize_t high)

cdef extern from *:
    """
    /* The lines of a Message that say what became of it. */
    #define fetch_message(message) (__builtin_prefetch(message), __builtin_prefetch((const char*)(message) + 64), \
                                    __builtin_prefetch((const char*)(message) + 128))
    """
    void fetch_message(PyObject* message) nogil

cdef enum:
    AHEAD = 6                            # messages fetched ahead

cdef int64_t SLICE_NS = 1000000000       # it looks up once a second, whatever became of its wake

cdef object START = telemetry.BATCH_PROCESSOR_START
cdef object STOP = telemetry.BATCH_PROCESSOR_STOP
cdef object EXCEPTION = telemetry.BATCH_PROCESSOR_EXCEPTION


cdef class BatchProcessor:
    """One batch processor; `run` is the body of its thread. Figures may be read from any thread."""

    def __cinit__(self, BatcherStage stage not None, int index):
        self.stage = stage
        self.crew = stage.crew
        self.lane = <Lane>stage.lanes[index % len(stage.lanes)]
        self.index = index
        self.latency = Latency()
        self.thread_name = f"wsengine:{stage.crew.name}:batch_processor_{stage.key}_{index}"
        self.where = {"topology_name": stage.crew.name, "name": self.thread_name, "index": index}
        self.listeners = listeners_of((START, STOP, EXCEPTION))

    def run(self) -> None:
        """Take and handle batches until the batcher ends and none is left."""
        cdef uint32_t seen
        while True:
            self.lane.parker.c.arrive()
            self.batch = self.stage.take(self.lane)
            if self.batch is not None:
                if self.ready():
                    self.lane.parker.c.notify()  # the chain: one more, before the handler runs
                self.handle()
                continue
            seen = self.lane.parker.c.prepare()
            if self.ready() or self.stage.over():
                self.lane.parker.c.leave()
                if self.stage.over() and not self.ready():
                    return
                continue
            with nogil:
                self.lane.parker.c.wait(seen, SLICE_NS)

    def ready(self) -> bool:
        """Whether there is a batch to be taken."""
        return self.stage.waits(self.lane)

    cdef handle(self):
        """Have handle_batch run over the batch in hand, then acknowledge it."""
        cdef Batch batch = self.batch
        cdef tuple about = None
        cdef object error
        self.count = len(batch.messages)
        self.since_ns = monotonic_ns()
        self.listeners = current(self.listeners)
        if self.listeners.called:
            about = self.tell_start(batch.messages, batch.info(self.stage.key, self.count))
        elif self.listeners.counted:
            self.listeners.start()
        error = call_batch(self.crew, batch, self.stage.key, self.stage.retry, self.where, &self.ticks)
        self.settle(about, error)

    cdef settle(self, tuple about, object error):
        """Acknowledge the batch in hand: handle_failed for the failed ones, then each group once."""
        cdef Batch batch = self.batch
        cdef list messages = batch.messages
        cdef Message message
        cdef Py_ssize_t at, failed = 0
        cdef bint acknowledgers = False
        if not batch.still_ours():
            self.let_go()
            return
        for at in range(self.count):
            if at + AHEAD < self.count:          # they were written in another thread, perhaps on another core
                fetch_message(PyList_GET_ITEM(messages, at + AHEAD))
            message = <Message>PyList_GET_ITEM(messages, at)
            failed += message.verdict is not None
            acknowledgers |= message.details is not None
        message = None
        if failed:
            self.ticks += 1
            call_handle_failed(self.crew, batch, [at for at in range(self.count)
                                                  if (<Message>messages[at]).verdict is not None])
            acknowledgers = True                 # it may have put others in place
        messages = batch.close()
        if messages is None:
            self.let_go()
            return
        if batch.left != self.count:             # some were acknowledged before the others
            failed = failures(messages)
        self.successful += self.count - failed
        self.failed += failed
        self.batches += 1
        try:
            if acknowledgers:
                batch.acknowledge([one for one in messages if (<Message>one).holder is batch])
        finally:                                 # whatever came of it, nobody will do it again
            note_latency(self.latency, messages)
            self.let_go()
            self.crew.account.c.release(batch.left, batch.size)
        self.crew.tell_askers()
        if about is not None:
            self.tell_end(about, error, messages, failed)
        elif self.listeners.counted:
            self.listeners.end(error)
        give_back(messages, self.crew.spares)

    def let_go(self) -> None:
        """Have no batch in hand: the next of its key may be begun."""
        batch, self.batch = self.batch, None
        if batch is not None:
            self.busy_ns += monotonic_ns() - self.since_ns
            self.since_ns = 0
            self.stage.done(self.lane, batch, self.count)

    def take_over(self, reason) -> tuple:
        """Acknowledge what this processor has in hand, because it is dead or stuck; see Chunk.take_over."""
        batch = self.batch
        return (0, 0, 0) if batch is None else batch.take_over(reason, self.thread_name)

    def retire(self) -> None:
        """The thread is dead and its batch taken over."""
        self.let_go()

    # ------------------------------------------------------------------------------------------------------ telemetry

    cdef tuple tell_start(self, list messages, object info):
        cdef int64_t started = monotonic_ns()
        cdef dict about = {**self.where, "batch_info": info, "telemetry_span_context": object()}
        if self.listeners.start_called:
            telemetry.execute(START, {"system_time": wall_ns(), "monotonic_time": started},
                              {**about, "messages": PyList_GetSlice(messages, 0, len(messages))})
        return started, about

    cdef tell_end(self, tuple begun, object error, list messages, Py_ssize_t failed):
        """Its lists are gone when it returns: no reference of ours keeps the messages from being used again."""
        cdef int64_t now = monotonic_ns(), started = begun[0]
        cdef dict about = <dict>begun[1]
        about = {**about, "successful_messages": PyList_GetSlice(messages, 0, len(messages)), "failed_messages": []}
        if failed:
            about["successful_messages"] = [one for one in messages if not lost(<Message>one)]
            about["failed_messages"] = [one for one in messages if lost(<Message>one)]
        if error is not None:
            about.update(telemetry.exception_metadata(error))
        telemetry.execute(STOP if error is None else EXCEPTION, {"duration": now - started, "monotonic_time": now}, about)
