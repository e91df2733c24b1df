"""Connections made by `connect()` and the process that they are in: signals (conformance item C64), the
interpreter's exit (C65), forks (C66).

Each script runs in a process of its own, against a server of this one.
"""

from __future__ import annotations

import signal
import time

import pytest

from wsengine.testing import Feed, ScriptedServer, build_server_frame, steps

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def server():
    with ScriptedServer([[steps.accept(), steps.serve(echo=True)]]) as server:
        yield server


def closes(record):
    return [int.from_bytes(one.payload[:2], "big") for one in record.frames if one.opcode == 8]


# ---------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("call", ["recv()", "recv(60)", "__iter__().__next__()", "ping(b'x').wait()",
                                  "send(b'x' * 2**22, timeout=60)"])
def test_sigint_ends_a_call_that_waits_within_a_second_and_the_connection_is_closed(child, call):
    script = [steps.accept(), steps.stall(1.5), steps.serve()]   # nothing comes, nothing is read for a while
    with ScriptedServer([script]) as server:
        one = child(f"""
            import wsengine
            with wsengine.connect({server.url!r}, write_limit=1) as connection:
                {"connection.send(b'x' * 2**24)" if call.startswith("send") else ""}
                say("waits")
                try:
                    connection.{call}
                except KeyboardInterrupt:
                    say("interrupted", time.monotonic())
                    raise
            """)
        one.wait_for("waits")
        time.sleep(0.2)
        at = time.monotonic()
        one.signal()
        words = one.line().split()
        assert words[0] == "interrupted"
        assert float(words[1]) - at < 1.0
        status, _, errors = one.end()
        assert status in (-signal.SIGINT, 130)
        assert "KeyboardInterrupt" in errors
        [record] = server.wait_ended(1)
    assert closes(record) == [1011]


def test_a_handler_of_a_signal_may_close_the_connection_that_the_program_receives_from(child, server):
    one = child(f"""
        import wsengine
        connection = wsengine.connect({server.url!r})
        signal.signal(signal.SIGTERM, lambda *_: connection.close())
        say("waits")
        for message in connection:
            say("message")
        say("over", connection.close_code)
        """)
    one.wait_for("waits")
    time.sleep(0.2)
    one.signal(signal.SIGTERM)
    assert one.line() == "over 1000"
    assert one.end()[0] == 0


# ---------------------------------------------------------------------------------------------------- the interpreter's exit

STATES = {
    "quiet": "connections = [connect() for _ in range(5)]",
    "with messages that nobody took": """
connections = [connect() for _ in range(3)]
for one in connections:
    for number in range(50):
        one.send(str(number))
while any(one.counts()["messages"] < 50 for one in connections):
    time.sleep(0.01)
connections[0].recv()
""",
    "a daemon thread receives": """
connections = [connect() for _ in range(2)]
for one in connections:
    threading.Thread(target=lambda one=one: list(one), daemon=True).start()
time.sleep(0.1)
""",
    "another thread receives": """
connections = [connect() for _ in range(2)]
def receive(one):
    say("told", list(one))
for one in connections:
    threading.Thread(target=receive, args=(one,)).start()
time.sleep(0.1)
""",
    "forgotten": "connect(); connect()",
    "one is closed and one is not": "connect().close(); connections = [connect()]",
    "one was lost to a signal as it began": """
from wsengine.websocket.hub import Hub
class Lost: pass
lost = Lost()
Hub.join(lost)
connections = [connect()]
""",
    "an exception": "connection = connect(); raise SystemExit(0)",
}


@pytest.mark.parametrize("state", STATES)
def test_an_exit_with_open_connections_ends_at_once_and_tells_the_servers_1001(child, server, state):
    one = child("import wsengine\n" + f"connect = lambda: wsengine.connect({server.url!r})\n" + STATES[state]
                .replace("connections =", "global_list = connections =") + "\nsay('end')\n")
    status, out, errors = one.end()
    assert (status, errors) == (0, "")
    if state == "another thread receives":
        assert out.count("told []") == 2
    records = server.wait(lambda records: records and not any(one.open for one in records))
    expected = [1001] * len(records)
    if state == "one is closed and one is not":
        expected[0] = 1000
    assert [closes(one) for one in records] == [[code] for code in expected]


def test_an_exit_with_a_full_queue_ends_at_once_and_tells_the_server_1001(child):
    with Feed.trades(size=4096) as feed:
        one = child(f"""
            import wsengine
            connection = wsengine.connect({feed.url!r}, max_queue=8)
            while not connection.paused:
                time.sleep(0.01)
            """)
        assert one.end()[0] == 0
        log = feed.wait(lambda log: not log.connections[0].open)
    assert log.connections[0].close_code == 1001


def test_an_exit_while_a_close_waits_for_a_server_that_does_not_answer_does_not_wait_for_it(child):
    with ScriptedServer([[steps.accept(), steps.read_until_close(20), steps.stall()]]) as server:
        one = child(f"""
            import wsengine
            connection = wsengine.connect({server.url!r}, close_timeout=120)
            threading.Thread(target=connection.close).start()
            time.sleep(0.3)
            """)
        status, _, errors = one.end()
    assert (status, errors) == (0, "")


def test_an_exit_with_a_connection_over_tls_that_is_open_tells_the_server_1001(path, child, certificates):
    with ScriptedServer([[steps.accept(), steps.serve()]], tls=certificates.server()) as server:
        one = child(f"""
            import ssl, wsengine
            connection = wsengine.connect({server.url!r}, ssl=ssl.create_default_context(cafile={certificates.ca_file!r}))
            say(connection.tls_path)
            """)
        status, out, errors = one.end()
        assert (status, out.strip()) == (0, path), errors
        [record] = server.wait_ended(1)
    assert closes(record) == [1001]


# ------------------------------------------------------------------------------------------------------------------- fork


def test_after_a_fork_the_child_is_refused_by_name_and_the_parent_goes_on(child, server):
    one = child(f"""
        import wsengine
        connection = wsengine.connect({server.url!r})
        other = wsengine.connect({server.url!r})
        connection.send("before"); other.send("x")
        while connection.counts()["messages"] + other.counts()["messages"] < 2:
            time.sleep(0.01)
        receiving = threading.Thread(target=lambda: say("receiver got", connection.recv(), connection.recv()))
        receiving.start()
        while connection._outlet.waiting:
            time.sleep(0.01)
        time.sleep(0.1)                       # it waits, with its lock held, when the process forks
        pid = os.fork()
        if pid == 0:
            for call in (lambda: connection.recv(), lambda: other.recv(0), lambda: connection.send("from the child"),
                         lambda: connection.ping(), lambda: connection.close(), lambda: next(iter(other))):
                try:
                    call()
                    say("not refused")
                except wsengine.ForkedProcessError as error:
                    say("refused")
            with wsengine.connect({server.url!r}) as own:
                own.send("the child's own")
                say(own.recv(10))
            say("child ends")
            sys.exit(0)
        say("status", os.waitpid(pid, 0)[1])
        connection.send("after")
        receiving.join()
        say(other.recv(10))
        connection.close(); other.close()
        say("parent", connection.close_code, other.close_code)
        """)
    status, out, errors = one.end(40)
    lines = out.splitlines()
    assert status == 0, errors
    assert errors == ""
    assert lines[:6] == ["refused"] * 6
    assert lines[6:] == ["the child's own", "child ends", "status 0", "receiver got before after", "x", "parent 1000 1000"]
    frames = [frame.payload for record in server.connections for frame in record.frames if frame.opcode == 1]
    assert b"from the child" not in frames


def test_a_child_that_leaves_the_block_or_is_in_the_midst_of_messages_ends_quietly(child):
    frame = build_server_frame(2, b"y" * 200_000)
    script = [steps.accept(), steps.send(frame[:100_000]), steps.receive(), steps.send(frame[100_000:]), steps.serve()]
    with ScriptedServer([script]) as server:
        one = child(f"""
            import gc, wsengine
            with wsengine.connect({server.url!r}) as connection:
                time.sleep(0.3)
                pid = os.fork()
                if pid == 0:
                    sys.exit(0)
                say("status", os.waitpid(pid, 0)[1])
                pid = os.fork()
                if pid == 0:
                    del connection
                    gc.collect()
                    os._exit(0)
                say("status", os.waitpid(pid, 0)[1])
                connection.send("on")
                assert connection.recv(10) == b"y" * 200_000
            """)
        status, out, errors = one.end()
        assert (status, out.splitlines(), errors) == (0, ["status 0", "status 0"], "")
        [record] = server.wait_ended(1)
    assert [one.opcode for one in record.frames] == [1, 8]


def test_forks_while_threads_connect_and_close_leave_children_that_can_connect(child, server):
    one = child(f"""
        import wsengine
        wsengine.connect({server.url!r}).close()   # a fork while another thread imports leaves the module's lock held
        over = threading.Event()
        def work():
            while not over.is_set():
                with wsengine.connect({server.url!r}) as connection:
                    connection.send("x")
                    connection.recv()
        threads = [threading.Thread(target=work) for _ in range(3)]
        for one in threads: one.start()
        for _ in range(10):
            time.sleep(0.05)
            pid = os.fork()
            if pid == 0:
                signal.alarm(15)
                with wsengine.connect({server.url!r}, proxy=None) as connection:
                    connection.send("own")
                    connection.recv(10)
                os._exit(0)
            say(os.waitpid(pid, 0)[1])
        over.set()
        for one in threads: one.join()
        """)
    status, out, errors = one.end(120)
    assert (status, out.split()) == (0, ["0"] * 10), errors
