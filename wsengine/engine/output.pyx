"""What one connection has still to send: masked frames, control frames before data frames, nothing after a Close.

All functions run without the GIL, in the thread that has the lead (lead.hpp), and never block. A failed write ends the
sending, not the connection: what the peer sent before it went away is still read to its end.
"""
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free
from libc.string cimport memcpy
from wsengine.engine.frames cimport MAX_CONTROL, OP_CLOSE, OP_PONG, MaskKeys, build, frame_size, next_key
from wsengine.engine.tls cimport Tls, tls_shut, tls_write

cdef extern from "<sys/socket.h>" nogil:
    ssize_t send(int fd, const void* data, size_t size, int flags)
    int shutdown(int fd, int how)
    int MSG_DONTWAIT
    int MSG_NOSIGNAL
    int SHUT_WR


# -------------------------------------------------------------------------------------------------------------- frames

cdef OutFrame* frame_make(MaskKeys* keys, uint8_t opcode, const uint8_t* payload, size_t size,
                          uint32_t epoch) noexcept nogil:
    cdef OutFrame* frame = OutFrame.make(<uint32_t>frame_size(size), opcode, epoch)
    if frame != NULL:
        build(frame.data(), opcode, True, payload, size, next_key(keys))
    return frame


cdef void drop_all(Output* out, OutFrame* first) noexcept nogil:
    cdef OutFrame* next
    while first != NULL:
        next = first.next
        out.box.done(first)
        first = next


# ------------------------------------------------------------------------------------------------------------- queueing

cdef inline void append(OutFrame** first, OutFrame** last, OutFrame* frame) noexcept nogil:
    frame.next = NULL
    if last[0] != NULL:
        last[0].next = frame
    else:
        first[0] = frame
    last[0] = frame


cdef void queue(Output* out, OutFrame* frame) noexcept nogil:
    if frame.opcode >= OP_CLOSE:
        append(&out.control_first, &out.control_last, frame)
    else:
        append(&out.data_first, &out.data_last, frame)


cdef void output_take(Output* out, uint32_t epoch) noexcept nogil:
    cdef OutFrame* frame
    cdef OutFrame* next
    if out.box.empty():
        return
    frame = out.box.take_in_order()
    while frame != NULL:
        next = frame.next
        if out.close_queued or out.dead or frame.epoch != epoch:
            out.box.done(frame)
        else:
            queue(out, frame)
        frame = next


cdef void output_pong(Output* out, MaskKeys* keys, const uint8_t* payload, size_t size) noexcept nogil:
    """Answer a ping with its payload. A peer that pings faster than it reads gets the newest answers only."""
    cdef OutFrame* last = out.control_last
    cdef OutFrame* frame = last
    if out.dead or out.close_queued:
        return
    if out.pongs < PONGS_PENDING or last == NULL or last.opcode != OP_PONG:
        frame = OutFrame.make(<uint32_t>frame_size(MAX_CONTROL), OP_PONG)   # room for any, so that it can be replaced
        if frame == NULL:
            return
    build(frame.data(), OP_PONG, True, payload, size, next_key(keys))
    frame.size = <uint32_t>frame_size(size)
    if frame == last:
        return
    out.pongs += 1
    queue(out, frame)


cdef void output_close(Output* out, MaskKeys* keys, uint16_t code, const uint8_t* reason, size_t size,
                       bint at_once) noexcept nogil:
    """Queue our Close, once; 1005 stands for a Close without a code (RFC 6455 §5.5.1)."""
    cdef uint8_t payload[125]
    cdef OutFrame* frame
    if out.close_queued or out.dead:
        return
    payload[0] = <uint8_t>(code >> 8)
    payload[1] = <uint8_t>code
    size = min(size, <size_t>123)
    if size:
        memcpy(payload + 2, reason, size)
    frame = frame_make(keys, OP_CLOSE, payload, 0 if code == 1005 else size + 2, 0)
    if frame == NULL:
        return
    if at_once:                       # what was not begun will not be sent: nothing may follow a Close
        drop_all(out, out.data_first)
        out.data_first = out.data_last = NULL
        queue(out, frame)
    else:
        append(&out.data_first, &out.data_last, frame)
    out.close_queued = True


# -------------------------------------------------------------------------------------------------------------- writing

cdef bint output_waits(const Output* out) noexcept nogil:
    return out.sending != NULL or out.control_first != NULL or out.data_first != NULL


cdef OutFrame* next_frame(Output* out) noexcept nogil:
    cdef OutFrame* frame = out.control_first
    if frame != NULL:
        out.control_first = frame.next
        if frame.next == NULL:
            out.control_last = NULL
        if frame.opcode == OP_PONG and out.pongs:
            out.pongs -= 1
    else:
        frame = out.data_first
        if frame != NULL:
            out.data_first = frame.next
            if frame.next == NULL:
                out.data_last = NULL
    if frame != NULL:
        frame.next = NULL
    return frame


cdef inline ssize_t put(int fd, Tls* tls, const uint8_t* data, size_t size) noexcept nogil:
    if tls != NULL:
        return tls_write(tls, data, size)
    return send(fd, data, size, MSG_DONTWAIT | MSG_NOSIGNAL)


cdef bint output_write(Output* out, int fd, Tls* tls) noexcept nogil:
    cdef ssize_t took
    while not out.dead:
        if out.sending == NULL:
            out.sending = next_frame(out)
            out.sent = 0
            if out.sending == NULL:
                break
        took = put(fd, tls, out.sending.data() + out.sent, out.sending.size - out.sent)
        if took < 0:
            if errno == EINTR:
                continue
            if errno == EAGAIN:
                return True
            out.dead = True
            output_drop(out)
            break
        out.sent += <uint32_t>took
        if out.sent == out.sending.size:
            out.box.done(out.sending)
            out.sending = NULL
    return False


cdef void output_shut(Output* out, int fd, Tls* tls) noexcept nogil:
    if not out.shut and not out.dead:
        out.shut = True
        if tls != NULL:
            tls_shut(tls)
        shutdown(fd, SHUT_WR)


cdef void output_drop(Output* out) noexcept nogil:
    drop_all(out, out.sending)
    drop_all(out, out.control_first)
    drop_all(out, out.data_first)
    out.sending = out.control_first = out.control_last = out.data_first = out.data_last = NULL
    out.pongs = 0
