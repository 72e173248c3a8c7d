"""Where orders come from and where reports go: an assigner behind DDI, or a file that somebody put in front of the agent.

An order is a *hint*: it says which target shall run, and the agent resolves that target in its own verified metadata. It
never says what to trust. `fence` is the assigner's lease number; an order of an older lease is refused.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from node_agent.record import Report
from update.digest import Digest
from update.errors import UnreachableError


@dataclass(frozen=True, slots=True)
class Offer:
    """An order to run something: a target of a repository, or a local `file`. `length` is in bytes, None if not said.

    `reason` is an operator's, who wants an older release back. `may_write` is False while the assigner wants it only
    downloaded (a maintenance window is closed).
    """

    action: str
    fence: int = 0
    repository: str = ""
    target: str = ""
    sha256: Digest | None = None
    length: int | None = None
    file: Path | None = None
    reason: str = ""
    may_write: bool = True


@dataclass(frozen=True, slots=True)
class Cancel:
    """The order to stop `action`; `id` is the cancellation's own name, which the answer repeats."""

    action: str
    id: str


class Source(Protocol):
    """An assigner."""

    async def next(self) -> Offer | Cancel | None:
        """The one order that counts now; the same one again until it was reported as ended. Errors: `WireError`."""
        ...

    async def report(self, report: Report) -> None:
        """Tell the assigner; called again with the same `id` after a crash. Errors: `WireError`."""
        ...


class FileSource:
    """`update install FILE`: one order, once. Reports of other actions wait for the assigner that they are for."""

    def __init__(self, file: Path, action: str, reason: str = "") -> None:
        self._action = action
        self._order: Offer | None = Offer(action=action, file=file, reason=reason)

    async def next(self) -> Offer | None:
        """The file, until its end was reported."""
        return self._order

    async def report(self, report: Report) -> None:
        """Forget the order when it has ended."""
        if report.action != self._action:
            raise UnreachableError(f"the report of action {report.action} waits until `update agent` or `update --now` runs")
        if report.final:
            self._order = None
