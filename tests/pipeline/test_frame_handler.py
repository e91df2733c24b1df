"""The results of a frame handler: which are taken, in which forms, and what is said about those that are not."""

from __future__ import annotations

import pytest

from wsengine import Emit, Fail, Skip
from wsengine.pipeline.frame_handler import FrameHandler, judged


def test_the_three_results_are_taken_as_they_are():
    for one in (Emit([b"a"], 1), Emit((), None), Skip(2), Fail("gone")):
        assert judged(one) is one


@pytest.mark.parametrize(("given", "kind", "fields"), [
    (("emit", [b"a", b"b"], 7), Emit, {"payloads": [b"a", b"b"], "state": 7, "replies": ()}),
    (("emit", (), 7, ["r"]), Emit, {"payloads": (), "state": 7, "replies": ["r"]}),
    (("skip", 7), Skip, {"state": 7, "replies": ()}),
    (("skip", 7, (b"r",)), Skip, {"state": 7, "replies": (b"r",)}),
    (("error", "gone", 7), Fail, {"reason": "gone", "state": 7}),
    (("error", "gone"), Fail, {"reason": "gone", "state": None}),
])
def test_the_plain_tuples_of_the_ancestor_mean_the_same(given, kind, fields):
    result = judged(given)
    assert type(result) is kind
    assert {name: getattr(result, name) for name in fields} == fields


@pytest.mark.parametrize(("given", "shown"), [
    (None, "returned NoneType; return Emit"),
    (b"secret", "returned bytes"),
    ([b"secret"], "returned list"),
    ((), "returned tuple"),
    (("emit", [b"secret"]), "returned tuple"),
    (("emit", [], 1, [], 2), "returned tuple"),
    (("skip",), "returned tuple"),
    (("error",), "returned tuple"),
    (("Emit", [], 1), "returned tuple"),
    ((1, 2), "returned tuple"),
    (Emit(b"secret", 1), "emitted bytes; give a list"),
    (Emit("secret", 1), "emitted str; give a list"),
    (Emit(None, 1), "emitted NoneType; give a list"),
    (Emit([], 1, "secret"), "replies of type str"),
    (Skip(1, b"secret"), "replies of type bytes"),
    (Skip(1, [bytearray(b"secret")]), "a reply of type bytearray"),
    (("skip", 1, [5]), "a reply of type int"),
], ids=repr)
def test_anything_else_is_refused_by_its_type_and_never_shown(given, shown):
    with pytest.raises(TypeError) as caught:
        judged(given)
    assert shown in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_result_shows_how_many_and_not_what():
    assert repr(Emit([b"secret"], 1, ["secret"])) == "<Emit of 1 payloads, 1 replies>"
    assert repr(Emit(b"secret", 1)) == "<Emit of wrong payloads, 0 replies>"
    assert repr(Skip(1)) == "<Skip, 0 replies>"
    assert repr(Fail("secret")) == "<Fail str>"


def test_a_frame_handler_holds_what_it_was_given():
    parts = (lambda payload, state: Skip(state)), {}, object()
    handler = FrameHandler(*parts)
    assert (handler.function, handler.initial, handler.sessions) == parts
