"""Which stored bundles were found to be one release, over a restart: a node in the middle of a delta must find its URL again.

Only the finding is kept; each bundle is proved again before anything of it is served. Losing it costs the comparison, so damage
and a full disk are logged and nothing more.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Final

from gateway.database.records import Release
from update.digest import parse_digest
from update.errors import CorruptError, FormatVersionError, LimitError, ProtocolError, StoreError
from update.store.journal import Journal, JsonValue
from update.trust.verified import Provenance

_LOG = logging.getLogger(__name__)

MAX_PAIRS: Final = 256
Pair = tuple[Release, Release]
"""The whole bundle, and the delta."""


class JoinedPairs:
    """The pairs in one journal; without one, nothing outlives the process."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._journal = journal

    def read(self) -> tuple[Pair, ...]:
        """What was written last."""
        try:
            body = None if self._journal is None else self._journal.read()
            return () if body is None else _pairs(body.get("pairs"))
        except (CorruptError, FormatVersionError, ProtocolError) as error:
            _LOG.warning("which bundles are one release is lost and is found out again: %s (%s)", error, error.code)
            return ()

    def write(self, pairs: Sequence[Pair]) -> None:
        """Make the last ones durable."""
        if self._journal is None:
            return
        kept = [{"whole": _kept(whole), "delta": _kept(delta)} for whole, delta in pairs[-MAX_PAIRS:]]
        try:
            self._journal.write({"pairs": kept})
        except (StoreError, LimitError) as error:
            _LOG.warning("which bundles are one release is not kept: %s (%s)", error, error.code)


def _kept(release: Release) -> Mapping[str, JsonValue]:
    return {
        "repository": release.repository,
        "path": release.path,
        "sha256": release.sha256,
        "length": release.length,
        "version": release.version,
        "provenance": release.provenance.value,
    }


def _pairs(entries: JsonValue) -> tuple[Pair, ...]:
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        raise CorruptError(f"joined bundles: 'pairs' is a {type(entries).__name__}, not a list")
    return tuple((_release(entry, "whole"), _release(entry, "delta")) for entry in entries[:MAX_PAIRS])


def _release(entry: JsonValue, form: str) -> Release:
    found = entry.get(form) if isinstance(entry, Mapping) else None
    if isinstance(found, Mapping):
        match [found.get(key) for key in ("repository", "path", "sha256", "length", "version", "provenance")]:
            case [str(repository), str(path), str(sha256), int(length), str(version), "cms" | "tuf" as provenance]:
                return Release(repository, path, parse_digest(sha256), length, version, Provenance(provenance))
    raise CorruptError(f"joined bundles: no {form} bundle in {str(entry)[:80]}")
