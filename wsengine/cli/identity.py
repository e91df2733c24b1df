"""The certificate by which `tail` and `doctor` show who they are (mTLS): --cert and --key, and what is wrong with them.

Whom we trust stands in server.py. OpenSSL says of two files together that something is wrong, and asks for a passphrase on
the terminal; here each file gets an error of its own, and nobody is asked.
"""

from __future__ import annotations

import ssl
from typing import NoReturn

from wsengine.errors import ConfigurationError

__all__ = ["check_readable", "load_certificate"]

#: Reasons for which OpenSSL refuses a certificate that it can read.
_REFUSED = ("EE_KEY_TOO_SMALL", "CA_KEY_TOO_SMALL", "CA_MD_TOO_WEAK")


class _Encrypted(Exception):
    """The private key is, and there is no passphrase."""


def _no_passphrase() -> NoReturn:
    raise _Encrypted


def load_certificate(context: ssl.SSLContext, cert: str, key: str | None) -> None:
    """Have the context show a certificate; a `key` of None is in the same file.

    Raises:
        ConfigurationError: a file cannot be read, or does not hold what it should.
    """
    holder = ("cert", cert) if key is None else ("key", key)
    check_readable("cert", cert)
    check_readable(*holder)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cert)  # without the key, to know which file is wrong
    except ssl.SSLError:
        raise ConfigurationError("cert", cert, "it holds no certificate in PEM") from None
    try:
        context.load_cert_chain(cert, key, _no_passphrase)
    except _Encrypted:
        raise ConfigurationError(*holder, "the key is encrypted; decrypt it into a file that only you can read "
                                          "(openssl pkey -in FILE -out FILE)") from None
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise ConfigurationError(*holder, f"it is not the key of the certificate in {cert}") from None
        if error.reason in _REFUSED:
            raise ConfigurationError("cert", cert, f"OpenSSL does not take it ({error.reason})") from None
        remedy = "; give the file that does by --key" if key is None else ""
        raise ConfigurationError(*holder, f"it holds no private key in PEM{remedy}") from None


def check_readable(name: str, path: str) -> None:
    """Raise ConfigurationError if a file cannot be read; `name` is the option's."""
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ConfigurationError(name, path, f"the file cannot be read ({error.strerror})") from None
    except ValueError:
        raise ConfigurationError(name, path, "it is no path of a file") from None
