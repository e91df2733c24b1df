"""What a user tells `tail` and `doctor` of a server: its URL, and by which way and with what it is asked.

Here are the options that both commands share, and how errors of the library name them. What is done with the server stands
with the commands.
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wsengine.cli.arguments import header
from wsengine.cli.identity import check_readable, load_certificate
from wsengine.errors import ConfigurationError, InvalidURI
from wsengine.websocket.response import HIDDEN
from wsengine.websocket.uri import parse_uri

if TYPE_CHECKING:
    import argparse

__all__ = ["Server", "add_server", "command_words", "in_words_of_the_command", "translated"]

#: The library's name of an option -> how it is written here; the others are -- and the same name.
WRITTEN = {"url": "URL", "headers": "--header", "subprotocols": "--subprotocol", "ssl": "--ca"}
#: What the library advises -> the same on the command line.
WORDS = (
    ("ssl=ssl.create_default_context(cafile=...)", "--ca FILE"),
    (", or give that name as server_hostname", ""),
    ("context.load_cert_chain(...) on the context given as ssl", "give it by --cert FILE and --key FILE"),
    (": see server_hostname", ""),
    (": see minimum_version, maximum_version of the context", ""),
    (": see minimum_version of the context", ""),
    ("raise max_size", "raise --max-size"),
    ("say allow_plaintext_credentials=True", "give --allow-plaintext-credentials"),
)
_TIME_OUT = re.compile(r" \(open_timeout=[^)]*\)")
_PATH = re.compile(r"(?:connect\.)?(\w+)(?:\[['\"]?(.*?)['\"]?\])?(.*)")


@dataclass(frozen=True, repr=False)  # it holds secrets
class Server:
    """As on the command line. `insecure`: certificates are not verified.

    Raises ConfigurationError (also from `context`) and InvalidURI for what does not do.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    origin: str | None = None
    subprotocols: tuple[str, ...] = ()
    proxy: str | bool | None = True
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    insecure: bool = False
    allow_plaintext_credentials: bool = False

    @classmethod
    def of(cls, given: argparse.Namespace) -> Server:
        """From the parsed arguments."""
        proxy = {None: True, "none": None}.get(given.proxy, given.proxy)
        return cls(given.url, tuple(given.header), given.origin, tuple(given.subprotocol), proxy, given.ca, given.cert,
                   given.key, getattr(given, "insecure", False), given.allow_plaintext_credentials)

    def context(self) -> ssl.SSLContext | None:
        """The context of wss://, None for the library's own."""
        for name in ("ca", "cert", "key", "insecure"):
            if getattr(self, name) not in (None, False) and not parse_uri(self.url).secure:
                raise ConfigurationError(name, "", "the URL is ws://, which has no TLS; make it wss://, or leave this out")
        if self.insecure and self.ca is not None:
            raise ConfigurationError("insecure", "", "nothing is verified then, by --ca neither; give one of the two")
        if self.key is not None and self.cert is None:
            raise ConfigurationError("key", "", "it belongs to a certificate; give that by --cert FILE")
        if self.ca is None and self.cert is None and not self.insecure:
            return None
        context = self._trusting()
        if self.cert is not None:
            load_certificate(context, self.cert, self.key)
        context.set_alpn_protocols(["http/1.1"])
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _trusting(self) -> ssl.SSLContext:
        """A context that trusts --ca, or whom the system trusts."""
        if self.ca is not None:
            check_readable("ca", self.ca)
        try:
            return ssl.create_default_context(cafile=self.ca)
        except ssl.SSLError:
            raise ConfigurationError("ca", self.ca, "it holds no certificates in PEM") from None

    def way(self) -> dict[str, Any]:
        """The options of a `Way`."""
        return {"proxy": self.proxy, "ssl": self.context(),
                "allow_plaintext_credentials": self.allow_plaintext_credentials}

    def request(self) -> dict[str, Any]:
        """The options of the upgrade request."""
        return {"headers": list(self.headers), "origin": self.origin, "subprotocols": list(self.subprotocols) or None}


def add_server(parser: argparse.ArgumentParser) -> None:
    """Add URL and the shared options."""
    parser.add_argument("url", metavar="URL", help="ws:// or wss://")
    option = parser.add_argument
    option("--header", action="append", default=[], type=header, metavar="'NAME: VALUE'",
           help="of the upgrade request; may be given again")
    option("--subprotocol", action="append", default=[], metavar="NAME",
           help="to offer; may be given again, the preferred one first")
    option("--origin", metavar="ORIGIN", help="of the upgrade request, as a browser sends it")
    option("--ca", metavar="FILE", help="PEM file of the CAs to trust instead of the system's")
    option("--cert", metavar="FILE", help="PEM file of the certificate, with its chain, that we show to the server")
    option("--key", metavar="FILE", help="PEM file of its private key, where the other file does not hold it")
    option("--proxy", metavar="URL", help="of an HTTP or SOCKS proxy, or none for no proxy (the environment's)")
    option("--allow-plaintext-credentials", action="store_true",
           help="let user name, password and headers such as Authorization go over ws:// to other machines")


def in_words_of_the_command(error: ConfigurationError | InvalidURI) -> str:
    """The error in the words of the command line."""
    if isinstance(error, InvalidURI):
        return str(error)
    found = _PATH.fullmatch(error.path)
    assert found is not None
    name, item, rest = found.groups()
    said = WRITTEN.get(name, f"--{name.replace('_', '-')}") + (f" {item}" if item and not item.isdigit() else "") + rest
    # A proxy's URL may hold a password wherever it is miswritten; none of it is shown, whatever the library would show.
    value = f" {HIDDEN}" if name == "proxy" else f" {error.value}" if error.value not in ("", None) else ""
    return f"{said}{value}: {translated(error.remedy)}"


def command_words(error: BaseException) -> str:
    """A failure in one line, its advice in the words of the command line, without the number of an errno."""
    plain = isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror
    return translated(str(error.strerror) if isinstance(error, OSError) and plain else str(error))


def translated(text: str) -> str:
    """Advice of the library in the words of the command line."""
    for there, here in WORDS:
        text = text.replace(there, here)
    return _TIME_OUT.sub("", text)  # what it was is said before
