"""What a spectator sees: a line for each step, and a live table of the nodes while they update."""

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from gateway.status import NodeState
from gateway.words import size

_COLOURS = {"success": "green", "rolled-back": "yellow", "failure": "red"}


class Screen:
    """On a terminal a live table below the steps; elsewhere a line whenever something changes."""

    def __init__(self) -> None:
        self._console = Console(file=sys.stderr)
        self._live = Live(console=self._console, refresh_per_second=8, transient=False)
        self._is_live = self._console.is_terminal
        self._shown: dict[str, str] = {}

    def __enter__(self) -> Self:
        if self._is_live:
            self._live.start()
        return self

    def __exit__(self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None) -> None:
        if self._is_live:
            self._live.stop()

    def step(self, text: str) -> None:
        """Something new begins."""
        self._console.print(f"[bold cyan]>[/] {text}" if self._is_live else f"> {text}", highlight=False)

    def update(self, nodes: Sequence[NodeState], upstream_bytes: int) -> None:
        """Show how the nodes stand."""
        if self._is_live:
            self._live.update(Group(_table(nodes), Text(f"from upstream so far: {size(upstream_bytes)}", style="dim")))
            return
        for node in nodes:
            line = f"{node.id}: runs {node.running.version or '?'} in slot {node.running.slot or '?'}; wanted {_wanted(node)}"
            if self._shown.get(node.id) != line:
                self._shown[node.id] = line
                self._console.print(f"  {line}", highlight=False)

    def say(self, lines: Sequence[str]) -> None:
        """Plain lines."""
        for line in lines:
            self._console.print(line, highlight=False)


def _table(nodes: Sequence[NodeState]) -> Table:
    table = Table("node", "runs", "slot", "wanted", "state", expand=False)
    for node in nodes:
        state = _state(node)
        table.add_row(
            node.id,
            node.running.version or "?",
            node.running.slot or "?",
            node.wanted.version if node.wanted else "-",
            Text(state, style=_COLOURS.get(state, "")),
        )
    return table


def _wanted(node: NodeState) -> str:
    return "nothing" if node.wanted is None else f"{node.wanted.version}: {_state(node)}"


def _state(node: NodeState) -> str:
    return "-" if node.wanted is None else node.wanted.standing
