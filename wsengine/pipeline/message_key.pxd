# The design page of message_key: which partition a message belongs to.
#
# Belongs here: asking `partition_by`, judging what it says, and the number that comes of it. Does not: payloads that are no
# messages yet (engine: keys, fanout), nor what a partition is (partitioner, batcher).
from wsengine.engine.keys cimport KeyExtractor
from wsengine.message cimport Message

# One of the two is None.
cdef Py_ssize_t partition_of_message(object function, KeyExtractor extractor, Message message, Py_ssize_t n) except -1
