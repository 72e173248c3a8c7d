"""Where a node is while it lives, and the one point at which it is stopped."""

import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.replay import Recorder
from update.durable import Operation


class Stopped(BaseException):
    """The process ends here; no handler of the code under test may take it for an error."""


@dataclass(frozen=True, slots=True, order=True)
class Point:
    """The `hit`-th time that `site` was reached while the journal said `state`."""

    state: str
    site: str
    hit: int


class Tripwire:
    """Counts where the node is, and stops it at one point."""

    def __init__(self, stop_at: Point | None, recorder: Recorder) -> None:
        self.seen: list[Point] = []
        self.state: Callable[[], str] = lambda: "starting"
        self._stop_at = stop_at
        self._recorder = recorder
        self._hits: Counter[tuple[str, str]] = Counter()

    def operation(self, operation: Operation) -> None:
        """The observer of `Disk`."""
        self.reach(f"{_caller()} {operation.kind}")
        self._recorder(operation)

    def reach(self, site: str) -> None:
        """The node is at `site`."""
        state = self.state()
        self._hits[state, site] += 1
        point = Point(state, site, self._hits[state, site])
        self.seen.append(point)
        if point == self._stop_at:
            raise Stopped(str(point))


def _caller() -> str:
    """Where in the product a durable operation was asked for: the nearest frame outside `update.durable`."""
    frame = sys._getframe(2)
    while frame.f_back is not None and frame.f_code.co_filename.endswith("update/durable.py"):
        frame = frame.f_back
    path = Path(frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{frame.f_lineno}"
