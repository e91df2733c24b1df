"""The process of the Autobahn fuzzing server. This file alone runs on Python 2.7 (and is not imported by anything).

Its argument is a specification as JSON: what `wstest -s` takes, with `key` and `cert` for TLS. Unlike `wstest` it listens on
the loopback interface only, on a port that the system chooses; it prints one line of JSON with the port and the cases that
will be run, and it ends when its standard input does, so that no server outlives its starter.
"""

import autobahntestsuite.choosereactor  # noqa: F401, I001  it must come before all of Twisted

import json
import os
import sys

from autobahntestsuite.fuzzing import FuzzingServerFactory
from twisted.internet import protocol, reactor, ssl, stdio

LOOPBACK = "127.0.0.1"


class EndWithInput(protocol.Protocol):
    """Stops the server when the pipe from the starter is closed."""

    def connectionLost(self, reason):
        if reactor.running:
            reactor.stop()


def main():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the suite prints a line for each case; the answer goes alone
    specification = json.loads(sys.argv[1])
    secure = "cert" in specification
    specification["url"] = ("wss://%s:1" if secure else "ws://%s:1") % LOOPBACK
    factory = FuzzingServerFactory(specification)
    if secure:
        context = ssl.DefaultOpenSSLContextFactory(str(specification["key"]), str(specification["cert"]))
        port = reactor.listenSSL(0, factory, context, interface=LOOPBACK)
    else:
        port = reactor.listenTCP(0, factory, interface=LOOPBACK)
    # The suite compares the Host header with the port of its url, which was not known before.
    factory.port = factory.externalPort = port.getHost().port
    stdio.StandardIO(EndWithInput())
    answers.write(json.dumps({"port": factory.port, "cases": factory.specCases}) + "\n")
    answers.close()
    reactor.run()


if __name__ == "__main__":
    main()
