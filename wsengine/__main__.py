"""`python -m wsengine`: the same as the command `wsengine`, and nothing of its own."""

from __future__ import annotations

import sys

from wsengine.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
