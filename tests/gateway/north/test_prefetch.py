"""What is ordered comes before it is asked for: pinned, behind everybody who waits, and again after trouble."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import PrefetchMode
from gateway.fleet.needs import Need, Needs
from gateway.north import prefetch as module
from gateway.north.prefetch import Prefetch
from tests.builders.fleet import bundle
from tests.builders.relayed import until
from update.chunks.ranges import Range
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import FieldrelayError, NoSpaceError, NotStoredError, StoreError, UnreachableError
from update.store.store import Store
from update.trust.verified import TargetInfo

RELEASE = bundle("1.2", "board:1")


def need(name: str, *, bundles: Sequence[Digest] = (RELEASE.sha256,), pieces: int = 3) -> Need:
    target = bundle("", path=f"os/{name}.zck")
    spans = tuple((Range(1000 * number, 10 + number),) for number in range(pieces))
    return Need(target, PrefetchMode.UNION, frozenset(bundles), spans, 2, 1)


def needs(*images: Need, ordered: Sequence[Digest] = ()) -> Needs:
    return Needs(frozenset({*ordered, *(digest for image in images for digest in image.bundles)}), images)


class Chunks:
    """A relay that notes what it is asked, waits and fails on demand."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.quieted = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.errors: dict[str, FieldrelayError] = {}
        self.noise: Callable[[], None] = lambda: None

    async def bring(self, info: TargetInfo, ranges: Sequence[Range]) -> None:
        assert self.quieted == len(self.asked) + 1, "it stood back first"
        self.asked.append((info.base_name, ranges[0].start // 1000))
        self.noise()
        await self.gate.wait()
        if error := self.errors.get(info.base_name):
            raise error

    async def quiet(self, within_s: float) -> None:
        assert within_s == module.YIELD_S
        self.quieted += 1

    def names(self) -> list[str]:
        return [f"{name} {number}" for name, number in self.asked]


class Bench:
    """A prefetch over what a test says is needed. Time passes by hand."""

    def __init__(self, store: Store) -> None:
        self.needs = Needs()
        self.looks = 0
        self.now_s = 0.0
        self.chunks = Chunks()
        self.changed = asyncio.Event()
        self.store = store
        self.look_error: FieldrelayError | None = None
        self.prefetch = Prefetch(
            self._look, self.chunks, store, self.changed, clock=lambda: self.now_s, settle_s=0.0, retry_s=50.0
        )

    async def _look(self) -> Needs:
        self.looks += 1
        if self.look_error:
            raise self.look_error
        return self.needs

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.prefetch.run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def wake(self) -> None:
        """Tell of news, and wait until it was looked."""
        looks = self.looks
        self.changed.set()
        await until(lambda: self.looks > looks)

    def done(self) -> list[tuple[str, int, str]]:
        return [(state.path, state.done_bytes, state.code) for state in self.prefetch.states()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Store(Disk(), tmp_path / "store"))


def is_done(bench: Bench, *names: str) -> Callable[[], bool]:
    return lambda: [state.path for state in bench.prefetch.states() if state.done_bytes == state.wanted_bytes] == list(names)


async def test_everything_comes_piece_by_piece_in_the_order_of_the_orders(bench: Bench) -> None:
    bench.needs = needs(need("b"), need("a", pieces=2))
    async with bench.running():
        await until(is_done(bench, "os/b.zck", "os/a.zck"))
    assert bench.chunks.names() == ["b.zck 0", "b.zck 1", "b.zck 2", "a.zck 0", "a.zck 1"]
    (first, _) = bench.prefetch.states()
    assert (first.repository, first.mode, first.done_bytes, first.wanted_bytes, first.nodes, first.unknown) == (
        "plant",
        "union",
        33,
        33,
        2,
        1,
    )


async def test_news_wake_it_and_what_is_here_already_is_not_brought_again(bench: Bench) -> None:
    bench.needs = needs(need("a"))
    async with bench.running():
        await until(is_done(bench, "os/a.zck"))
        bench.needs = needs(need("a", bundles=[digest_of(b"another bundle")]), need("b", pieces=1))
        await bench.wake()
        await until(is_done(bench, "os/a.zck", "os/b.zck"))
        assert bench.chunks.names() == ["a.zck 0", "a.zck 1", "a.zck 2", "b.zck 0"]
        bench.needs = needs(need("a", pieces=4))
        await bench.wake()
        await until(is_done(bench, "os/a.zck"))
        assert bench.chunks.names()[4:] == ["a.zck 0", "a.zck 1", "a.zck 2", "a.zck 3"], "others lack something else"
        bench.needs = Needs()
        await bench.wake()
        await until(lambda: bench.prefetch.states() == ())


async def test_news_are_noticed_while_something_is_being_fetched_though_not_at_every_piece(bench: Bench) -> None:
    bench.needs = needs(need("a", pieces=5))
    bench.chunks.gate.clear()
    async with bench.running():
        await until(lambda: len(bench.chunks.asked) == 1)
        bench.needs = needs(need("urgent", pieces=1))
        bench.changed.set()
        bench.now_s += module.NEWS_S
        bench.chunks.gate.set()
        await until(is_done(bench, "os/urgent.zck"))
    assert bench.chunks.names() == ["a.zck 0", "urgent.zck 0"]
    looks = bench.looks
    bench.needs = needs(need("b", pieces=5))
    bench.chunks.noise = bench.changed.set
    async with bench.running():
        await until(is_done(bench, "os/b.zck"))
        assert bench.looks <= looks + 2, "a swarm of nodes that report does not keep it from its work"


@pytest.mark.parametrize("error", [UnreachableError("gone"), NoSpaceError("full")])
async def test_trouble_is_told_by_its_name_tried_again_later_and_holds_nothing_else_up(
    bench: Bench, error: FieldrelayError, caplog: pytest.LogCaptureFixture
) -> None:
    bench.needs = needs(need("a"), need("b", pieces=1))
    bench.chunks.errors = {"a.zck": error}
    async with bench.running():
        await until(is_done(bench, "os/b.zck"))
        assert bench.done() == [("os/a.zck", 0, error.code), ("os/b.zck", 11 - 1, "")]
        assert error.code in caplog.text
        bench.chunks.errors = {}
        await bench.wake()
        assert bench.chunks.names() == ["a.zck 0", "b.zck 0"], "not before its time"
        bench.now_s += 50.0
        await bench.wake()
        await until(is_done(bench, "os/a.zck", "os/b.zck"))
    assert bench.done()[0] == ("os/a.zck", 33, "")


async def test_what_is_wanted_is_pinned_until_nobody_wants_it(bench: Bench) -> None:
    image, other = need("a"), digest_of(b"other release")
    bench.store.pin(image.target.sha256, "an operator's")
    bench.needs = needs(image)
    bench.chunks.gate.clear()
    async with bench.running():
        await until(lambda: bool(bench.chunks.asked))
        assert bench.store.pins() == {image.target.sha256: {"an operator's", f"prefetch: {RELEASE.sha256}"}}, "before it comes"
        bench.chunks.gate.set()
        await until(is_done(bench, "os/a.zck"))
        bench.needs = needs(replace(image, bundles=frozenset({other})))
        await bench.wake()
        await until(lambda: bench.store.pins() == {image.target.sha256: {"an operator's", f"prefetch: {other}"}})
        bench.needs = Needs()
        await bench.wake()
        await until(lambda: bench.store.pins() == {image.target.sha256: {"an operator's"}})


async def test_pins_of_an_earlier_run_go_with_its_orders_and_stay_while_their_bundle_cannot_be_read(bench: Bench) -> None:
    gone, unread = digest_of(b"gone"), digest_of(b"unread")
    for bundle_digest in (gone, unread):
        bench.store.pin(digest_of(b"image"), f"prefetch: {bundle_digest}")
    trouble = (bundle("1.3", "board:1"), PrefetchMode.UNION, NotStoredError("mirror it again"))
    bench.needs = Needs(frozenset({unread}), (), (trouble,))
    async with bench.running():
        await until(lambda: bench.store.pins() == {digest_of(b"image"): {f"prefetch: {unread}"}})
        await bench.wake()
        assert bench.store.pins() == {digest_of(b"image"): {f"prefetch: {unread}"}}, "and no more goes"
    (state,) = bench.prefetch.states()
    assert (state.path, state.code, state.problem) == (trouble[0].path, "store.not-found", "mirror it again")


async def test_without_database_or_disk_what_is_known_is_worked_on(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_sha256: Digest, _reason: str) -> None:
        raise StoreError("read-only")

    with monkeypatch.context() as patch:
        patch.setattr(bench.store, "pin", refuse)
        bench.needs = needs(need("a"))
        async with bench.running():
            await until(is_done(bench, "os/a.zck"))
    assert "read-only" in caplog.text
    bench.look_error = StoreError("the database refused")
    async with bench.running():
        await until(lambda: "the database refused" in caplog.text)
        bench.look_error = None
        await bench.wake()
        await until(lambda: len(bench.store.pins()) == 1)
    assert is_done(bench, "os/a.zck")()
