"""RFC 6455 frames for a client, sans-IO: an incremental parser that works in place, and a builder of masked frames.

The parser is a small machine (head, then payload) that is given bytes in any cut and answers with one step at a time.
It copies nothing but heads and control payloads that arrive in pieces. After a Close or a failure it ignores the rest.
What is refused, and with which close code, is decided here and nowhere else:

    1002  masked frame, reserved bits, unknown opcode, fragmented or long control frame, wrong continuation,
          length not minimal or with its top bit set, Close of one byte or with a code that must not be sent
    1007  text or close reason that is not UTF-8, at the first byte that shows it
    1009  message above max_size, as soon as its head announces it

Where permessage-deflate was agreed on, the first frame of a message may have RSV1 (RFC 7692 §6). The payload of such a
message is told as it was sent: what is in it is judged by whoever inflates it (parts).
"""
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdio cimport fputs, stderr
from libc.stdlib cimport abort
from libc.string cimport memcpy
from wsengine.engine.utf8 cimport utf8_valid, utf8_feed, utf8_start

cdef extern from "entropy.hpp" namespace "wsengine" nogil:
    bint fill_random(uint8_t* out, size_t size)


# ------------------------------------------------------------------------------------------------------------- parsing

cdef void parser_start(Parser* parser, uint64_t max_size) noexcept nogil:
    parser.max_size = max_size
    # Compressors make a message longer by a quarter at the most, and a few bytes a flush; beyond double, a stream of
    # empty blocks is all that it can be. No frame announces 2^63.
    parser.max_deflated = max_size * 2 + 1024 if max_size < <uint64_t>1 << 62 else <uint64_t>1 << 63
    parser.deflate = 0
    parser.compressed = 0
    parser.head_size = 0
    parser.in_payload = 0
    parser.opcode = 0
    parser.fin = 0
    parser.left = 0
    parser.message_opcode = 0
    parser.message_size = 0
    parser.control_size = 0
    parser.over = 0
    utf8_start(&parser.utf8)


cdef inline Step fail(Parser* parser, Parsed* out, uint16_t code, const char* problem) noexcept nogil:
    parser.over = 1
    out.close_code = code
    out.problem = problem
    return STEP_FAIL


cdef void parser_fail(Parser* parser, Parsed* out, uint16_t code, const char* problem) noexcept nogil:
    fail(parser, out, code, problem)


cdef bint close_code_valid(uint16_t code) noexcept nogil:
    """Whether an endpoint may send this code: RFC 6455 §7.4.2, and 1012-1014 of the IANA registry."""
    if code < 1000 or code >= 5000:
        return False
    if code < 3000:
        return code <= 1014 and code != 1004 and code != 1005 and code != 1006
    return True


cdef inline const char* problem_of_head(Parser* parser, uint8_t first, uint8_t second) noexcept nogil:
    """What is wrong with the first two bytes of a frame, NULL if nothing (RFC 6455 §5.2, §5.4, §5.5)."""
    cdef uint8_t opcode = first & 0x0F
    if first & 0x70:
        if not parser.deflate:
            return b"frame with a reserved bit set, and no extension was negotiated"
        if first & 0x30:
            return b"frame with a reserved bit set that permessage-deflate does not use"
        if opcode & 0x08:
            return b"control frame that is marked as compressed"
        if opcode == OP_CONTINUATION:
            return b"continuation frame that is marked as compressed"
    if second & 0x80:
        return b"masked frame from a server"
    if opcode & 0x08:
        if opcode > OP_PONG:
            return b"frame with an unknown control opcode"
        if not first & 0x80:
            return b"fragmented control frame"
        if second > MAX_CONTROL:
            return b"control frame with a payload above 125 bytes"
        return NULL
    if opcode > OP_BINARY:
        return b"frame with an unknown data opcode"
    if opcode == OP_CONTINUATION:
        if parser.message_opcode == 0:
            return b"continuation frame, and no message was begun"
    elif parser.message_opcode != 0:
        return b"new message before the fragmented one was complete"
    return NULL


cdef inline size_t head_bytes(uint8_t second) noexcept nogil:
    return 2 if second < 126 else 4 if second == 126 else 10


cdef inline const char* begin_frame(Parser* parser, const uint8_t* head, uint16_t* code) noexcept nogil:
    """Take a complete head; what is wrong with its length, NULL if nothing."""
    cdef uint64_t size = head[1] & 0x7F, most
    cdef size_t i
    code[0] = 1002
    if size == 126:
        size = (<uint64_t>head[2] << 8) | head[3]
        if size < 126:
            return b"frame length that is not minimal"
    elif size == 127:
        size = 0
        for i in range(2, 10):
            size = (size << 8) | head[i]
        if size >> 63:
            return b"frame length with its top bit set"
        if size < 65536:
            return b"frame length that is not minimal"
    parser.opcode = head[0] & 0x0F
    parser.fin = head[0] >> 7
    parser.left = size
    parser.head_size = 0
    parser.in_payload = 1
    if parser.opcode & 0x08:
        parser.control_size = 0
        return NULL
    if parser.opcode != OP_CONTINUATION:
        parser.message_opcode = parser.opcode
        parser.message_size = 0
        parser.compressed = head[0] & 0x40
        utf8_start(&parser.utf8)
    most = parser.max_deflated if parser.compressed else parser.max_size
    if size > most or parser.message_size > most - size:
        parser.message_size += size
        code[0] = 1009
        return b"compressed message above twice max_size" if parser.compressed else b"message above max_size"
    parser.message_size += size
    return NULL


cdef Step close_step(Parser* parser, const uint8_t* payload, size_t size, Parsed* out) noexcept nogil:
    """Judge a Close frame (RFC 6455 §5.5.1, §7.4)."""
    parser.over = 1
    out.close_code = 1005
    out.payload = payload
    out.size = 0
    if size == 0:
        return STEP_CLOSE
    if size == 1:
        return fail(parser, out, 1002, b"Close frame with a payload of one byte")
    out.close_code = (<uint16_t>payload[0] << 8) | payload[1]
    out.payload = payload + 2
    out.size = size - 2
    if not close_code_valid(out.close_code):
        return fail(parser, out, 1002, b"Close frame with a code that must not be sent")
    if not utf8_valid(out.payload, out.size):
        return fail(parser, out, 1007, b"close reason that is not UTF-8")
    return STEP_CLOSE


cdef Step control_step(Parser* parser, const uint8_t* data, size_t size, size_t used, Parsed* out) noexcept nogil:
    """Take the payload of a control frame: in place if it is all there, gathered otherwise."""
    cdef const uint8_t* payload = data + used
    cdef size_t part, whole = <size_t>parser.left + parser.control_size
    if parser.control_size or size - used < parser.left:
        part = min(<size_t>parser.left, size - used)
        if part:
            memcpy(parser.control + parser.control_size, payload, part)
        parser.control_size += <uint8_t>part
        parser.left -= part
        out.consumed = used + part
        if parser.left:
            return STEP_MORE
        payload = parser.control
    else:
        out.consumed = used + <size_t>parser.left
    parser.in_payload = 0
    parser.control_size = 0
    if parser.opcode == OP_CLOSE:
        return close_step(parser, payload, whole, out)
    out.payload = payload
    out.size = whole
    return STEP_PING if parser.opcode == OP_PING else STEP_PONG


cdef Step piece_step(Parser* parser, const uint8_t* data, size_t size, size_t used, Parsed* out) noexcept nogil:
    """Take what has arrived of a data frame that is not a whole message in one piece."""
    cdef size_t part = size - used
    if parser.left < part:
        part = <size_t>parser.left
    out.consumed = used + part
    if part == 0 and parser.left:
        return STEP_MORE
    out.payload = data + used
    out.size = part
    out.opcode = parser.message_opcode
    out.announced = parser.message_size
    parser.left -= part
    if parser.compressed:
        return deflated_step(parser, out)
    if parser.message_opcode == OP_TEXT and not utf8_feed(&parser.utf8, out.payload, part):
        return fail(parser, out, 1007, b"text message that is not UTF-8")
    if parser.left:
        out.last = 0
        return STEP_PIECE
    parser.in_payload = 0
    out.last = parser.fin
    if parser.fin:
        if parser.message_opcode == OP_TEXT and parser.utf8.missing:
            return fail(parser, out, 1007, b"text message that ends within a character")
        parser.message_opcode = 0
    return STEP_PIECE


cdef Step deflated_step(Parser* parser, Parsed* out) noexcept nogil:
    """End a piece of a compressed message."""
    out.last = parser.left == 0 and parser.fin
    if parser.left == 0:
        parser.in_payload = 0
    if out.last:
        parser.message_opcode = 0
    return STEP_DEFLATED


cdef Step gather_head(Parser* parser, const uint8_t* data, size_t size, Parsed* out) noexcept nogil:
    """Take head bytes that arrive in pieces; STEP_MESSAGE stands for "the head is complete"."""
    cdef size_t used = 0
    cdef const char* problem
    while used < size:
        parser.head[parser.head_size] = data[used]
        parser.head_size += 1
        used += 1
        if parser.head_size == 2:
            problem = problem_of_head(parser, parser.head[0], parser.head[1])
            if problem != NULL:
                out.consumed = used
                return fail(parser, out, 1002, problem)
        if parser.head_size >= 2 and parser.head_size == head_bytes(parser.head[1]):
            out.consumed = used
            return STEP_MESSAGE
    out.consumed = used
    return STEP_MORE


cdef Step parse_any(Parser* parser, const uint8_t* data, size_t size, Parsed* out) noexcept nogil:
    cdef size_t used = 0
    cdef const uint8_t* head = data
    cdef const char* problem
    cdef uint16_t code = 1002
    cdef Step step
    if parser.over:
        out.consumed = size
        return STEP_MORE
    if not parser.in_payload:
        if parser.head_size or size < 2 or size < head_bytes(data[1]):
            step = gather_head(parser, data, size, out)
            if step != STEP_MESSAGE:
                return step
            used = out.consumed
            head = parser.head
        else:
            problem = problem_of_head(parser, data[0], data[1])
            if problem != NULL:
                out.consumed = 2
                return fail(parser, out, 1002, problem)
            used = head_bytes(data[1])
        problem = begin_frame(parser, head, &code)
        if problem != NULL:
            out.consumed = used
            out.announced = parser.message_size
            return fail(parser, out, code, problem)
        if (parser.fin and size - used >= parser.left and (parser.opcode == OP_TEXT or parser.opcode == OP_BINARY)
                and not parser.compressed):
            return message_step(parser, data, used, out)
    if parser.opcode & 0x08:
        return control_step(parser, data, size, used, out)
    return piece_step(parser, data, size, used, out)


cdef inline Step message_step(Parser* parser, const uint8_t* data, size_t used, Parsed* out) noexcept nogil:
    """A whole message in one frame that lies in the input."""
    out.payload = data + used
    out.size = <size_t>parser.left
    out.consumed = used + out.size
    out.opcode = parser.opcode
    parser.in_payload = 0
    parser.message_opcode = 0
    if parser.opcode == OP_TEXT and not utf8_valid(out.payload, out.size):
        return fail(parser, out, 1007, b"text message that is not UTF-8")
    return STEP_MESSAGE


# ------------------------------------------------------------------------------------------------------------ building

cdef void mask_keys_start(MaskKeys* keys) noexcept nogil:
    keys.used = sizeof(keys.block)


cdef const uint8_t* next_key(MaskKeys* keys) noexcept nogil:
    """Four bytes that nobody can foresee (RFC 6455 §5.3), good until the next call."""
    cdef const uint8_t* key
    if keys.used + 4 > sizeof(keys.block):
        if not fill_random(keys.block, sizeof(keys.block)):
            # A predictable key would be a hole and there is nobody to tell: the system has no entropy source at all.
            fputs(b"wsengine: the system gives no random bytes for masking keys\n", stderr)
            abort()
        keys.used = 0
    key = keys.block + keys.used
    keys.used += 4
    return key


cdef size_t frame_size(size_t payload_size) noexcept nogil:
    return payload_size + (6 if payload_size < 126 else 8 if payload_size < 65536 else 14)


cdef void build(uint8_t* out, uint8_t opcode, bint fin, const uint8_t* payload, size_t payload_size,
                const uint8_t* key, bint rsv1=False) noexcept nogil:
    cdef size_t at = 2, i
    cdef uint64_t wide, word
    out[0] = (0x80 if fin else 0) | (0x40 if rsv1 else 0) | opcode
    if payload_size < 126:
        out[1] = 0x80 | <uint8_t>payload_size
    elif payload_size < 65536:
        out[1] = 0x80 | 126
        out[2] = <uint8_t>(payload_size >> 8)
        out[3] = <uint8_t>payload_size
        at = 4
    else:
        out[1] = 0x80 | 127
        for i in range(8):
            out[2 + i] = <uint8_t>(<uint64_t>payload_size >> (56 - 8 * i))
        at = 10
    memcpy(out + at, key, 4)
    at += 4
    memcpy(&wide, key, 4)
    memcpy(<uint8_t*>&wide + 4, key, 4)
    i = 0
    while i + 8 <= payload_size:
        memcpy(&word, payload + i, 8)
        word ^= wide
        memcpy(out + at + i, &word, 8)
        i += 8
    while i < payload_size:
        out[at + i] = payload[i] ^ key[i & 3]
        i += 1


# -------------------------------------------------------------------------------------------------- the face for tests

cdef class FrameParser:
    """The frame parser with a gathering buffer, for tests and oracles; the engine itself uses the functions below it.

    Args:
        max_size: limit of a message's payload in bytes.
        deflate: whether permessage-deflate was agreed on. The parser does not inflate.

    Not thread-safe.
    """
    cdef Parser parser
    cdef list pieces

    def __cinit__(self, uint64_t max_size=2**20, bint deflate=False):
        parser_start(&self.parser, max_size)
        self.parser.deflate = deflate
        self.pieces = []

    def feed(self, const uint8_t[::1] data not None) -> list:
        """Take bytes in any cut.

        Returns:
            What they complete, in order: ("text" | "binary", payload), ("ping" | "pong", payload),
            ("deflated text" | "deflated binary", payload as it was sent), ("close", code, reason),
            ("fail", close code to send, problem). Nothing follows the last two.
        """
        cdef Parsed parsed
        cdef size_t at = 0, size = <size_t>data.shape[0]
        cdef const uint8_t* start = &data[0] if size else NULL
        cdef Step step
        events = []
        while True:
            step = parse(&self.parser, start + at, size - at, &parsed)
            at += parsed.consumed
            if step == STEP_MORE:
                return events
            self.record(step, &parsed, events)

    cdef record(self, Step step, Parsed* parsed, list events):
        if step == STEP_FAIL:
            events.append(("fail", parsed.close_code, parsed.problem.decode()))
            return
        payload = parsed.payload[:parsed.size]
        if step == STEP_MESSAGE:
            events.append(("text" if parsed.opcode == OP_TEXT else "binary", payload))
        elif step == STEP_PIECE or step == STEP_DEFLATED:
            self.pieces.append(payload)
            if parsed.last:
                kind = ("deflated " if step == STEP_DEFLATED else "") + ("text" if parsed.opcode == OP_TEXT else "binary")
                events.append((kind, b"".join(self.pieces)))
                self.pieces = []
        elif step == STEP_CLOSE:
            events.append(("close", parsed.close_code, payload.decode()))
        else:
            events.append(("ping" if step == STEP_PING else "pong", payload))


def build_frame(int opcode, const uint8_t[::1] payload not None, *, bint fin=True, mask=None, bint rsv1=False) -> bytes:
    """A frame as the client sends it, masked.

    Args:
        opcode: 0 to 15, not checked, so that tests can build what must be refused.
        payload: bytes.
        fin: whether it ends the message.
        mask: four bytes; None draws an unpredictable key.
        rsv1: whether it is marked as the first frame of a compressed message.

    Raises:
        ValueError: the mask is not four bytes long.
    """
    cdef size_t size = <size_t>payload.shape[0]
    cdef MaskKeys keys
    cdef const uint8_t* key
    if mask is None:
        mask_keys_start(&keys)
        key = next_key(&keys)
    else:
        if len(mask) != 4:
            raise ValueError(f"mask={mask!r}: a masking key has four bytes")
        key = mask
    out = bytearray(frame_size(size))
    build(<uint8_t*>(<char*>out), <uint8_t>opcode, fin, &payload[0] if size else NULL, size, key, rsv1)
    return bytes(out)
