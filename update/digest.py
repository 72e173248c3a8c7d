"""SHA-256 digests as text: 64 lower-case hexadecimal digits, the one spelling used in names, metadata and messages."""

import hashlib
import re
from pathlib import Path
from typing import NewType

from update.errors import MetadataError

Digest = NewType("Digest", str)

_FORM = re.compile(r"[0-9a-f]{64}", re.ASCII)
_BLOCK_BYTES = 1 << 20


def parse_digest(text: str) -> Digest:
    """Accept exactly 64 lower-case hexadecimal digits; `MetadataError` otherwise."""
    if not _FORM.fullmatch(text):
        raise MetadataError(f"not a SHA-256 digest (64 lower-case hexadecimal digits): {text[:80]!r}")
    return Digest(text)


def digest_of(data: bytes | memoryview) -> Digest:
    """Digest of bytes in memory."""
    return Digest(hashlib.sha256(data).hexdigest())


def digest_file(path: Path) -> tuple[Digest, int]:
    """Digest and length in bytes of a file, read in blocks of 1 MiB."""
    state, length = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            state.update(block)
            length += len(block)
    return Digest(state.hexdigest()), length
