"""What several tests of connections ask for: both paths of TLS. Servers, and what they serve, stand with the tests."""

from __future__ import annotations

import ssl

import pytest

from wsengine.engine import tls as engine_tls


@pytest.fixture(params=["A", "B"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both paths of TLS, one after the other; B is forced by the variable that users have for it."""
    chosen: str = request.param
    if chosen == "B":
        monkeypatch.setenv(engine_tls.FORCED, "B")
    elif reason := engine_tls.why_not(ssl.create_default_context()):
        pytest.skip(f"no path A here: {reason}")
    return chosen
