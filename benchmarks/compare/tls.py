"""The flood over TLS, against picows: `python -m benchmarks.compare.tls [--rounds N] [--coalesce 0|1]`.

The server has encrypted everything before it sends. Rounds alternate, each client in a process of its own; ratios are of a
round, and their spread is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path


def measure(client: str, certificate: Path, ca: Path, options: argparse.Namespace) -> dict[str, float]:
    """One run of one client."""
    server = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.drivers.encrypted_server", str(certificate), "--size", str(options.size),
         "--count", str(options.count), "--coalesce", str(options.coalesce)], stdout=subprocess.PIPE, text=True)
    with server:
        assert server.stdout is not None
        url = f"wss://127.0.0.1:{int(server.stdout.readline())}/"
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.drivers.tls_client", client, url, str(ca), "--count", str(options.count)],
            stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, **options.environment})
        result: dict[str, float] = json.loads(done.stdout)
        server.terminate()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--coalesce", type=int, default=1, choices=(0, 1))
    parser.add_argument("--path", default="A", choices=("A", "B"))
    options = parser.parse_args()
    absent = [name for name in ("trustme", "picows", "uvloop") if find_spec(name) is None]
    if absent:
        parser.error(f"not installed: {', '.join(absent)} (pip install 'wsengine[bench]')")
    import trustme

    options.environment = {"WSENGINE_TLS_PATH": "B"} if options.path == "B" else {}
    authority = trustme.CA()
    rates, cpus = [], []
    with tempfile.TemporaryDirectory() as folder:
        certificate, ca = Path(folder, "server.pem"), Path(folder, "ca.pem")
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(certificate))
        authority.cert_pem.write_to_path(str(ca))
        for number in range(options.rounds):
            order = ("wsengine", "picows") if number % 2 else ("picows", "wsengine")
            one = {client: measure(client, certificate, ca, options) for client in order}
            ours, theirs = one["wsengine"], one["picows"]
            rates.append(theirs["seconds"] / ours["seconds"])
            cpus.append(ours["cpu"] / theirs["cpu"])
            ours_rate, their_rate = (options.count / each["seconds"] / 1e6 for each in (ours, theirs))
            print(f"round {number + 1}: wsengine {ours_rate:.2f} M/s over {ours['tls_path']}, picows {their_rate:.2f} M/s: "
                  f"{rates[-1]:.2f} x, CPU {cpus[-1]:.2f} x", flush=True)
    for name, ratios in (("rate", rates), ("CPU", cpus)):
        print(f"{name}: {statistics.median(ratios):.2f} x ({min(ratios):.2f}-{max(ratios):.2f})")


if __name__ == "__main__":
    main()
