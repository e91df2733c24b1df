"""Behaviour of a Message made by hand: what it takes, what it says of itself, how it is failed and acknowledged.

Messages that come out of a pipeline, and who acknowledges those, are tested with the pipeline.
"""

import copy
import pickle
import time

import pytest

from wsengine.errors import ConfigurationError
from wsengine.message import Failed, Message, checked_acknowledger
from wsengine.wording import kept


class Book:
    """An acknowledger that keeps what it is told."""

    def __init__(self):
        self.acked = []
        self.configured = []

    def ack(self, ack_ref, successful, failed):
        self.acked.append((ack_ref, list(successful), list(failed)))

    def configure(self, ack_ref, ack_data, options):
        self.configured.append((ack_ref, ack_data, options))
        return {**ack_data, **options}


class Deaf:
    """An acknowledger that cannot be configured."""

    def ack(self, ack_ref, successful, failed):
        raise AssertionError("nobody acknowledges here")


@pytest.fixture
def book():
    return Book()


# --------------------------------------------------------------------------------------------------------- being made

def test_a_message_made_by_hand_has_the_defaults_of_one_that_came_from_no_connection():
    message = Message(b"data")
    assert message.data == b"data"
    assert (message.seq, message.epoch, message.connection_index) == (0, 0, 0)
    assert (message.opcode, message.received_ns) == (0, 0)
    assert message.connection is None
    assert message.metadata == {}
    assert message.acknowledger is None
    assert (message.batcher, message.batch_key, message.batch_mode) == ("default", "default", "bulk")
    assert message.status == "ok"
    assert message.failed is False
    assert message.received_at == 0.0


def test_everything_given_is_kept(book):
    metadata = {"a": 1}
    triple = (book, "ref", "data")
    message = Message(["any", "thing"], metadata=metadata, acknowledger=triple, batcher="db", batch_key=("k", 1),
                      batch_mode="flush")
    assert message.data == ["any", "thing"]
    assert message.metadata is metadata
    assert message.acknowledger == triple
    assert (message.batcher, message.batch_key, message.batch_mode) == ("db", ("k", 1), "flush")


def test_only_data_may_be_given_by_position():
    with pytest.raises(TypeError, match="positional"):
        Message(b"data", {"a": 1})
    with pytest.raises(TypeError):
        Message()


@pytest.mark.parametrize(("options", "path", "remedy"), [
    ({"metadata": [("a", 1)]}, "message.metadata", "give a dict"),
    ({"metadata": 0}, "message.metadata", "give a dict"),
    ({"batch_mode": "now"}, "message.batch_mode", "give 'bulk' or 'flush'"),
    ({"batch_mode": None}, "message.batch_mode", "give 'bulk' or 'flush'"),
    ({"acknowledger": "no triple"}, "message.acknowledger", "give (acknowledger, ack_ref, ack_data)"),
    ({"acknowledger": (Book(), "ref")}, "message.acknowledger", "give (acknowledger, ack_ref, ack_data)"),
    ({"acknowledger": [Book(), "ref", "data"]}, "message.acknowledger", "give (acknowledger, ack_ref, ack_data)"),
    ({"acknowledger": (object(), "ref", "data")}, "message.acknowledger", "ack(ack_ref, successful, failed)"),
    ({"acknowledger": Book()}, "message.acknowledger", "give (acknowledger, ack_ref, ack_data)"),
])
def test_a_wrong_option_gets_one_error_with_its_name_its_value_and_the_remedy(options, path, remedy):
    with pytest.raises(ConfigurationError) as raised:
        Message(b"", **options)
    [value] = options.values()
    assert raised.value.path == path
    assert raised.value.value == kept(value)
    assert remedy in raised.value.remedy
    assert str(raised.value) == f"{path}={kept(value)!r}: {raised.value.remedy}"


@pytest.mark.parametrize("batcher", [None, 5, b"db"])
def test_a_batcher_is_named_by_a_string_or_refused(batcher):
    with pytest.raises((TypeError, ConfigurationError), match="batcher"):
        Message(b"", batcher=batcher)


def test_facts_of_the_arrival_cannot_be_written():
    message = Message(b"")
    for name in ("seq", "received_ns", "received_at", "connection_index", "epoch", "opcode", "connection", "status",
                 "failed", "text"):
        with pytest.raises(AttributeError):
            setattr(message, name, 1)
    with pytest.raises(AttributeError):
        message.anything_else = 1


# ------------------------------------------------------------------------------------------------------ data and text

@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_text_decodes_what_data_holds(kind):
    assert Message(kind("grün €\0".encode())).text == "grün €\0"
    assert Message(kind(b"")).text == ""


def test_text_follows_the_data_when_a_handler_replaces_it():
    message = Message(b"before")
    assert message.text == "before"
    message.data = b"after"
    assert message.text == "after"


def test_text_of_bytes_that_are_no_utf8_raises():
    with pytest.raises(UnicodeDecodeError):
        _ = Message(b"\xff\xfe").text


@pytest.mark.parametrize("data", ["text", 5, None, {"a": 1}])
def test_text_of_something_else_than_bytes_names_what_it_found(data):
    with pytest.raises(TypeError, match=rf"message\.data is {type(data).__name__}"):
        _ = Message(data).text


# ----------------------------------------------------------------------------------------------------------- metadata

def test_metadata_is_one_dict_of_its_own():
    one, other = Message(b""), Message(b"")
    one.metadata["key"] = "value"
    assert one.metadata == {"key": "value"}
    assert other.metadata == {}
    one.metadata = {"new": 1}
    assert one.metadata == {"new": 1}


@pytest.mark.parametrize("value", [None, [], "text", 3])
def test_metadata_is_replaced_by_a_dict_only(value):
    message = Message(b"", metadata={"kept": True})
    with pytest.raises(ConfigurationError) as raised:
        message.metadata = value
    assert raised.value.path == "message.metadata"
    assert raised.value.value is value
    assert message.metadata == {"kept": True}


def test_batch_mode_is_replaced_by_one_of_two_words_only():
    message = Message(b"")
    message.batch_mode = "flush"
    with pytest.raises(ConfigurationError, match=r"message\.batch_mode='soon': give 'bulk' or 'flush'"):
        message.batch_mode = "soon"
    assert message.batch_mode == "flush"


# ------------------------------------------------------------------------------------------------------------- status

def test_fail_keeps_the_reason_and_returns_the_message():
    message = Message(b"")
    assert message.fail("too old") is message
    assert message.failed is True
    assert message.status
    assert isinstance(message.status, Failed)
    assert message.status.reason == "too old"
    assert message.status.exception is None
    assert repr(message.status) == "Failed('too old')"


def test_fail_with_an_exception_keeps_it_as_reason_and_as_exception():
    error = ValueError("broken")
    status = Message(b"").fail(error).status
    assert status.reason is error
    assert status.exception is error
    assert "broken" in repr(status)


def test_fail_with_a_failed_takes_it_as_it_is():
    verdict = Failed("reason", KeyError("k"))
    assert Message(b"").fail(verdict).status is verdict


@pytest.mark.parametrize("reason", [None, "", 0, False, "ok"])
def test_any_reason_makes_a_failure(reason):
    message = Message(b"").fail(reason)
    assert message.failed
    assert message.status != "ok"
    assert message.status.reason == reason


def test_the_last_failure_stands():
    assert Message(b"").fail("first").fail("second").status.reason == "second"


# ---------------------------------------------------------------------------------------------------- acknowledgement

def test_ack_immediately_tells_the_acknowledger_once_that_it_succeeded(book):
    message = Message(b"", acknowledger=(book, "ref", "data"))
    message.ack_immediately()
    assert book.acked == [("ref", [message], [])]
    message.ack_immediately()
    message.fail("too late")
    message.ack_immediately()
    assert len(book.acked) == 1


def test_ack_immediately_tells_the_acknowledger_that_it_failed(book):
    message = Message(b"", acknowledger=(book, 7, None)).fail("no")
    message.ack_immediately()
    assert book.acked == [(7, [], [message])]


def test_ack_immediately_without_an_acknowledger_does_nothing():
    message = Message(b"")
    message.ack_immediately()
    assert message.status == "ok"
    assert message.acknowledger is None


def test_ack_immediately_counts_as_done_even_if_the_acknowledger_raises():
    class Broken:
        calls = 0

        def ack(self, ack_ref, successful, failed):
            Broken.calls += 1
            raise OSError("no database")

    message = Message(b"", acknowledger=(Broken(), None, None))
    with pytest.raises(OSError, match="no database"):
        message.ack_immediately()
    message.ack_immediately()
    assert Broken.calls == 1


def test_an_acknowledger_that_acknowledges_again_from_within_is_called_once():
    class Again(Book):
        def ack(self, ack_ref, successful, failed):
            super().ack(ack_ref, successful, failed)
            for message in successful:
                message.ack_immediately()

    again = Again()
    Message(b"", acknowledger=(again, None, None)).ack_immediately()
    assert len(again.acked) == 1


def test_the_acknowledger_can_be_replaced_by_another_or_none_and_nothing_else(book):
    message = Message(b"", acknowledger=(Deaf(), 1, 2))
    message.acknowledger = (book, "ref", "data")
    message.ack_immediately()
    assert len(book.acked) == 1
    message.acknowledger = None
    assert message.acknowledger is None
    with pytest.raises(ConfigurationError) as raised:
        message.acknowledger = (1, 2, 3)
    assert (raised.value.path, raised.value.value) == ("message.acknowledger", (1, 2, 3))


def test_checked_acknowledger_lets_pass_what_a_message_takes(book):
    assert checked_acknowledger(None) is None
    triple = (book, None, None)
    assert checked_acknowledger(triple) is triple
    with pytest.raises(ConfigurationError):
        checked_acknowledger((None, None, None))


def test_configure_ack_hands_the_options_over_and_keeps_the_answer(book):
    message = Message(b"", acknowledger=(book, "ref", {"retry": False}))
    message.configure_ack(retry=True, delay=2)
    assert book.configured == [("ref", {"retry": False}, {"retry": True, "delay": 2})]
    assert message.acknowledger == (book, "ref", {"retry": True, "delay": 2})
    message.configure_ack(delay=3)
    assert message.acknowledger[2] == {"retry": True, "delay": 3}


@pytest.mark.parametrize("acknowledger", [None, (Deaf(), "ref", "data")])
def test_configure_ack_needs_an_acknowledger_that_can_be_configured(acknowledger):
    message = Message(b"", acknowledger=acknowledger)
    with pytest.raises(ConfigurationError, match=r"configure\(ack_ref, ack_data, options\)") as raised:
        message.configure_ack(retry=True)
    assert raised.value.path == "message.acknowledger"
    assert message.acknowledger == acknowledger


def test_configure_ack_that_raises_changes_nothing():
    class Picky(Book):
        def configure(self, ack_ref, ack_data, options):
            raise ValueError(f"unknown option {next(iter(options))}")

    message = Message(b"", acknowledger=(Picky(), "ref", "data"))
    with pytest.raises(ValueError, match="unknown option retry"):
        message.configure_ack(retry=True)
    assert message.acknowledger[1:] == ("ref", "data")


# --------------------------------------------------------------------------------------------------- time and copying

def test_received_at_stays_unknown_for_a_message_made_by_hand():
    message = Message(b"")
    before = message.received_at
    time.sleep(0.002)
    assert before == message.received_at == 0.0


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_message_refuses_to_be_pickled_and_names_what_can_be(protocol):
    with pytest.raises(TypeError, match=r"cannot be pickled; pickle message\.data"):
        pickle.dumps(Message(b""), protocol)


def test_a_message_refuses_to_be_copied():
    for duplicate in (copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="belongs to its pipeline"):
            duplicate(Message(b""))


def test_repr_shows_data_and_status_in_one_short_line():
    assert repr(Message(b"abc")) == "<Message b'abc' ok seq=0 epoch=0 connection=0>"
    long = repr(Message(b"x" * 10_000).fail("too long"))
    assert "Failed('too long')" in long
    assert len(long) < 200


def test_many_messages_made_and_dropped_do_not_share_anything():
    kept = []
    for round_number in range(3):
        messages = [Message(n, batch_key=n) for n in range(500)]
        for message in messages[::2]:
            message.fail("even")
            message.metadata["round"] = round_number
        kept.append(messages[1])
        del message, messages
        fresh = [Message(n) for n in range(500)]
        assert not any(message.failed or message.metadata or message.acknowledger for message in fresh)
        assert all(message.batch_key == "default" for message in fresh)
    assert [message.data for message in kept] == [1, 1, 1]
