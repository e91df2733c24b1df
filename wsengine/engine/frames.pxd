# The design page of frames: RFC 6455 §5 for a client, sans-IO. Bytes in, steps out; payloads in, frames out.
#
# Belongs here: the wire format, its limits, and the one judgement on each frame. Does not: buffers, sockets, threads,
# or what becomes of a message. Each Parser and each MaskKeys belongs to one thread at a time.
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from wsengine.engine.utf8 cimport Utf8, utf8_valid

cdef enum Opcode:                 # RFC 6455 §11.8
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10

cdef enum:
    MAX_CONTROL = 125             # §5.5: payload bytes of a control frame
    MAX_HEAD = 14                 # §5.2: bytes of the longest frame head, with its masking key

# ---- parsing: what the next bytes mean

cdef enum Step:
    STEP_MORE                     # all input is used, and something is unfinished or nothing is there
    STEP_MESSAGE                  # a whole message in one frame, `payload` points into the input
    STEP_PIECE                    # part of a message's payload; the message ends with it if `last`
    STEP_DEFLATED                 # the same of a compressed message, as it was sent: not inflated, not UTF-8-checked
    STEP_PING                     # control frames: `payload` lasts until the next call
    STEP_PONG
    STEP_CLOSE                    # `close_code` (1005: none given), `payload` is the reason; nothing follows
    STEP_FAIL                     # the peer broke the protocol: `close_code` to send, `problem`; nothing follows

cdef struct Parsed:               # what came with the step
    const uint8_t* payload
    size_t size                   # bytes at `payload`
    size_t consumed               # bytes of input used up, in every step
    uint64_t announced            # PIECE, DEFLATED: bytes of the message so far with all of this frame
    const char* problem           # FAIL
    uint16_t close_code
    uint8_t opcode                # MESSAGE, PIECE, DEFLATED: OP_TEXT or OP_BINARY
    uint8_t last                  # PIECE, DEFLATED: the message is complete

cdef struct Parser:
    uint64_t max_size             # payload bytes of a message
    uint64_t max_deflated         # the same of a compressed one, as it is sent
    uint8_t deflate               # permessage-deflate was agreed on: set behind parser_start() by whoever can inflate
    # the head, as far as it has arrived in pieces
    uint8_t head[MAX_HEAD]
    uint8_t head_size
    # the frame whose head is complete
    uint8_t in_payload            # its payload goes on
    uint8_t opcode
    uint8_t fin
    uint64_t left                 # payload bytes still to come
    # the message that the frame belongs to
    uint8_t message_opcode        # 0 between messages
    uint8_t compressed            # its first frame had RSV1
    uint64_t message_size         # payload bytes of all its frames so far, as announced
    Utf8 utf8
    # a control frame that arrives in pieces
    uint8_t control[MAX_CONTROL]
    uint8_t control_size
    uint8_t over                  # after Close or failure: the rest is ignored (§5.5.1, §7.1.7)

cdef void parser_start(Parser* parser, uint64_t max_size) noexcept nogil
# Fail for a reason that only whoever takes the payloads can see, as if the parser had found it.
cdef void parser_fail(Parser* parser, Parsed* out, uint16_t code, const char* problem) noexcept nogil
# The next step of the bytes given; call again behind `consumed` until it says STEP_MORE.
cdef Step parse_any(Parser* parser, const uint8_t* data, size_t size, Parsed* out) noexcept nogil
cdef bint close_code_valid(uint16_t code) noexcept nogil

# Nothing is under way: the next byte begins a message.
cdef inline bint between_messages(const Parser* parser) noexcept nogil:
    return not (parser.in_payload | parser.head_size | parser.message_opcode | parser.over)

# A whole unfragmented message with its head, all of it there and nothing wrong with it: the case that the engine lives
# on, so it stands here, to become part of its callers' code. How many bytes it takes, its payload from `head` on; 0 for
# whatever is not so, which is left to parse_any(). Only between messages.
cdef inline size_t whole_message(const uint8_t* data, size_t size, uint64_t max_size, size_t* head) noexcept nogil:
    cdef size_t used = 2, payload
    if size < 4:
        return 0
    payload = data[1]
    if payload >= 126:
        if payload > 126:             # eight bytes of length, or masked
            return 0
        payload = (<size_t>data[2] << 8) | data[3]
        if payload < 126:
            return 0
        used = 4
    if payload > size - used or payload > max_size:
        return 0
    if data[0] == 0x80 | OP_TEXT:
        if not utf8_valid(data + used, payload):
            return 0
    elif data[0] != 0x80 | OP_BINARY:
        return 0
    head[0] = used
    return used + payload

cdef inline Step parse(Parser* parser, const uint8_t* data, size_t size, Parsed* out) noexcept nogil:
    cdef size_t head = 0, used = 0
    if between_messages(parser):
        used = whole_message(data, size, parser.max_size, &head)
    if used == 0:
        return parse_any(parser, data, size, out)
    out.payload = data + head
    out.size = used - head
    out.consumed = used
    out.opcode = data[0] & 0x0F
    return STEP_MESSAGE

# ---- building: frames of ours, always masked (§5.1, §5.3)

cdef struct MaskKeys:             # masking keys from the system's entropy, drawn a block at a time
    uint8_t block[256]
    uint32_t used

cdef void mask_keys_start(MaskKeys* keys) noexcept nogil
cdef size_t frame_size(size_t payload_size) noexcept nogil
# Write a masked frame of frame_size(payload_size) bytes; `payload` may be NULL where its size is 0. `rsv1` marks the first
# frame of a compressed message (RFC 7692 §6.1).
cdef void build(uint8_t* out, uint8_t opcode, bint fin, const uint8_t* payload, size_t payload_size,
                const uint8_t* key, bint rsv1=*) noexcept nogil
cdef const uint8_t* next_key(MaskKeys* keys) noexcept nogil
