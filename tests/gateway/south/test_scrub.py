"""What rots on disk is found by reading it again, once in a while, and goes on after a restart."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.south.scrub import MAX_NAP_S, Scrub
from tests.builders.relay_site import RelaySite
from tests.builders.relayed import MemorySource, index_of, info_of, make_zck
from update.chunks.ranges import Range
from update.digest import Digest, digest_of
from update.durable import Operation
from update.errors import NoSpaceError
from update.store.journal import Journal
from update.trust.verified import TargetCustom, TargetInfo

DAY_S = 86400.0


class Bench:
    """A site with five bundles and a scrub whose sleep passes no time but its own."""

    def __init__(self, folder: Path, upstream: MemorySource) -> None:
        self.folder = folder
        self.site = RelaySite(folder, {"plant": [upstream]})
        self.now = 1000 * DAY_S
        self.slept: list[float] = []
        self.forgotten: list[Digest] = []
        self.reported: list[int] = []
        self.stop_at_s = float("inf")
        self.contents = [b"%d" % position * 5000 for position in range(5)]
        self.infos = [
            TargetInfo("plant", f"{position}.swu", len(data), digest_of(data), TargetCustom(), "targets")
            for position, data in enumerate(self.contents)
        ]
        for info, data in zip(self.infos, self.contents, strict=True):
            self.site.keep(info, data)
        self.scrub = self.restarted()

    def restarted(self) -> Scrub:
        journal = Journal(self.site.disk, self.folder / "scrub.json")
        self.scrub = Scrub(
            self.site.store,
            self.site.relays,
            journal,
            every_s=30 * DAY_S,
            now=lambda: self.now,
            forget=self.forgotten.append,
            report=self.reported.append,
            sleep=self._sleep,
        )
        return self.scrub

    def damage(self, info: TargetInfo) -> None:
        path = self.site.store.layout.target(info)
        with path.open("r+b") as file:
            file.write(b"X")

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        if self.now >= self.stop_at_s:
            raise asyncio.CancelledError


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture
async def bench(tmp_path: Path, zck: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path, MemorySource(zck.read_bytes()))
    yield made
    await made.site.relays.close()


async def test_damaged_content_goes_to_quarantine_and_is_counted(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bad = bench.infos[2]
    assert bench.site.find(bad), "it was good when this process first read it"
    bench.damage(bad)
    await bench.scrub.round()
    assert (bench.scrub.damaged, sum(bench.reported), bench.forgotten) == (1, 1, [bad.sha256])
    assert bench.site.find(bad) is None
    assert len(list(bench.site.store.layout.quarantine.iterdir())) == 1
    assert "is damaged on disk" in caplog.text
    assert all(bench.site.find(info) for info in bench.infos if info != bad)
    assert sum(bench.slept) > 0, "the reading is paced"


async def test_content_that_is_removed_meanwhile_is_no_damage(bench: Bench) -> None:
    gone = bench.site.store.held()[0]
    bench.site.store.remove(gone)
    await bench.scrub._check(gone)
    assert bench.scrub.damaged == 0


async def test_a_chunk_that_rotted_after_it_was_proved_is_missing_again(bench: Bench, zck: Path) -> None:
    content, info, index = zck.read_bytes(), info_of(zck), index_of(zck).header
    half = Range(0, len(content) // 2)
    await bench.site.read(info, half)
    await bench.site.relays.settle()
    chunk = index[5]
    with (bench.site.store.layout.sparse / f"{info.sha256}.zck").open("r+b") as file:
        file.seek(chunk.start)
        file.write(b"rot")
    await bench.scrub.round()
    assert bench.scrub.damaged == 1
    span = Range(chunk.start, chunk.length)
    assert await bench.site.read(info, span) == content[span.start : span.end]
    await bench.scrub.round()
    assert bench.scrub.damaged == 1


async def test_an_interrupted_round_goes_on_where_it_was(bench: Bench) -> None:
    first, *rest = sorted(bench.infos, key=lambda info: info.sha256)
    bench.stop_at_s = bench.now + 0.0009  # in the middle of the second content
    with pytest.raises(asyncio.CancelledError):
        await bench.scrub.round()
    bench.stop_at_s = float("inf")
    bench.damage(first)
    bench.damage(rest[-1])
    await bench.restarted().round()
    assert (bench.scrub.damaged, bench.site.find(rest[-1])) == (1, None)
    await bench.restarted().round()
    assert bench.scrub.damaged == 1, "the next round begins at the beginning"


async def test_rounds_are_so_many_days_apart_also_after_restarts(bench: Bench) -> None:
    began = bench.now
    await bench.scrub.round()
    bench.slept.clear()
    bench.damage(bench.infos[0])
    bench.stop_at_s = began + 29 * DAY_S
    for _ in range(2):
        with pytest.raises(asyncio.CancelledError):
            await bench.restarted().run()
        assert bench.scrub.damaged == 0
        bench.stop_at_s += DAY_S / 2
    assert max(bench.slept) == MAX_NAP_S
    bench.stop_at_s = began + 31 * DAY_S
    with pytest.raises(asyncio.CancelledError):
        await bench.restarted().run()
    assert bench.scrub.damaged == 1


async def test_rounds_can_be_switched_off(bench: Bench) -> None:
    bench.damage(bench.infos[0])
    bench.scrub._every_s = 0
    running = asyncio.create_task(bench.scrub.run())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not running.done()
    running.cancel()
    assert (bench.scrub.damaged, bench.slept) == (0, [])


async def test_a_full_disk_does_not_end_it(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def full(operation: Operation) -> None:
        if "scrub.json" in operation.path.name:
            bench.site.fail = []
            raise NoSpaceError("no space")

    bench.site.fail = [full]
    bench.stop_at_s = bench.now + 2 * MAX_NAP_S
    with pytest.raises(asyncio.CancelledError):
        await bench.scrub.run()
    assert caplog.text.count("store.no-space") == 1
    assert b"ended" in (bench.folder / "scrub.json").read_bytes(), "the round was ended later"


async def test_what_cannot_be_opened_is_damage(bench: Bench) -> None:
    path = bench.site.store.layout.target(bench.infos[0])
    held = next(each for each in bench.site.store.held() if each.file == path)
    path.unlink()
    path.symlink_to(bench.folder / "elsewhere")
    await bench.scrub._check(held)
    assert bench.scrub.damaged == 1


@pytest.mark.parametrize("text", [b"\xff", b"{}", b""])
async def test_a_damaged_journal_costs_a_round(bench: Bench, text: bytes) -> None:
    await bench.scrub.round()
    (bench.folder / "scrub.json").write_bytes(text)
    bench.damage(bench.infos[0])
    await bench.restarted().round()
    assert bench.scrub.damaged == 1
