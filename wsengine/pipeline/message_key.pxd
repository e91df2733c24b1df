# The design page of message_key: which partition key a message has.
#
# Belongs here: asking `partition_by`, and judging what it says. Does not: payloads that are no messages yet (engine: keys,
# fanout), nor which partition a key belongs to (partitioner, batcher).
from libc.stdint cimport uint64_t
from wsengine.engine.keys cimport KeyExtractor
from wsengine.message cimport Message

# The key as a number. One of the two is None.
cdef uint64_t key_of_message(object function, KeyExtractor extractor, Message message) except? 0
