"""json.loads over a recording in memory, in a plain loop: what parsing costs where there is no engine at all."""

from __future__ import annotations

import argparse
import json
import threading

from wsengine.testing import load_recording
from wsengine.testing.peers.window import Tally, measure, report


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recording", help="path of a recorded feed")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warmup", type=float, default=0.5)
    options = parser.parse_args()
    payloads = load_recording(options.recording).payloads
    tally = Tally()
    ended = threading.Event()

    def loop() -> None:
        loads = json.loads
        while not ended.is_set():
            for payload in payloads:
                tally.messages += 1
                tally.size += len(payload)
                loads(payload)

    thread = threading.Thread(target=loop, name="loop")
    thread.start()
    try:
        result = measure(tally.read, tally.latencies, seconds=options.seconds, warmup=options.warmup)
    finally:
        ended.set()
        thread.join()
    report(result, {"client": "a plain loop", "payloads": len(payloads)})


if __name__ == "__main__":
    main()
