import ssl

VERSIONS: tuple[tuple[int, int], ...]
FORCED: str

def why_not(context: ssl.SSLContext) -> str | None: ...
def check(sock: ssl.SSLSocket) -> str | None: ...
