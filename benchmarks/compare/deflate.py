"""Compressed recorded feeds, against `websockets` sync: `python -m benchmarks.compare.deflate RECORDING... [--rounds N]`.

The server has compressed everything before it sends, with the context taken over. Rounds alternate, each client in a process
of its own; ratios are of a round, and their spread is printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

CLIENTS = ("wsengine", "connect", "websockets")


def measure(client: str, recording: Path, count: int) -> dict[str, float]:
    """One run of one client."""
    server = subprocess.Popen([sys.executable, "-m", "benchmarks.drivers.deflate_server", str(recording),
                               "--count", str(count)], stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout is not None
        port, size, wire = map(int, server.stdout.readline().split())
        done = subprocess.run([sys.executable, "-m", "benchmarks.drivers.deflate_client", client, f"ws://127.0.0.1:{port}/",
                               "--count", str(count)], stdout=subprocess.PIPE, text=True, check=True)
        server.terminate()
    return {**json.loads(done.stdout), "ratio": size / wire}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recordings", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=200_000)
    options = parser.parse_args()
    for recording in options.recordings:
        rates: dict[str, list[float]] = {client: [] for client in CLIENTS}
        for number in range(options.rounds):
            one = {client: measure(client, recording, options.count) for client in CLIENTS[::1 if number % 2 else -1]}
            for client in CLIENTS:
                rates[client].append(one["websockets"]["seconds"] / one[client]["seconds"])
            print(f"{recording.name} ({one['connect']['ratio']:.1f}:1) round {number + 1}: " + ", ".join(
                f"{client} {options.count / one[client]['seconds'] / 1e6:.3f} M/s" for client in CLIENTS), flush=True)
        for client in CLIENTS[:2]:
            ratios = rates[client]
            print(f"{recording.name}: {client} {statistics.median(ratios):.2f} x websockets "
                  f"({min(ratios):.2f}-{max(ratios):.2f})")


if __name__ == "__main__":
    main()
