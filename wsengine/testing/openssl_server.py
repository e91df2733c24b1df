"""A TLS server that does what Python's ssl cannot: renegotiate, and change its keys, in the midst of a connection.

It is `openssl s_server`, told what to do over its standard input. One connection at a time, no scripts: the test says each
move. Everything else is the scripted server's.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import threading
import time
from typing import TYPE_CHECKING

from wsengine.errors import ConfigurationError
from wsengine.testing.wire import accept_response

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from wsengine.testing.tls import ServerTLS

__all__ = ["OpenSSLServer"]

#: Characters that s_server takes for an order where they are the first of what it reads.
ORDERS = b"QqRrKkPSB"


class OpenSSLServer:
    """`openssl s_server` in a process of its own; use `with`. One thread uses it.

    Args:
        tls: certificate, and bounds of the version; of these, `alpn` is not used.

    Raises:
        ConfigurationError: there is no program `openssl` or `stdbuf`, or, when started, it does not listen.
    """

    def __init__(self, tls: ServerTLS) -> None:
        for program in ("openssl", "stdbuf"):
            if shutil.which(program) is None:
                raise ConfigurationError(program, None, "there is no program of that name; install it")
        # Line by line: else what it says of an order would stay in a buffer of its own.
        self._command = ["stdbuf", "-oL", "openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1",
                         "-cert", os.fspath(tls.certificate), "-key", os.fspath(tls.key or tls.certificate),
                         "-cert_chain", os.fspath(tls.certificate)]
        for version, option in (("1.2", "-tls1_2"), ("1.3", "-tls1_3")):
            if tls.minimum == tls.maximum == version:
                self._command.append(option)
        self._output = b""  # all of it so far; the thread appends, under the condition
        self._arrival = threading.Condition()
        self._over = False
        self._orders = 0
        self.port = 0

    @property
    def url(self) -> str:
        """The URL to connect to."""
        return f"wss://127.0.0.1:{self.port}"

    def accept(self, glued: bytes = b"", timeout: float = 20.0) -> None:
        """Wait for the upgrade request and answer it with a 101, and with these bytes behind it."""
        found = self._await(rb"Sec-WebSocket-Key: (\S+)\r\n(?:.*\r\n)*\r\n", timeout)
        self.send(accept_response(found[1].decode()) + glued)

    def send(self, data: bytes) -> None:
        """Send bytes to the client; they must not begin with a letter that is an order."""
        if data[:1] in [bytes([one]) for one in ORDERS]:
            raise ConfigurationError("data", data[:1], "s_server would take this for an order")
        self._write(data)

    def renegotiate(self, timeout: float = 20.0) -> None:
        """Ask for a renegotiation (TLS 1.2, RFC 5246 §7.4.1.1). Returns once it is asked for; the client has to read."""
        self._order(b"r", timeout)

    def update_keys(self, answer: bool = True, timeout: float = 20.0) -> None:
        """Change the keys (TLS 1.3, RFC 8446 §4.6.3), and ask the client for the same if `answer`."""
        self._order(b"K" if answer else b"k", timeout)

    def wait_received(self, data: bytes, timeout: float = 20.0) -> None:
        """Wait until the client has sent these bytes. Raises TimeoutError."""
        self._await(re.escape(data), timeout)

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, bufsize=0)
        self._reader = threading.Thread(target=self._read, name="testing:openssl")
        self._reader.start()
        try:
            self.port = int(self._await(rb"ACCEPT \S*:(\d+)", 20.0)[1])
        except TimeoutError as error:
            self.__exit__(None, None, None)
            raise ConfigurationError("tls", self._output[-500:], "openssl s_server does not listen with it") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _order(self, order: bytes, timeout: float) -> None:
        """Give an order, which must be a read of its own at the other end: wait until it is done."""
        self._orders += 1
        self._write(order + b"\n")
        self._await(rb"(?s)(?:SSL_do_handshake ->.*?){%d}" % self._orders, timeout)

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        rest = memoryview(data)
        while rest:
            rest = rest[self._process.stdin.write(rest):]
        time.sleep(0.05)  # s_server reads as much as there is: what follows shall not be read together with it

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            while data := os.read(self._process.stdout.fileno(), 65536):
                with self._arrival:
                    self._output += data
                    self._arrival.notify_all()
        with self._arrival:
            self._over = True
            self._arrival.notify_all()

    def _await(self, pattern: bytes, timeout: float) -> re.Match[bytes]:
        with self._arrival:
            self._arrival.wait_for(lambda: self._over or re.search(pattern, self._output), timeout)
            found = re.search(pattern, self._output)
            if found is None:
                raise TimeoutError(f"openssl s_server has not said {pattern!r} but {self._output[-500:]!r}")
            return found
