"""Unmodified swupdate and a signed delta, through a cold gateway, over odd upstreams: as its origin and as its http_proxy.

A run is judged by the content of the slot, by the installer's own lines and by what was asked on the wire; swupdate's exit
status says nothing (`swupdate_peer.py`). `make soak` writes build/soak/swupdate-relay.{json,txt}.
"""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from gateway.fleet.variants import asked_by_stock
from gateway.simulators.characters import LIMITED, cutting
from gateway.simulators.upstream import Faults
from tests.interop.stock_runs import End, Fleet, Lot, Run, Slot, Table, Way
from tests.interop.stock_site import FOREIGN, StockSite, Vendor
from tests.interop.swupdate_peer import Surroundings, SwupdatePeer
from update.chunks.ranges import Range
from update.chunks.zchunk import parse_header
from update.publish.images import zck_header

pytestmark = pytest.mark.interop

RUNS = [pytest.param(1, id="few"), pytest.param(20, id="many", marks=[pytest.mark.soak, pytest.mark.timeout(3600)])]
MAX_RANGES = (150, 10)
KINDS = {
    **{name: character() for name, character in LIMITED.items()},
    "slow": Faults(bytes_per_s=1 << 20),
    "cut": Faults(cut_after_bytes=120_000),
    "reset": cutting(120_000),
}
_TABLE = Path(__file__).parents[2] / "build" / "soak" / "swupdate-relay"


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    return Vendor(tmp_path_factory.mktemp("vendor"))


@pytest.fixture(scope="module")
def table() -> Iterator[Table]:
    """What the soak has counted, written at its end."""
    counted = Table()
    yield counted
    counted.write(_TABLE)


def lots(kind: str) -> list[Lot]:
    return [Lot(kind, max_ranges, way) for max_ranges in MAX_RANGES for way in Way]


def covered(requests: Iterable[tuple[Range, ...]]) -> set[tuple[int, int]]:
    """What was asked for in all, as (start, end) of pieces that do not touch."""
    pieces: list[list[int]] = []
    for span in sorted((span for spans in requests for span in spans), key=lambda span: span.start):
        if pieces and span.start <= pieces[-1][1]:
            pieces[-1][1] = max(pieces[-1][1], span.end)
        else:
            pieces.append([span.start, span.end])
    return {(start, end) for start, end in pieces}


def foreseen(vendor: Vendor) -> set[tuple[int, int]]:
    """What the gateway expects a stock client to ask for that runs the old version."""
    old, new = (parse_header(zck_header(vendor.folder / f"{name}.zck")) for name in ("old", "new"))
    chunks = (new[number] for number in asked_by_stock(new, old))
    return covered([tuple(Range(chunk.start, chunk.length) for chunk in chunks)])


def check_wire(run: Run, vendor: Vendor) -> None:
    """The gateway kept every promise, and the client asked as it was foreseen."""
    assert {target for target, _ in run.asked} == {FOREIGN if run.lot.way is Way.PROXY else vendor.named.split("plant", 1)[1]}
    assert set(run.statuses) == {206}
    assert max(len(ranges) for _, ranges in run.asked) <= run.lot.max_ranges
    assert len(run.asked) >= (3 if run.lot.max_ranges == 10 else 1)
    assert covered(ranges for _, ranges in run.asked) == foreseen(vendor), "other chunks than a variant is chosen by"


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_cold_gateway_serves_swupdate_whatever_its_upstream_is_like(
    tmp_path: Path, vendor: Vendor, kind: str, runs: int, request: pytest.FixtureRequest
) -> None:
    done = Fleet(tmp_path, vendor, KINDS[kind]).run(lots(kind) * runs)
    if runs > 1:
        request.getfixturevalue("table").add(done)
    for run in done:
        assert (run.end, run.slot, run.counted) == (End.SUCCESS, Slot.NEW, True), f"{run.wire()}\n{run.log}"
        check_wire(run, vendor)


@pytest.mark.parametrize("runs", RUNS)
@pytest.mark.parametrize("lie", ["everywhere", "in-chunks"])
def test_wrong_content_never_reaches_a_slot_and_is_refused_before_the_first_byte(
    tmp_path: Path, vendor: Vendor, lie: str, runs: int, request: pytest.FixtureRequest
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(vendor.repository, repository)
    if lie == "in-chunks":
        (blob,) = repository.glob("targets/blobs/*.7.bin")
        size = len(zck_header(vendor.zck))
        blob.write_bytes(blob.read_bytes()[:size] + bytes(blob.stat().st_size - size))
    fleet = Fleet(tmp_path, vendor, Faults(flip_byte=lie == "everywhere"), repository=repository)
    done = fleet.run(lots(f"lying {lie}") * runs)
    if runs > 1:
        request.getfixturevalue("table").add(done)
    for run in done:
        assert run.end is End.REFUSED, f"{run.wire()}\n{run.log}"
        assert run.slot is Slot.BEGUN, "something else than the new image was written"
        assert set(run.statuses) == {502}, "the relay sent what is not signed"


def test_a_url_that_the_listed_bundles_do_not_name_is_refused(tmp_path: Path, vendor: Vendor) -> None:
    other = vendor.bundle(33, url="http://cdn.vendor.example:8081/deltas/other.zck")
    site = StockSite(tmp_path, vendor, Faults())
    around = Surroundings(mounts=((vendor.fill_slots(tmp_path / "slots"), vendor.slots),))
    verdict = SwupdatePeer(tmp_path).install(other, serve=site.serve, around=around)
    assert verdict.finished
    assert verdict.refused
    assert set(site.statuses) == {403}
    assert site.asked
