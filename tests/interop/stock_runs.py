"""Runs of the real swupdate against the gateway, judged and counted; the soak writes the table into build/soak.

A run is one installation, and there is no repetition: each comes to an end of its own, success or a refusal in the installer's
words (`swupdate_peer`). What went over the wire is kept for those that did not succeed.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from pathlib import Path

from gateway.simulators.upstream import Faults
from tests.interop.stock_site import BLANK, FOREIGN, NAME, StockSite, Vendor
from tests.interop.swupdate_peer import Surroundings, SwupdatePeer, Verdict
from update.chunks.ranges import Range
from update.chunks.zchunk import parse_header
from update.publish.images import zck_header

AT_ONCE = 4
_DEADLINE_S = 180
_LOG_LINES = 12


class Way(StrEnum):
    """How an unmodified client comes to the gateway."""

    PROXY = "http_proxy"  # the signed URL is of somebody else's host
    ORIGIN = "origin"  # its host is the repository's stable name, which resolves to the gateway


class End(StrEnum):
    """What the client said at its end."""

    SUCCESS = "success"
    REFUSED = "refused"
    CUT_OFF = "cut off"  # neither: at its deadline, or by a fault of its own


class Slot(StrEnum):
    """What the slot holds afterwards."""

    NEW = "new"
    BEGUN = "begun"  # the first bytes of the new image, and nothing else
    WRONG = "wrong"


@dataclass(frozen=True, slots=True)
class Lot:
    """Runs that differ in nothing."""

    kind: str
    max_ranges: int
    way: Way


@dataclass(frozen=True, slots=True)
class Run:
    """One process of swupdate, what it said and what went over the wire."""

    lot: Lot
    end: End
    slot: Slot
    counted: bool
    asked: tuple[tuple[str, tuple[Range, ...]], ...]
    statuses: tuple[int, ...]
    log: str

    def wire(self) -> list[str]:
        """Request by request: what was asked, and how it was answered."""
        answers = [*map(str, self.statuses), *["no answer"] * len(self.asked)]
        return [
            f"GET {target} bytes={','.join(f'{part.start}-{part.end - 1}' for part in ranges)} -> {answer}"
            for (target, ranges), answer in zip(self.asked, answers, strict=False)
        ]


class Fleet:
    """Runs swupdate in `folder`, each run against a cold gateway of its own, over an upstream of the given `faults`."""

    def __init__(self, folder: Path, vendor: Vendor, faults: Faults, *, repository: Path | None = None) -> None:
        self._folder, self._vendor, self._faults, self._repository = folder, vendor, faults, repository
        self._begun = 0

    def run(self, lots: Iterable[Lot]) -> list[Run]:
        """One run for each, some at the same time."""
        numbered = list(enumerate(lots, self._begun))
        self._begun += len(numbered)
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(lambda each: self._run(*each), numbered))

    def _run(self, number: int, lot: Lot) -> Run:
        state = self._folder / str(number)
        state.mkdir()
        vendor, slots, hosts = self._vendor, self._vendor.fill_slots(state / "slots"), state / "hosts"
        hosts.write_text(f"127.0.0.1 localhost {NAME}\n")
        mounts = (slots, vendor.slots), (hosts, Path("/etc/hosts"))
        proxied = lot.way is Way.PROXY
        around = Surroundings(0 if proxied else 80, proxied, mounts)
        bundle = vendor.bundles[FOREIGN if proxied else vendor.named, lot.max_ranges]
        site = StockSite(state, vendor, replace(self._faults), repository=self._repository)
        peer = SwupdatePeer(state)
        verdict = peer.install(bundle, serve=site.serve, timeout_s=_DEADLINE_S, around=around)
        asked = tuple((target, ranges or ()) for target, ranges in site.asked)
        reached = any(ranges and ranges[-1].end == _last_needed(vendor).end for _, ranges in asked)
        slot = _slot((slots / "b").read_bytes(), vendor.new)
        return Run(lot, _end(verdict), slot, reached, asked, tuple(site.statuses), verdict.log)


class Table:
    """Counts per lot, and what the client did that did not succeed."""

    def __init__(self) -> None:
        self._runs: defaultdict[Lot, list[Run]] = defaultdict(list)

    def add(self, runs: Iterable[Run]) -> None:
        """Count these too."""
        for run in runs:
            self._runs[run.lot].append(run)

    def write(self, place: Path) -> None:
        """`place`.json and `place`.txt."""
        rows = [asdict(lot) | _counts(runs) for lot, runs in self._runs.items()]
        others = [
            asdict(run.lot)
            | {"end": run.end, "counted": run.counted, "wire": run.wire(), "log": run.log.splitlines()[-_LOG_LINES:]}
            for runs in self._runs.values()
            for run in runs
            if run.end is not End.SUCCESS
        ]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.with_suffix(".json").write_text(json.dumps({"rows": rows, "without_success": others}, indent=1) + "\n")
        place.with_suffix(".txt").write_text("\n".join(_text(rows)) + "\n")


def _counts(runs: list[Run]) -> dict[str, int]:
    return {
        "runs": len(runs),
        "counted": sum(run.counted for run in runs),
        "succeeded": sum(run.end is End.SUCCESS and run.slot is Slot.NEW for run in runs),
        "refused": sum(run.end is End.REFUSED for run in runs),
        "cut_off": sum(run.end is End.CUT_OFF for run in runs),
        "wrong_content": sum(run.slot is Slot.WRONG for run in runs),
    }


def _text(rows: list[dict[str, object]]) -> list[str]:
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)] if rows else []
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return ["  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def _end(verdict: Verdict) -> End:
    if not verdict.finished:
        return End.CUT_OFF
    return End.SUCCESS if verdict.succeeded else End.REFUSED


def _slot(written: bytes, new: bytes) -> Slot:
    if written == new:
        return Slot.NEW
    right = next((at for at, (one, other) in enumerate(zip(written, new, strict=True)) if one != other), len(new))
    return Slot.BEGUN if written[right:] == BLANK * (len(written) - right) else Slot.WRONG


def _last_needed(vendor: Vendor) -> Range:
    """The last chunk: swupdate 2022.12 never finds it in its source, so it is in the last request of every run."""
    index = parse_header(zck_header(vendor.zck))
    chunk = index[len(index) - 1]
    return Range(chunk.start, chunk.length)
