"""Relayed files are opened once, published once, and serve whoever borrowed them through all of that."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.south import relay
from gateway.south.relay import CONCURRENT_REQUESTS
from tests.builders.relay_site import RelaySite, take
from tests.builders.relayed import (
    MemorySource,
    body_of,
    everything_else_ended,
    index_of,
    info_of,
    make_zck,
    open_descriptors,
    until,
)
from update.chunks.ranges import Range
from update.chunks.zchunk import MAX_HEADER_BYTES
from update.digest import digest_of
from update.durable import Kind, Operation
from update.errors import (
    ChunkError,
    FieldrelayError,
    LimitError,
    NotFoundError,
    SlowError,
    StoreError,
    UnreachableError,
)
from update.trust.verified import TargetInfo, ZckHeader

MakeSite = Callable[..., RelaySite]


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture(scope="module")
def content(zck: Path) -> bytes:
    return zck.read_bytes()


@pytest.fixture(scope="module")
def info(zck: Path) -> TargetInfo:
    return info_of(zck)


@pytest.fixture(scope="module")
def whole(content: bytes) -> Range:
    return Range(0, len(content))


@pytest.fixture
def upstream(content: bytes) -> MemorySource:
    return MemorySource(content)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[MakeSite]:
    sites: list[RelaySite] = []

    def site(*sources: MemorySource, hold_s: float = 20.0) -> RelaySite:
        sites.append(RelaySite(tmp_path, {"plant": sources}, hold_s=hold_s))
        return sites[-1]

    yield site
    for each in sites:
        await each.relays.close()


def pinned(info: TargetInfo) -> ZckHeader:
    assert info.custom.zck_header is not None
    return info.custom.zck_header


async def published(site: RelaySite, info: TargetInfo) -> Path:
    """Where the store has it, once it does."""
    await site.relays.settle()
    path = site.store.find(info)
    assert path is not None
    return path


async def test_the_header_is_fetched_once_for_all_first_readers(
    make: MakeSite, upstream: MemorySource, info: TargetInfo, content: bytes, zck: Path
) -> None:
    site = make(upstream)
    spans = [Range(at * 1000, 900) for at in range(30)]
    assert await asyncio.gather(*(site.read(info, span) for span in spans)) == [content[span.start : span.end] for span in spans]
    assert upstream.requests.count((Range(0, pinned(info).length),)) == 1
    assert site.grown[0] == (info.sha256, pinned(info).length)
    assert sum(needed for _, needed in site.grown) == upstream.bytes_asked(), "room is asked for once for each byte"
    (progress,) = site.relays.progress().values()
    assert 0 < progress[0] < progress[1] == len(index_of(zck).header)


async def test_a_reader_that_goes_away_does_not_take_the_header_from_the_others(
    make: MakeSite, upstream: MemorySource, info: TargetInfo, content: bytes
) -> None:
    site = make(upstream)
    upstream.gate.clear()
    first, second = (asyncio.create_task(site.read(info, Range(0, 10))) for _ in range(2))
    await until(lambda: bool(upstream.requests))
    first.cancel()
    await asyncio.sleep(0)
    upstream.gate.set()
    assert await second == content[:10]
    assert len(upstream.requests) == 1


@pytest.mark.parametrize("damage", ["other bytes", "too short", "out of place"])
async def test_a_header_that_is_not_the_signed_one_is_refused_by_its_name(
    make: MakeSite, info: TargetInfo, content: bytes, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    liar = MemorySource(content)
    if damage == "other bytes":
        liar.content = content[:40] + b"!" + content[41:]
    elif damage == "too short":
        liar.content = content[:100]
    else:
        liar.content, liar.piece_bytes = content[1:], 999
    site = make(liar)
    with pytest.raises(UnreachableError, match="no upstream could send the zchunk header"):
        await site.read(info, Range(0, 10))
    assert liar.failures == 1
    assert "trust.length-or-hash" in caplog.text
    assert site.sparse_files == [], "nothing was stored"
    site.sources["plant"] = [liar, MemorySource(content)]
    assert await site.read(info, Range(0, 10)) == content[:10], "the next upstream has the right one"


async def test_a_header_of_another_length_than_signed_is_refused(make: MakeSite, info: TargetInfo, content: bytes) -> None:
    site = make(MemorySource(content))
    with pytest.raises(ChunkError, match=rf"describes {len(content)} bytes, {len(content) + 1} are signed"):
        await site.read(replace(info, length=len(content) + 1), Range(0, 10))
    assert site.sparse_files == []


@pytest.mark.parametrize("length", [MAX_HEADER_BYTES + 1, 1 << 50])
async def test_a_pinned_header_beyond_the_limit_is_refused_before_it_is_fetched(
    make: MakeSite, upstream: MemorySource, info: TargetInfo, length: int
) -> None:
    custom = replace(info.custom, zck_header=ZckHeader(pinned(info).sha256, length))
    for size in (info.length, 1 << 51):
        with pytest.raises(LimitError):
            await make(upstream).read(replace(info, custom=custom, length=size), Range(0, 10))
    assert upstream.requests == []


async def test_a_target_without_a_pinned_header_is_not_relayed(make: MakeSite, upstream: MemorySource, info: TargetInfo) -> None:
    with pytest.raises(NotFoundError, match="pins no zchunk header"):
        await make(upstream).read(replace(info, custom=replace(info.custom, zck_header=None)), Range(0, 10))


async def test_a_complete_file_is_published_and_readers_in_flight_read_on(
    make: MakeSite, upstream: MemorySource, info: TargetInfo, content: bytes, whole: Range
) -> None:
    site = make(upstream)
    early = await site.relays.lend(info, [Range(0, 10)])
    dice = random.Random(3)

    async def reader() -> None:
        for _ in range(30):
            start = dice.randrange(len(content) - 1)
            span = Range(start, min(dice.choice([10, 40_000, 10**9]), len(content) - start))
            lease = await site.relays.lend(info, [span])
            if lease is None:
                return  # it asks the store now
            await asyncio.sleep(dice.choice([0, 0.001]))
            assert take(lease, span) == content[span.start : span.end]

    await asyncio.gather(*(reader() for _ in range(20)), site.read(info, whole))
    assert (await published(site, info)).read_bytes() == content
    assert len(site.published) == 1
    assert early is not None
    assert take(early, whole) == content
    assert await site.relays.lend(info, [whole]) is None
    assert site.relays.progress() == {}
    assert site.sparse_files == []
    assert upstream.bytes_asked() == len(content)


async def test_a_reader_that_looked_before_the_publication_does_not_begin_it_all_again(
    make: MakeSite, upstream: MemorySource, info: TargetInfo, whole: Range
) -> None:
    site = make(upstream)
    await site.read(info, whole)
    await published(site, info)
    asked = upstream.bytes_asked()
    assert await site.relays.lend(info, [Range(0, 10)]) is None
    assert (upstream.bytes_asked(), site.sparse_files) == (asked, [])


async def test_without_upstream_what_is_held_is_still_served_also_after_a_restart(
    make: MakeSite, upstream: MemorySource, info: TargetInfo, content: bytes, zck: Path
) -> None:
    half = Range(body_of(zck).start, body_of(zck).length // 2)
    site = make(upstream)
    await site.read(info, half)
    upstream.fail_after = 0
    for _ in range(2):
        assert await site.read(info, half) == content[half.start : half.end]
        with pytest.raises(UnreachableError):
            await site.read(info, Range(half.end + 200_000, 100))
        later = Range(half.end + 200_000, 100)
        assert site.relays.leading(info, [Range(0, 10), half, later, Range(5, 1)]) == 2
        await site.relays.close()
        site = make(upstream)


async def test_a_request_is_held_for_its_time_and_the_fetch_goes_on(
    make: MakeSite, upstream: MemorySource, info: TargetInfo, content: bytes
) -> None:
    site = make(upstream, hold_s=0.05)
    upstream.gate.clear()
    with pytest.raises(SlowError):
        await site.read(info, Range(0, 10))
    upstream.gate.set()
    await everything_else_ended()
    assert await site.read(info, Range(0, 10)) == content[:10]
    upstream.gate.clear()
    last = Range(len(content) - 10, 10)
    with pytest.raises(SlowError):
        await site.read(info, last)
    upstream.gate.set()
    await everything_else_ended()
    upstream.requests.clear()
    assert await site.read(info, last) == content[-10:]
    assert upstream.requests == []


async def test_a_restart_goes_on_in_every_phase(make: MakeSite, info: TargetInfo, content: bytes, whole: Range) -> None:
    """Closed with its header only, with some chunks, complete and not published, published with its bitmap left behind."""
    site = make(MemorySource(content))
    await site.read(info, Range(0, 10))
    await site.relays.close()
    upstream = MemorySource(content)
    site = make(upstream)
    middle = Range(len(content) // 2, 50_000)
    assert await site.read(info, middle) == content[middle.start : middle.end]
    assert Range(0, pinned(info).length) not in upstream.requests[0], "the header was kept"
    await site.relays.close()

    site = make(upstream)
    site.fail = [refuse_publication]
    assert await site.read(info, whole) == content
    await site.relays.settle()
    assert site.store.find(info) is None
    assert upstream.bytes_asked() < len(content), "no byte twice"
    assert await site.read(info, whole) == content, "a file that cannot be published serves as well"
    await everything_else_ended()
    assert len(site.published) == 1, "and is not hashed again for every reader"
    await site.relays.close()

    silent = MemorySource(b"")
    site = make(silent)
    site.fail = [refuse_removal_of_bitmap]
    assert await site.read(info, whole) == content
    path = await published(site, info)
    assert path.read_bytes() == content
    assert site.sparse_files == [f"{info.sha256}.zck.map"]
    await site.relays.close()

    site = make(silent)
    assert await site.relays.lend(info, [whole]) is None
    assert silent.requests == []


def refuse_publication(operation: Operation) -> None:
    if operation.kind is Kind.RENAME and operation.path.suffix == ".zck":
        raise StoreError("no entry can be made")


def refuse_removal_of_bitmap(operation: Operation) -> None:
    if operation.kind is Kind.REMOVE and operation.path.suffix == ".map":
        raise StoreError("read-only")


@pytest.mark.parametrize("restarted", [True, False])
async def test_what_rotted_before_it_was_complete_is_fetched_again_and_then_published(
    make: MakeSite, upstream: MemorySource, info: TargetInfo, content: bytes, zck: Path, *, restarted: bool
) -> None:
    site = make(upstream)
    first, *rest = index_of(zck).header
    await site.read(info, Range(rest[0].start, len(content) - rest[0].start))
    if restarted:
        await site.relays.close()
    with (site.store.layout.sparse / f"{info.sha256}.zck").open("r+b") as file:
        file.seek(rest[5].start)
        file.write(b"rot")
    site = make(upstream) if restarted else site
    assert await site.read(info, Range(first.start, first.length)) == content[first.start :][: first.length]
    await everything_else_ended()
    assert site.store.find(info) is None, "complete by its bitmap, but not in truth"
    span = Range(rest[5].start, 20)
    assert await site.read(info, span) == content[span.start : span.end]
    assert (await published(site, info)).read_bytes() == content


async def test_the_same_content_in_two_repositories_is_fetched_once_each_from_its_own_upstreams(
    make: MakeSite, info: TargetInfo, content: bytes, whole: Range, zck: Path
) -> None:
    broken, good = MemorySource(content), MemorySource(content)
    site, twin = make(broken), info_of(zck, "other", "elsewhere/same.zck")
    site.sources["other"] = [good]
    half = Range(0, len(content) // 2)
    assert await site.read(info, half) == content[: half.length]
    broken.fail_after = 0
    with pytest.raises(UnreachableError):
        await site.read(info, whole)
    assert await site.read(twin, whole) == content, "chunks are shared, upstreams are not"
    assert good.bytes_asked() < len(content) * 0.6
    await site.relays.settle()
    assert site.store.find(twin) is not None
    assert [verified.info.repository for verified in site.published] == ["other"]


@pytest.fixture
def counted_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in threads is done in two steps of the loop, so that every run takes the same steps."""

    async def inline(work: Callable[..., object], *arguments: object) -> object:
        await asyncio.sleep(0)
        result = work(*arguments)
        await asyncio.sleep(0)
        return result

    monkeypatch.setattr(asyncio, "to_thread", inline)


@pytest.mark.usefixtures("counted_steps")
@pytest.mark.parametrize("closing", [False, True], ids=["reader", "relays"])
async def test_every_await_can_be_cancelled_and_nothing_hangs_or_leaks(
    tmp_path: Path, info: TargetInfo, content: bytes, whole: Range, closing: bool
) -> None:
    """The reader (or all of it) is stopped after n steps, for every n until it is done before; then another one reads."""
    for steps in range(400):
        before, upstream = open_descriptors(), MemorySource(content)
        upstream.piece_bytes = 100_000
        site = RelaySite(tmp_path / str(steps), {"plant": [upstream]})
        reader = asyncio.create_task(site.read(info, whole))
        for _ in range(steps):
            await asyncio.sleep(0)
        finished = reader.done()
        async with asyncio.timeout(10):
            if closing:
                await site.relays.close()
                site = RelaySite(tmp_path / str(steps), {"plant": [upstream]})
            else:
                reader.cancel()
            with suppress(asyncio.CancelledError, FieldrelayError):
                await reader
            assert await site.read(info, whole) in {content, None}
            await site.relays.settle()
            assert (await published(site, info)).read_bytes() == content
            if not closing:
                assert upstream.bytes_asked() == len(content)
            await site.relays.close()
            await everything_else_ended()
        assert (upstream.open, open_descriptors()) == (0, before)
        if finished:
            break
    assert 20 < steps < 399, "every step was tried"


async def test_requests_of_one_file_are_bounded_however_much_is_asked(
    make: MakeSite, upstream: MemorySource, info: TargetInfo, zck: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay, "RANGES_PER_REQUEST", 2)
    site = make(upstream)
    await site.read(info, Range(0, 10))
    upstream.gate.clear()
    spans = [Range(chunk.start, 1) for chunk in list(index_of(zck).header)[::2]]
    readers = [asyncio.create_task(site.read(info, span)) for span in spans]
    await until(lambda: upstream.open == CONCURRENT_REQUESTS)
    for _ in range(50):
        await asyncio.sleep(0)
    assert len(spans) > 4 * CONCURRENT_REQUESTS
    assert upstream.open == CONCURRENT_REQUESTS
    upstream.gate.set()
    await asyncio.gather(*readers)
    assert digest_of(upstream.content) == info.sha256
