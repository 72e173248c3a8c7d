"""What tus 1.0.0 writes into headers, read strictly; and which paths a push may name.

- `Upload-Metadata` (creation): pairs of a key and the base64 of its value, between commas.
- `Upload-Checksum` (checksum): the name of an algorithm and the base64 of the digest.
- Numbers are decimal and not negative; one that is missing or malformed is refused, never guessed.

Paths are those of a repository, percent-encoded (`metadata/3.targets.json`, `targets/os/<sha256>.a.swu`), or the name of a single
bundle. They are labels: no file of the gateway is ever named by them.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from update.errors import ProtocolError
from update.wire.push_messages import MAX_PATH_BYTES

MAX_METADATA_BYTES: Final = 4096
ALGORITHMS: Final = ("sha256", "sha1")
"""The protocol demands that sha1 be known; either only says that nothing was lost on the way, and proves nothing else."""
_NUMBER: Final = re.compile(r"[0-9]{1,18}", re.ASCII)
_KEY: Final = re.compile(r"[!-+\--~]{1,64}", re.ASCII)
_PATH: Final = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%/-]+", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Checksum:
    """What a part must have arrived as."""

    algorithm: str
    digest: bytes

    def hasher(self) -> "hashlib._Hash":
        """A fresh one of its algorithm."""
        return hashlib.new(self.algorithm, usedforsecurity=False)


def number(headers: Mapping[str, str], name: str) -> int:
    """A header that is a number of bytes. Errors: `ProtocolError`."""
    text = headers.get(name, "")
    if not _NUMBER.fullmatch(text):
        raise ProtocolError(f"{name} is a number of bytes, got {text[:40]!r}")
    return int(text)


def metadata(headers: Mapping[str, str]) -> dict[str, str]:
    """What `Upload-Metadata` says. Errors: `ProtocolError`."""
    text = headers.get("Upload-Metadata", "")
    if len(text) > MAX_METADATA_BYTES:
        raise ProtocolError(f"Upload-Metadata has {len(text)} bytes, at most {MAX_METADATA_BYTES} are read")
    found: dict[str, str] = {}
    for pair in filter(None, (each.strip() for each in text.split(","))):
        key, _, value = pair.partition(" ")
        try:
            decoded = base64.b64decode(value, validate=True).decode()
        except ValueError as error:
            raise ProtocolError(f"the value of {key[:40]!r} in Upload-Metadata is not the base64 of a text") from error
        if not _KEY.fullmatch(key) or key in found:
            raise ProtocolError(f"Upload-Metadata names {key[:40]!r} twice, or it is no key")
        found[key] = decoded
    return found


def checksum(headers: Mapping[str, str]) -> Checksum | None:
    """What `Upload-Checksum` says, if it is there. Errors: `ProtocolError`."""
    text = headers.get("Upload-Checksum")
    if text is None:
        return None
    algorithm, _, value = text.partition(" ")
    if algorithm not in ALGORITHMS:
        raise ProtocolError(f"Upload-Checksum by {algorithm[:40]!r}; known are {', '.join(ALGORITHMS)}")
    try:
        digest = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ProtocolError("Upload-Checksum is not base64") from error
    if len(digest) != hashlib.new(algorithm, usedforsecurity=False).digest_size:
        raise ProtocolError(f"Upload-Checksum has {len(digest)} bytes, which {algorithm} never has")
    return Checksum(algorithm, digest)


def components(path: str) -> tuple[str, ...]:
    """The decoded parts of a path that a push may name. Errors: `ProtocolError`."""
    if not _PATH.fullmatch(path) or len(path) > MAX_PATH_BYTES:
        raise ProtocolError(f"a path has 1 to {MAX_PATH_BYTES} characters and is percent-encoded, got {path[:120]!r}")
    try:
        names = tuple(unquote(part, errors="strict") for part in path.split("/"))
    except UnicodeDecodeError as error:
        raise ProtocolError(f"{path[:120]!r} does not decode to UTF-8") from error
    if any(name in {"", ".", ".."} or "/" in name or "\\" in name or _CONTROL.search(name) for name in names):
        raise ProtocolError(f"{path[:120]!r} is no path inside a repository")
    of_metadata = names[0] == "metadata" and len(names) == 2 and names[1].endswith(".json")
    if not (of_metadata or (names[0] == "targets" and len(names) > 1) or len(names) == 1):
        raise ProtocolError(f"{path[:120]!r} is neither metadata/….json, nor targets/…, nor the name of a single bundle")
    return names
