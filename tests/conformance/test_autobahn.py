"""The quick part of the Autobahn test suite: all of it but sections 9, 12 and 13, which compliance/README.md runs.

The fuzzing server needs Python 2.7 and is installed by compliance/install.sh; without it these tests are skipped.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest

from wsengine.engine.tls import why_not

ROOT = Path(__file__).resolve().parents[2]
#: As in compliance/server.py, which cannot be imported without trustme.
ENVIRONMENT = Path(os.environ.get("WSENGINE_AUTOBAHN", ROOT / "compliance" / ".venv27"))

pytestmark = [
    pytest.mark.compliance,
    pytest.mark.skipif(not (ENVIRONMENT / "bin" / "python").is_file(),
                       reason="the Autobahn fuzzing server is not installed: run compliance/install.sh"),
]

#: How many cases the quick part has, and which of them only inform: on text behind a Close, and on two close codes.
QUICK = 247
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}
#: In these a message is followed at once by a frame that breaks the protocol. A failing connection stays open for 50 ms,
#: so that the echo of the message leaves before its Close; a machine that stops for longer makes NON-STRICT of OK.
BROKEN_BEHIND_A_MESSAGE = {"3.2", "3.3", "3.4", "4.1.3", "4.1.4", "4.1.5", "4.2.3", "4.2.4", "4.2.5", "5.15"}
#: Seconds; the cases' own pauses are eight of them.
LIMIT = 170


@pytest.mark.parametrize("tls", ["none", "A", "B"])
def test_the_quick_part_of_autobahn_holds(tmp_path, tls):
    if tls == "A" and (reason := why_not(ssl.create_default_context())):
        pytest.skip(f"no TLS path A: {reason}")
    verdicts = tmp_path / "verdicts.json"
    done = subprocess.run(
        [sys.executable, "-m", "compliance.run", "--quick", "--tls", tls, "--json", verdicts, "--patience", "60"],
        cwd=ROOT, capture_output=True, text=True, timeout=LIMIT, check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    (outcome,) = json.loads(verdicts.read_text())
    cases = outcome["cases"]
    bad = {one["number"]: (one["behavior"], one["closing"], one["notes"]) for one in cases if not one["holds"]}
    late = {number for number, verdict in bad.items()
            if number in BROKEN_BEHIND_A_MESSAGE and verdict[:2] == ("NON-STRICT", "OK")}
    assert {number: verdict for number, verdict in bad.items() if number not in late} == {}
    assert len(late) <= 2, f"answers leave too late in {sorted(late)}"
    assert len(cases) == QUICK
    assert {one["number"] for one in cases if one["behavior"] == "INFORMATIONAL"} == INFORMATIONAL
