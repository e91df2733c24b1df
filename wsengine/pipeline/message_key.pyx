"""The partition key of a message: what a callable of the user's says, or an extractor finds in its data."""
from libc.stdint cimport uint64_t
from wsengine.engine.keys cimport KeyExtractor, hash_key
from wsengine.message cimport Message


cdef uint64_t key_of_message(object function, KeyExtractor extractor, Message message) except? 0:
    """The key of a message as a number.

    Raises:
        TypeError, ValueError: the callable returned something else than a key, or the extractor finds none. And whatever
            the callable raises.
    """
    cdef object key
    if extractor is not None:
        key = extractor.key(message.payload) if isinstance(message.payload, (bytes, bytearray, memoryview, str)) else None
        if key is None:
            raise ValueError(f"{extractor!r} finds no key in {message!r}")
        return <uint64_t>key
    key = function(message)
    if isinstance(key, int) and not isinstance(key, bool) and key >= 0:
        return <uint64_t>(key % 2**64)
    if isinstance(key, (str, bytes)):
        return hash_key(key)
    raise TypeError(f"partition_by returned {key!r}; return an int from 0, a str or bytes")
