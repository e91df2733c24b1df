# The design page of emission: what a frame handler has emitted becomes messages.
#
# Belongs here: a message for each payload, with the place in the feed of the frame that it was emitted for, and what it is
# charged. Does not: what a handler may return (frame_handler), when the messages are delivered (dispatcher). All of it runs
# in the dispatcher's thread; `holder` is who has the messages until they are claimed.
from libc.stdint cimport uint32_t
from wsengine.message cimport Message

# A message for each payload, the transformer's, if there is one. TypeError: a Message that belongs to another place.
cdef list emit(object holder, object log_failure, object transformer, Message frame, object payloads)
# What says that a generation begins, and when: no data and no opcode, ahead of the generation's first message.
cdef Message marker(object holder, object origin, uint32_t index, uint32_t epoch)
