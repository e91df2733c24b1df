"""A flood of 300 B over TLS, by path A, which decrypts without the GIL, and by path B, where Python's ssl does. The server
has encrypted everything before. Figures are in extra_info. Beside picows: compare.tls."""

from argparse import Namespace
from pathlib import Path

import pytest

from benchmarks.compare.tls import measure

trustme = pytest.importorskip("trustme", reason="it makes the certificates: pip install 'wsengine[bench]'")

COUNT, SIZE = 300_000, 300
PATHS = {"path-A": {}, "path-B": {"WSENGINE_TLS_PATH": "B"}}


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """The server's certificate with its key, and the authority's."""
    folder, authority = tmp_path_factory.mktemp("certificates"), trustme.CA()
    server, ca = Path(folder, "server.pem"), Path(folder, "ca.pem")
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(server))
    authority.cert_pem.write_to_path(str(ca))
    return server, ca


@pytest.mark.parametrize("environment", PATHS.values(), ids=PATHS)
@pytest.mark.parametrize("coalesce", [1, 0], ids=["coalesced", "a record each"])
def test_messages_over_tls(benchmark, certificates, coalesce, environment):
    options = Namespace(size=SIZE, count=COUNT, coalesce=coalesce, environment=environment)
    found = benchmark.pedantic(measure, args=("wsengine", *certificates, options), rounds=1, iterations=1)
    benchmark.extra_info.update({
        "messages_per_second": COUNT / found["seconds"], "cpu_seconds_per_million": found["cpu"] * 1e6 / COUNT,
        "tls_path": found["tls_path"]})
    assert found["tls_path"] == ("B" if environment else "A")
