"""Whereto each attempt of a producer goes: its URL and its headers, as given, or asked anew for each connection.

Here is which callables get the connection's index (reference W-26), and what is wrong about them. What a URL is stands in
uri, what headers are in headers, by which way the server is reached in way.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from wsengine.errors import ConfigurationError, InvalidURI, URLCallableError
from wsengine.options import close_coroutine
from wsengine.websocket.uri import parse_uri
from wsengine.wording import is_interrupt

if TYPE_CHECKING:
    from wsengine.websocket.headers import HeaderPairs, Headers
    from wsengine.websocket.uri import WebSocketURI

__all__ = ["ProducerHeaders", "Target", "positional_arguments"]

#: What a producer's `headers` takes: as `Headers`, or a callable on the connection's index.
ProducerHeaders: TypeAlias = "Headers | Callable[[int], HeaderPairs | None]"


class Target:
    """Whereto the attempts of a producer go. Immutable, so safe to share between threads.

    Args:
        url: the address, or a callable (index) -> str that is asked at each attempt.
        path: resource of the upgrade request, where the URL has none.
        headers: as for `resolve_headers`; a callable with one required positional argument gets the index.

    Attributes:
        uri: where every attempt goes; None where the callable says it.

    Raises:
        ConfigurationError: a callable takes other arguments.
        InvalidURI: the address is not usable.
    """

    def __init__(self, url: str | Callable[[int], str], path: str | None, headers: ProducerHeaders) -> None:
        self._url = url
        self._path = path
        self._headers: Any = headers
        self._headers_take_index = False
        self.uri = None if callable(url) else parse_uri(url, path)
        if callable(url):
            _check_url(url, path)
        if callable(headers) and not isinstance(headers, Mapping):
            self._headers_take_index = positional_arguments("producer.headers", headers, most=1) == 1

    def uri_for(self, index: int) -> WebSocketURI:
        """The address for an attempt of a connection; a callable is asked, in the calling thread.

        Raises:
            URLCallableError: the callable raised, which is the cause. Of what it raises, only KeyboardInterrupt and
                SystemExit in the main thread pass through.
            InvalidURI, ConfigurationError: what it returned is not a usable address, or contradicts `path`.
        """
        if self.uri is not None:
            return self.uri
        assert callable(self._url)
        try:
            answer: object = self._url(index)
        except BaseException as error:
            if is_interrupt(error):
                raise
            # Only the type: the text of an HTTP client's error is often a URL with its token.
            raise URLCallableError(f"the url callable raised {type(error).__name__} for connection {index}") from error
        if close_coroutine(answer):
            raise InvalidURI("<coroutine>", "the url callable returned a coroutine; give a plain function")
        try:
            return parse_uri(answer, self._path)  # type: ignore[arg-type]  # what is not a str is refused there
        except InvalidURI as error:
            raise InvalidURI(error.uri, f"the url callable returned it for connection {index}; {error.problem}") from None

    def headers_for(self, index: int) -> Headers:
        """The headers option for an attempt of a connection, still to be resolved."""
        headers: Headers = partial(self._headers, index) if self._headers_take_index else self._headers
        return headers

    @property
    def name(self) -> str:
        """The address without secrets, or what stands for it."""
        return "<url callable>" if self.uri is None else self.uri.redacted


def _check_url(url: Callable[[int], str], path: str | None) -> None:
    parse_uri("ws://localhost", path)  # what is wrong about `path` shall be told now
    if inspect.iscoroutinefunction(url):
        raise ConfigurationError("producer.url", url, "define it without async: it is called in a dialer's thread")
    try:
        inspect.signature(url).bind(0)
    except ValueError:  # a builtin that has none
        return
    except TypeError:
        raise ConfigurationError("producer.url", url, "give a callable (index) -> str: it gets the connection's index, from "
                                 "0") from None


def positional_arguments(path: str, value: Callable[..., object], *, most: int) -> int:
    """How many positional arguments a callable requires: those without a default, as `inspect.signature` says.

    A callable whose signature cannot be had is taken to require none.

    Raises:
        ConfigurationError: it requires more than `most`, or one by keyword.
    """
    try:
        parameters = inspect.signature(value).parameters.values()
    except ValueError:  # a builtin that has none
        return 0
    required = [one for one in parameters if one.default is one.empty
                and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    if len(required) > most or any(one.kind is one.KEYWORD_ONLY for one in required):
        takes = "no argument, or one: the connection's index" if most else "no argument"
        raise ConfigurationError(path, value, f"give a callable that requires {takes}; it requires "
                                 f"{', '.join(one.name for one in required)}")
    return len(required)
