"""An operator's word that one medium may be past its expiry: taken once, with a reason, within what the site allows at most.

1. Only the expiry of timestamp and snapshot is passed over, and only by as much as `media.stale_grace_s` says (0: never). Root
   and targets, signatures, thresholds, versions, the floor and the hardware are judged as ever.
2. A permission is for the next visit of the medium that it names, and is used up by it, whether or not it was needed.
3. Who gave it and why goes into the log, into the answer about the visit, and into its report.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from media.intake import media_in
from update.durable import Disk
from update.errors import ForbiddenError, NotFoundError, UsageError
from update.store.journal import Journal

_LOG = logging.getLogger(__name__)

FILE: Final = "stale-permits.json"
MAX_REASON: Final = 200


@dataclass(frozen=True, slots=True)
class Permit:
    """By how much a medium may be past its expiry, and who says so why."""

    grace: timedelta = timedelta()
    words: str = ""


class StalePermits:
    """Kept in the folder `state`; `intake` says which media there are."""

    def __init__(self, disk: Disk, state: Path, intake: Path, *, grace_s: int) -> None:
        self._disk = disk
        self._journal = Journal(disk, state / FILE)
        self._intake = intake
        self._grace = timedelta(seconds=grace_s)

    def allow(self, medium: str, reason: str, who: str) -> None:
        """Permit it for the next visit. Errors: `ForbiddenError`, `NotFoundError`, `UsageError` without a reason."""
        if not self._grace:
            raise ForbiddenError("media.stale_grace_s is 0: nothing past its expiry is ever accepted here")
        if not reason.strip():
            raise UsageError("a medium past its expiry is accepted for a reason: give --reason")
        known = [each.medium for each in media_in(self._disk, self._intake)]
        if medium not in known:
            raise NotFoundError(f"no medium {medium[:80]!r} was ever here; there are: {', '.join(known) or 'none'}")
        words = f"{who}: {reason}"[:MAX_REASON]
        self._journal.write({**self._read(), medium: words})
        _LOG.warning("medium %s may be up to %s past its expiry at its next visit, says %s", medium, self._grace, words)

    def take(self, medium: str) -> Permit:
        """What is permitted to this visit; it is used up."""
        permits = dict(self._read())
        words = permits.pop(medium, "")
        if not words or not self._grace:
            return Permit()
        self._journal.write(permits)
        return Permit(self._grace, words)

    def _read(self) -> Mapping[str, str]:
        return {name: str(words) for name, words in (self._journal.read() or {}).items()}
