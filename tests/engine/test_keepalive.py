"""Behaviour of the ping timer: what is due when, as a function of `now`, and that its thread keeps time under the GIL.

`tick` is called with times of the test's choosing. What it puts out is seen at the other end of a socket pair, through
a reader that runs beside it; when the next thing is due is what it returns.
"""

import ctypes
import json
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from tests.engine.line import Peer, Reader
from tests.waiting import until
from wsengine.engine.control import ControlBlock
from wsengine.engine.keepalive import KeepaliveTimer
from wsengine.engine.receiver import Receiver
from wsengine.engine.ring import Account, Parker, Ring
from wsengine.engine.stream import Stream
from wsengine.errors import EngineError
from wsengine.testing.wire import BINARY, CLOSE, PING, PONG, ClientFrames, build_server_frame, close_payload

S, MS = 10**9, 10**6
RETRY = 20 * MS      # how soon the reader is asked again


class Clock(Reader):
    """A timer that is ticked by hand, over connections whose peers are socket pairs."""

    def connect(self, index=0, epoch=1, **times):
        """Begin a generation with a peer; returns the latest time of its start and the peer."""
        ours, theirs = socket.socketpair()
        self.peers.append(Peer(theirs))
        _, started = self.hand_over(ours, index, epoch, **times)
        return started, self.peers[-1]

    def pings(self, peer, count):
        """The payloads of the next `count` pings, as (generation, number)."""
        frames = peer.next_frames(count)
        assert [opcode for opcode, _ in frames] == [PING] * count
        return [struct.unpack("!II", payload) for _, payload in frames]

    def ended(self):
        return self.notes("ended")


def near(time_ns, expected, slack=S // 10):
    """Whether a time that counts from a start known to a bit less than `slack` is the expected one."""
    return expected - slack < time_ns <= expected


# ---------------------------------------------------------------------------------------------------------------- pings

def test_nothing_is_due_without_a_generation():
    with Clock(places=3) as clock:
        assert clock.timer.tick(time.monotonic_ns()) is None
        assert clock.timer.tick(2**62) is None


def test_nothing_is_due_if_nothing_is_watched():
    with Clock() as clock:
        clock.begin()
        assert clock.timer.tick(time.monotonic_ns() + 10**6 * S) is None


def test_pings_are_due_at_multiples_of_the_period_since_the_start():
    with Clock() as clock:
        earliest, latest = clock.begin(keepalive=10)
        assert earliest + 10 * S <= clock.timer.tick(latest) <= latest + 10 * S
        assert clock.controls[0].counts()["pings_sent"] == 0


def test_a_ping_is_put_out_at_its_due_time_and_not_a_nanosecond_before():
    with Clock() as clock:
        _, latest = clock.begin(keepalive=10)
        due = clock.timer.tick(latest)
        assert clock.timer.tick(due - 1) == due
        assert clock.controls[0].counts()["pings_sent"] == 0
        assert clock.timer.tick(due) == due + 10 * S
        assert clock.controls[0].counts()["pings_sent"] == 1
        assert clock.timer.tick(due) == due + 10 * S
        assert clock.controls[0].counts()["pings_sent"] == 1


def test_pings_carry_generation_and_number():
    with Clock() as clock:
        started, peer = clock.connect(epoch=258, keepalive=10)
        for number in range(1, 4):
            clock.timer.tick(started + number * 10 * S)
            assert clock.pings(peer, 1) == [(258, number)]


@pytest.mark.parametrize("late", [1, 3 * MS, 9 * S])
def test_ticks_that_come_late_do_not_shift_the_ones_that_follow(late):
    with Clock() as clock:
        _, latest = clock.begin(keepalive=10)
        first = clock.timer.tick(latest)
        for number in range(1, 50):
            due = first + (number - 1) * 10 * S
            assert clock.timer.tick(due + late) == due + 10 * S
            assert clock.controls[0].counts()["pings_sent"] == number


@pytest.mark.parametrize(("missed", "late"), [(1, 0), (1, 5 * S), (7, 0), (7, 10 * S - 1), (10**6, 1)])
def test_periods_that_were_missed_are_skipped_not_bunched(missed, late):
    with Clock() as clock:
        started, peer = clock.connect(keepalive=10)
        first = clock.timer.tick(started)
        woken = first + missed * 10 * S + late
        assert clock.timer.tick(woken) == first + (missed + 1) * 10 * S
        assert clock.pings(peer, 1) == [(1, 1)]
        clock.timer.tick(first + (missed + 1) * 10 * S)
        assert clock.pings(peer, 1) == [(1, 2)]


def test_a_new_generation_begins_with_a_schedule_and_numbers_of_its_own():
    with Clock() as clock:
        _, latest = clock.begin(epoch=1, keepalive=10)
        for number in range(1, 6):
            clock.timer.tick(latest + number * 10 * S)
        clock.controls[0].end()
        assert clock.timer.tick(latest + 60 * S) is None
        earliest, latest = clock.begin(epoch=2, keepalive=7)
        assert earliest + 7 * S <= clock.timer.tick(latest) <= latest + 7 * S
        assert clock.controls[0].counts()["pings_sent"] == 0
        assert earliest + 14 * S <= clock.timer.tick(latest + 7 * S) <= latest + 14 * S
        assert clock.controls[0].counts()["pings_sent"] == 1


def test_a_generation_that_replaces_another_between_two_ticks_is_noticed():
    with Clock() as clock:
        _, latest = clock.begin(epoch=1, keepalive=1)
        clock.timer.tick(latest + 5 * S)
        clock.begin(epoch=2, keepalive=0)
        assert clock.timer.tick(latest + 100 * S) is None
        assert clock.controls[0].counts()["pings_sent"] == 0


def test_each_connection_has_a_schedule_of_its_own_and_the_nearest_time_is_next():
    with Clock(places=3) as clock:
        _, first = clock.connect(0, keepalive=10)
        _, second = clock.connect(1, keepalive=3)
        started, _ = clock.connect(2, keepalive=0)
        assert near(clock.timer.tick(started), started + 3 * S)
        assert near(clock.timer.tick(started + 3 * S), started + 6 * S)
        assert near(clock.timer.tick(started + 6 * S), started + 9 * S)
        assert near(clock.timer.tick(started + 9 * S), started + 10 * S)
        assert near(clock.timer.tick(started + 10 * S), started + 12 * S)
        assert clock.pings(second, 3) == [(1, 1), (1, 2), (1, 3)]
        assert clock.pings(first, 1) == [(1, 1)]


def test_a_place_made_later_is_watched_beside_the_others():
    with Clock(places=1, room=3) as clock:
        _, first = clock.begin(0, keepalive=10)
        clock.controls.append(ControlBlock())
        assert clock.timer.add(clock.controls[1]) == 1
        assert clock.timer.tick(first) > first + 9 * S, "it has no generation yet"
        started, peer = clock.connect(1, keepalive=1)
        clock.timer.tick(started)
        assert clock.timer.tick(started + S) <= started + 2 * S
        assert clock.pings(peer, 1) == [(1, 1)]


def test_a_running_timer_takes_further_places_up_to_its_room_and_names_the_limit():
    with Clock(places=0, room=3) as clock:
        thread = threading.Thread(target=clock.timer.run)
        thread.start()
        for number in range(3):
            clock.controls.append(ControlBlock())
            assert clock.timer.add(clock.controls[number]) == number
            _, peer = clock.connect(number, keepalive=0.02)
            clock.timer.wake()
            assert clock.pings(peer, 2) == [(1, 1), (1, 2)]
        with pytest.raises(EngineError, match="room for 3 connections at a time"):
            clock.timer.add(ControlBlock())
        clock.timer.stop()
        thread.join(10)
        assert not thread.is_alive()


def test_without_room_there_is_none_but_for_the_places_from_the_beginning():
    with Clock(places=2) as clock, pytest.raises(EngineError, match="room for 2"):
        clock.timer.add(ControlBlock())


def test_the_same_times_give_the_same_answers():
    answers = []
    for _ in range(2):
        with Clock() as clock:
            _, latest = clock.begin(keepalive=2, ws_timeout=0, pong_timeout=0)
            first = clock.timer.tick(latest)
            answers.append([clock.timer.tick(first + step) - first for step in range(0, 20 * S, 300 * MS)])
    assert answers[0] == answers[1]


# ------------------------------------------------------------------------------------------------------------- liveness

def test_silence_is_asked_about_when_it_has_lasted_and_again_after_a_while():
    with Clock() as clock:
        clock.begin(ws_timeout=30)
        heard = clock.controls[0].heard_ns
        assert clock.timer.tick(heard) == heard + 30 * S
        assert clock.timer.tick(heard + 30 * S - 1) == heard + 30 * S
        assert clock.timer.tick(heard + 30 * S) == heard + 30 * S + RETRY
        assert clock.timer.tick(heard + 30 * S + 1) == heard + 30 * S + RETRY
        assert clock.timer.tick(heard + 30 * S + RETRY) == heard + 30 * S + 2 * RETRY


def test_a_question_is_judged_by_the_reader_by_its_own_clock():
    with Clock() as clock:
        started, peer = clock.connect(ws_timeout=30, pong_timeout=30, keepalive=1)
        clock.timer.tick(started + 1 * S)
        assert clock.pings(peer, 1)
        clock.timer.tick(started + 500 * S)
        clock.timer.tick(started + 600 * S)
        clock.pings(peer, 2)
        peer.send(build_server_frame(BINARY, b"alive"))
        until(lambda: clock.ring.depth)
        assert clock.ended() == [], "no second has passed, whatever the timer was told"


def test_what_is_heard_moves_the_time_of_the_question():
    with Clock() as clock:
        started, peer = clock.connect(ws_timeout=30)
        due = clock.timer.tick(started)
        time.sleep(0.01)
        peer.send(build_server_frame(BINARY, b"sound")[:1])
        until(lambda: clock.controls[0].heard_ns + 30 * S > due)
        assert clock.timer.tick(started) == clock.controls[0].heard_ns + 30 * S


def test_the_oldest_ping_without_a_pong_is_the_one_that_counts():
    with Clock() as clock:
        started, peer = clock.connect(keepalive=10, pong_timeout=25)
        first = clock.timer.tick(started)
        for number in range(3):
            assert clock.timer.tick(first + number * 10 * S) == first + min((number + 1) * 10, 25) * S
        assert clock.timer.tick(first + 25 * S) == first + 25 * S + RETRY
        [one, two, _] = clock.pings(peer, 3)
        peer.send(build_server_frame(PONG, struct.pack("!II", *one)))
        until(lambda: clock.timer.tick(first + 25 * S + 1) == first + 30 * S)
        peer.send(build_server_frame(PONG, struct.pack("!II", *two)))
        until(lambda: clock.timer.tick(first + 36 * S) == first + 40 * S)


def test_a_pong_for_a_later_ping_answers_those_before_it():
    with Clock() as clock:
        started, peer = clock.connect(keepalive=10, pong_timeout=25)
        first = clock.timer.tick(started)
        for number in range(3):
            clock.timer.tick(first + number * 10 * S)
        peer.send(build_server_frame(PONG, struct.pack("!II", *clock.pings(peer, 3)[2])))
        until(lambda: clock.timer.tick(first + 29 * S) == first + 30 * S)


def test_a_connection_that_is_paused_is_not_asked():
    with Clock(max_messages=4) as clock:
        started, peer = clock.connect(ws_timeout=30, keepalive=10, pong_timeout=5)
        peer.send(build_server_frame(BINARY, b"m") * 10)
        until(lambda: clock.controls[0].paused)
        for seconds in range(0, 200, 10):
            assert clock.timer.tick(started + seconds * S) > started + seconds * S + RETRY
        assert clock.controls[0].counts()["pings_sent"] == 19, "pings go out all the same"
        taken = []
        until(lambda: taken.extend(clock.ring.claim(10)) or len(taken) == 10)
        until(lambda: not clock.controls[0].paused)
        assert clock.ended() == []


def test_while_closing_only_the_deadline_of_that_counts():
    with Clock() as clock:
        started, peer = clock.connect(keepalive=10, ws_timeout=30, pong_timeout=5, close_timeout=50)
        clock.receiver.close(0, 1, 1000)
        assert [opcode for opcode, _ in peer.next_frames()] == [CLOSE]
        due = clock.timer.tick(started)
        assert started + 49 * S < due < time.monotonic_ns() + 50 * S
        assert clock.timer.tick(due - 1) == due
        assert clock.controls[0].counts()["pings_sent"] == 0
        assert clock.ended() == []
        assert clock.timer.tick(due) == due + RETRY
        until(clock.ended)
        assert [note.cause for note in clock.ended()] == ["released"]


def test_the_peers_close_begins_that_deadline_as_well():
    with Clock() as clock:
        started, peer = clock.connect(keepalive=10, close_timeout=50)
        peer.send(build_server_frame(CLOSE, close_payload(1001)))
        assert [opcode for opcode, _ in peer.next_frames()] == [CLOSE]
        due = clock.timer.tick(started)
        assert started + 49 * S < due < time.monotonic_ns() + 50 * S
        clock.timer.tick(due)
        until(clock.ended)
        assert [(note.cause, note.code) for note in clock.ended()] == [("closed", 1001)]


# ----------------------------------------------------------------------------------------------------------- the thread

#: Reads the descriptor given until its end, and prints when which bytes came.
WATCHER = """
import json, os, sys, time
fd, seen = int(sys.argv[1]), []
sys.stdout.write("ready\\n"); sys.stdout.flush()
while data := os.read(fd, 65536):
    seen.append((time.monotonic_ns(), data.hex()))
print(json.dumps(seen))
"""


def arrivals(watcher):
    """(time, opcode, payload) of each frame that the watcher saw."""
    output, _ = watcher.communicate(timeout=20)
    parser = ClientFrames()
    return [(at, frame.opcode, frame.payload)
            for at, data in json.loads(output) for frame in parser.feed(bytes.fromhex(data))]


def test_pings_reach_the_peer_at_their_due_times_while_a_call_holds_the_gil_for_a_second():
    ours, peer = socket.socketpair()
    ours.setblocking(False)
    ring = Ring(64, Account(64, 2**24), Parker())
    parker, control = Parker(), ControlBlock()
    receiver = Receiver(ring, Parker(), parker)
    timer = KeepaliveTimer(receiver, [control], parker)
    threads = [threading.Thread(target=receiver.run), threading.Thread(target=timer.run)]
    with ours, peer, subprocess.Popen([sys.executable, "-c", WATCHER, str(peer.fileno())], stdout=subprocess.PIPE,
                                      text=True, pass_fds=[peer.fileno()]) as watcher:
        assert watcher.stdout.readline() == "ready\n"
        peer.close()
        for thread in threads:
            thread.start()
        control.begin(1, keepalive=0.1, ws_timeout=0, pong_timeout=0, close_timeout=1)
        started = time.monotonic_ns()
        timer.wake()
        receiver.add(Stream(ours.fileno(), control, 0, 1, 2**20))
        held_from = time.monotonic_ns()
        ctypes.PyDLL(None).usleep(999_999)
        held_until = time.monotonic_ns()
        receiver.stop()
        timer.stop()
        for thread in threads:
            thread.join(10)
        ours.close()
        frames = arrivals(watcher)
    assert held_until - held_from > 0.99 * S
    during = [(at, payload) for at, opcode, payload in frames if opcode == PING and held_from < at < held_until]
    assert [payload for _, payload in during[:9]] == [struct.pack("!II", 1, number) for number in range(1, 10)]
    late = [(at - started) / MS - 100 * number for number, (at, _) in enumerate(during[:9], 1)]
    # the machine may have been busy elsewhere; a ping that had to wait for the GIL would come hundreds of milliseconds late
    assert sum(not -2 < one < 20 for one in late) <= 3, f"milliseconds past the due times: {late}"
    assert max(late) < 150, f"milliseconds past the due times: {late}"


def test_the_thread_sleeps_when_nothing_is_watched_and_wakes_when_something_is():
    with Clock() as clock:
        thread = threading.Thread(target=clock.timer.run)
        thread.start()
        try:
            before = time.process_time()
            time.sleep(0.3)
            assert time.process_time() - before < 0.1
            started, peer = clock.connect(keepalive=0.05)
            clock.timer.wake()
            assert clock.pings(peer, 1) == [(1, 1)]
            assert time.monotonic_ns() - started < S
        finally:
            clock.timer.stop()
            thread.join(10)
        assert not thread.is_alive()


def test_stop_ends_the_thread_at_once_before_and_while_it_runs():
    for stop_first in (True, False):
        with Clock() as clock:
            clock.begin(keepalive=3600)
            thread = threading.Thread(target=clock.timer.run)
            if stop_first:
                clock.timer.stop()
            thread.start()
            if not stop_first:
                until(lambda clock=clock: clock.timer_parker.waiters)
                clock.timer.stop()
            thread.join(5)
            assert not thread.is_alive()


def test_a_timer_needs_a_receiver_control_blocks_and_a_parker():
    with Clock() as clock:
        for arguments in ((None, [], Parker()), (clock.receiver, [object()], Parker()), (clock.receiver, [], None),
                          (clock.receiver, None, Parker())):
            with pytest.raises(TypeError):
                KeepaliveTimer(*arguments)
        timer = KeepaliveTimer(clock.receiver, iter(()), clock.timer_parker)
        assert timer.parker is clock.timer_parker
        assert timer.tick(0) is None
