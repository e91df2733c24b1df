"""The partition of a message: by the key that a callable of the user's gives it, or an extractor finds in its data."""
from libc.stdint cimport uint64_t
from wsengine.engine.keys cimport KeyExtractor, hash_key
from wsengine.message cimport Message


cdef Py_ssize_t partition_of_message(object function, KeyExtractor extractor, Message message, Py_ssize_t n) except -1:
    """The number of a message's partition, of n.

    Raises:
        TypeError, ValueError: the callable returned something else than a key, or the extractor finds none. And whatever
            the callable raises.
    """
    cdef object key
    if extractor is not None:
        key = extractor.key(message.payload) if isinstance(message.payload, (bytes, bytearray, memoryview, str)) else None
        if key is None:
            raise ValueError(f"{extractor!r} finds no key in {message!r}")
        return <Py_ssize_t>(<uint64_t>key % <uint64_t>n)
    key = function(message)
    if isinstance(key, int) and not isinstance(key, bool) and key >= 0:
        return key % n
    if isinstance(key, (str, bytes)):
        return <Py_ssize_t>(hash_key(key) % <uint64_t>n)
    raise TypeError(f"partition_by returned {key!r}; return an int from 0, a str or bytes")
