"""One payload on its way through the pipeline, with what is known of its arrival and what became of it.

Only the object lives here. Who claims messages, calls handlers and acknowledges is the pipeline's matter (Broadway's
`Broadway.Message`; the names of its fields are kept).
"""
import time

cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    /* Whether a message may be taken from the cyclic collector and given back, in two steps that no other thread comes between.
       Without the GIL two threads might give it back at once, which is fatal. */
    #ifdef Py_GIL_DISABLED
    #define may_untrack() 0
    #else
    #define may_untrack() 1
    #endif
    """
    bint may_untrack()

cdef extern from "Python.h":
    bint PyObject_GC_IsTracked(object o)
    void PyObject_GC_Track(object o)
    void PyObject_GC_UnTrack(object o)
    bint PyBytes_CheckExact(object o)
    bint PyUnicode_CheckExact(object o)
    bint PyLong_CheckExact(object o)

from wsengine.errors import ConfigurationError


cdef class Failed:
    """Why a message failed. Truthy. Attributes: `reason`, anything; `exception`, what was raised, or None."""
    cdef readonly object reason
    cdef readonly object exception

    def __init__(self, reason, exception=None):
        self.reason = reason
        self.exception = exception

    def __repr__(self):
        return f"Failed({self.reason!r})" if self.exception is None else f"Failed({self.reason!r}, {self.exception!r})"


def checked_acknowledger(value):
    """The (acknowledger, ack_ref, ack_data) triple, or None; ConfigurationError for anything else."""
    if value is None:
        return None
    if not isinstance(value, tuple) or len(value) != 3 or not callable(getattr(value[0], "ack", None)):
        raise ConfigurationError("message.acknowledger", value,
                                 "give (acknowledger, ack_ref, ack_data), the first with a method "
                                 "ack(ack_ref, successful, failed)")
    return value


def admit(Message message not None, holder, int64_t now) -> int:
    """Give the message to `holder`, a queue before the processors, if it is nobody's. It is received `now`, unless it has
    been before.

    Returns:
        How many bytes the pipeline's account holds for it, those of its payload; -1 if it is in a pipeline, or was.
    """
    with cython.critical_section(message):
        if message.holder is not None or message.acked:
            return -1
        message.holder = holder
    if message.received_ns == 0:
        message.received_ns = now
    data = message.payload
    message.charged = <uint32_t>min(len(data), 0xFFFFFFFF) if isinstance(data, (bytes, bytearray, str)) else 0
    return message.charged


def give_back(Message message not None) -> None:
    """Undo `admit`: the message did not come in after all."""
    if message.epoch == 0:                       # by `admit`, then
        message.received_ns = 0
    message.holder = None


cdef inline bint plain(object value):
    """Whether a value refers to nothing."""
    return PyBytes_CheckExact(value) or PyUnicode_CheckExact(value) or PyLong_CheckExact(value)


cdef class Details:
    """What most messages never have: metadata, an acknowledger, a mode of batching."""

    def __cinit__(self):
        self.batch_mode = "bulk"


#: The batch key None, where None stands for "default".
cdef object NO_KEY = object()


cdef object batch_key_of(object group):
    """The `batch_key` that a message's `group` stands for."""
    return "default" if group is None else None if group is NO_KEY else group


@cython.freelist(256)
cdef class Message:
    """One message.

    Args:
        data: the payload.
        metadata: a dict of what belongs to it, None for an empty one.
        acknowledger: (acknowledger, ack_ref, ack_data); None acknowledges to nobody. The acknowledger has a method
            `ack(ack_ref, successful, failed)`, called once per group of one acknowledger and ack_ref with the messages
            in order, and optionally `configure(ack_ref, ack_data, options)`, which returns the new ack_data.
        batcher, batch_key, batch_mode: where it is batched, as in Broadway.

    Attributes:
        data: bytes as received; text frames have been checked to be UTF-8, see `text`. Handlers may replace it.
        opcode: 1 text, 2 binary, 0 for a message that came from no connection.
        connection: the connection that it came by, or None.
        connection_index, epoch, seq: which connection of the producer, which of its generations (from 1), and the
            message's number in that generation (from 0). Numbers are given before any drop, so gaps show drops.
        received_ns: `time.monotonic_ns()` of the read that completed it. Where the one processor reads by itself, between
            its handlers, that may be up to 4 ms after the message came. Of a message made by hand it is 0 until that is
            pushed, and then the time when that began.

    A message belongs to one thread at a time. Source: Broadway.Message.
    """

    def __init__(self, data, *, metadata=None, acknowledger=None, str batcher="default", batch_key="default",
                 batch_mode="bulk"):
        self.data = data
        if metadata is not None and not isinstance(metadata, dict):
            raise ConfigurationError("message.metadata", metadata, "give a dict or None")
        if metadata is not None:
            self.metadata = metadata
        if acknowledger is not None:
            self.acknowledger = acknowledger
        if batcher != "default":
            self.batcher = batcher
        self.batch_key = batch_key
        self.batch_mode = batch_mode

    @property
    def data(self):
        return self.payload

    @data.setter
    def data(self, value):
        if not plain(value):
            self.track()
        self.payload = value
        self.room = 0

    cdef Details detailed(self):
        if self.details is None:
            self.track()
            self.details = Details()
        return self.details

    cdef void untrack(self) noexcept:
        """What holds nothing of the user's cannot be part of a cycle, and the collector need not look at it."""
        if may_untrack() and PyObject_GC_IsTracked(self):
            PyObject_GC_UnTrack(self)

    cdef void track(self) noexcept:
        """Something of the user's comes in, which may refer to this message."""
        if not PyObject_GC_IsTracked(self):
            PyObject_GC_Track(self)

    @property
    def text(self) -> str:
        """`data` decoded from UTF-8.

        Raises:
            TypeError: `data` is no longer bytes.
            UnicodeDecodeError: it is bytes that are not UTF-8, which a text frame never is.
        """
        data = self.payload
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise TypeError(f"message.text decodes bytes, and message.data is {type(data).__name__}")
        return str(data, "utf-8")

    @property
    def connection(self):
        return None if self.origin is None or self.epoch == 0 else self.origin.connection(self.connection_index)

    @property
    def marker(self) -> bool:
        """Whether it is no payload, but says that a generation of its connection begins (`session_markers`)."""
        return self.opcode == 0 and self.epoch != 0

    @property
    def received_at(self) -> float:
        """Wall-clock time of arrival, seconds since the epoch, by the wall clock as it stands now; 0.0 if unknown."""
        if self.received_ns == 0:
            return 0.0
        return time.time() - (time.monotonic_ns() - self.received_ns) / 1e9

    @property
    def metadata(self) -> dict:
        """What belongs to the message; made when first asked for, with where it came from under "url" and the like."""
        cdef Details details = self.detailed()
        if details.metadata is None:
            details.metadata = {} if self.origin is None else self.origin.metadata(self)
        return details.metadata

    @metadata.setter
    def metadata(self, value):
        if not isinstance(value, dict):
            raise ConfigurationError("message.metadata", value, "give a dict")
        self.detailed().metadata = value

    @property
    def acknowledger(self):
        """(acknowledger, ack_ref, ack_data), or None."""
        return None if self.details is None else self.details.acknowledger

    @acknowledger.setter
    def acknowledger(self, value):
        self.detailed().acknowledger = checked_acknowledger(value)

    @property
    def batcher(self) -> str:
        """Name of the batcher that it goes to."""
        return "default" if self.destination is None else self.destination

    @batcher.setter
    def batcher(self, value):
        if not isinstance(value, str):
            raise ConfigurationError("message.batcher", value, "give the name of a batcher, a string")
        if not PyUnicode_CheckExact(value):
            self.track()
        self.destination = value

    @property
    def batch_key(self):
        """Messages of one key are batched together."""
        return batch_key_of(self.group)

    @batch_key.setter
    def batch_key(self, value):
        try:
            hash(value)
        except TypeError:
            raise ConfigurationError("message.batch_key", value, "give something hashable") from None
        if not plain(value):
            self.track()
        if isinstance(value, str) and value == "default":
            self.group = None
        else:
            self.group = NO_KEY if value is None else value

    @property
    def batch_mode(self) -> str:
        """"bulk", or "flush": emit the batch without waiting."""
        return "bulk" if self.details is None else self.details.batch_mode

    @batch_mode.setter
    def batch_mode(self, value):
        if value not in ("bulk", "flush"):
            raise ConfigurationError("message.batch_mode", value, "give 'bulk' or 'flush'")
        if value == "flush" or self.details is not None:
            self.detailed().batch_mode = value

    @property
    def status(self):
        """"ok", or a `Failed` with its reason."""
        return "ok" if self.verdict is None else self.verdict

    @property
    def failed(self) -> bool:
        return self.verdict is not None

    def fail(self, reason) -> Message:
        """Mark the message as failed: it goes to `handle_failed` and is acknowledged as failed. Returns itself."""
        self.set_verdict(reason if isinstance(reason, Failed) else Failed(
            reason, reason if isinstance(reason, BaseException) else None))
        return self

    cdef void set_verdict(self, object failed) noexcept:
        # The handler's own thread, or whoever takes its chunk over at a deadline: two at once without the GIL.
        with cython.critical_section(self):
            if failed is not None:
                self.track()
            self.verdict = failed

    def ack_immediately(self) -> None:
        """Acknowledge now, by the present status; the pipeline will not do it again.

        Nothing happens if it has been acknowledged already. In a pipeline, errors of the acknowledger are logged; what
        becomes of the message afterwards changes neither what it counts as nor has it handled again.
        """
        if self.acked:
            return
        if self.holder is not None:
            self.holder.ack_now(self)
        elif self.acknowledger is not None:
            acknowledger, ref, _ = self.acknowledger
            self.acked = ACKED_FAILED if self.failed else ACKED
            acknowledger.ack(ref, [] if self.failed else [self], [self] if self.failed else [])

    def configure_ack(self, **options) -> None:
        """Hand options to the acknowledger's `configure`, and keep the ack_data that it returns.

        Raises:
            ConfigurationError: the message has no acknowledger, or one without `configure`.
        """
        triple = self.acknowledger
        if triple is None or not callable(getattr(triple[0], "configure", None)):
            raise ConfigurationError("message.acknowledger", triple, "its acknowledger has no method "
                                     "configure(ack_ref, ack_data, options)")
        acknowledger, ref, data = triple
        self.details.acknowledger = (acknowledger, ref, acknowledger.configure(ref, data, options))

    def __reduce__(self):
        raise TypeError("a Message belongs to its pipeline and cannot be pickled; pickle message.data")

    def __repr__(self):
        data = repr(self.payload)
        if len(data) > 80:
            data = data[:77] + "..."
        return f"<Message {data} {self.status} seq={self.seq} epoch={self.epoch} connection={self.connection_index}>"
