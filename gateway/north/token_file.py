"""A token that the gateway shows to a server, in a file that only the gateway can read.

It is read when it is needed, so it may be changed while the gateway runs.
"""

from pathlib import Path

from update.errors import ConfigurationError
from update.provided import read_provided

_MOST_CHARACTERS = 4096


def read_token(file: Path) -> str:
    """The token in `file`. Errors: `ConfigurationError`."""
    token = read_provided(file).decode(errors="replace").strip()
    if not token.isascii() or not token.isprintable() or not 0 < len(token) <= _MOST_CHARACTERS or " " in token:
        raise ConfigurationError(f"{file} holds no token: one line of up to {_MOST_CHARACTERS} characters without blanks")
    return token
