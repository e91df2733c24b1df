"""Which failures are worth another attempt: the table row by row, the user's own rule, and both through a pipeline."""

from __future__ import annotations

import socket
import ssl

import pytest

import wsengine
from wsengine import (
    Backoff,
    ConfigurationError,
    ConnectionClosedError,
    ConnectionClosedOK,
    HeadersError,
    InvalidMessage,
    InvalidRedirect,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
    ProxyError,
    RetriesExhausted,
    URLCallableError,
    WebSocketProducer,
    telemetry,
)
from wsengine.testing import Collector, ScriptedServer, capture, steps
from wsengine.websocket.failures import judge, process_exception, worth_a_retry
from wsengine.websocket.response import Response

pytestmark = pytest.mark.usefixtures("no_leaks")

ID = "failures"
FAILURE, DISCONNECTED = (telemetry.connection_event(ID, name) for name in ("failure", "disconnected"))


def producer(url, **options):
    return WebSocketProducer(url, **{"telemetry_id": ID, "retry": Backoff(0.02, factor=1, jitter="none"), **options})


def status(code):
    return InvalidStatus(Response(code, "", ()))


def tls(reason, kind=ssl.SSLError):
    error = kind(1, reason)
    error.reason = reason
    return error


RETRIED = [
    None, OSError(5, "x"), ConnectionResetError(), socket.gaierror(-2, "unknown"), TimeoutError(), status(408), status(425),
    status(429), status(500), status(503), status(599), InvalidMessage("x"), HeadersError("x"), MemoryError(),
    URLCallableError("x"),
    ProtocolError(1002, "x"), PayloadTooBig(2, 1), ProxyError("p", "busy"), tls("UNEXPECTED_EOF_WHILE_READING"),
    tls("DECRYPTION_FAILED_OR_BAD_RECORD_MAC"), tls("EOF", ssl.SSLEOFError),
    ssl.SSLEOFError(8, "closed by the peer"), ssl.SSLError(1, "made by hand"),
    *[ConnectionClosedOK(code) for code in (1000, 1001, 1005)],
    *[ConnectionClosedError(code) for code in (1002, 1006, 1007, 1008, 1009, 1011, 1012, 1013, 4000, 4999)],
]
FATAL = [
    tls("CERTIFICATE_VERIFY_FAILED", ssl.SSLCertVerificationError), tls("TLSV13_ALERT_CERTIFICATE_REQUIRED"),
    tls("TLSV1_ALERT_UNKNOWN_CA"), tls("SSLV3_ALERT_BAD_CERTIFICATE"), tls("SSLV3_ALERT_HANDSHAKE_FAILURE"),
    tls("TLSV1_ALERT_PROTOCOL_VERSION"), tls("WRONG_VERSION_NUMBER"), tls("DH_KEY_TOO_SMALL"), tls("EE_KEY_TOO_SMALL"),
    tls("CA_MD_TOO_WEAK"), tls("UNSAFE_LEGACY_RENEGOTIATION_DISABLED"), tls("TLSV1_ALERT_ACCESS_DENIED"),
    tls("SSL/TLS_ALERT_ACCESS_DENIED"),
    *[status(code) for code in (200, 204, 400, 401, 403, 404, 407, 426)],
    InvalidRedirect(Response(302, "", ()), "x"), InvalidUpgrade("x"), NegotiationError("x"),
    ConfigurationError("sock", 1, "x"), InvalidURI("x", "y"), ProxyError("p", "who are you", None, True),
    ConnectionClosedError(1003), ConnectionClosedError(1010),
]


def named(error):
    return f"{type(error).__name__} {getattr(error, 'code', '') or error}"


@pytest.mark.parametrize("error", RETRIED, ids=named)
def test_these_are_worth_another_attempt(error):
    assert worth_a_retry(error)
    if error is not None:
        assert process_exception(error) is None


@pytest.mark.parametrize("error", FATAL, ids=named)
def test_these_would_only_repeat_themselves(error):
    assert not worth_a_retry(error)
    assert process_exception(error) is error


def test_an_answer_of_the_users_rule_is_taken_and_a_fault_of_it_is_named():
    failure, other = OSError("x"), LookupError("y")
    assert judge(lambda error: None, failure) is None
    assert judge(lambda error: error, failure) is failure
    assert judge(lambda error: other, failure) is other
    fault = judge(lambda error: 1 / 0, failure)
    assert isinstance(fault, ConfigurationError)
    assert isinstance(fault.__cause__, ZeroDivisionError)
    wrong = judge(lambda error: False, failure)
    assert isinstance(wrong, ConfigurationError)
    assert wrong.__cause__ is failure


# ----------------------------------------------------------------------------------------------------- through a pipeline


def ended(*scripts, **options):
    """Run a pipeline to its end; its error, and how many connections the server has seen."""
    with ScriptedServer(list(scripts)) as server:
        pipeline = Collector(producer(server.url, **options))
        pipeline.start()
        result = pipeline.join(10)
        assert result is not None, "the pipeline did not end"
        assert isinstance(result.error, RetriesExhausted)
        return result.error, len(server.connections)


def test_a_refusal_that_repeats_itself_ends_the_connection_at_its_first():
    with capture(FAILURE) as seen:
        error, connections = ended([steps.respond(401)])
    assert (error.fatal, error.attempts, connections) == (True, 1, 1)
    assert [one.measurements["delay"] for one in seen.of(FAILURE)] == [None]


def test_a_close_code_that_repeats_itself_ends_the_connection():
    with capture(DISCONNECTED) as seen:
        error, connections = ended([steps.accept(), steps.close(1003), steps.cut()])
    assert (error.last.code, error.fatal, connections) == (1003, True, 1)
    assert seen.of(DISCONNECTED)[0].measurements["delay"] is None


def test_a_retry_callable_is_not_asked_about_what_is_not_worth_it():
    error, connections = ended([steps.respond(404)], retry=lambda state: pytest.fail("asked"))
    assert (error.fatal, connections) == (True, 1)


def test_process_exception_may_retry_what_is_fatal_and_end_what_is_not():
    seen = []

    def decide(error):
        seen.append(error)
        return error if isinstance(error, InvalidStatus) and error.response.status_code == 503 else None

    error, connections = ended([steps.respond(401)], [steps.accept(), steps.close(1003), steps.cut()], [steps.respond(503)],
                               process_exception=decide)
    assert connections == 3
    assert [type(one) for one in seen] == [InvalidStatus, ConnectionClosedError, InvalidStatus]
    assert (error.last, error.fatal) == (seen[-1], True)


def test_process_exception_may_end_with_an_error_of_its_own():
    own = LookupError("no such feed")
    error, _ = ended([steps.respond(503)], process_exception=lambda error: own)
    assert error.last is own


@pytest.mark.parametrize("decide", [lambda error: 1 / 0, lambda error: "retry"])
def test_a_process_exception_that_is_wrong_ends_the_connection_by_its_name(decide):
    error, connections = ended([steps.respond(503)], process_exception=decide)
    assert isinstance(error.last, ConfigurationError)
    assert (error.last.path, connections) == ("process_exception", 1)


def test_the_default_is_public_to_fall_back_on():
    assert wsengine.process_exception is process_exception
    with pytest.raises(ConfigurationError) as caught:
        producer("ws://127.0.0.1:9", process_exception="never")
    assert caught.value.path == "producer.process_exception"


def test_a_certificate_that_is_not_accepted_is_not_tried_again(certificates):
    with ScriptedServer([[steps.accept()]], tls=certificates.server()) as server:
        pipeline = Collector(producer(server.url))
        pipeline.start()
        result = pipeline.join(10)
        assert isinstance(result.error.last, ssl.SSLCertVerificationError)
        assert len(server.wait_connections(1)) == 1
