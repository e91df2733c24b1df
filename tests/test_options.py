"""Checks of options: what is taken, what is refused, and that the one error names option, value and remedy."""

from __future__ import annotations

import enum
import functools
import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsengine import Backoff, Pipeline, Processors, WebSocketProducer, connect, options
from wsengine.errors import ConfigurationError, WebSocketException


def test_error_names_path_value_and_remedy() -> None:
    with pytest.raises(ConfigurationError) as caught:
        options.whole("processors.max_demand", -1, minimum=1, maximum=10)
    error = caught.value
    assert (error.path, error.value, error.remedy) == ("processors.max_demand", -1, "give a whole number from 1 to 10")
    assert str(error) == "processors.max_demand=-1: give a whole number from 1 to 10"
    assert isinstance(error, ValueError)
    assert isinstance(error, WebSocketException)


@given(st.integers(), st.integers(min_value=-50, max_value=50), st.integers(min_value=0, max_value=50))
def test_whole_takes_exactly_the_numbers_within_its_bounds(value: int, minimum: int, span: int) -> None:
    maximum = minimum + span
    if minimum <= value <= maximum:
        assert options.whole("o", value, minimum=minimum, maximum=maximum) == value
    else:
        with pytest.raises(ConfigurationError, match=f"from {minimum} to {maximum}"):
            options.whole("o", value, minimum=minimum, maximum=maximum)


def test_whole_includes_both_bounds_and_has_no_upper_one_by_default() -> None:
    assert options.whole("o", 3, minimum=3, maximum=5) == 3
    assert options.whole("o", 5, minimum=3, maximum=5) == 5
    assert options.whole("o", 0) == 0
    assert options.whole("o", 10**30) == 10**30
    with pytest.raises(ConfigurationError, match="o=-1: give a whole number of at least 0"):
        options.whole("o", -1)


@pytest.mark.parametrize("value", [True, False, 1.0, "1", None, [1], math.nan])
def test_whole_refuses_what_is_not_an_integer(value: object) -> None:
    with pytest.raises(ConfigurationError, match="give a whole number"):
        options.whole("o", value)


@given(st.floats(min_value=1e-6, max_value=1e9))
def test_seconds_takes_times_above_zero_and_returns_floats(value: float) -> None:
    assert options.seconds("o", value) == value


def test_seconds_makes_a_float_of_an_integer() -> None:
    taken = options.seconds("o", 15)
    assert taken == 15.0
    assert isinstance(taken, float)


def test_seconds_none_is_off_only_where_optional() -> None:
    assert options.seconds("o", None) is None
    with pytest.raises(ConfigurationError, match=r"o=None: give seconds above 0$"):
        options.seconds("o", None, optional=False)


def test_seconds_zero_is_taken_only_where_it_means_something() -> None:
    assert options.seconds("o", 0, zero=True) == 0.0
    with pytest.raises(ConfigurationError, match="o=0: give seconds above 0, or None to turn it off"):
        options.seconds("o", 0)
    with pytest.raises(ConfigurationError, match=r"o=-0\.1: give seconds of at least 0"):
        options.seconds("o", -0.1, zero=True)


@pytest.mark.parametrize("value", [True, "15", math.nan, math.inf, -math.inf, -1, -1e-9, [1], 1.0 + 0j])
def test_seconds_refuses_what_is_not_a_finite_time(value: object) -> None:
    with pytest.raises(ConfigurationError, match="give seconds above 0, or None to turn it off"):
        options.seconds("o", value)


def test_seconds_beyond_a_billion_are_refused_with_the_bound() -> None:
    assert options.seconds("o", 1e9) == 1e9
    with pytest.raises(ConfigurationError, match="of at most 1e9, or None"):
        options.seconds("o", 1.1e9)
    with pytest.raises(ConfigurationError, match=r"of at most 1e9$"):
        options.seconds("o", 10**10, optional=False)


@pytest.mark.parametrize("value", [1e-12, 9e-7, 5e-324])
def test_seconds_too_short_to_be_meant_are_refused_and_not_rounded_to_off(value: float) -> None:
    with pytest.raises(ConfigurationError, match="of at least 1e-6, or None for off"):
        options.seconds("o", value)
    assert options.seconds("o", value, zero=True) == value  # such as what is left of a deadline


def test_patience_takes_any_number_as_a_wait() -> None:
    assert [options.patience("o", value) for value in (None, -1, 0, 2, 10**400, math.inf)] == [None, 0, 0, 2, 1e9, 1e9]
    for value in (True, "2", math.nan):
        with pytest.raises(ConfigurationError, match="give seconds, or None to wait for ever"):
            options.patience("o", value)


def test_number_takes_what_is_between_its_bounds_in_its_unit() -> None:
    assert options.number("o", 0, 0, 5, "furlongs") == 0.0
    assert options.number("o", 5.0, 0, 5, "furlongs") == 5.0
    for value in (-1, 5.1, math.nan, math.inf, True, "3", None):
        with pytest.raises(ConfigurationError, match="give furlongs from 0 to 5"):
            options.number("o", value, 0, 5, "furlongs")


def test_boolean_takes_only_true_and_false() -> None:
    assert options.boolean("o", True) is True
    assert options.boolean("o", False) is False
    for value in (0, 1, "yes", None):
        with pytest.raises(ConfigurationError, match="give True or False"):
            options.boolean("o", value)


def test_text_takes_strings_and_the_empty_one_only_where_allowed() -> None:
    assert options.text("o", "feed ü") == "feed ü"
    assert options.text("o", "", empty=True) == ""
    with pytest.raises(ConfigurationError, match="o='': give a string without control characters, not empty"):
        options.text("o", "")


@pytest.mark.parametrize("value", ["a\nb", "a\r\nX: y", "\x00", "a\tb", "\x7f", b"bytes", None, 5])
def test_text_refuses_control_characters_and_other_types(value: object) -> None:
    with pytest.raises(ConfigurationError, match=r"give a string without control characters$"):
        options.text("o", value, empty=True)


def test_choice_returns_the_one_that_is_equal_and_lists_all_otherwise() -> None:
    policies = ("block", "error")
    assert options.choice("overflow", "error", policies) == "error"
    for value in ("Block", "", None, 1, ["block"]):
        with pytest.raises(ConfigurationError, match="give one of 'block', 'error'"):
            options.choice("overflow", value, policies)


def test_choice_takes_a_string_enumeration_and_returns_the_plain_choice() -> None:
    class Policy(enum.StrEnum):
        BLOCK = "block"

    assert type(options.choice("overflow", Policy.BLOCK, ("block", "error"))) is str


def test_function_takes_callables_and_none_only_where_optional() -> None:
    assert options.function("o", len, "(message)") is len
    assert options.function("o", None, "(message)") is None
    with pytest.raises(ConfigurationError, match=r"o=None: give a callable \(message\)$"):
        options.function("o", None, "(message)", optional=False)
    with pytest.raises(ConfigurationError, match=r"o='len': give a callable \(message\), or None"):
        options.function("o", "len", "(message)")


KNOWN = ("ws_timeout", "keepalive", "open_timeout")


def unknown(given_options: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        options.reject_unknown("producer", given_options, KNOWN, {"await_timeout": "open_timeout"})
    return str(caught.value)


def test_no_unknown_options_are_no_error() -> None:
    assert options.reject_unknown("producer", {}, KNOWN, {}) is None  # type: ignore[func-returns-value]


def test_former_name_is_refused_with_its_new_one() -> None:
    assert unknown({"await_timeout": 5}) == "producer.await_timeout=<int>: there is no such option; use open_timeout"


def test_misspelt_name_is_refused_with_the_nearest_one() -> None:
    assert unknown({"keep_alive": 5}) == "producer.keep_alive=<int>: there is no such option; did you mean 'keepalive'?"


def test_name_near_to_nothing_is_refused_with_all_names_in_order() -> None:
    text = unknown({"zzz": None})
    assert text == "producer.zzz=<NoneType>: there is no such option; the options are keepalive, open_timeout, ws_timeout"


# -------------------------------------------------------------------------------------------------------------- secrets


class Opaque:
    def __repr__(self) -> str:
        return "Opaque(SECRET)"


class Broken:
    def __repr__(self) -> str:
        raise LookupError("no text to be had")


UNKNOWN: list[dict[str, Any]] = [
    {"additional_headers": {"Authorization": "Bearer SECRET"}}, {"extra_headers": [("Cookie", "SECRET")]},
    {"cookie": "id=SECRET"}, {"auth": ("user", "SECRET")}, {"http_proxy_auth": ("user", "SECRET")},
    {"https_proxy": "http://user:SECRET@host"}, {"uri": "wss://user:SECRET@host/?key=SECRET"}, {"api_key": b"SECRET"},
    {"settings": {"key": "SECRET"}}, {"anything": Opaque()}]


def hides_the_secret(call: Any, **given_options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        call(**given_options)
    error = caught.value
    for text in (str(error), repr(error), repr(error.value), repr(error.args), repr(vars(error)), repr(pickle.dumps(error))):
        assert "SECRET" not in text
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    return error


@pytest.mark.parametrize("given_options", UNKNOWN, ids=lambda one: next(iter(one)))
@pytest.mark.parametrize("call", [functools.partial(connect, "ws://localhost"), functools.partial(WebSocketProducer, "ws://h"),
                                  Backoff, Processors, functools.partial(Pipeline, [])], ids=["connect", "producer", "retry",
                                                                                             "processors", "pipeline"])
def test_of_an_option_that_there_is_not_only_the_type_is_told(call: Any, given_options: dict[str, Any]) -> None:
    [(name, value)] = given_options.items()
    error = hides_the_secret(call, **given_options)
    assert error.path.endswith(f".{name}")
    assert f"=<{type(value).__name__}>: " in str(error)


def refuse_some(_: object) -> None:
    """A callable of the user's."""


@pytest.mark.parametrize("given_options", [
    {"headers": ["Bearer SECRET"]}, {"headers": {"Authorization": b"SECRET"}}, {"proxy": {"http": "http://u:SECRET@h"}},
    {"proxy": "ftp://user:SECRET@host"}, {"proxy": "http://user:SECRET@host/path"}, {"proxy": "user:SECRET@host"},
    {"proxy": "http://user:SEC\nSECRET@host/path"}, {"proxy": "http://host/?key=SECRET"},
    {"subprotocols": "SECRET"}, {"subprotocols": ["bearer SECRET"]}, {"subprotocols": ["SECRET", "SECRET"]},
    {"subprotocols": {"bearer": "SECRET"}}, {"sock": Opaque()}, {"ssl": {"password": "SECRET"}}, {"logger": Opaque()},
    {"keepalive": Opaque()}, {"max_size": {"SECRET": 1}}, {"path": {"key": "SECRET"}}, {"compression": Opaque()},
    {"socket_options": {"SECRET": 1}}, {"headers": functools.partial(max, "SECRET", key=functools.partial(min, "SECRET"))},
], ids=str)
def test_a_known_option_that_may_hold_a_secret_does_not_show_it(given_options: dict[str, Any]) -> None:
    if callable(given_options.get("headers")):
        given_options = {"headers": functools.partial(lambda secret, one, two: None, "SECRET")}
    hides_the_secret(functools.partial(connect, "ws://localhost:1"), **given_options)


def test_a_callable_is_told_by_its_name_and_a_partial_by_its_type() -> None:
    for value, text in ((refuse_some, "<function refuse_some>"), (functools.partial(refuse_some, "SECRET"), "<partial>"),
                        (Opaque().__repr__, "<function Opaque.__repr__>"), (Broken(), "<Broken>")):
        error = ConfigurationError("o", value, "give another")
        assert str(error) == f"o={text}: give another"
        assert repr(error.value) == text


def test_a_long_value_is_shortened_and_one_that_has_no_repr_told_by_its_type() -> None:
    assert str(ConfigurationError("o", "x" * 1000, "give less")) == f"o='{'x' * 39}...{'x' * 36}': give less"
    assert str(ConfigurationError("o", 10**5000, "give less")) == "o=<int>: give less"
    with pytest.raises(ConfigurationError, match="give a whole number"):
        options.whole("o", Broken())
    assert "o=<list>" in str(ConfigurationError("o", [Broken()], "give another"))


def test_checks_that_are_exported_exist() -> None:
    public = {name for name, value in vars(options).items()
              if callable(value) and getattr(value, "__module__", "") == options.__name__}
    assert public == {name for name in options.__all__ if callable(getattr(options, name))}
