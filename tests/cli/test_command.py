"""The command itself, as a user runs it: in a process of its own, in a pipe and in a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import os
import pty
import re
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import psutil
import pytest

from wsengine.cli.main import main, version_line

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
COMMAND = [sys.executable, "-m", "wsengine"]
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run(*arguments, **options):
    """Run the command to its end, without a terminal."""
    return subprocess.run([*COMMAND, *arguments], env=ENVIRONMENT, text=True, timeout=60, stdin=subprocess.DEVNULL,
                          **{"capture_output": True, **options})


def sent_and_handled(output):
    sent = re.search(r"^sent +([\d,]+) messages", output, re.MULTILINE)
    handled = re.search(r"^handled +([\d,]+) messages", output, re.MULTILINE)
    assert sent, output
    assert handled, output
    return [int(found.group(1).replace(",", "")) for found in (sent, handled)]


def in_a_terminal(*arguments, environment=ENVIRONMENT, when=None):
    """Run the command on a pseudo-terminal; `when` gets the process and what it has shown, each time there is more."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    process = subprocess.Popen([*COMMAND, *arguments], env={"TERM": "xterm-256color", **environment}, stdin=slave,
                               stdout=slave, stderr=slave, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(slave)
    shown = b""
    try:
        with contextlib.suppress(OSError):  # Linux: the last process has closed the other side
            while data := os.read(master, 65536):
                shown += data
                if when is not None:
                    when(master, shown)
        return process.wait(30), shown.decode(errors="replace").replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(master)


# ------------------------------------------------------------------------------------------------------------ the demo

def test_the_demo_proves_its_sum_over_a_reconnect():
    done = run("demo", "--seconds", "2", "--plain")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    sent, handled = sent_and_handled(done.stdout)
    assert sent == handled > 50_000
    assert "on 2 connections" in done.stdout
    assert re.search(r"^reconnects +1$", done.stdout, re.MULTILINE)
    assert "the server now ends the connection" in done.stdout
    assert done.stdout.rstrip().endswith("none failed.")


def test_a_pipe_gets_plain_lines_once_a_second_without_being_asked():
    done = run("demo", "--seconds", "1.5", "--rate", "5000", "--no-cut")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\x1b" not in done.stdout
    lines = [line for line in done.stdout.splitlines() if " msg/s  handled " in line]
    assert len(lines) == 3  # at the start, after one second, and at the end
    assert all(re.search(r"outstanding( \d+){8}  ring ", line) for line in lines)
    assert re.search(r"round trip \d+\.\d\d ms", lines[-1])
    assert "on 1 connection," in done.stdout
    assert re.search(r"^reconnects +0$", done.stdout, re.MULTILINE)


def test_the_options_reach_feed_and_pipeline():
    done = run("demo", "--seconds", "0.6", "--plain", "--rate", "1000", "--size", "512", "--concurrency", "3",
               "--max-demand", "7", "--min-demand", "2", "--no-cut")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "sends 1,000 messages a second, of 512 bytes each. A pipeline of 3 processors" in done.stdout
    assert "max_demand 7" in done.stdout
    assert re.search(r"outstanding( \d+){3}  ring", done.stdout)
    sent, _ = sent_and_handled(done.stdout)
    assert 300 < sent < 1500
    rate, megabytes = re.search(r"^rate +([\d,]+) msg/s, ([\d.]+) MB/s", done.stdout, re.MULTILINE).groups()
    assert float(megabytes) == pytest.approx(int(rate.replace(",", "")) * 512 / 1e6, abs=0.06)


def test_flat_out_it_loses_nothing_either():
    done = run("demo", "--seconds", "0.6", "--plain", "--rate", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    sent, handled = sent_and_handled(done.stdout)
    assert sent == handled > 50_000
    assert "as many messages as the pipeline takes" in done.stdout


def test_the_port_is_the_one_that_was_asked_for():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    done = run("demo", "--seconds", "0.3", "--plain", "--port", str(port))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"ws://127.0.0.1:{port} " in done.stdout


# -------------------------------------------------------------------------------------------------------- the terminal

def test_a_terminal_gets_a_live_table():
    status, shown = in_a_terminal("demo", "--seconds", "1")
    plain = ESCAPES.sub("", shown)
    assert status == 0, plain
    assert shown.count("\x1b[") > 20  # it is redrawn in place
    for text in ("processor", "outstanding", "held", "ring", "connection", "reconnects 1", "Proven: "):
        assert text in plain
    assert "msg/s  handled" not in plain


def test_a_terminal_gets_plain_lines_with_plain():
    status, shown = in_a_terminal("demo", "--seconds", "0.3", "--plain")
    assert status == 0, shown
    assert "\x1b" not in shown
    assert "msg/s  handled" in shown


def test_a_terminal_that_cannot_redraw_gets_plain_lines():
    status, shown = in_a_terminal("demo", "--seconds", "0.3", environment={**ENVIRONMENT, "TERM": "dumb"})
    assert status == 0, shown
    assert "\x1b" not in shown
    assert "msg/s  handled" in shown


def test_without_rich_a_terminal_gets_plain_lines_and_is_told_how_to_get_more(tmp_path):
    (tmp_path / "rich").mkdir()
    (tmp_path / "rich" / "__init__.py").write_text("raise ModuleNotFoundError('no rich here', name='rich')\n")
    hidden = {**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    status, shown = in_a_terminal("demo", "--seconds", "0.3", environment=hidden)
    assert status == 0, shown
    assert "pip install 'wsengine[cli]'" in shown
    assert "msg/s  handled" in shown


# ---------------------------------------------------------------------------------------------------------- the signals

def test_ctrl_c_in_a_terminal_stops_cleanly_with_the_summary_so_far():
    pressed = []

    def press(master, shown):
        if not pressed and b"is open" in shown:
            pressed.append(time.monotonic())
            time.sleep(0.2)
            os.write(master, b"\x03")

    status, shown = in_a_terminal("demo", "--seconds", "30", when=press)
    plain = ESCAPES.sub("", shown)
    assert status == 130, plain
    assert time.monotonic() - pressed[0] < 8
    sent, handled = sent_and_handled(plain)
    assert sent == handled > 0
    assert "Proven: " in plain
    assert "Traceback" not in plain


@contextlib.contextmanager
def running_demo(*arguments):
    """The demo in a pipe, once its connection is open; it is over when the context is left."""
    with subprocess.Popen([*COMMAND, "demo", "--seconds", "30", "--plain", *arguments], env=ENVIRONMENT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        seen = ""
        while "is open" not in seen:
            line = process.stdout.readline()
            assert line, seen
            seen += line
        try:
            yield process
        finally:
            process.kill()


def test_a_second_ctrl_c_ends_it_at_once():
    with running_demo() as process:
        [server] = psutil.Process(process.pid).children()
        server.suspend()  # so that the first cannot come to its end
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        pressed = time.monotonic()
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        with contextlib.suppress(psutil.NoSuchProcess):
            server.resume()
        _, error = process.communicate(timeout=20)
        assert process.returncode == 130
        assert time.monotonic() - pressed < 5
        assert error == "wsengine demo: ended at once, without a summary\n"
        assert not server.is_running()


def test_a_server_that_dies_is_one_clear_line_and_1():
    with running_demo("--seconds", "1") as process:
        [server] = psutil.Process(process.pid).children()
        server.kill()
        _, error = process.communicate(timeout=20)
        assert process.returncode == 1
        assert error.startswith("wsengine demo: feed_server ended by itself with status -9")
        assert error.count("\n") == 1


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_stops_cleanly_with_the_summary_so_far(number, status):
    with running_demo() as process:
        time.sleep(0.2)
        process.send_signal(number)
        out, error = process.communicate(timeout=20)
    assert process.returncode == status
    assert error == ""
    sent, handled = sent_and_handled(out)
    assert sent == handled > 0
    assert "Proven: " in out


def test_a_reader_that_goes_away_ends_it_without_a_traceback():
    with subprocess.Popen([*COMMAND, "demo", "--seconds", "3", "--plain"], env=ENVIRONMENT, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        error = process.stderr.read()
        assert process.wait(20) == 141
    assert error == ""


# ------------------------------------------------------------------------------------------------------ wrong options

@pytest.mark.parametrize(("arguments", "expected"), [
    (["--seconds", "soon"], "--seconds: 'soon' is not a number"),
    (["--seconds", "0"], "--seconds: '0' does not do; give seconds above 0"),
    (["--seconds", "inf"], "--seconds: 'inf' is not a number"),
    (["--concurrency", "0"], "--concurrency 0: give a whole number from 1 to 1024"),
    (["--concurrency", "2.5"], "--concurrency: '2.5' is not a whole number"),
    (["--max-demand", "0"], "--max-demand 0: give a whole number from 1 to 65536"),
    (["--min-demand", "100"], "--min-demand 100: give a number below --max-demand 100"),
    (["--rate", "-1"], "--rate: '-1' does not do; give messages a second"),
    (["--rate", "fast"], "--rate: 'fast' is not a number"),
    (["--size", "95"], "--size 95: give a whole number from 96 to 1048576"),
    (["--size", "1048577"], "--size 1048577: give a whole number from 96 to 1048576"),
    (["--port", "65536"], "--port 65536: give a whole number from 0 to 65535"),
    (["--port", "-1"], "--port -1: give a whole number from 0 to 65535"),
    (["--colour"], "unrecognized arguments: --colour"),
    (["--sec", "1"], "unrecognized arguments: --sec"),
])
def test_a_wrong_option_is_one_clear_line_and_2(arguments, expected, capfd):
    try:
        status = main(["demo", *arguments])
    except SystemExit as end:
        status = end.code
    out, error = capfd.readouterr()
    assert status == 2
    assert out == ""
    assert expected in error
    assert error.count("\n") == 1


def test_the_process_ends_with_2_too():
    done = run("demo", "--concurrency", "0")
    assert done.returncode == 2
    assert done.stderr == "wsengine demo: --concurrency 0: give a whole number from 1 to 1024\n"


def test_a_port_in_use_is_one_clear_line_and_2():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run("demo", "--port", str(port))
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"wsengine demo: --port {port}: cannot listen on it")
    assert done.stderr.count("\n") == 1


def test_an_unknown_command_is_one_clear_line_and_2():
    done = run("dmeo")
    assert done.returncode == 2
    assert "dmeo" in done.stderr
    assert done.stderr.count("\n") == 1


# ------------------------------------------------------------------------------------------------------ help and version

def test_without_a_command_it_explains_itself():
    done = run()
    assert done.returncode == 0
    assert "demo" in done.stdout
    assert "--version" in done.stdout


def test_help_of_the_demo_names_each_option_with_its_default():
    done = run("demo", "--help")
    assert done.returncode == 0
    for option in ("--seconds", "--concurrency", "--max-demand", "--min-demand", "--rate", "--size", "--port", "--plain",
                   "--no-cut"):
        assert option in done.stdout
    for default in ("(10)", "(8)", "(100)", "(0)", "(200000)", "(128)"):
        assert default in done.stdout


def test_the_version_is_that_of_the_installed_distribution(tmp_path):
    folder = tmp_path / "wsengine-98.7.6.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: wsengine\nVersion: 98.7.6\n")
    done = subprocess.run([*COMMAND, "--version"], capture_output=True, text=True, timeout=60, cwd=tmp_path,
                          env={**ENVIRONMENT, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    assert done.returncode == 0
    assert done.stdout.startswith("wsengine 98.7.6, Python 3.")


def test_the_version_of_sources_that_are_not_installed_says_so(monkeypatch):
    def not_installed(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", not_installed)
    assert version_line().startswith("wsengine of unknown version (it runs from its sources")


def test_a_url_in_the_place_of_the_command_is_not_shown():
    done = run("wss://user:geheim@example.com/feed?token=geheim")
    assert done.returncode == 2
    assert "argument COMMAND: invalid choice" in done.stderr
    assert "tail" in done.stderr
    assert "geheim" not in done.stderr
