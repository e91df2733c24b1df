# The design page of turn: a lock that an exception of a signal's handler cannot leave taken.
cdef class Turn:
    cdef object lock
    cdef unsigned long holder  # the thread that has it, 0: none; that thread writes, `mine` compares with the reader's own
