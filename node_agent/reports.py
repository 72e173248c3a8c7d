"""Reports wait here, on disk and in order, until the assigner has taken them: at least once, never silently less.

- Every report has an id that stays the same when it is queued or sent again after a crash, and a sequence number, so the
  receiver can drop doubles and see gaps.
- The queue is bounded. When it is full the oldest *progress* is dropped; a result never is.
- A new progress report of a state replaces an unsent one of the same state and action: only the latest matters.
- A damaged queue is started anew, with numbers above all earlier ones: updates go on without old reports.
"""

import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from node_agent.record import Report, reports_from_list, reports_to_list
from update.errors import CorruptError, NotFoundError, ProtocolError, UnauthorizedError, WireError
from update.store.journal import Journal, JsonValue

_LOG = logging.getLogger(__name__)
_NAMESPACE = uuid.UUID("8f0c4a52-2f2a-5d0e-9a0a-6d2f0f1c6b11")

Send = Callable[[Report], Awaitable[None]]


def report_id(*parts: object) -> str:
    """An id that is the same whenever the same thing is reported: node, action, fence and what is said."""
    return str(uuid.uuid5(_NAMESPACE, "\x1f".join(map(str, parts))))


class Reports:
    """The queue of one agent. `now_ms` stamps reports and starts the numbering, milliseconds since the epoch."""

    def __init__(self, kept: Journal, *, now_ms: Callable[[], int], limit: int = 200) -> None:
        self._kept = kept
        self._now_ms = now_ms
        self._limit = limit
        self._next, self._waiting = self._load()

    @property
    def waiting(self) -> tuple[Report, ...]:
        """What has not been taken yet, oldest first."""
        return self._waiting

    def add(self, report: Report) -> None:
        """Queue durably; one that waits already under the same id is not queued twice."""
        if any(waiting.id == report.id for waiting in self._waiting):
            return
        stamped = replace(report, sequence=self._next, time_ms=report.time_ms or self._now_ms())
        kept = tuple(waiting for waiting in self._waiting if not _replaces(stamped, waiting))
        self._save(self._next + 1, _bounded((*kept, stamped), self._limit))

    async def deliver(self, send: Send) -> None:
        """Send in order until the queue is empty; the first `WireError` that may pass ends it and is raised.

        A report that the receiver refuses for good (unknown or closed action, malformed) is dropped and logged.
        """
        while self._waiting:
            report = self._waiting[0]
            try:
                await send(report)
            except UnauthorizedError:
                raise
            except (NotFoundError, ProtocolError) as error:
                _LOG.warning("report %s of action %s was refused for good: %s", report.sequence, report.action, error)
            except WireError:
                raise
            self._save(self._next, tuple(waiting for waiting in self._waiting if waiting.id != report.id))

    def _load(self) -> tuple[int, tuple[Report, ...]]:
        try:
            mapping = self._kept.read()
            return (1, ()) if mapping is None else _parse(mapping)
        except CorruptError as error:
            _LOG.warning("reports not yet sent are lost: %s", error)
            return self._now_ms(), ()

    def _save(self, following: int, waiting: tuple[Report, ...]) -> None:
        self._kept.write({"next": following, "reports": reports_to_list(waiting)})
        self._next, self._waiting = following, waiting


def _parse(mapping: Mapping[str, JsonValue]) -> tuple[int, tuple[Report, ...]]:
    following = mapping.get("next")
    if not isinstance(following, int) or following < 1:
        raise CorruptError(f"the queue of reports has no next number: {str(following)[:40]!r}")
    return following, reports_from_list(mapping.get("reports"))


def _replaces(new: Report, old: Report) -> bool:
    return not old.final and not new.final and (old.action, old.fence, old.state) == (new.action, new.fence, new.state)


def _bounded(waiting: tuple[Report, ...], limit: int) -> tuple[Report, ...]:
    """Drop the oldest progress until at most `limit` wait; results stay, whatever their number."""
    surplus = max(0, len(waiting) - limit)
    kept: list[Report] = []
    for report in waiting:
        if surplus and not report.final:
            surplus -= 1
            continue
        kept.append(report)
    return tuple(kept)
