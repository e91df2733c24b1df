"""When to dial again: the built-in back-off, the user's own rule, and the budget that counts failures.

Everything here is a pure function of its arguments: the time is one of them, nothing sleeps, nothing touches a socket.
Which failures are worth another attempt stands in failures; by when, here.

::

    failed ──► failures + 1 ──► worth it? ──► policy ──► delay, or None: give up, for good
    ready  ──► nothing yet
    failed, `stable_after` seconds or more after ready ──► failures start again from 1

A successful handshake alone resets nothing: a server that accepts and drops is met with growing delays.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from random import Random
from typing import TYPE_CHECKING, TypeAlias

from wsengine.errors import ConfigurationError, InvalidStatus, ProxyError
from wsengine.options import close_coroutine, reject_unknown, seconds, whole
from wsengine.websocket.failures import judge, process_exception
from wsengine.wording import is_interrupt

if TYPE_CHECKING:
    from wsengine.websocket.failures import ProcessException

__all__ = ["Backoff", "RetryBudget", "RetryPolicy", "RetryState", "check_retry", "next_delay"]

#: Seconds a connection must stay READY before its failures are forgotten, where the policy is a callable.
STABLE_AFTER = 10.0

#: Seconds of a Retry-After that are honoured at most, so that no server can put a client to sleep for days.
LONGEST_RETRY_AFTER = 3600.0

RENAMED = {
    # the ancestor's
    "retries_left": "max_retries", "delay": "initial", "retry_timeout": "initial", "max_delay": "maximum",
    "ws_retry_opts": "retry=Backoff(initial=..., factor=..., maximum=...)",
    "ws_retry_fun": "retry=<callable on the RetryState>",
    # of other libraries
    "base": "initial", "min_delay": "initial", "multiplier": "factor", "max": "maximum", "cap": "maximum",
    "max_attempts": "max_retries", "retries": "max_retries",
}


@dataclass(frozen=True, init=False)
class Backoff:
    """Exponential back-off with jitter: the n-th delay in a row goes up to min(maximum, initial * factor ** (n - 1)).

    Immutable, so safe to share between threads and connections.

    Args:
        initial: seconds, the upper end of the first delay.
        factor: growth per failure, at least 1; 1 keeps the delay constant.
        maximum: seconds that no delay exceeds (a server's or proxy's Retry-After, up to an hour of it, is added to it).
        jitter: "full" draws from 0 to the upper end, "none" takes the upper end itself; a number from 0 ("none") to
            1 ("full") is the share of the delay that is drawn.
        max_retries: how many retries may follow each other before giving up; 0 gives up at the first failure, None
            never does.
        stable_after: seconds that a connection must stay READY before the failures before it are forgotten.

    Raises:
        ConfigurationError: an option is wrong or does not exist; its path begins with "retry.".
    """

    initial: float
    factor: float
    maximum: float
    jitter: float
    max_retries: int | None
    stable_after: float

    def __init__(self, initial: float = 1.0, *, factor: float = 2.0, maximum: float = 30.0,
                 jitter: str | float = "full", max_retries: int | None = None, stable_after: float = STABLE_AFTER,
                 **unknown: object) -> None:
        reject_unknown("retry", unknown, [one.name for one in fields(self)], RENAMED)
        checked = {
            "initial": seconds("retry.initial", initial, optional=False),
            "factor": _number("retry.factor", factor, 1.0, 1e6),
            "maximum": seconds("retry.maximum", maximum, optional=False),
            "jitter": _jitter(jitter),
            "max_retries": None if max_retries is None else whole("retry.max_retries", max_retries),
            "stable_after": seconds("retry.stable_after", stable_after, optional=False, zero=True),
        }
        if maximum < initial:
            raise ConfigurationError("retry.maximum", maximum, f"give at least retry.initial, which is {initial!r}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def ceiling(self, failures: int) -> float:
        """Return the upper end in seconds of the delay after that many failures in a row."""
        try:
            return min(self.maximum, self.initial * self.factor ** (failures - 1))
        except OverflowError:  # the power left the range of a float, and so the maximum long before
            return self.maximum


@dataclass(frozen=True)
class RetryState:
    """What is known when a delay is chosen; the argument of a `retry` callable. Immutable.

    Attributes:
        attempt: the number of the attempt that would follow, counted from 1 for the first of the connection's life.
        failures: failures in a row up to now, at least 1; forgotten once READY was held for `stable_after`.
        delay: the delay in seconds chosen after the failure before this one; None if this is the first in a row.
        elapsed: seconds since the first of the failures in a row.
        last_error: this failure: an exception of `wsengine.errors`, a TimeoutError, an OSError; None if it was not one.
        retry_after: seconds for which the server, or the proxy, asked with a Retry-After header (RFC 9110 §10.2.3), as it
            said them and so without a limit; else None.
    """

    attempt: int
    failures: int
    delay: float | None
    elapsed: float
    last_error: BaseException | None
    retry_after: float | None = None


#: A `Backoff`, or a callable that takes a `RetryState` and returns the delay in seconds, or None to give up.
RetryPolicy: TypeAlias = Backoff | Callable[[RetryState], float | None]


def check_retry(retry: object) -> RetryPolicy:
    """Check the option `retry`: a `Backoff`, or a callable on the `RetryState`. Raises ConfigurationError."""
    if isinstance(retry, Backoff) or (callable(retry) and not isinstance(retry, type)):
        return retry
    raise ConfigurationError("retry", retry, "give Backoff(...), or a callable (RetryState) -> seconds or None; "
                                             "Backoff(max_retries=0) never retries")


def next_delay(policy: RetryPolicy, state: RetryState, random: Random) -> float | None:
    """Return how many seconds to wait before the next attempt, or None to give up.

    A `Backoff` adds its own delay to the server's Retry-After (of which it honours `LONGEST_RETRY_AFTER`), so that the
    clients a server has sent away do not come back all at once. A callable has the last word: its answer is taken as it is.

    Raises:
        ConfigurationError: the callable raised (the error is the cause), or returned something other than seconds of
            at least 0 or None. There is no right delay to fall back to: treat it as giving up.
    """
    if not isinstance(policy, Backoff):
        return _ask(policy, state)
    if policy.max_retries is not None and state.failures > policy.max_retries:
        return None
    ceiling = policy.ceiling(state.failures)
    delay = random.uniform(ceiling * (1.0 - policy.jitter), ceiling)
    return delay + min(state.retry_after or 0.0, LONGEST_RETRY_AFTER)


class RetryBudget:
    """Counts the failures of one connection and chooses its delays. Sans-IO; not thread-safe: it has one owner.

    Args:
        policy: as for `next_delay`. A callable's failures are forgotten after `STABLE_AFTER` seconds of READY.
        random: source of the jitter; give a seeded one to repeat a run.
        decide: which failures are worth another attempt; the policy is asked about those only.

    Attributes:
        failures: failures in a row, 0 before the first.
        last_error: the last failure, as `decide` has put it.
        exhausted: whether the policy or `decide` has given up; from then on every `failed` returns None.
        fatal: whether it was `decide`.
    """

    def __init__(self, policy: RetryPolicy, random: Random | None = None,
                 decide: ProcessException = process_exception) -> None:
        self._policy = check_retry(policy)
        self._random = Random() if random is None else random
        self._decide = decide
        self._stable_after = policy.stable_after if isinstance(policy, Backoff) else STABLE_AFTER
        self._attempts = 0
        self._first_failure = 0.0
        self._delay: float | None = None
        self._ready_since: float | None = None
        self.failures = 0
        self.last_error: BaseException | None = None
        self.exhausted = False
        self.fatal = False

    def ready(self, now: float) -> None:
        """Note that the connection is READY at `now` (monotonic seconds). Its failures are kept for the time being."""
        self._ready_since = now

    def failed(self, now: float, error: BaseException | None) -> float | None:
        """Note that an attempt failed or a connection ended at `now` (monotonic seconds), however it did.

        Returns:
            The delay in seconds before the next attempt; None if there is to be none.

        Raises:
            ConfigurationError: as `next_delay`; the budget is `exhausted` then.
        """
        if self._ready_since is not None and now - self._ready_since >= self._stable_after:
            self.failures, self._delay = 0, None
        self._ready_since = None
        self._attempts += 1
        self.failures += 1
        self.last_error = error
        if self.failures == 1:
            self._first_failure = now
        if self.exhausted:
            return None
        verdict = None if error is None else judge(self._decide, error)
        if verdict is not None:
            self.last_error, self.exhausted, self.fatal = verdict, True, True
            return None
        return self._choose(now)

    def _choose(self, now: float) -> float | None:
        error = self.last_error
        response = error.response if isinstance(error, (InvalidStatus, ProxyError)) else None
        state = RetryState(attempt=self._attempts + 1, failures=self.failures, delay=self._delay,
                           elapsed=now - self._first_failure, last_error=error,
                           retry_after=None if response is None else response.retry_after)
        self.exhausted = True  # unless the policy answers with a delay: it may raise
        self._delay = next_delay(self._policy, state, self._random)
        self.exhausted = self._delay is None
        return self._delay


def _ask(policy: Callable[[RetryState], float | None], state: RetryState) -> float | None:
    try:
        answer: object = policy(state)
    except BaseException as error:
        # User code fails its own connection and nothing else; only the main thread is the user's to interrupt.
        if is_interrupt(error):
            raise
        raise ConfigurationError("retry", policy, f"the callable raised {type(error).__name__}; return seconds of at "
                                                  "least 0, or None to give up") from error
    close_coroutine(answer)
    try:
        return seconds("retry", answer, zero=True)
    except ConfigurationError:
        raise ConfigurationError("retry", answer, "the callable returned this; return seconds of at least 0 "
                                                  "(at most 1e9), or None to give up") from None


def _number(path: str, value: object, minimum: float, maximum: float) -> float:
    if (isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value)
            or not minimum <= value <= maximum):
        raise ConfigurationError(path, value, f"give a number from {minimum:g} to {maximum:g}")
    return float(value)


def _jitter(value: object) -> float:
    """Return the jitter as the share of the delay that is drawn, from 0 to 1."""
    if isinstance(value, str) and value in ("full", "none"):
        return 1.0 if value == "full" else 0.0
    try:
        return _number("retry.jitter", value, 0.0, 1.0)
    except ConfigurationError:
        raise ConfigurationError("retry.jitter", value, "give 'full', 'none' or a number from 0 to 1") from None
