"""A small JSON object on disk that is replaced as a whole: the journal of a state machine, a record beside a file.

The file holds one line, `{"body": {...}, "checksum": "<sha256 of the body>", "format_version": 1}`, with the body in
canonical form (sorted keys, no blanks, ASCII). Version 2 has the same form: it is written where the body says what a reader
of version 1 would ignore and must not, and nowhere else. It is written by `Disk.write_file`: a reader finds the old or the new
object. A checksum that does not fit is damage, never a first start: the caller decides what to do about a lost record.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from update.digest import digest_of
from update.durable import Disk
from update.errors import CorruptError, FormatVersionError, LimitError

JsonValue: TypeAlias = "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
FORMAT_VERSION = 2
_OLDEST = 1
MAX_BYTES = 1 << 20
_MEMBERS = frozenset({"body", "checksum", "format_version"})


class Journal:
    """One object at one path. The folder must exist."""

    def __init__(self, disk: Disk, path: Path, *, mode: int = 0o644) -> None:
        self.path = path
        self._disk = disk
        self._mode = mode

    def read(self) -> Mapping[str, JsonValue] | None:
        """The object last written, None if there never was one or it was cleared.

        Errors: `CorruptError` for damage, `FormatVersionError` for one that a newer release wrote.
        """
        try:
            with self.path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CorruptError(f"cannot read {self.path}: {error.strerror or error}") from error
        try:
            return decode(data)
        except (CorruptError, FormatVersionError) as error:
            raise type(error)(f"{self.path}: {error}") from error

    def write(self, body: Mapping[str, JsonValue], *, version: int = _OLDEST) -> None:
        """Replace the object durably; `LimitError` above 1 MiB, and then the old one stays.

        `version` is the oldest that a reader must know to read it rightly.
        """
        self._disk.write_file(self.path, encode(body, version), mode=self._mode)

    def clear(self) -> None:
        """Remove the object durably."""
        self._disk.remove(self.path)


def encode(body: Mapping[str, JsonValue], version: int = _OLDEST) -> bytes:
    """The line for one object."""
    checksum = digest_of(_canonical(body))
    data = _canonical({"body": body, "checksum": checksum, "format_version": version}) + b"\n"
    if len(data) > MAX_BYTES:
        raise LimitError(f"a journal of {len(data)} bytes is above the limit of {MAX_BYTES}; keep less in it")
    return data


def decode(data: bytes) -> Mapping[str, JsonValue]:
    """The object of one line; `CorruptError`, `FormatVersionError`."""
    if len(data) > MAX_BYTES:
        raise CorruptError(f"longer than {MAX_BYTES} bytes, as no journal is")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CorruptError(f"not JSON ({len(data)} bytes)") from error
    if not isinstance(document, dict):
        raise CorruptError(f"holds {type(document).__name__} instead of an object")
    version = document.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise FormatVersionError(
            f"journal version {version}, this release knows up to {FORMAT_VERSION}; install the newer one again"
        )
    body = document.get("body")
    if type(version) is not int or version < _OLDEST or document.keys() != _MEMBERS or not isinstance(body, dict):
        raise CorruptError(f"not a journal: members {sorted(document)[:5]}, version {version!r}"[:200])
    if _encoded_as_read(body) != document["checksum"]:
        raise CorruptError("its checksum does not fit its content")
    return body


def _encoded_as_read(body: Mapping[str, JsonValue]) -> str:
    try:
        return digest_of(_canonical(body))
    except (ValueError, RecursionError) as error:
        raise CorruptError("holds a value that no journal holds") from error


def _canonical(value: Mapping[str, JsonValue]) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
