"""Key extractors: the partition key of a payload, found in its JSON or cut out of its bytes, as a hash of 64 bits.

Here a payload is walked as far as its key, and no further: nothing is made of it, neither a tree nor a copy. What is walked
over is held against RFC 8259, so that a key is never found in what is no JSON up to there, with one exception: of an array
or object that is skipped, only strings and the number of brackets are looked at. Which partition a hash stands for is not
decided here.
"""
cimport cython
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memset
from wsengine.errors import ConfigurationError
from wsengine.options import whole

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static const uint64_t kEach = UINT64_C(0x0101010101010101), kTops = UINT64_C(0x8080808080808080);

    /* Eight bytes, the first of them lowest on every machine; and fewer, 1 to 7, with zeros above them. */
    static inline uint64_t word_of(const uint8_t* data) {
      uint64_t word;
      memcpy(&word, data, 8);
      return __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__ ? __builtin_bswap64(word) : word;
    }
    static inline uint64_t part_of(const uint8_t* data, size_t size) {
      uint64_t word = 0;
      for (size_t i = size; i-- > 0;) word = word << 8 | data[i];
      return word;
    }

    /* The top bit of each byte that is `byte`, or is below `bound` (up to 128). Above the lowest of them, others may have
       theirs set, too: a subtraction borrows. */
    static inline uint64_t below(uint64_t word, uint8_t bound) { return (word - kEach * bound) & ~word & kTops; }
    static inline uint64_t equal(uint64_t word, uint8_t byte) { return below(word ^ kEach * byte, 1); }
    static inline size_t lowest(uint64_t tops) { return (size_t)__builtin_ctzll(tops) >> 3; }

    /* What ends a run of plain characters in a string; and a run, in an array or object, that cannot end it. */
    static inline uint64_t string_stops(uint64_t word) {
      return equal(word, '"') | equal(word, '\\\\') | below(word, 0x20);
    }
    static inline uint64_t nested_stops(uint64_t word) {
      uint64_t braces = word | kEach * 0x20;    /* which is all that tells [ from { and ] from } */
      return equal(word, '"') | equal(braces, '{') | equal(braces, '}');
    }
    """
    uint64_t word_of(const uint8_t* data) nogil
    uint64_t part_of(const uint8_t* data, size_t size) nogil
    uint64_t string_stops(uint64_t word) nogil
    uint64_t nested_stops(uint64_t word) nogil
    size_t lowest(uint64_t tops) nogil

#: Bytes and elements that can be counted off: more than a pipeline can hold.
cdef object FURTHEST = 2**40


# ---------------------------------------------------------------------------------------------------------------- hash
#
# The same in every process, so that what is partitioned twice is partitioned alike. It is no defence against chosen keys:
# who controls the keys controls their partition anyway.

cdef struct Mixer:
    uint64_t state
    uint64_t word           # bytes that are not yet eight
    uint64_t size           # of all


cdef inline void mixer_start(Mixer* mixer, uint8_t kind) noexcept nogil:
    mixer.state = kind * <uint64_t>0xD6E8FEB86659FD93
    mixer.word = 0
    mixer.size = 0


cdef inline void mix(Mixer* mixer, uint64_t word) noexcept nogil:
    cdef uint64_t state = (mixer.state ^ word) * <uint64_t>0x9E3779B97F4A7C15
    mixer.state = state ^ (state >> 32)


cdef inline void mixer_feed(Mixer* mixer, const uint8_t* data, size_t size) noexcept nogil:
    """Take more bytes; in which pieces they come makes no difference."""
    cdef uint32_t filled = mixer.size & 7
    mixer.size += size
    while filled and size:
        mixer.word |= <uint64_t>data[0] << (8 * filled)
        data += 1
        size -= 1
        filled = (filled + 1) & 7
        if filled == 0:
            mix(mixer, mixer.word)
            mixer.word = 0
    while size >= 8:
        mix(mixer, word_of(data))
        data += 8
        size -= 8
    if size:
        mixer.word = part_of(data, size)


cdef inline uint64_t mixer_end(Mixer* mixer) noexcept nogil:
    """Spread what there is over all bits (the finaliser of MurmurHash3), as few of them will choose the partition."""
    cdef uint64_t state
    mix(mixer, mixer.word)
    state = mixer.state ^ mixer.size     # the last word does not tell a zero byte from none
    state = (state ^ (state >> 33)) * <uint64_t>0xFF51AFD7ED558CCD
    state = (state ^ (state >> 33)) * <uint64_t>0xC4CEB9FE1A85EC53
    return state ^ (state >> 33)


cdef uint64_t hash_bytes(const uint8_t* data, size_t size, uint8_t kind) noexcept nogil:
    cdef Mixer mixer
    mixer_start(&mixer, kind)
    mixer_feed(&mixer, data, size)
    return mixer_end(&mixer)


# ------------------------------------------------------------------------------------------------------------- strings

cdef struct Sink:
    # What becomes of a string's content: it is compared with a name or, where there is none, hashed.
    const uint8_t* name     # what of it is still to come
    size_t left
    bint compares, same
    Mixer mixer


cdef inline void sink_take(Sink* sink, const uint8_t* data, size_t size) noexcept nogil:
    if not sink.compares:
        mixer_feed(&sink.mixer, data, size)
    elif sink.same:
        sink.same = size <= sink.left and memcmp(sink.name, data, size) == 0
        if sink.same:
            sink.name += size
            sink.left -= size


cdef inline const uint8_t* plain_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The first byte of a string that does not stand for itself, `end` if there is none."""
    cdef uint64_t stops
    while end - at >= 8:
        stops = string_stops(word_of(at))
        if stops:
            return at + lowest(stops)
        at += 8
    while at < end and at[0] >= 0x20 and at[0] != c'"' and at[0] != c'\\':
        at += 1
    return at


cdef inline int hex_of(const uint8_t* at) noexcept nogil:
    """The number that four hexadecimal digits stand for, -1 if they are none."""
    cdef int i, value = 0
    cdef uint8_t byte
    for i in range(4):
        byte = at[i]
        if c'0' <= byte <= c'9':
            value = value * 16 + byte - c'0'
            continue
        byte |= 0x20
        if not c'a' <= byte <= c'f':
            return -1
        value = value * 16 + byte - c'a' + 10
    return value


cdef inline size_t encode(uint32_t code, uint8_t* out) noexcept nogil:
    """UTF-8 of a code point: how many bytes. Half a surrogate pair is taken as Python's "surrogatepass" does."""
    cdef size_t size = 1 if code < 0x80 else 2 if code < 0x800 else 3 if code < 0x10000 else 4
    cdef size_t i
    if size == 1:
        out[0] = <uint8_t>code
        return 1
    for i in range(size - 1, 0, -1):
        out[i] = 0x80 | (code & 0x3F)
        code >>= 6
    out[0] = <uint8_t>((0xF00 >> size) & 0xFF) | <uint8_t>code
    return size


cdef const uint8_t* unicode_escape(const uint8_t* at, const uint8_t* end, uint8_t* out, size_t* size) noexcept nogil:
    """Take what follows "\\u", with the second half of a pair; where it ends, NULL if it is broken."""
    cdef int code, low
    if end - at < 4:
        return NULL
    code = hex_of(at)
    if code < 0:
        return NULL
    at += 4
    if 0xD800 <= code < 0xDC00 and end - at >= 6 and at[0] == c'\\' and at[1] == c'u':
        low = hex_of(at + 2)
        if 0xDC00 <= low < 0xE000:
            code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
            at += 6
    size[0] = encode(<uint32_t>code, out)
    return at


cdef const uint8_t* escape(const uint8_t* at, const uint8_t* end, uint8_t* out, size_t* size) noexcept nogil:
    """Take what follows a backslash; where it ends, NULL if it is broken (RFC 8259 §7)."""
    cdef uint8_t byte
    if at == end:
        return NULL
    byte = at[0]
    if byte == c'u':
        return unicode_escape(at + 1, end, out, size)
    size[0] = 1
    if byte == c'"' or byte == c'\\' or byte == c'/':
        out[0] = byte
    elif byte == c'n':
        out[0] = c'\n'
    elif byte == c't':
        out[0] = c'\t'
    elif byte == c'r':
        out[0] = c'\r'
    elif byte == c'b':
        out[0] = c'\b'
    elif byte == c'f':
        out[0] = c'\f'
    else:
        return NULL
    return at + 1


cdef inline const uint8_t* string_end(const uint8_t* at, const uint8_t* end, Sink* sink) noexcept nogil:
    """Walk over a string, from behind its first quote to behind its last, and tell its content to the sink, which may be
    NULL; NULL if it is broken or has no end."""
    cdef const uint8_t* stop
    cdef uint8_t[4] character
    cdef size_t size = 0
    while True:
        stop = plain_end(at, end)
        if sink != NULL and stop != at:
            sink_take(sink, at, <size_t>(stop - at))
        if stop == end:
            return NULL
        if stop[0] == c'"':
            return stop + 1
        if stop[0] != c'\\':
            return NULL                     # a control character
        at = escape(stop + 1, end, character, &size)
        if at == NULL:
            return NULL
        if sink != NULL:
            sink_take(sink, character, size)


# ------------------------------------------------------------------------------------------------------- other values

cdef inline bint is_digit(const uint8_t* at, const uint8_t* end) noexcept nogil:
    return at < end and c'0' <= at[0] <= c'9'


cdef inline bint is_space(uint8_t byte) noexcept nogil:
    return byte == c' ' or byte == c'\n' or byte == c'\r' or byte == c'\t'


cdef inline const uint8_t* space_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    while at < end and is_space(at[0]):
        at += 1
    return at


cdef inline const uint8_t* digits_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    while is_digit(at, end):
        at += 1
    return at


cdef inline const uint8_t* number_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Behind a number (RFC 8259 §6), NULL if there is none."""
    if at < end and at[0] == c'-':
        at += 1
    if not is_digit(at, end):
        return NULL
    at = at + 1 if at[0] == c'0' else digits_end(at, end)
    if at < end and at[0] == c'.':
        if not is_digit(at + 1, end):
            return NULL
        at = digits_end(at + 1, end)
    if at < end and (at[0] | 0x20) == c'e':
        at += 1
        if at < end and (at[0] == c'+' or at[0] == c'-'):
            at += 1
        if not is_digit(at, end):
            return NULL
        at = digits_end(at, end)
    return at


cdef inline const uint8_t* literal_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Behind true, false or null, NULL if there is none of them."""
    if end - at >= 4 and (memcmp(at, b"true", 4) == 0 or memcmp(at, b"null", 4) == 0):
        return at + 4
    return at + 5 if end - at >= 5 and memcmp(at, b"false", 5) == 0 else NULL


cdef inline const uint8_t* scalar_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Behind a number or literal, NULL if it is broken. What ends it must be there: 1 may become 12."""
    if at < end and c'a' <= at[0] <= c'z':
        at = literal_end(at, end)
    else:
        at = number_end(at, end)
    if at == NULL or at == end:
        return NULL
    return at if at[0] == c',' or at[0] == c'}' or at[0] == c']' or is_space(at[0]) else NULL


cdef const uint8_t* nested_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Behind the array or object that begins here, however deep, NULL if it has no end."""
    cdef uint64_t stops
    cdef size_t depth = 0
    while at < end:
        if end - at >= 8:
            stops = nested_stops(word_of(at))
            if stops == 0:
                at += 8
                continue
            at += lowest(stops)
        if at[0] == c'"':
            at = string_end(at + 1, end, NULL)
            if at == NULL:
                return NULL
            continue
        if at[0] == c'{' or at[0] == c'[':
            depth += 1
        elif at[0] == c'}' or at[0] == c']':
            depth -= 1
            if depth == 0:
                return at + 1
        at += 1
    return NULL


cdef inline const uint8_t* value_end(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Behind the value that begins here, NULL if it is broken."""
    if at == end:
        return NULL
    if at[0] == c'"':
        return string_end(at + 1, end, NULL)
    if at[0] == c'{' or at[0] == c'[':
        return nested_end(at, end)
    return scalar_end(at, end)


# ---------------------------------------------------------------------------------------------------------------- walk

cdef inline const uint8_t* past(uint8_t wanted, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Behind this byte, which is next, and the white space around it; NULL if something else is next."""
    at = space_end(at, end)
    return space_end(at + 1, end) if at < end and at[0] == wanted else NULL


cdef inline const uint8_t* next_item(const uint8_t* at, const uint8_t* end) noexcept nogil:
    """Behind the value that begins here, and the comma that follows; NULL if it was the last, or is broken."""
    at = value_end(at, end)
    return past(c',', at, end) if at != NULL else NULL


cdef const uint8_t* member(const KeyStep* step, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The value of the first member of this name, in the object that begins here; NULL if there is none."""
    cdef Sink sink
    sink.compares = True
    at = past(c'{', at, end)
    while at != NULL and at < end and at[0] == c'"':
        sink.same = True
        sink.name = step.name
        sink.left = step.size
        at = string_end(at + 1, end, &sink)
        if at == NULL:
            return NULL
        at = past(c':', at, end)
        if at == NULL or (sink.same and sink.left == 0):
            return at
        at = next_item(at, end)
    return NULL


cdef const uint8_t* element(const KeyStep* step, const uint8_t* at, const uint8_t* end) noexcept nogil:
    """The element at this index, in the array that begins here; NULL if there are not as many."""
    cdef uint64_t before = step.index
    at = past(c'[', at, end)
    while before and at != NULL:
        at = next_item(at, end)
        before -= 1
    return at


cdef inline bint hash_value(const uint8_t* at, const uint8_t* end, uint64_t* key) noexcept nogil:
    """Hash the value that begins here; False if it is none, or none that makes a key."""
    cdef const uint8_t* stop
    cdef Sink sink
    if at == end:
        return False
    if at[0] == c'"':
        sink.compares = False
        mixer_start(&sink.mixer, KEY_STRING)
        if string_end(at + 1, end, &sink) == NULL:
            return False
        key[0] = mixer_end(&sink.mixer)
        return True
    stop = scalar_end(at, end)
    if stop == NULL or at[0] == c'n':
        return False
    key[0] = hash_bytes(at, <size_t>(stop - at), KEY_LITERAL if at[0] >= c'a' else KEY_NUMBER)
    return True


cdef bint slice_of(const KeySpec* spec, const uint8_t* data, size_t size, uint64_t* key) noexcept nogil:
    cdef int64_t length = <int64_t>size
    cdef int64_t start = spec.start if spec.start >= 0 else length + spec.start
    cdef int64_t stop = length if spec.to_end else spec.stop if spec.stop >= 0 else length + spec.stop
    if start < 0 or stop > length or start >= stop:
        return False
    key[0] = hash_bytes(data + start, <size_t>(stop - start), KEY_BYTES)
    return True


cdef bint key_of(const KeySpec* spec, const uint8_t* data, size_t size, uint64_t* key) noexcept nogil:
    cdef const uint8_t* at = data
    cdef const uint8_t* end = data + size
    cdef const KeyStep* step
    cdef uint32_t i
    if size == 0:
        return False
    if spec.steps == 0:
        return slice_of(spec, data, size, key)
    for i in range(spec.steps):
        step = &spec.path[i]
        at = member(step, at, end) if step.name != NULL else element(step, at, end)
        if at == NULL:
            return False
    return hash_value(at, end, key)


# ------------------------------------------------------------------------------------------------------ Python classes

cdef bytes utf8_of(str text):
    """UTF-8, also of half a surrogate pair, which JSON can name."""
    return text.encode("utf-8", "surrogatepass")


cdef const uint8_t[::1] bytes_of(object data):
    """The bytes of what is like bytes; TypeError if it is not."""
    if data is None:        # which would pass for a view
        raise TypeError("a bytes-like object is required, not 'NoneType'")
    return data


cpdef uint64_t hash_key(object key) except? 0:
    """The hash that an extractor would find for this key; the same in every process.

    Args:
        key: a str hashes as a string in JSON with this content does; bytes, or what is like bytes, as a `ByteSlice` does.

    Raises:
        TypeError: it is neither.
    """
    cdef const uint8_t[::1] data
    cdef uint8_t kind = KEY_BYTES
    if isinstance(key, str):
        key, kind = utf8_of(<str>key), KEY_STRING
    data = bytes_of(key)
    return hash_bytes(&data[0] if data.shape[0] else NULL, <size_t>data.shape[0], kind)


cdef class KeyExtractor:
    """Finds the partition key of payloads, for the option `partition_by`; made as a `JSONField` or a `ByteSlice`.

    Immutable, hashable and picklable, equal to another of the same class with the same arguments. Thread-safe: one may serve
    any number of threads and pipelines.
    """

    def __cinit__(self):
        if type(self) is not JSONField and type(self) is not ByteSlice:
            raise TypeError("a KeyExtractor is made as a JSONField(...) or a ByteSlice(...)")
        memset(&self.spec, 0, sizeof(KeySpec))

    def key(self, payload) -> int | None:
        """What stands for the key of this payload: 64 bits, as an int from 0; None if it has none.

        Args:
            payload: bytes or what is like bytes; a str is taken as its UTF-8.

        Raises:
            TypeError: it is neither.
        """
        cdef const uint8_t[::1] data
        cdef uint64_t key = 0
        if isinstance(payload, str):
            payload = utf8_of(<str>payload)
        data = bytes_of(payload)
        if data.shape[0] and key_of(&self.spec, &data[0], <size_t>data.shape[0], &key):
            return key
        return None


@cython.final
cdef class JSONField(KeyExtractor):
    """The key is a value in the payload's JSON: `JSONField("symbol")`, `JSONField("data", 0, "s")`, `JSONField(3)`.

    It may be a string, a number, true or false. There is no key where the value is null, an array or an object, where it is
    missing, or where the payload is no JSON (RFC 8259, in UTF-8) from its beginning to the end of the value.

      - Strings, and names of members, are compared by content: "A" and "\\u0041" are one key.
      - Numbers are compared as they are written: 1 and 1.0 are two keys. The string "1" is a third, "true" is not true.
      - Of members of one name the first counts, where `json.loads` takes the last: what follows is not read.
      - Only what stands before the value is checked, and of arrays and objects there only strings and the number of
        brackets. NaN and Infinity are no JSON. Bytes that are not UTF-8 are taken as they are.

    Immutable and thread-safe. After Broadway's `partition_by`, which is a function; this one needs no GIL.

    Args:
        path: from the outside inwards, 1 to 16 of them: a str names a member of an object, an int from 0 is an index in an
            array.

    Raises:
        ConfigurationError: the path is empty or too long, or something in it is neither.
    """
    cdef readonly tuple path

    def __cinit__(self, *path):
        cdef Py_ssize_t i
        cdef bytes name
        if not 1 <= len(path) <= MAX_STEPS:
            raise ConfigurationError("partition_by.path", path, f"give a path of 1 to {MAX_STEPS} names and indexes")
        self.path = tuple([plain_step(one) for one in path])
        self.names = tuple([utf8_of(one) if isinstance(one, str) else None for one in self.path])
        for i in range(len(path)):
            name = self.names[i]
            if name is None:
                self.spec.path[i].index = self.path[i]
            else:
                self.spec.path[i].name = <const uint8_t*><const char*>name
                self.spec.path[i].size = <size_t>len(name)
        self.spec.steps = <uint8_t>len(path)

    def __eq__(self, other):
        return self.path == (<JSONField>other).path if isinstance(other, JSONField) else NotImplemented

    def __hash__(self):
        return hash((JSONField, self.path))

    def __repr__(self):
        return f"JSONField({', '.join(map(repr, self.path))})"

    def __reduce__(self):
        return JSONField, self.path


cdef plain_step(one):
    """What was given as a part of a path, checked, and without what a subclass of str or int would bring."""
    if isinstance(one, str):
        return str.__str__(one)
    if isinstance(one, bool) or not isinstance(one, int):
        raise ConfigurationError("partition_by.path", one, "give names of members (str) and indexes in arrays (int)")
    return int.__index__(whole("partition_by.path", one, maximum=FURTHEST))


@cython.final
cdef class ByteSlice(KeyExtractor):
    """The key is a part of the payload's bytes, `payload[start:stop]`: `ByteSlice(4, 12)`, `ByteSlice(-8)`.

    A payload that does not hold all of that slice has no key, and neither has one in which it is empty. No such key is equal
    to one of a `JSONField`.

    Immutable and thread-safe. After Broadway's `partition_by`, which is a function; this one needs no GIL.

    Args:
        start: first byte, an int; below 0 it counts from the end.
        stop: byte behind the last, an int; below 0 it counts from the end. None: the key goes to the end.

    Raises:
        ConfigurationError: they are no whole numbers, or the slice is empty in every payload.
    """
    cdef readonly object start
    cdef readonly object stop

    def __cinit__(self, start, stop=None):
        self.start = int.__index__(whole("partition_by.start", start, minimum=-FURTHEST, maximum=FURTHEST))
        self.spec.start = self.start
        self.spec.to_end = stop is None
        if stop is None:
            return
        self.stop = int.__index__(whole("partition_by.stop", stop, minimum=-FURTHEST, maximum=FURTHEST))
        self.spec.stop = self.stop
        if stop == 0 or ((start < 0) == (stop < 0) and start >= stop):
            raise ConfigurationError("partition_by.stop", self.stop, f"give a stop behind start={self.start}, or None for "
                                     "the end; this slice is always empty")

    def __eq__(self, other):
        if not isinstance(other, ByteSlice):
            return NotImplemented
        return self.start == (<ByteSlice>other).start and self.stop == (<ByteSlice>other).stop

    def __hash__(self):
        return hash((ByteSlice, self.start, self.stop))

    def __repr__(self):
        return f"ByteSlice({self.start})" if self.stop is None else f"ByteSlice({self.start}, {self.stop})"

    def __reduce__(self):
        return ByteSlice, (self.start, self.stop)
