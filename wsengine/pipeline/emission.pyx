"""What a frame handler has emitted becomes messages: one for each payload, in the place of the frame that it came of.

What the transformer fails on is a failed message, as on a processor. A Message of the handler's own is taken as it is, if it
is nobody's yet; the transformer does not see it.
"""
from wsengine.message import Failed

from libc.stdint cimport uint32_t
from wsengine.engine.ring cimport monotonic_ns
from wsengine.message cimport Message


cdef list emit(object holder, object log_failure, object transformer, Message frame, object payloads):
    cdef list made = []
    for payload in payloads:
        made.append(emit_one(holder, log_failure, transformer, frame, payload))
    return made


cdef Message emit_one(object holder, object log_failure, object transformer, Message frame, object payload):
    cdef Message message
    cdef object verdict = None
    if isinstance(payload, Message):
        message = <Message>payload
    elif transformer is None:
        message = Message.__new__(Message)
        message.payload = payload
    else:
        try:
            message = transformed(transformer, payload, frame.origin.metadata(frame))
        except BaseException as error:
            log_failure("transformer", error)
            message = Message.__new__(Message)
            message.payload = payload
            verdict = Failed(error, error)
    if message.holder is not None or message.acked:
        raise TypeError("frame_handler emitted a Message that is in a pipeline already, or twice; make a new one")
    if verdict is not None:
        message.set_verdict(verdict)
    message.charged = charge_of(message.payload, frame.charged)
    return place(holder, message, frame)


cdef Message marker(object holder, object origin, uint32_t index, uint32_t epoch):
    cdef Message message = Message.__new__(Message)
    message.holder = holder
    message.received_ns = monotonic_ns()
    message.connection_index = index
    message.epoch = epoch
    message.origin = origin
    message.seq = 0
    message.opcode = 0
    message.charged = 0
    return message


cdef Message place(object holder, Message message, Message frame):
    """Have the message held, as one from where the frame came from."""
    message.holder = holder
    message.seq = frame.seq
    message.received_ns = frame.received_ns
    message.connection_index = frame.connection_index
    message.epoch = frame.epoch
    message.opcode = frame.opcode
    message.origin = frame.origin
    return message


cdef Message transformed(object transformer, object payload, dict metadata):
    made = transformer(payload, metadata)
    if not isinstance(made, Message):
        raise TypeError(f"transformer returned {type(made).__name__}; return a Message")
    if (<Message>made).holder is not None or (<Message>made).acked:
        raise TypeError("transformer returned the same Message again; return one of its own for each payload")
    return <Message>made


cdef uint32_t charge_of(object payload, uint32_t frame):
    """Bytes that the account holds for a payload; what has no size of its own counts as its frame."""
    if isinstance(payload, (bytes, bytearray, str)):
        return <uint32_t>min(len(payload), 0xFFFFFFFF)
    return frame
