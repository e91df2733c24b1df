"""Both ends of a TLS connection over the loopback, for tests that are the server themselves. The servers of tests that dial
are processes of their own, and have their certificates from the `certificates` fixture.

Whoever imports this is skipped where trustme is not installed.
"""

import socket
import ssl
import threading

import pytest

__all__ = ["contexts", "tls_pair"]

trustme = pytest.importorskip("trustme", reason="trustme is not installed, which makes the certificates")
AUTHORITY = trustme.CA()
NAME = "pair.test"
CERTIFICATE = AUTHORITY.issue_cert(NAME)


def contexts(version=ssl.TLSVersion.TLSv1_3):
    """Of the client and of the server, both for one version."""
    ours, theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.configure_trust(ours)
    CERTIFICATE.configure_cert(theirs)
    for one in (ours, theirs):
        one.minimum_version = one.maximum_version = version
    return ours, theirs


def tls_pair(version=ssl.TLSVersion.TLSv1_3):
    """A client's and a server's end after the TLS handshake, the client's non-blocking."""
    ours, theirs = contexts(version)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    box = []
    thread = threading.Thread(target=lambda: box.append(theirs.wrap_socket(far, server_side=True)))
    thread.start()
    client = ours.wrap_socket(near, server_hostname=NAME)
    thread.join(10)
    [server] = box
    client.setblocking(False)
    server.settimeout(10)
    return client, server
