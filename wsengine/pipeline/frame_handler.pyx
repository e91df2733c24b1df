"""What a `frame_handler` returns, and how that is judged.

A frame handler sees every message of a connection in order, with a state that lives as long as the connection's present
generation: `frame_handler(payload, state)`. It returns one of `Emit`, `Skip` and `Fail`, or the plain tuples of the
ancestor, ("emit", payloads, state), ("skip", state), ("error", reason, state), the first two with replies behind, if any
(reference §2.2, W-23). Texts of errors never hold a payload.
"""
import copy
import inspect
from typing import Any

cimport cython


@cython.freelist(64)
cdef class Emit:
    """Hand payloads on to the processors, each as a message of its own, with the frame's connection, epoch, seq and time.

    Args:
        payloads: a list or tuple, which may be empty; each element becomes `Message.data`, whatever it is, or is a new
            `Message` itself, which is then taken as it is.
        state: given to the handler with the next payload.
        replies: a list or tuple of frames, str (text) and bytes (binary), to be sent on that connection, if its
            generation is still the present one.
    """

    def __init__(self, payloads, state, replies=()):
        self.payloads = payloads
        self.state = state
        self.replies = replies

    def __repr__(self):
        return f"<Emit of {sized(self.payloads)} payloads, {sized(self.replies)} replies>"


@cython.freelist(64)
cdef class Skip:
    """Hand nothing on. Arguments as those of `Emit`."""

    def __init__(self, state, replies=()):
        self.state = state
        self.replies = replies

    def __repr__(self):
        return f"<Skip, {sized(self.replies)} replies>"


cdef class Fail:
    """Fail the connection: it is closed, told as `failure`, and made anew by the retry policy.

    Args:
        reason: anything; in logs only if it is a str, which should hold no payload and no secret.
        state: not used, as the next generation begins anew; the ancestor's tuple has one.
    """

    def __init__(self, reason, state=None):
        self.reason = reason
        self.state = state

    def __repr__(self):
        return f"<Fail {type(self.reason).__name__}>"


#: What a frame handler returns.
FrameResult = Emit | Skip | Fail | tuple[Any, ...]


cdef str sized(value):
    return str(len(value)) if isinstance(value, (list, tuple)) else "wrong"


cdef object from_tuple(tuple result):
    """The ancestor's plain form; None if it is none."""
    cdef Py_ssize_t n = len(result)
    cdef object kind = result[0] if n else None
    if not isinstance(kind, str):
        return None
    if kind == "emit" and 3 <= n <= 4:
        return Emit(*result[1:])
    if kind == "skip" and 2 <= n <= 3:
        return Skip(*result[1:])
    if kind == "error" and 2 <= n <= 3:
        return Fail(*result[1:])
    return None


cdef int check_replies(object replies) except -1:
    if not isinstance(replies, (list, tuple)):
        raise TypeError(f"frame_handler returned replies of type {type(replies).__name__}; give a list of str and bytes")
    for one in replies:
        if not isinstance(one, (str, bytes)):
            raise TypeError(f"frame_handler returned a reply of type {type(one).__name__}; give str for a text frame, bytes "
                            "for a binary one")
    return 0


cpdef object judged(object result):
    """The result of a frame handler as an `Emit`, `Skip` or `Fail`.

    Raises:
        TypeError: it is none of the three, nor one of the ancestor's tuples, or holds something of a wrong type. The text
            names types only.
    """
    cdef object one = from_tuple(<tuple>result) if isinstance(result, tuple) else result
    if isinstance(one, Emit):
        if not isinstance((<Emit>one).payloads, (list, tuple)):
            raise TypeError(f"frame_handler emitted {type((<Emit>one).payloads).__name__}; give a list of payloads")
        if (<Emit>one).replies is not ():
            check_replies((<Emit>one).replies)
        return one
    if isinstance(one, Skip):
        if (<Skip>one).replies is not ():
            check_replies((<Skip>one).replies)
        return one
    if isinstance(one, Fail):
        return one
    if inspect.iscoroutine(result):
        result.close()                # or Python warns that nobody has awaited it
        raise TypeError("frame_handler returned a coroutine; make it a plain function, without async, that returns "
                        "Emit(payloads, state), Skip(state) or Fail(reason)")
    raise TypeError(f"frame_handler returned {type(result).__name__}; return Emit(payloads, state), Skip(state) or "
                    "Fail(reason)")


cdef class FrameHandler:
    """A frame handler with what belongs to it. Constant, so safe to share.

    Args:
        function: (payload, state) -> result; None hands every payload on, where only markers are wanted.
        initial: what each generation of a connection begins with: a callable is called for it, anything else is copied
            deeply.
        sessions: who owns the connections: `reply(index, epoch, frames)` sends, and returns how many could not be sent as
            the generation is over; `fail(index, epoch, error)` has the connection closed; `dropped(index, epoch, count)`
            is told of messages that were dropped behind a failure. All three are called by the dispatcher.
    """

    def __cinit__(self, function, initial, sessions):
        self.function = function
        self.initial = initial
        self.sessions = sessions

    cdef object new_state(self):
        return self.initial() if callable(self.initial) else copy.deepcopy(self.initial)
