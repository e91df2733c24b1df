"""The steps of `doctor` up to a connection: the URL, the proxy, DNS, TCP, and the way past the proxy.

What comes on that connection stands in encryption.py and session.py.
"""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING, Any

from wsengine.cli.case import FAILURES
from wsengine.cli.remedies import network_remedy
from wsengine.cli.report import FAILED, NOTE, OK, SKIPPED, Finding
from wsengine.cli.table import milliseconds
from wsengine.errors import ConfigurationError, InvalidURI
from wsengine.websocket.addresses import is_ip, resolve
from wsengine.websocket.handshake import Handshake
from wsengine.websocket.proxies_environment import environment_proxy
from wsengine.websocket.racing import connect
from wsengine.websocket.uri import parse_uri
from wsengine.websocket.way import Way

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsengine.cli.case import Case

__all__ = ["Approach"]


class Approach:
    """The way to the server. Each step yields what it finds."""

    def __init__(self, case: Case) -> None:
        self._case = case
        self._fault: ConfigurationError | None = None  # of the environment's proxy
        self.steps = (("URL", self._see_url), ("proxy", self._see_proxy), ("DNS", self._see_dns), ("TCP", self._see_tcp),
                      ("tunnel", self._see_tunnel))

    def _see_url(self) -> Iterator[Finding]:
        try:
            self._case.uri = uri = parse_uri(self._case.server.url)
        except InvalidURI as error:
            yield self._case.fail("URL", error, "", "the URL is not usable")
            return
        self._case.url = uri.redacted
        self._check_options()
        known = ", with user name and password" if uri.username is not None else ""
        yield Finding("URL", OK, f"{uri.redacted}: host {uri.host}, port {uri.port}, "
                                 f"{'TLS' if uri.secure else 'no TLS'}{known}",
                      facts={"host": uri.host, "port": uri.port, "secure": uri.secure})

    def _check_options(self) -> None:
        """Raise ConfigurationError for a wrong one before anything is done or shown; the environment's is a finding."""
        server = self._case.server
        Handshake(self._case.uri, list(server.headers), origin=server.origin, subprotocols=list(server.subprotocols) or None)
        try:
            self._case.way = Way(self._case.uri, **server.way())
        except ConfigurationError as error:
            if "environment" not in error.path:
                raise
            self._fault = error

    def _see_proxy(self) -> Iterator[Finding]:
        if self._fault is not None:
            yield self._case.fail("proxy", self._fault, self._fault.remedy, "the proxy is not usable")
            return
        self._case.proxy = proxy = self._case.way.proxy_for(self._case.uri)
        yield Finding("proxy", OK, self._why_proxy(), facts={"proxy": None if proxy is None else str(proxy)})

    def _why_proxy(self) -> str:
        if self._case.server.proxy is None:
            return "none, as --proxy says"
        if self._case.proxy is not None:
            found = environment_proxy(self._case.uri) if self._case.server.proxy is True else None
            return f"{self._case.proxy}, named by " + ("--proxy" if found is None else f"the environment's {found[0]}")
        there = urllib.request.getproxies()
        if not there:
            return "none: the environment names none"
        named = ", ".join(f"{name}_proxy" for name in sorted(there) if name != "no")
        if urllib.request.proxy_bypass(f"{self._case.uri.host}:{self._case.uri.port}"):
            return f"none: no_proxy exempts {self._case.uri.host} (the environment has {named})"
        return f"none: what the environment has ({named}) is not for {self._case.uri.scheme}://"

    def _see_dns(self) -> Iterator[Finding]:
        host, port, _ = self._case.peer
        attempt = self._case.attempt()
        try:
            self._case.addresses = resolve(attempt, host, port)
        except FAILURES as error:
            yield self._case.fail("DNS", error, network_remedy(error), f"the address of {host} is not known")
            return
        found = list(dict.fromkeys(str(address[0]) for _, _, address in self._case.addresses))
        facts = {"addresses": found, "seconds": attempt.timings["dns"]}
        of = "" if self._case.proxy is None else " (of the proxy, which looks the server up)" if (
            self._case.proxy.scheme not in ("socks4", "socks5")) else " (of the proxy)"
        if is_ip(host):
            yield Finding("DNS", OK, f"{host} is an address, nothing to look up{of}", facts=facts)
            return
        four = [one for one in found if ":" not in one]
        six = [one for one in found if ":" in one]
        yield Finding("DNS", OK, f"IPv4 {', '.join(four) or 'none'}; IPv6 {', '.join(six) or 'none'}; "
                                 f"{milliseconds(attempt.timings['dns'])}{of}", facts=facts)

    def _see_tcp(self) -> Iterator[Finding]:
        port = self._case.peer[1]
        answered, failures = [], []
        for one in self._case.addresses:
            attempt = self._case.attempt()
            facts: dict[str, Any] = {"address": one[2][0], "port": port}
            try:
                sock, _ = connect(attempt, [one], self._case.way.socket_options)
            except OSError as failure:
                failures.append((facts, failure))
                continue
            sock.close()
            answered.append(one)
            yield Finding("TCP", OK, f"{one[2][0]} port {port} answers in {milliseconds(attempt.timings['tcp'])}",
                          facts={**facts, "seconds": attempt.timings["tcp"]})
        for facts, error in failures:
            if answered:
                yield Finding("TCP", NOTE, f"{facts['address']} port {port} does not answer: {_reason(error)}",
                              "connections go to the address that answers; each attempt may lose some time", facts)
            else:
                yield self._case.fail("TCP", error, network_remedy(error), "no address answers", **facts)
        if not answered and not failures:
            self._case.halted = "there is no address"
            yield Finding("TCP", FAILED, "the host has no address")
        self._case.addresses = answered

    def _see_tunnel(self) -> Iterator[Finding]:
        if self._case.proxy is None:
            yield Finding("tunnel", SKIPPED, "there is no proxy")
            return
        attempt = self._case.attempt()
        try:
            self._case.channel(attempt).close()
        except FAILURES as error:
            yield self._case.fail("tunnel", error, network_remedy(error), "the proxy does not lead to the server")
            return
        taken = attempt.timings["proxy"] + attempt.timings["tls"]
        yield Finding("tunnel", OK, f"{self._case.proxy} connects to {self._case.uri.authority} in {milliseconds(taken)}",
                      facts={"seconds": taken})


def _reason(error: OSError) -> str:
    """The cause of a connect to one address, without what the caller says itself."""
    return str(error.__cause__.strerror) if isinstance(error.__cause__, OSError) else str(error)
