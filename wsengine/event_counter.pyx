"""A telemetry handler that counts without Python's help, for events that come as often as messages do."""
cimport cython
from libcpp.atomic cimport memory_order_relaxed


@cython.final
cdef class EventCounter:
    """A telemetry handler that counts the events it is attached to::

        handled = EventCounter()
        telemetry.attach("handled", telemetry.MESSAGE_STOP, handled)

    It is called as any handler. Where nothing but counters listens to the start, the stop and the exception of a message,
    a chunk, a batcher or a batch, though, those are counted without being put together. A count then costs a message some
    nanoseconds, or, without the GIL and with several threads that count, some dozen; a function in Python costs more than
    the rest of the message's way. What is attached or detached while a chunk is handled is heeded from the next on.

    One counter may be attached to several events, of which it counts the sum. Thread-safe.

    Source: the counter of Erlang's `telemetry_metrics`.
    """

    def __call__(self, event, measurements, metadata, config) -> None:
        """Count one event."""
        self.add()

    @property
    def value(self) -> int:
        """Events counted since it was made, or since `reset`."""
        return self.counted.load(memory_order_relaxed)

    def reset(self) -> int:
        """Begin from nought; what had been counted. No event is lost or counted twice, whoever counts meanwhile."""
        return self.counted.exchange(0, memory_order_relaxed)

    def __repr__(self) -> str:
        return f"<EventCounter {self.value}>"
