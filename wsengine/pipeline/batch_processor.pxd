# The design page of batch_processor: the loop that takes complete batches, runs handle_batch and acknowledges.
#
# Belongs here: its wait, its turn of callbacks, its figures. Does not: which batch is next (lane), what the callbacks
# make of it (callbacks), who acknowledges it (chunk). A BatchProcessor belongs to its thread; its figures may be read from
# any.
from libc.stdint cimport int64_t, uint64_t
from wsengine.pipeline.batch cimport Batch
from wsengine.pipeline.batcher cimport BatcherStage
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.lane cimport Lane
from wsengine.pipeline.latency cimport Latency
from wsengine.pipeline.listeners cimport Listeners

cdef class BatchProcessor:
    cdef readonly BatcherStage stage
    cdef readonly int index
    cdef readonly object thread_name
    cdef Crew crew
    cdef Lane lane
    cdef dict where                  # what telemetry says of it
    cdef Listeners listeners         # to the events of the batch in hand; its thread
    cdef Batch batch                 # the one in hand, or None
    cdef Py_ssize_t count            # messages of it
    cdef readonly uint64_t successful, failed, batches   # acknowledged so far; its thread
    cdef readonly uint64_t ticks     # calls of handle_batch that were begun; its thread
    cdef readonly Latency latency    # from receive to acknowledgement here; its thread
    cdef readonly int64_t busy_ns    # time spent on batches; its thread
    cdef readonly int64_t since_ns   # when the batch in hand was begun, 0: none; its thread
    cdef handle(self)
    cdef settle(self, tuple about, object error)
    cdef tuple tell_start(self, list messages, object info)
    cdef tell_end(self, tuple begun, object error, list messages, Py_ssize_t failed)
