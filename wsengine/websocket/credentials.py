"""Which headers are credentials, by their names: what goes neither in clear, nor into logs, nor to another origin.

Here are the rules alone. Who keeps to them: headers (in clear), redirect (another origin), response (logs).
"""

from __future__ import annotations

import re

__all__ = ["goes_to_another_origin", "is_credential"]

# Services name their keys as they like (X-Api-Key, X-Auth-Token, CF-Access-Client-Secret), so a list of names would never be
# whole. A name too many is hidden where it need not be, or asks for `allow_plaintext_credentials`; one too few gives a key
# away.
_CREDENTIAL = re.compile(r"auth|token|key|secret|cookie|session|credential|passw|signature|bearer|jwt", re.IGNORECASE)
#: Names that match and are none: what a server says of how it wants to be asked.
_CHALLENGES = ("www-authenticate",)

# Everything else stays behind: a header that we do not know may be a key under any name, and was meant for the server that
# the user named. These say what every client says to every server. Origin says for whom we speak, not who we are.
_HARMLESS = ("accept", "accept-charset", "accept-encoding", "accept-language", "cache-control", "dnt", "origin", "pragma",
             "user-agent")


def is_credential(name: str) -> bool:
    """Whether a header is a credential by its name."""
    lowered = name.lower()
    return lowered not in _CHALLENGES and (lowered.startswith("proxy-") or _CREDENTIAL.search(lowered) is not None)


def goes_to_another_origin(name: str) -> bool:
    """Whether a header of the user's may follow a redirect to another scheme, host or port."""
    return name.lower() in _HARMLESS
