# The design page of keys: which key a payload has, found and hashed without the GIL.
#
# Belongs here: where in the payload its key is, and the hash that stands for the key. Does not: which partition a hash
# goes to, and what becomes of payloads without a key (whoever partitions).
# A KeySpec never changes once its extractor is made, and nothing here writes anywhere else than to what the caller gives:
# any number of threads may use one spec at a time. It lives as long as its extractor, to which they hold a reference.
from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef enum:
    MAX_STEPS = 16

cdef enum KeyKind:          # a part of the hash: "1" is not 1, and b"1" is neither
    KEY_STRING = 1          # UTF-8
    KEY_NUMBER = 2          # as it is written
    KEY_LITERAL = 3         # true, false
    KEY_BYTES = 4

cdef struct KeyStep:
    const uint8_t* name     # of a member, UTF-8, owned by the extractor; NULL: an element of an array
    size_t size             # of the name
    uint64_t index          # of the element

cdef struct KeySpec:
    uint8_t steps           # of a path in JSON; 0: a slice
    bint to_end             # the slice has no stop
    int64_t start, stop     # of the slice; below 0: from the end
    KeyStep[MAX_STEPS] path

# Whether the payload has a key, and its hash. `data` may be NULL where `size` is 0.
cdef bint key_of(const KeySpec* spec, const uint8_t* data, size_t size, uint64_t* key) noexcept nogil
# The hash of a key that was found in another way; `kind` is a KeyKind.
cdef uint64_t hash_bytes(const uint8_t* data, size_t size, uint8_t kind) noexcept nogil
# The same of a str (KEY_STRING) or of anything bytes-like (KEY_BYTES); TypeError of all else.
cpdef uint64_t hash_key(object key) except? 0

cdef class KeyExtractor:
    cdef KeySpec spec
    cdef tuple names        # the bytes that spec.path points into
