"""Behaviour of `wsengine.websocket.retry`. Time is an argument, so no test waits."""

import math
import threading
from dataclasses import FrozenInstanceError
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wsengine.errors import ConfigurationError, InvalidStatus, ProxyError
from wsengine.websocket.response import Response
from wsengine.websocket.retry import Backoff, RetryBudget, RetryState, check_retry, next_delay


def state(failures=1, **facts):
    return RetryState(**({"attempt": failures + 1, "failures": failures, "delay": None, "elapsed": 0.0,
                          "last_error": None} | facts))


def delays(budget, times, error=None):
    return [budget.failed(float(now), error) for now in times]


def test_without_jitter_the_delay_grows_by_the_factor_up_to_the_maximum():
    budget = RetryBudget(Backoff(initial=1, factor=3, maximum=20, jitter="none"))
    assert delays(budget, range(5)) == [1, 3, 9, 20, 20]


def test_a_factor_of_one_keeps_the_delay_constant():
    assert delays(RetryBudget(Backoff(10, factor=1, jitter="none")), range(4)) == [10, 10, 10, 10]


def test_the_delay_stays_at_the_maximum_after_very_many_failures():
    assert next_delay(Backoff(jitter="none"), state(failures=10**6), Random(1)) == 30


def test_full_jitter_draws_from_zero_to_the_upper_end():
    random = Random(7)
    drawn = [next_delay(Backoff(), state(failures=4), random) for _ in range(2000)]
    assert 0 <= min(drawn) < 0.2
    assert 7.8 < max(drawn) <= 8
    assert 3.7 < sum(drawn) / len(drawn) < 4.3


def test_a_number_as_jitter_is_the_share_that_is_drawn():
    random = Random(7)
    drawn = [next_delay(Backoff(jitter=0.25), state(failures=4), random) for _ in range(2000)]
    assert 6 <= min(drawn) < 6.1
    assert 7.9 < max(drawn) <= 8


def test_the_jitter_repeats_with_its_seed_and_differs_without():
    assert delays(RetryBudget(Backoff(), Random(3)), range(5)) == delays(RetryBudget(Backoff(), Random(3)), range(5))
    assert delays(RetryBudget(Backoff()), range(5)) != delays(RetryBudget(Backoff()), range(5))


@given(initial=st.floats(1e-3, 1e3), factor=st.floats(1, 1e6), extra=st.floats(0, 1e3), jitter=st.floats(0, 1),
       failures=st.integers(1, 10_000), seed=st.integers())
def test_no_delay_leaves_its_bounds(initial, factor, extra, jitter, failures, seed):
    policy = Backoff(initial, factor=factor, maximum=initial + extra, jitter=jitter)
    delay = next_delay(policy, state(failures=failures), Random(seed))
    assert -1e-9 <= delay <= policy.maximum * (1 + 1e-9)


def test_the_budget_ends_after_max_retries_and_stays_ended():
    budget = RetryBudget(Backoff(jitter="none", max_retries=2))
    error = OSError("refused")
    assert delays(budget, range(2), error) == [1, 2]
    assert not budget.exhausted
    assert budget.failed(3.0, error) is None
    assert budget.exhausted
    assert (budget.failures, budget.last_error) == (3, error)
    budget.ready(10.0)
    assert budget.failed(1000.0, error) is None


def test_no_retries_at_all_gives_up_at_the_first_failure():
    assert RetryBudget(Backoff(max_retries=0)).failed(0.0, None) is None


def test_ready_alone_resets_nothing():
    budget = RetryBudget(Backoff(jitter="none", max_retries=4, stable_after=10))
    seen = []
    for now in range(0, 50, 10):  # accepted each time, dropped just before it counts as stable
        budget.ready(float(now))
        seen.append(budget.failed(now + 9.99, ConnectionResetError()))
    assert seen == [1, 2, 4, 8, None]


def test_ready_held_for_stable_after_resets_growth_and_budget():
    budget = RetryBudget(Backoff(jitter="none", max_retries=3, stable_after=10))
    assert delays(budget, range(3)) == [1, 2, 4]
    budget.ready(100.0)
    assert budget.failed(110.0, None) == 1
    assert delays(budget, [111, 112]) == [2, 4]


def test_stability_counts_once():
    budget = RetryBudget(Backoff(jitter="none", stable_after=10))
    budget.ready(0.0)
    assert delays(budget, [20, 40]) == [1, 2]


def test_stable_after_zero_resets_at_every_ready():
    budget = RetryBudget(Backoff(jitter="none", stable_after=0))
    for now in (1.0, 2.0):
        budget.ready(now)
        assert budget.failed(now, None) == 1


def refusal(*headers):
    return InvalidStatus(Response(503, "Service Unavailable", headers))


def test_retry_after_is_added_to_the_own_delay():
    budget = RetryBudget(Backoff(jitter="none"))
    assert budget.failed(0.0, refusal(("Retry-After", "7"))) == 8
    assert budget.failed(1.0, refusal()) == 2


def test_a_very_long_retry_after_is_capped():
    assert RetryBudget(Backoff(jitter="none")).failed(0.0, refusal(("Retry-After", "3500"))) == 3501
    assert RetryBudget(Backoff(jitter="none")).failed(0.0, refusal(("Retry-After", "9" * 400))) == 3601


def test_a_date_that_overflows_is_no_reason_for_the_budget_to_fail():
    date = "Mon, 99999999999999999999 Jan 2024 00:00:00 GMT"
    assert RetryBudget(Backoff(jitter="none")).failed(0.0, refusal(("Retry-After", date), ("Date", date))) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_the_retry_after_of_a_proxy_is_honoured_as_well(status):
    refused = ProxyError("http://proxy", "busy", Response(status, "", (("Retry-After", "7"),)))
    states = []
    assert RetryBudget(Backoff(jitter="none")).failed(0.0, refused) == 8
    assert RetryBudget(lambda given: states.append(given) or 1.0).failed(0.0, refused) == 1
    assert states[0].retry_after == 7
    assert RetryBudget(Backoff(jitter="none")).failed(0.0, ProxyError("http://proxy", "an end")) == 1


def test_a_callable_gets_the_state_and_has_the_last_word():
    states = []
    budget = RetryBudget(lambda given: states.append(given) or (None if given.failures == 3 else 0.5 * given.failures))
    first, second = OSError("first"), refusal(("retry-after", "7"))
    assert (budget.failed(5.0, first), budget.failed(6.0, second), budget.failed(8.0, first)) == (0.5, 1.0, None)
    assert budget.exhausted
    assert states == [
        RetryState(attempt=2, failures=1, delay=None, elapsed=0, last_error=first),
        RetryState(attempt=3, failures=2, delay=0.5, elapsed=1, last_error=second, retry_after=7),
        RetryState(attempt=4, failures=3, delay=1.0, elapsed=3, last_error=first),
    ]
    with pytest.raises(FrozenInstanceError):
        states[0].failures = 9


def test_a_state_after_stability_begins_again_but_the_attempts_go_on():
    states = []
    budget = RetryBudget(lambda given: states.append(given) or 1)
    delays(budget, [0, 1])
    budget.ready(2.0)
    budget.failed(12.0, None)
    assert (states[-1].attempt, states[-1].failures, states[-1].delay, states[-1].elapsed) == (4, 1, None, 0)


@pytest.mark.parametrize("answer", [-1, math.nan, math.inf, "5", True, [1], 1e10])
def test_a_wrong_answer_of_a_callable_is_a_defined_error_and_gives_up(answer):
    budget = RetryBudget(lambda _: answer)
    with pytest.raises(ConfigurationError, match="return seconds") as caught:
        budget.failed(0.0, None)
    assert (caught.value.path, caught.value.value) == ("retry", answer)
    assert budget.exhausted
    assert budget.failed(1.0, None) is None


def test_a_raising_callable_is_a_defined_error_with_its_cause():
    def broken(_):
        raise KeyError("x")

    budget = RetryBudget(broken)
    with pytest.raises(ConfigurationError, match="raised KeyError") as caught:
        budget.failed(0.0, None)
    assert isinstance(caught.value.__cause__, KeyError)
    assert budget.exhausted


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_callable_cannot_end_a_worker_thread(kind):
    def broken(_):
        raise kind

    seen = []

    def work():
        try:
            RetryBudget(broken).failed(0.0, None)
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert isinstance(seen[0], ConfigurationError)


def test_the_user_can_interrupt_a_callable_in_the_main_thread():
    def interrupted(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RetryBudget(interrupted).failed(0.0, None)


def test_the_defaults_are_those_of_the_documentation():
    policy = Backoff()
    assert (policy.initial, policy.factor, policy.maximum, policy.jitter, policy.max_retries, policy.stable_after) == (
        1.0, 2.0, 30.0, 1.0, None, 10.0)
    assert Backoff(jitter="full") == policy
    assert Backoff(jitter="none") == Backoff(jitter=0)
    with pytest.raises(FrozenInstanceError):
        policy.initial = 2.0


@pytest.mark.parametrize(("name", "value"), [
    ("initial", 0), ("initial", None), ("initial", "1"), ("initial", math.inf), ("factor", 0.5), ("factor", None),
    ("factor", True), ("factor", math.nan), ("maximum", 0.5), ("maximum", None), ("jitter", "some"), ("jitter", 1.1),
    ("jitter", None), ("jitter", True), ("max_retries", -1), ("max_retries", 1.5), ("stable_after", -1),
    ("stable_after", None),
])
def test_a_wrong_option_is_named_with_its_path(name, value):
    with pytest.raises(ConfigurationError) as caught:
        Backoff(**{name: value})
    assert caught.value.path == f"retry.{name}"


@pytest.mark.parametrize(("name", "meant"), [
    ("retries_left", "max_retries"), ("delay", "initial"), ("ws_retry_opts", "Backoff"), ("ws_retry_fun", "callable"),
    ("max_attempts", "max_retries"), ("intial", "'initial'"), ("stable_affter", "'stable_after'"),
    ("colour", "the options are"),
])
def test_an_unknown_or_former_option_names_the_one_that_is_meant(name, meant):
    with pytest.raises(ConfigurationError, match=meant) as caught:
        Backoff(**{name: 1})
    assert caught.value.path == f"retry.{name}"


@pytest.mark.parametrize("wrong", [None, 5, {"delay": 10}, Backoff, "full"])
def test_retry_takes_a_backoff_or_a_callable_only(wrong):
    with pytest.raises(ConfigurationError, match="give Backoff"):
        check_retry(wrong)


def test_a_backoff_and_a_callable_pass_the_check():
    policy = Backoff()
    assert check_retry(policy) is policy
    assert check_retry(abs) is abs
