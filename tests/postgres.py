"""A PostgreSQL server of Debian's package, for the example that stores into one: a cluster of its own in a temporary folder,
on a Unix socket, run by the account that the package has made, as it refuses to run as root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

__all__ = ["postgres"]

ACCOUNT = "postgres"


def _programs() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    elsewhere = shutil.which("initdb")
    if elsewhere is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    return Path(elsewhere).parent


@contextlib.contextmanager
def postgres():
    """Yields the address of a running server; skips the test, visibly, where there is none to run."""
    programs = _programs()
    as_account = []
    folder = Path(tempfile.mkdtemp(prefix="wsengine-postgres-"))
    try:
        if os.geteuid() == 0:
            try:
                account = pwd.getpwnam(ACCOUNT)
            except KeyError:
                pytest.skip(f"PostgreSQL does not run as root, and there is no account {ACCOUNT}")
            os.chown(folder, account.pw_uid, account.pw_gid)
            as_account = ["runuser", "-u", ACCOUNT, "--"]
        data = folder / "data"

        def run(*command):
            return subprocess.run([*as_account, *map(str, command)], check=True, capture_output=True, text=True, timeout=60,
                                  cwd=folder)

        run(programs / "initdb", "-D", data, "-A", "trust", "-U", "test", "--no-sync")
        run(programs / "pg_ctl", "-D", data, "-w", "-l", folder / "log", "-o",
            f"-k {folder} -c listen_addresses='' -c fsync=off", "start")
        try:
            yield f"host={folder} user=test dbname=postgres"
        finally:
            run(programs / "pg_ctl", "-D", data, "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
