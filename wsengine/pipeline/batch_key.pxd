# The design page of batch_key: which batch keys are one.
#
# Belongs here: whose hashing and comparing runs nothing of the user's, what the other keys are known by instead, and the search
# for the one that a key equals. Does not: which batch that leads to (batcher), nor which partition a message is of (message_key).
#
# Keys are looked up under the batcher's lock, where nothing of the user's may run, and again when a batch leaves, when their
# hash must be what it was. So plain keys are used as they are; any other is known by a KnownKey, whose hash was asked for once,
# and which equals nothing but itself. Which KnownKey, or plain key, another key of the user's equals is asked outside the lock:
#
#     Search ── look, under the lock: which of that hash are there? ──▶ none that is new: settled
#        ▲                                                                │
#        └───────────── compare, outside: which of them equals it? ◀── else
cdef extern from "Python.h":
    bint PyUnicode_CheckExact(object o)

# Whether hashing and comparing runs nothing of the user's and cannot raise.
cdef inline bint is_plain(object key):
    return key is None or PyUnicode_CheckExact(key) or is_rarer_plain(key, 0)

cdef bint is_rarer_plain(object key, int depth)

# Whether two keys are one, where at least one of them is not plain; keys that cannot be compared are not. Runs the user's code.
cdef bint same_key(object one, object other)

cdef class KnownKey:
    cdef readonly object key         # the user's; constant, as the next
    cdef Py_hash_t hash              # as it was when the key came

cdef class Search:
    # Belongs to one thread.
    cdef object group                # the key that is searched
    cdef Py_hash_t hash
    cdef list met                    # what is there of its hash, as of the last look
    cdef dict compared               # what it has been compared with, by id
    cdef dict equal                  # and of those, what it equals
    cdef begin(self)
    cdef bint over(self)
    cdef compare(self)
    cdef object outcome(self)
