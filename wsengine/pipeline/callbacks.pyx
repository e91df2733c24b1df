"""What the user's callbacks make of a chunk: they are called, and their results and exceptions are judged.

Whatever a callback raises fails one message, or the chunk, where it was given the chunk; it is logged, and never leaves
this file (reference §6.3 with its repairs). What a callback returns must be the messages that it was given, or others that
belong to nobody, which then take their places.
"""
from wsengine import telemetry
from wsengine.message import Failed

cimport cython
from libc.stdint cimport int64_t, uint64_t
from wsengine.engine.ring cimport monotonic_ns
from wsengine.message cimport Message
from wsengine.pipeline.batch cimport Batch
from wsengine.pipeline.chunk cimport CHUNK_TAKEN, Chunk
from wsengine.pipeline.crew cimport Crew
from wsengine.pipeline.listeners cimport Listeners, current

cdef extern from "Python.h":
    ctypedef struct PyObject:
        pass
    ctypedef PyObject* (*vectorcallfunc)(PyObject* callable, PyObject** args, size_t n, PyObject* names)
    PyObject* PyObject_Vectorcall(PyObject* callable, PyObject** args, size_t n, PyObject* names)
    vectorcallfunc PyVectorcall_Function(PyObject* callable)
    bint PyFunction_Check(PyObject* o)
    PyObject* PyList_GET_ITEM(object list, Py_ssize_t i)
    list PyList_GetSlice(list whole, Py_ssize_t low, Py_ssize_t high)
    bint PyMethod_Check(object o)
    PyObject* PyMethod_GET_FUNCTION(object method)
    PyObject* PyMethod_GET_SELF(object method)
    void Py_DECREF(object o)

cdef object MESSAGE_START = telemetry.MESSAGE_START
cdef object MESSAGE_STOP = telemetry.MESSAGE_STOP
cdef object MESSAGE_EXCEPTION = telemetry.MESSAGE_EXCEPTION


cdef int raise_pending() except -1:
    """Let the error that is set already be raised here."""
    return -1


cdef Py_ssize_t transform(Crew crew, Chunk chunk, object transformer):
    """Replace each message by what the transformer makes of its payload. Those that it fails on are failed, and go
    to the front of the chunk, where no handler sees them (reference B-19); how many."""
    cdef Message message, made
    cdef Py_ssize_t i
    cdef list messages = chunk.messages, spoiled
    for i in range(len(chunk.messages)):
        message = chunk.messages[i]
        if message.verdict is not None:
            continue
        try:
            result = transformer(message.payload, message.metadata)
            if not isinstance(result, Message):
                raise TypeError(f"transformer returned {result!r}; return a Message")
            made = result
            if made.holder is not None or made.acked:
                raise TypeError(f"transformer returned {made!r} again; return a Message of its own for each payload")
        except BaseException as error:
            crew.log_failure("transformer", error)
            message.set_verdict(Failed(error, error))
            continue
        made.seq = message.seq
        made.received_ns = message.received_ns
        made.connection_index = message.connection_index
        made.epoch = message.epoch
        made.opcode = message.opcode
        made.origin = message.origin
        made.charged = message.charged
        if made.details is None:
            made.details = message.details
        made.holder = message.holder
        message.holder = None
        chunk.messages[i] = made
    spoiled = [m for m in messages if (<Message>m).verdict is not None]
    if spoiled:
        chunk.messages = spoiled + [m for m in messages if (<Message>m).verdict is None]
        chunk.progress = len(spoiled)
    return len(spoiled)


cdef object prepare(Crew crew, Chunk chunk, list messages, Py_ssize_t first):
    """Let `prepare_messages` see the chunk from `first` on. What it raised, which failed that as a whole, or None."""
    cdef Message message
    try:
        prepared = crew.prepare(PyList_GetSlice(messages, first, len(messages)))
        if prepared is not None:
            take_results(chunk, "prepare_messages", messages, first, prepared)
        return None
    except BaseException as error:
        crew.log_failure("prepare_messages", error)
        for message in messages[first:]:
            message.set_verdict(Failed(error, error))
        return error


cdef call_each(Crew crew, Chunk chunk, list messages, Py_ssize_t first, dict where, uint64_t* ticks, Listeners counters):
    """The hot loop: the handler once a message, called without the detour over a bound method. `counters` count the events of
    each message; None: nobody does."""
    cdef PyObject* args[2]
    cdef PyObject* function
    cdef PyObject* result
    cdef vectorcallfunc call = PyObject_Vectorcall
    cdef object handler = crew.handler
    cdef object problem
    cdef bint retries = crew.retry is not None
    cdef Py_ssize_t i, n = len(messages), bound = 1 if PyMethod_Check(handler) else 0
    if bound:
        function = PyMethod_GET_FUNCTION(handler)
        args[0] = PyMethod_GET_SELF(handler)
    else:
        function = <PyObject*>handler
    if PyFunction_Check(function):           # the interpreter's own: no look at what it returned on the way
        call = PyVectorcall_Function(function)
    for i in range(first, n):
        args[bound] = <PyObject*>PyList_GET_ITEM(messages, i)
        if chunk.state == CHUNK_TAKEN:       # only a hint here: settle() decides under the lock
            return
        ticks[0] += 1
        if counters is not None:
            counters.start()
        problem = None
        result = call(function, args, bound + 1, NULL)
        if result != args[bound] and result != <PyObject*>None:
            problem = unusual(crew, chunk, i, messages, result, where, ticks)
        else:
            Py_DECREF(<object>result)
            if retries and (<Message>PyList_GET_ITEM(messages, i)).verdict is not None:
                problem = call_again(crew, chunk, i, messages, None, where, ticks)
        if counters is not None:
            counters.end(problem if problem is not None else wrong_batcher(crew, chunk, <Message>messages[i]))
        chunk.progress = i + 1


cdef object wrong_batcher(Crew crew, Chunk chunk, Message message):
    """Fail a message that names a batcher that there is not, at once, for its events tell of that. The error, or None."""
    if not chunk.hands_on or message.verdict is not None:
        return None
    try:
        crew.check_batcher(message)
        return None
    except BaseException as error:
        message.set_verdict(Failed(error, error))
        crew.log_failure("handle_message", error)
        return error


cdef object unusual(Crew crew, Chunk chunk, Py_ssize_t at, list messages, PyObject* result, dict where, uint64_t* ticks):
    """The handler raised (NULL), or returned something other than its message. What it raised in the end, or None."""
    message = <Message>PyList_GET_ITEM(messages, at)
    problem = None
    try:
        if result == NULL:
            raise_pending()
        returned = <object>result
        Py_DECREF(returned)
        take_result(chunk, "handle_message", at, message, returned)
    except BaseException as error:
        problem = error
        (<Message>message).set_verdict(Failed(error, error))
    if crew.retry is not None:
        problem = call_again(crew, chunk, at, messages, problem, where, ticks)
    if problem is not None:
        crew.log_failure("handle_message", problem)
    return problem


cdef object call_again(Crew crew, Chunk chunk, Py_ssize_t at, list messages, object problem, dict where,
                       uint64_t* ticks):
    """Call the handler again for one message that failed, as its retry policy says, until the deadline of a stop. What it
    raised in the end, or None."""
    cdef Message message = <Message>messages[at]
    cdef int retries = 0
    while message.verdict is not None and not message.acked and await_retry(crew, chunk, crew.retry, retries, [message],
                                                                            telemetry.MESSAGE_RETRY, where, ticks):
        if message.acked:                        # meanwhile, by another thread
            break
        retries += 1
        ticks[0] += 1
        message.verdict = None
        problem = None
        try:
            result = crew.handler(message)
            if result is not None and result is not message:
                take_result(chunk, "handle_message", at, message, result)
                message = <Message>messages[at]
        except BaseException as error:
            problem = error
            message.set_verdict(Failed(error, error))
    return problem


cdef bint await_retry(Crew crew, Chunk chunk, object retry, int retries, list messages, tuple event, dict where,
                      uint64_t* ticks):
    """Wait until messages that failed are to be handled again; False if they are not."""
    cdef object failed = (<Message>messages[0]).verdict
    delay = retry.delay(retries, failed.exception)
    if delay is None:
        return False
    if telemetry.listening(event):
        telemetry.execute(event, {"count": retries + 1, "delay": int(delay * 1e9), "messages": len(messages)},
                          {**where, "messages": list(messages), "reason": failed.exception})
    ticks[0] |= BETWEEN
    over = crew.over.wait(delay)
    ticks[0] &= ~<uint64_t>BETWEEN
    return not over and chunk.state != CHUNK_TAKEN


cdef list to_retry(object retry, list messages, int retries):
    """Of these, the ones that failed and may be retried. What has been acknowledged is settled."""
    return [m for m in messages if (<Message>m).verdict is not None and not (<Message>m).acked
            and retry.delay(retries, (<Message>m).verdict.exception) is not None]


cdef call_watched(Crew crew, Chunk chunk, list messages, Py_ssize_t first, dict where, uint64_t* ticks, Listeners listeners):
    """The same with telemetry for each message (reference §7.3). What nobody listens to is not put together, but for
    exceptions."""
    cdef Message message
    cdef Py_ssize_t i, n = len(messages)
    cdef int64_t started, now
    cdef dict about
    cdef object problem, result, span, execute = telemetry.execute
    for i in range(first, n):
        message = <Message>messages[i]
        if chunk.state == CHUNK_TAKEN:
            return
        span = object()
        started = monotonic_ns()
        listeners = current(listeners)
        if listeners.start_called or listeners.counted:
            about = where.copy()
            about["message"] = message
            about["telemetry_span_context"] = span
            execute(MESSAGE_START, {"system_time": wall_ns(), "monotonic_time": started}, about)
        problem = None
        ticks[0] += 1
        try:
            result = crew.handler(message)
            if result is not message and result is not None:
                take_result(chunk, "handle_message", i, message, result)
        except BaseException as error:
            problem = error
            (<Message>messages[i]).set_verdict(Failed(error, error))
        if crew.retry is not None:
            problem = call_again(crew, chunk, i, messages, problem, where, ticks)
        if problem is not None:
            crew.log_failure("handle_message", problem)
        else:
            problem = wrong_batcher(crew, chunk, <Message>messages[i])
        now = monotonic_ns()
        if problem is not None:
            execute(MESSAGE_EXCEPTION, {"duration": now - started, "monotonic_time": now},
                    {**where, "message": messages[i], "telemetry_span_context": span,
                     **telemetry.exception_metadata(problem)})
        else:
            listeners = current(listeners)
        if problem is None and (listeners.stop_called or listeners.counted):
            about = where.copy()
            about["message"] = messages[i]
            about["telemetry_span_context"] = span
            execute(MESSAGE_STOP, {"duration": now - started, "monotonic_time": now}, about)
        about = None                             # it is not to keep the message from being used again
        chunk.progress = i + 1


cdef bint judge_batchers(Crew crew, list messages):
    """Fail the messages that name a batcher that there is not; whether all that have not failed name the same."""
    cdef Message message
    cdef object known = crew                 # the name that was looked up last; no message's at first
    cdef Py_ssize_t i
    cdef bint one_name = True
    for i in range(len(messages)):
        message = <Message>PyList_GET_ITEM(messages, i)
        if message.destination is known or message.verdict is not None:
            continue
        try:
            crew.check_batcher(message)
            one_name = one_name and known is crew
            known = message.destination
        except BaseException as error:
            crew.log_failure("handle_message", error)
            message.set_verdict(Failed(error, error))
    return one_name


cdef object call_chunk(Crew crew, Chunk chunk, list messages, Py_ssize_t first, dict where, uint64_t* ticks):
    """The handler once for the chunk: by raising it fails all that it had not failed by itself. What it raised, or None."""
    cdef list given = PyList_GetSlice(messages, first, len(messages))
    cdef object problem = chunk_once(crew, chunk, messages, first, given, ticks)
    cdef int retries = 0
    while crew.retry is not None:
        given = to_retry(crew.retry, PyList_GetSlice(messages, first, len(messages)), retries)
        if not given or not await_retry(crew, chunk, crew.retry, retries, given, telemetry.MESSAGE_RETRY, where, ticks):
            break
        retries += 1
        problem = chunk_once(crew, chunk, messages, -1, given, ticks)
    if problem is not None:
        crew.log_failure("handle_messages", problem)
    chunk.progress = len(messages)
    return problem


cdef object chunk_once(Crew crew, Chunk chunk, list messages, Py_ssize_t first, list given, uint64_t* ticks):
    """Call it once, for the messages from `first` on, or for those given once more (-1). What it raised, or None."""
    cdef Message message
    cdef list passed = list(given)
    ticks[0] += 1
    if first < 0:
        for message in given:
            message.verdict = None
    try:
        result = crew.chunk_handler(passed)
        if result is not None:
            if first >= 0:
                take_results(chunk, "handle_messages", messages, first, result)
            else:
                check_same("handle_messages", given, result)
        return None
    except BaseException as error:
        fail_given(given, error)
        return error


cdef fail_given(list given, object error):
    """Fail the messages that a callback was given and that it had not failed by itself."""
    cdef Message message
    for message in given:
        if message.verdict is None:
            message.set_verdict(Failed(error, error))


cdef check_same(str callback, list given, object results):
    """Messages that are handled again have to come back as they are."""
    if not isinstance(results, list) or {id(one) for one in results} != {id(one) for one in given}:
        raise TypeError(f"{callback} returned something else than the {len(given)} messages that it was to handle again; "
                        "return those, or None")


cdef object call_batch(Crew crew, Batch batch, str key, object retry, dict where, uint64_t* ticks):
    """`handle_batch`, once for the batch: by raising it fails all that it had not failed by itself, and what it does not
    return fails as well (reference B-12). What it raised, or None."""
    cdef list messages = batch.messages, given = messages
    cdef object problem = batch_once(crew, batch, key, given, ticks)
    cdef int retries = 0
    while retry is not None:
        given = to_retry(retry, messages, retries)
        if not given or not await_retry(crew, batch, retry, retries, given, telemetry.BATCH_RETRY, where, ticks):
            break
        retries += 1
        problem = batch_once(crew, batch, key, given, ticks)
    if problem is not None:
        crew.log_failure("handle_batch", problem)
    batch.progress = len(messages)
    return problem


cdef object batch_once(Crew crew, Batch batch, str key, list given, uint64_t* ticks):
    """Call it once, for the batch or for some of it once more. What it raised, or None."""
    cdef Message message
    ticks[0] += 1
    if given is not batch.messages:
        for message in given:
            message.verdict = None
    try:
        result = crew.batch_handler(list(given), batch.info(key, len(given)))
        if result is not None:
            take_batch(batch, given, result)
        return None
    except BaseException as error:
        fail_given(given, error)
        return error


cdef inline bint same(list one, list other):
    """Whether both hold the same objects in the same order."""
    cdef Py_ssize_t i, n = len(one)
    if n != len(other):
        return False
    for i in range(n):
        if PyList_GET_ITEM(one, i) != PyList_GET_ITEM(other, i):
            return False
    return True


cdef take_batch(Chunk batch, list messages, object results):
    """Judge what handle_batch returned: the messages that it was given, all or some of them, or as many others."""
    cdef Message message
    cdef set given, returned
    if isinstance(results, list) and same(<list>results, messages):
        return
    if not isinstance(results, list) or not all([isinstance(one, Message) for one in results]):
        raise TypeError(f"handle_batch returned {type(results).__name__}; return the list of the messages, or None")
    given = {id(one) for one in messages}
    returned = {id(one) for one in results}
    if not returned <= given:
        if messages is not batch.messages:
            check_same("handle_batch", messages, results)
        take_results(batch, "handle_batch", messages, 0, results)
        return
    for message in messages:
        if id(message) not in returned and message.verdict is None:
            message.set_verdict(Failed("handle_batch did not return it"))


cdef take_results(Chunk chunk, str callback, list messages, Py_ssize_t first, object results):
    """Put the messages that a callback returned for the chunk in the places of those that it was given."""
    cdef Py_ssize_t i = 0, n = len(messages) - first
    if isinstance(results, list) and len(<list>results) == n:
        while i < n and PyList_GET_ITEM(results, i) == PyList_GET_ITEM(messages, first + i):
            i += 1
        if i == n:                           # those that it was given, as most callbacks do
            return
        if {id(one) for one in results} == {id(messages[at]) for at in range(first, len(messages))}:
            return                           # the same in another order: each stays in its place
    if not isinstance(results, list) or len(results) != n or not all([isinstance(one, Message) for one in results]):
        raise TypeError(f"{callback} returned {type(results).__name__} "
                        f"{f'of {len(results)} ' if isinstance(results, list) else ''}for {n} messages; return the "
                        "list of as many Messages, or None")
    replace(chunk, callback, PyList_GetSlice(messages, first, len(messages)), range(first, len(messages)), results)


cdef replace(Chunk chunk, str callback, list given, object places, list results):
    """Have the new Messages among as many that a callback returned take the places of those that it was given and did not
    return; of the others each stays in its own. All of them or, if one cannot, none."""
    cdef Py_ssize_t i, taken = 0
    cdef set ours = {id(one) for one in given}, returned = {id(one) for one in results}
    cdef list fresh, gone
    if len(returned) != len(results):
        raise TypeError(f"{callback} returned a message more than once")
    fresh = [one for one in results if id(one) not in ours]
    gone = [(at, one) for at, one in zip(places, given) if id(one) not in returned]
    with chunk.lock:
        while taken < len(fresh) and reserve(<Message>fresh[taken], chunk):
            taken += 1
        if taken == len(fresh):
            for i in range(taken):
                take_place(chunk, <Py_ssize_t>(<tuple>gone[i])[0], <Message>(<tuple>gone[i])[1], <Message>fresh[i])
        else:
            for i in range(taken):
                (<Message>fresh[i]).holder = None
    if taken < len(fresh):
        raise not_free(callback, fresh[taken])


cdef bint reserve(Message other, Chunk chunk):
    """Have a message that is nobody's belong to the chunk, False if it is somebody's. Under the chunk's lock."""
    with cython.critical_section(other):
        if other.holder is not None or other.acked:
            return False
        other.holder = chunk
        return True


cdef take_place(Chunk chunk, Py_ssize_t at, Message message, Message other):
    """Put a reserved message in the place of one that whoever calls refers to. What the account holds for that one, or does
    not hold any more because it was acknowledged, it holds for this. Under the chunk's lock."""
    other.acked = message.acked
    other.charged = message.charged
    if other.received_ns == 0:
        other.received_ns = message.received_ns
    other.holder = message.holder            # None, if it has been acknowledged already
    message.holder = None
    chunk.messages[at] = other


cdef object not_free(str callback, object other):
    return TypeError(f"{callback} returned {other!r}, which belongs to another place; return the message it was given, "
                     "or a new one")


cdef take_result(Chunk chunk, str callback, Py_ssize_t at, Message message, object result):
    """Put another Message in the place of the one that the callback was given."""
    cdef bint free
    if result is message:
        return
    if not isinstance(result, Message):
        raise TypeError(f"{callback} returned {result!r}; return a Message, or None for the one it was given")
    with chunk.lock:
        free = reserve(<Message>result, chunk)
        if free:
            take_place(chunk, at, message, <Message>result)
    if not free:
        raise not_free(callback, result)


cdef call_handle_failed(Crew crew, Chunk chunk, list places):
    """Let `handle_failed` see those at these places of the chunk before they are acknowledged. It may change their
    data and acknowledgement or put others in place, and cannot make them succeed (reference §6.2). It does not see those
    that have been acknowledged already."""
    cdef Message message
    cdef list messages = chunk.messages, failed
    if crew.on_failed is None:
        return
    places = [at for at in places if not (<Message>messages[at]).acked]
    if not places:
        return
    failed = [messages[at] for at in places]
    about = {"topology_name": crew.name, "messages": list(failed)}
    before = [(<Message>m).verdict for m in failed]
    try:
        with telemetry.span(telemetry.HANDLE_FAILED, about):
            result = crew.on_failed(list(failed))
        if result is not None and (not isinstance(result, list) or len(result) != len(failed) or not all(
                [isinstance(one, Message) for one in result])):
            raise TypeError(f"handle_failed returned {result!r}; return the list of as many Messages, or None")
        if result is not None and {id(one) for one in result} != {id(one) for one in failed}:
            replace(chunk, "handle_failed", failed, places, result)
    except BaseException as error:
        crew.log_failure("handle_failed", error)
    for at, verdict in zip(places, before):
        message = messages[at]
        if message.verdict is None:
            message.set_verdict(verdict)
