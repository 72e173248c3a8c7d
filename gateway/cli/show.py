"""What the publisher's commands show: results on standard output, progress on standard error, only on a terminal.

With `--json` a result is one object with a `schema` that names its form; fields are added in later releases, never changed.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

Report = Callable[[str, int, int], None]
"""Called with (what is being made, bytes done, bytes in all)."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
no_progress = click.option("--no-progress", is_flag=True, help="Show no progress bars.")


def emit(schema: str, values: Mapping[str, object], lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result in one of its two forms."""
    if as_json:
        print(json.dumps({"schema": schema, **values}, indent=2))
    else:
        for line in lines:
            print(line)


@contextmanager
def progress_bars(*, wanted: bool) -> Iterator[Report]:
    """Bars for long work, one for each file being made."""
    if not wanted or not sys.stderr.isatty():
        yield _quiet
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report


def _quiet(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""
