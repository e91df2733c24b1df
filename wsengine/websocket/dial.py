"""Dialing: from an address to a socket on which the upgrade is accepted, under one deadline and one cancellation.

Here the phases are put in order. What each does stands in its own file: look-up (addresses), connect (racing, supplied),
bytes and TLS (channel, tls), proxies (proxy), what the bytes mean (handshake), where a redirect leads (redirect). When to
dial again is `retry`'s matter, and what becomes of the socket the engine's. A dial holds at most one connected socket at a
time, and none once it has failed.

::

    phase                                  ends by
    the url callable, the headers callable its return (it cannot be interrupted; the deadline is looked at behind it)
    the DNS lookup                         an answer, the deadline, the cancellation
    the TCP connect                        the same; the addresses race (RFC 8305)
    the TLS handshake with the proxy,      the same
      CONNECT or SOCKS, and its answer
    the TLS handshake                      the same
    the sending of the upgrade request     the same
    the wait for the upgrade response      the same; a redirect begins again at the DNS lookup
    the on_upgrade hook                    its return; its own waits on the connection end as above
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from wsengine.errors import InvalidStatus
from wsengine.options import seconds
from wsengine.websocket.addresses import resolve
from wsengine.websocket.attempt import Attempt
from wsengine.websocket.channel import Channel
from wsengine.websocket.handshake import Handshake
from wsengine.websocket.headers import USER_AGENT, Headers, refuse_in_clear, resolve_headers
from wsengine.websocket.proxy import pass_proxy
from wsengine.websocket.racing import connect, connect_unix
from wsengine.websocket.redirect import Redirects
from wsengine.websocket.supplied import is_local, take_sock
from wsengine.websocket.way import Way

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from wsengine.engine.inflate import DeflateParameters
    from wsengine.websocket.bootstrap import Bootstrap
    from wsengine.websocket.deadline import Cancellation
    from wsengine.websocket.extensions import PerMessageDeflate
    from wsengine.websocket.handshake import Accepted
    from wsengine.websocket.proxy import Proxy
    from wsengine.websocket.response import Response
    from wsengine.websocket.tls import Layer
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["Dialed", "dial"]


@dataclass(frozen=True)
class Dialed:
    """A connection whose upgrade is accepted; whoever gets it owns the socket.

    Attributes:
        sock: non-blocking, closed on exec; owns the descriptor. An `ssl.SSLSocket` on TLS path A.
        response: the 101.
        subprotocol: the agreed one, or None.
        leftover: bytes received behind the response head, decrypted, which are the server's first frames. More may be
            pending in `layer`: read before polling.
        consumed: numbers, from 0 and rising, of messages in `leftover` that the on_upgrade hook has taken.
        local_address: as `socket.getsockname` gives it.
        remote_address: the one of the server's addresses that answered; the proxy's where there is one.
        timings: seconds of "dns", "tcp", "proxy", "tls", "upgrade" and "total"; 0 where there was no such phase, and for the
            "dns" of an IP address. Redirects add up.
        layer: through which bytes go: `sock`, or on TLS path B perhaps a `TlsLayer`.
        tls_path: None without TLS; "A" if the engine can drive `sock` without the GIL, else "B".
        tls_reason: why it is B, else None.
        deflate: how messages are compressed, or None.
    """

    sock: socket.socket
    response: Response
    subprotocol: str | None
    leftover: bytes = field(repr=False)
    local_address: Any
    remote_address: Any
    timings: dict[str, float]
    layer: Layer = field(repr=False)
    tls_path: str | None = None
    tls_reason: str | None = None
    deflate: DeflateParameters | None = None
    consumed: tuple[int, ...] = ()


def dial(uri: WebSocketURI, way: Way | None = None, *, headers: Headers = None, origin: str | None = None,
         subprotocols: Sequence[str] | None = None, user_agent_header: str | None = USER_AGENT,
         compression: PerMessageDeflate | None = None, open_timeout: float | None = 10.0,
         cancellation: Cancellation | None = None, bootstrap: Bootstrap | None = None,
         attempt: Attempt | None = None) -> Dialed:
    """Connect to the server and have it accept the upgrade. Blocks; any number of threads may dial at the same time.

    Args:
        uri: from `parse_uri`.
        way: default `Way(uri)`.
        headers: extra request headers, or a callable that returns them, asked here once (see `resolve_headers`).
        origin: as for `Handshake`.
        subprotocols: as for `Handshake`.
        user_agent_header: as for `Handshake`.
        compression: as for `Handshake`.
        open_timeout: seconds for everything, from the headers callable to the 101; None for no limit.
        cancellation: ends the dial from another thread.
        bootstrap: what is done on the connection once the upgrade is accepted.
        attempt: of which this is the rest, as somebody has begun it, with its time-out and cancellation in place of ours.

    Raises:
        TimeoutError: `open_timeout` is over; the text names the phase.
        OSError: the network failed, with errno; the text names host and port. `socket.gaierror` for the look-up,
            `ssl.SSLError` for TLS, of which `ssl.SSLCertVerificationError` is the server's certificate.
        InvalidHandshake: the server's answer is not an acceptable 101 (see `Handshake.feed`), or a redirect that cannot be
            followed (`InvalidRedirect`); or the proxy refused (`ProxyError`).
        HeadersError: the headers callable failed. Whatever `Bootstrap.run` raises.
        ConfigurationError: an option is wrong, or credentials would go out in clear.
        Cancelled: the cancellation was called.
    """
    if attempt is None:
        attempt = Attempt(uri.authority, seconds("open_timeout", open_timeout), cancellation)
    attempt.phase = "the headers callable"
    attempt.check()  # nobody is asked for an attempt that is over
    way = way or Way(uri)
    redirects = Redirects(uri, resolve_headers(headers))
    attempt.check()
    while True:
        handshake = Handshake(redirects.uri, redirects.headers, origin=origin, subprotocols=subprotocols,
                              user_agent_header=user_agent_header, compression=compression)
        channel = _open(attempt, way, redirects, user_agent_header)
        try:
            local = channel.sock.getsockname()
            accepted = channel.converse(handshake, "upgrade", "the sending of the upgrade request",
                                        "the wait for the upgrade response")
            leftover, consumed = _bootstrap(attempt, channel, accepted, bootstrap)
        except InvalidStatus as refusal:
            channel.close()
            if way.sock is not None or not redirects.follow(refusal.response, anywhere=way.unix is None):
                raise
            continue
        except BaseException:  # also KeyboardInterrupt: nobody else knows of the socket
            channel.close()
            raise
        attempt.timings["total"] = attempt.deadline.elapsed
        return Dialed(channel.sock, accepted.response, accepted.subprotocol, leftover, local,
                      channel.remote_address, attempt.timings, channel.layer, channel.tls_path, channel.tls_reason,
                      accepted.deflate, consumed)


def _bootstrap(attempt: Attempt, channel: Channel, accepted: Accepted,
               bootstrap: Bootstrap | None) -> tuple[bytes, tuple[int, ...]]:
    """Let the hook work, if there is one; what goes to the reader, and which messages of it do not go on."""
    if bootstrap is None:
        return accepted.leftover, ()
    attempt.phase = "the on_upgrade hook"
    result = bootstrap.run(channel, accepted)
    attempt.check()
    return result


def _open(attempt: Attempt, way: Way, redirects: Redirects, user_agent: str | None) -> Channel:
    """Connect, past the proxy if there is one, with TLS where the scheme says so."""
    uri = redirects.uri
    proxy = way.proxy_for(uri)
    attempt.peer = redirects.peer if proxy is None else f"the proxy {proxy.authority}"
    if not way.is_safe(uri, proxy):
        refuse_in_clear(uri, redirects.headers)
    channel = Channel(attempt, *_connect(attempt, way, uri, proxy))
    try:
        if proxy is not None:
            if proxy.scheme == "https":
                channel.begin_tls(way.proxy_context(), proxy.host, "the TLS handshake with the proxy")
            pass_proxy(attempt, channel, proxy, uri, user_agent)
            attempt.peer = redirects.peer
        if way.sock is not None and not (uri.secure or way.allow_plaintext_credentials or is_local(channel.sock)):
            refuse_in_clear(uri, redirects.headers)
        if uri.secure:
            channel.begin_tls(way.context(), way.hostname(uri, redirects.first))
    except BaseException:
        channel.close()
        raise
    return channel


def _connect(attempt: Attempt, way: Way, uri: WebSocketURI, proxy: Proxy | None) -> tuple[socket.socket, Any]:
    """Return the connected, non-blocking socket, and whereto."""
    if way.sock is not None:
        attempt.phase = "the sock callable"
        sock = take_sock(way.sock_path, way.sock)
        return sock, sock.getpeername()
    if way.unix is not None:
        attempt.peer = f"the Unix socket {way.unix!r}"
        return connect_unix(attempt, way.unix, way.socket_options), way.unix
    host, port = (uri.host, uri.port) if proxy is None else (proxy.host, proxy.port)
    return connect(attempt, resolve(attempt, host, port), way.socket_options)
