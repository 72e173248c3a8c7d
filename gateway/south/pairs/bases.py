"""Finds the `.zck` that a node runs, by the digest of its zchunk header: among what is listed, and what is kept besides.

A release that is listed no more may still run on nodes, and its image is kept as long as there is room. Such a file is not
proved again: a patch is made from it chunk by chunk, each compared with its own header, and proves nothing anyway.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from gateway.south.relays import Find
from update.chunks.unpack import read_header
from update.digest import Digest, digest_of
from update.errors import BundleError
from update.store.store import Store
from update.trust.verified import TargetInfo

_log = logging.getLogger(__name__)

_SUFFIX: Final = ".zck"
_MAX_FILES: Final = 256


class Listed(Protocol):
    """What verified metadata lists: `gateway.north.mirrors.Mirrors`."""

    def repositories(self) -> Sequence[str]:
        """The configured repositories."""
        ...

    def targets(self, repository: str) -> Sequence[TargetInfo]:
        """All targets of one repository."""
        ...


class Bases:
    """`find` looks into the store. Reads files: for threads."""

    def __init__(self, listed: Listed, store: Store, find: Find) -> None:
        self._listed = listed
        self._store = store
        self._find = find
        self._headers: dict[Path, Digest | None] = {}

    def find(self, header: Digest) -> Path | None:
        """The complete file with this header; None if there is none. Errors: `StoreError`."""
        for info in self._with_header(header):
            if path := self._find(info):
                return path
        return next((path for path in self._kept() if self._header_of(path) == header), None)

    def _with_header(self, header: Digest) -> Iterator[TargetInfo]:
        for repository in self._listed.repositories():
            for info in self._listed.targets(repository):
                if info.custom.zck_header and info.custom.zck_header.sha256 == header:
                    yield info

    def _kept(self) -> Iterable[Path]:
        """Complete images, those used last first."""
        held = sorted(self._store.held(), key=lambda each: -each.last_used_s)
        return [each.file for each in held if each.file.name.endswith(_SUFFIX)][:_MAX_FILES]

    def _header_of(self, path: Path) -> Digest | None:
        """Read once: a file never changes under its name."""
        if path not in self._headers:
            try:
                with path.open("rb") as file:
                    self._headers[path] = digest_of(read_header(file).raw)
            except OSError:  # evicted a moment ago
                return None
            except BundleError as error:
                _log.debug("%s is no base of a patch: %s", path, error)
                self._headers[path] = None
        return self._headers[path]
