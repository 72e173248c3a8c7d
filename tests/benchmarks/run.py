"""Runs the benchmarks and writes build/bench/NAME.json: `python -m tests.benchmarks.run [--only NAME]`.

A group is a module of this folder with `rows(work)`, which yields a `Row` for each comparison; a new one is added to
`GROUPS`. Figures are shown here and judged by people: no test asserts a time.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from tests.benchmarks import formats, node, planner, polling, relay, serving, stick
from tests.benchmarks.measure import Row

Group = Callable[[Path], Iterator[Row]]
GROUPS: Mapping[str, Group] = {
    "formats": formats.rows,
    "node": node.rows,
    "planner": planner.rows,
    "polling": polling.rows,
    "relay": relay.rows,
    "serving": serving.rows,
    "stick": stick.rows,
}
FOLDER = Path("build/bench")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare side by side with the real peers.")
    parser.add_argument("--only", choices=GROUPS, help="one group; all without it")
    only = parser.parse_args().only
    for name in [only] if only else GROUPS:
        run(name, GROUPS[name], FOLDER)


def run(name: str, group: Group, folder: Path) -> Path:
    """Run one group, print each row as it comes, write the file; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=f"{name}-") as work:
        for row in group(Path(work).resolve()):
            rows.append(row)
            print(line(row), flush=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps({"name": name, "rows": [row.as_json() for row in rows]}, indent=1) + "\n")
    print(f"written: {file}")
    return file


def line(row: Row) -> str:
    """One row for a reader."""
    figures = f"ours {row.ours:9.3f} {row.unit:4} peer {row.peer:9.3f} {row.unit:4} ratio {row.ratio:6.3f}"
    bound = "at least " if row.at_least else ""
    goal = "" if row.goal is None else f", goal {bound}{row.goal} {'reached' if row.reached else 'MISSED'}"
    note = f"\n{'':28} {row.note}" if row.note else ""
    return f"{row.work:28} {figures}{goal}  ({row.peer_name}){note}"


if __name__ == "__main__":
    main()
