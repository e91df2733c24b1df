"""The lifecycle table: every pair of state and event does what its row says, and a pair without a row raises."""

from __future__ import annotations

import itertools

import pytest

from wsengine.websocket.lifecycle import TRANSITIONS, Event, Lifecycle, State


def reach(state):
    """A lifecycle that was led to a state by events alone."""
    ways = {State.DIALING: [], State.READY: [Event.OPENED], State.BACKOFF: [Event.FAILED],
            State.CLOSING: [Event.OPENED, Event.CLOSE], State.STOPPED: [Event.GIVEN_UP]}
    lifecycle = Lifecycle()
    for event in ways[state]:
        lifecycle.fire(event)
    assert lifecycle.state is state
    return lifecycle


@pytest.mark.parametrize(("state", "event"), list(itertools.product(State, Event)), ids=lambda one: one.value)
def test_each_event_in_each_state_follows_its_row_or_is_refused(state, event):
    lifecycle = reach(state)
    target = TRANSITIONS.get((state, event))
    if target is None:
        with pytest.raises(RuntimeError, match=f"{state.value} cannot take '{event.value}'"):
            lifecycle.fire(event)
        assert lifecycle.state is state
    else:
        assert lifecycle.fire(event) is target
        assert lifecycle.state is target


def test_a_connection_begins_by_dialing():
    assert Lifecycle().state is State.DIALING


def test_only_a_connection_that_opened_is_ready():
    assert {pair for pair, target in TRANSITIONS.items() if target is State.READY} == {(State.DIALING, Event.OPENED)}


def test_stopped_is_for_good():
    assert {target for (state, _), target in TRANSITIONS.items() if state is State.STOPPED} == {State.STOPPED}


def test_every_state_but_stopped_can_be_told_to_close_or_is_closing():
    for state in set(State) - {State.STOPPED, State.CLOSING}:
        assert (state, Event.CLOSE) in TRANSITIONS


def test_from_every_state_the_end_can_be_reached():
    reachable = {State.STOPPED}
    while grown := {state for (state, _), target in TRANSITIONS.items() if target in reachable} - reachable:
        reachable |= grown
    assert reachable == set(State)
