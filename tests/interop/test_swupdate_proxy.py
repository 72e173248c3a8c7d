"""Unmodified swupdate with http_proxy and a signed URL of somebody else's host, through the gateway, over odd upstreams.

A run is judged by the content of the slot, by the installer's own lines and by what was asked on the wire; swupdate's exit
status and silence say nothing (`swupdate_peer.py`).
"""

import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.fleet.variants import asked_by_stock
from gateway.simulators.characters import LIMITED, cutting
from gateway.simulators.upstream import Faults
from tests.interop.stock_site import FOREIGN, StockSite, Vendor
from tests.interop.swupdate_peer import SwupdatePeer
from update.chunks.ranges import Range
from update.chunks.zchunk import parse_header
from update.publish.images import zck_header

pytestmark = pytest.mark.interop

FEW, MANY = pytest.param(2, id="few"), pytest.param(20, id="many", marks=[pytest.mark.soak])
KINDS = {
    **{name: character() for name, character in LIMITED.items()},
    "slow": Faults(bytes_per_s=1 << 20),
    "cut": Faults(cut_after_bytes=120_000),
    "reset": cutting(120_000),
}


@pytest.fixture(scope="module")
def vendor(tmp_path_factory: pytest.TempPathFactory) -> Vendor:
    return Vendor(tmp_path_factory.mktemp("vendor"))


def last_needed(vendor: Vendor) -> Range:
    """The last chunk: swupdate 2022.12 never finds it in its source, so it is in the last request of every run."""
    index = parse_header(zck_header(vendor.zck))
    chunk = index[len(index) - 1]
    return Range(chunk.start, chunk.length)


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


@pytest.mark.parametrize("runs", [FEW, MANY])
@pytest.mark.parametrize("max_ranges", [150, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cold_gateway_serves_swupdate_whatever_its_upstream_is_like(
    tmp_path: Path, vendor: Vendor, kind: str, max_ranges: int, runs: int
) -> None:
    for run in range(runs):
        state = tmp_path / str(run)
        state.mkdir()
        site = StockSite(state, vendor, replace(KINDS[kind]))
        written = vendor.fill_slots()
        verdict = SwupdatePeer(state).install(vendor.bundles[max_ranges], serve=site.serve, timeout_s=120)
        assert verdict.succeeded, f"{site.asked} {site.statuses}\n{verdict.log}"
        assert written.read_bytes() == vendor.new
        assert {target for target, _ in site.asked} == {FOREIGN}
        assert set(site.statuses) == {206}
        asked = [spans for _, spans in site.asked if spans]
        assert max(map(len, asked)) <= max_ranges
        assert asked[-1][-1].end == last_needed(vendor).end, "it ended without asking for its last range"
        assert len(asked) >= (3 if max_ranges == 10 else 1)
        assert covered(asked) == foreseen(vendor), "it asks for other chunks than a variant is chosen by"


@pytest.mark.parametrize("runs", [FEW, MANY])
@pytest.mark.parametrize("max_ranges", [150, 10])
@pytest.mark.parametrize("lie", ["everywhere", "in-chunks"])
def test_wrong_content_never_reaches_a_slot_and_is_refused_before_the_first_byte(
    tmp_path: Path, vendor: Vendor, lie: str, max_ranges: int, runs: int
) -> None:
    repository = tmp_path / "repository"
    shutil.copytree(vendor.repository, repository)
    if lie == "in-chunks":
        (blob,) = repository.glob("targets/blobs/*.7.bin")
        size = len(zck_header(vendor.zck))
        blob.write_bytes(blob.read_bytes()[:size] + bytes(blob.stat().st_size - size))
    for run in range(runs):
        state = tmp_path / str(run)
        state.mkdir()
        site = StockSite(state, vendor, Faults(flip_byte=lie == "everywhere"), repository=repository)
        written = vendor.fill_slots()
        verdict = SwupdatePeer(state).install(vendor.bundles[max_ranges], serve=site.serve)
        assert not verdict.succeeded
        assert written.read_bytes() != vendor.new
        assert site.statuses, "it asked for nothing"
        assert set(site.statuses) == {502}, "the relay sent what is not signed"


def test_a_url_that_the_listed_bundles_do_not_name_is_refused(tmp_path: Path, vendor: Vendor) -> None:
    other = vendor.bundle(33, url="http://cdn.vendor.example:8081/deltas/other.zck")
    site = StockSite(tmp_path, vendor, Faults())
    vendor.fill_slots()
    verdict = SwupdatePeer(tmp_path).install(other, serve=site.serve)
    assert not verdict.succeeded
    assert set(site.statuses) <= {403}
    assert site.asked
