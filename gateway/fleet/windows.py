"""When an action may do what: soft and forced, maintenance windows, download-only; pure decisions.

The rules are hawkBit's (`DdiRootController`, 1.3 of its DDI as this gateway relays it):

- forced, time-forced once its time has come, and download-only: the download is forced; otherwise it is attempted;
- the update is skipped if the action is download-only, or while its maintenance window is closed; else it is as the download;
- a window that has passed cancels the action;
- before a window opens, polls come closer: a third of the time that is left, at least `SHORTEST_S`.

An upstream may know a window that we do not: it only says that it is closed now. That is `UNTIL_TOLD`.
"""

from dataclasses import dataclass
from datetime import UTC, datetime

from gateway.database.records import ClientKind, Handling, Terms
from update.wire import ddi

SHORTEST_S = 30
UNTIL_TOLD = datetime(9999, 1, 1, tzinfo=UTC)
"""Opens when the upstream says so."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a client may do now, in DDI's words; `window` is None where there is none."""

    download: ddi.Handling
    update: ddi.Handling
    window: ddi.Window | None


def allowed(terms: Terms, now: datetime) -> Allowed:
    """What an action of these terms allows at that time."""
    timed = terms.handling is Handling.TIME_FORCED and terms.forced_at is not None and terms.forced_at <= now
    forced = timed or terms.handling in {Handling.FORCED, Handling.DOWNLOAD_ONLY}
    download = ddi.Handling.FORCED if forced else ddi.Handling.ATTEMPT
    window = _window(terms, now)
    waits = terms.handling is Handling.DOWNLOAD_ONLY or window is ddi.Window.UNAVAILABLE
    return Allowed(download, ddi.Handling.SKIP if waits else download, window)


def is_hidden_from(kind: ClientKind, may: Allowed) -> bool:
    """SWUpdate answers `skip` by reporting a success that never happened: it is not told at all."""
    return kind is ClientKind.SWUPDATE and may.update is ddi.Handling.SKIP


def polling_s(terms: Terms | None, now: datetime, usual_s: int) -> int:
    """How soon a node shall ask again."""
    if terms is None or terms.opens is None or terms.opens == UNTIL_TOLD or terms.opens <= now:
        return usual_s
    left_s = (terms.opens - now).total_seconds()
    return min(usual_s, max(SHORTEST_S, int(left_s / 3)))


def _window(terms: Terms, now: datetime) -> ddi.Window | None:
    if terms.opens is None and terms.closes is None:
        return None
    is_open = (terms.opens is None or terms.opens <= now) and (terms.closes is None or now < terms.closes)
    return ddi.Window.AVAILABLE if is_open else ddi.Window.UNAVAILABLE
