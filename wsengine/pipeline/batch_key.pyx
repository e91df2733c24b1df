"""Which batch keys are one: plain keys by themselves, all others by what the user's code says outside any lock.

A key may be anything that has a hash. Its `__hash__` and `__eq__` are the user's code: they may raise, take their time, ask
the pipeline for its figures, or say something else the next time.
"""
cdef extern from "Python.h":
    bint PyBytes_CheckExact(object o)
    bint PyLong_CheckExact(object o)
    bint PyFloat_CheckExact(object o)
    bint PyBool_Check(object o)
    bint PyTuple_CheckExact(object o)

cdef enum:
    DEEPEST = 8                          # tuples in tuples: whoever nests deeper is asked like any other


cdef bint is_rarer_plain(object key, int depth):
    if (PyUnicode_CheckExact(key) or PyLong_CheckExact(key) or PyBytes_CheckExact(key) or PyFloat_CheckExact(key)
            or PyBool_Check(key) or key is None or type(key) is object):
        return True
    if not PyTuple_CheckExact(key) or depth == DEEPEST:
        return False
    for one in <tuple>key:
        if not is_rarer_plain(one, depth + 1):
            return False
    return True


cdef bint same_key(object one, object other):
    if one is other:
        return True
    try:
        return bool(one == other)
    except BaseException:
        return False


cdef bint equals(object key, object other) except -1:
    """Whether a key equals another. Raises what the key itself raises; one that only the other will not be compared with is
    another key."""
    if key is other:
        return True
    try:
        return bool(key == other)
    except BaseException:
        answer = type(key).__eq__(key, other)
        if answer is not NotImplemented:
            bool(answer)
        return False


cdef class KnownKey:
    """What a key is known by that is not plain."""

    def __cinit__(self, key, Py_hash_t hash):
        self.key = key
        self.hash = hash

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        return True if self is other else NotImplemented


cdef class Search:
    """A search for what a key is known by. It is looked up itself, and so meets what has the same hash.

    Raises:
        BaseException: whatever the key's `__hash__` raises.
    """

    def __cinit__(self, group):
        self.group = group
        self.hash = hash(group)
        self.met = []
        self.compared = {}
        self.equal = {}

    def __hash__(self):
        return self.hash

    def __eq__(self, other):
        self.met.append(other)
        return False

    cdef begin(self):
        """Look anew: be looked up in all that keys are known in, then see whether that was all."""
        self.met = []

    cdef bint over(self):
        """Whether it has been compared with all that it met."""
        for one in self.met:
            if id(one) not in self.compared:
                return False
        return True

    cdef compare(self):
        """Compare it with what is new. Runs the user's code, and raises what the key raises."""
        for one in self.met:
            if id(one) not in self.compared:
                if equals(self.group, (<KnownKey>one).key if isinstance(one, KnownKey) else one):
                    self.equal[id(one)] = one
                self.compared[id(one)] = one

    cdef object outcome(self):
        """What the key is known by: what it equals of all that is there, else itself if it is plain."""
        for one in self.met:
            if id(one) in self.equal:
                return one
        return self.group if is_plain(self.group) else KnownKey(self.group, self.hash)

