"""The table of a benchmark, made of rounds whose figures are known."""

from __future__ import annotations

import json

import pytest

from wsengine.bench.case import Case
from wsengine.bench.rounds import Entry, Failure
from wsengine.bench.table import lines, summary

ROLES = {"reader": 0.1, "processor": 0.2, "supervisor": 0.05}


def a_round(rate, *, server=0.5, machine=0.3, client="wsengine", **more):
    return {
        "messages": 1000, "bytes": 128_000, "seconds": 1.0, "messages_per_second": rate, "bytes_per_second": rate * 128,
        "cpu_seconds": 0.1, "cpu_seconds_per_million": 1e6 / rate, "rss_bytes": 50 * 2**20, "machine_idle_share": machine,
        "cpu_seconds_per_million_by_role": ROLES if client == "wsengine" else {},
        "server_idle_share": server, "settings": {"client": client, "version": "1.0"}, **more}


ENTRIES = [Entry("one", Case()), Entry("picows", Case(), "picows")]


@pytest.fixture
def found():
    ours = [a_round(4e6, p50_us=10.0, p99_us=20.0, p999_us=30.0, dropped=0),
            a_round(2e6, p50_us=14.0, p99_us=22.0, p999_us=34.0, dropped=0)]
    theirs = [a_round(1e6, client="picows"), a_round(2e6, client="picows")]
    return summary({"rounds": 2}, ENTRIES, {"one": ours, "picows": theirs})


def test_medians_spreads_and_ratios_are_of_the_rounds(found):
    one, peer = found["entries"]["one"], found["entries"]["picows"]
    assert one["spread"]["messages_per_second"] == {"median": 3e6, "least": 2e6, "greatest": 4e6}
    assert one["spread"]["p50_us"]["median"] == 12.0
    assert one["roles"]["reader"]["median"] == 0.1
    assert one["ratios"] == {}
    assert peer["over"] == "one"
    assert peer["ratios"]["messages_per_second"] == {"median": 2.5, "least": 1.0, "greatest": 4.0}
    assert json.loads(json.dumps(found)) == found


def test_a_line_has_a_figure_under_each_heading(found):
    shown = list(lines(found))
    at = next(number for number, line in enumerate(shown) if "msg/s" in line)
    headings = ["msg/s", "±", "MB/s", "CPU", "reader", "processor", "others", "p50 µs", "p99 µs", "p99.9 µs", "RSS MiB",
                "dropped", "server idle"]
    ends = [shown[at].index(heading) + len(heading) for heading in headings]
    row = next(line for line in shown[at:] if line.startswith("one"))
    figures = [row[:end].split()[-1] for end in ends]
    assert figures == ["3,000,000", "33%", "384.0", "0.375", "0.100", "0.200", "0.050", "12.0", "21.0", "32.0", "50", "0",
                       "50%"]


def test_the_settings_of_a_peer_are_printed_and_the_ratio_to_it(found):
    shown = "\n".join(lines(found))
    assert "picows: version=1.0" in shown
    assert "2.50 (1.00 … 4.00) ×" in shown
    assert "WARNING" not in shown


def test_it_warns_where_the_machine_or_the_server_set_the_figure():
    rounds = {"one": [a_round(1e6, machine=0.01), a_round(1e6)], "picows": [a_round(1e6, server=0.02, client="picows")] * 2}
    found = summary({}, ENTRIES, rounds)
    assert found["entries"]["one"]["rounds_set_by"] == {"machine": 1, "server": 0}
    machine, server = [[line for line in lines(found) if f"the {by}, not the engine" in line]
                       for by in ("machine", "server")]
    assert len(machine) == len(server) == 1
    assert "one (1 of 2 rounds)" in machine[0]
    assert "picows (2 of 2 rounds)" in server[0]


def test_it_warns_where_the_figure_is_of_something_else():
    rounds = [a_round(1e6, failed=3, reconnects=0), a_round(1e6, failed=1000, reconnects=2)]
    found = summary({}, ENTRIES[:1], {"one": rounds})
    assert [line for line in lines(found) if "WARNING" in line] == [
        "WARNING  one: 1,003 messages failed in the handler", "WARNING  one: 2 times the connection was made anew"]


def test_who_has_failed_is_in_the_table_and_has_no_figures():
    rounds = {"one": [a_round(2e6), a_round(2e6)], "picows": [a_round(1e6, client="picows")]}
    found = summary({}, ENTRIES, rounds, {"picows": Failure(2, "status 1: it fell over")})
    assert found["entries"]["one"]["failure"] is None
    failed = found["entries"]["picows"]
    assert failed["failure"] == {"round": 2, "reason": "status 1: it fell over"}
    assert failed["client"] == "picows"
    # Those before stay, and nothing is made of them.
    assert [one["messages_per_second"] for one in failed["rounds"]] == [1e6]
    assert "spread" not in failed
    shown = list(lines(found))
    assert next(line for line in shown if line.startswith("picows ")).split() == ["picows", "failed"]
    assert "FAILED  picows in round 2: status 1: it fell over" in shown
    assert not any("one over picows" in line for line in shown)


def test_ratios_are_over_the_first_that_has_figures():
    entries = [Entry("one", Case()), Entry("two", Case()), Entry("picows", Case(), "picows")]
    rounds = {"one": [], "two": [a_round(3e6)], "picows": [a_round(1e6, client="picows")]}
    found = summary({}, entries, rounds, {"one": Failure(1, "no")})
    assert found["entries"]["one"]["settings"] == {}
    assert found["entries"]["picows"]["over"] == "two"
    assert "two over picows" in "\n".join(lines(found))


def test_a_figure_that_only_some_rounds_have_is_of_those():
    found = summary({}, ENTRIES[:1], {"one": [a_round(1e6), a_round(1e6, p50_us=5.0), a_round(1e6, p50_us=7.0)]})
    assert found["entries"]["one"]["spread"]["p50_us"] == {"median": 6.0, "least": 5.0, "greatest": 7.0}


@pytest.mark.parametrize(("usable", "said"), [(8, "8 cores, "), (1.5, "1.5 of 8 cores, ")])
def test_the_cores_are_those_that_may_be_used(found, usable, said):
    found["machine"] |= {"cores": 8, "usable_cores": usable}
    assert next(lines(found)).startswith(said)


def test_ratios_are_of_messages_of_one_size():
    entries = [Entry("small", Case()), Entry("large", Case(size=1024)), Entry("picows large", Case(size=1024), "picows")]
    rounds = {"small": [a_round(9e6)], "large": [a_round(2e6)], "picows large": [a_round(1e6, client="picows")]}
    found = summary({}, entries, rounds)
    assert found["entries"]["picows large"]["over"] == "large"
    assert found["entries"]["picows large"]["ratios"]["messages_per_second"]["median"] == 2.0
    assert "large over picows large" in "\n".join(lines(found))


def test_latencies_that_are_not_of_stamps_are_marked():
    one = a_round(1e6, p50_us=7.0)
    one["settings"]["stamped"] = "no"
    shown = "\n".join(lines(summary({}, ENTRIES[:1], {"one": [one]})))
    assert "~7.0" in shown
    assert "~ from receive to acknowledgement" in shown


def test_a_server_of_which_nothing_is_known_is_not_blamed():
    found = summary({}, ENTRIES[:1], {"one": [a_round(1e6, server=None)]})
    assert found["entries"]["one"]["rounds_set_by"] == {"machine": 0, "server": 0}
    assert not any("WARNING" in line for line in lines(found))
