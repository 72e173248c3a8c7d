"""The relay fetches each missing chunk once, holds requests, and never serves or claims what is not there."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.south import commits
from gateway.south import relay as module
from gateway.south.origins import RangeSource
from gateway.south.relay import CONCURRENT_REQUESTS, RANGES_PER_REQUEST, RelayedFile
from gateway.south.sparse import SparseFile
from tests.builders.hand_upstream import HandUpstream, Send
from tests.builders.relayed import MemorySource, body_of, everything_else_ended, index_of, make_zck, open_descriptors, until
from update.chunks.ranges import Range
from update.durable import Disk, Kind, Operation
from update.errors import (
    EndlessDataError,
    NoSpaceError,
    ProtocolError,
    SlowError,
    StoreError,
    UnauthorizedError,
    UnreachableError,
)

Opener = Callable[..., RelayedFile]


@pytest.fixture(scope="module")
def zck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_zck(tmp_path_factory.mktemp("zck"))


@pytest.fixture
def upstream(zck: Path) -> MemorySource:
    return MemorySource(zck.read_bytes())


@pytest.fixture
async def open_relay(zck: Path, tmp_path: Path) -> AsyncIterator[Opener]:
    opened: list[RelayedFile] = []

    def open_one(disk: Disk | None = None) -> RelayedFile:
        opened.append(RelayedFile(SparseFile.open(disk or Disk(), tmp_path / "x.zck", index_of(zck))))
        return opened[-1]

    yield open_one
    for relayed in opened:
        await relayed.close()


@pytest.fixture
def relayed(open_relay: Opener) -> RelayedFile:
    return open_relay()


async def test_concurrent_readers_of_overlapping_ranges_cost_each_chunk_once(
    zck: Path, relayed: RelayedFile, upstream: MemorySource
) -> None:
    everything = body_of(zck)
    third = everything.length // 3
    spans = [Range(everything.start + at * third // 2, third) for at in range(5)]
    await asyncio.gather(*(relayed.ensure([span], [upstream]) for span in spans))
    asked = sorted(span for request in upstream.requests for span in request)
    assert all(before.end <= after.start for before, after in pairwise(asked))
    await relayed.ensure([everything], [upstream])
    assert upstream.bytes_asked() == everything.length
    assert relayed.sparse.path.read_bytes() == zck.read_bytes()


async def test_a_reader_that_goes_away_disturbs_nobody(zck: Path, relayed: RelayedFile, upstream: MemorySource) -> None:
    upstream.gate.clear()
    first = asyncio.create_task(relayed.ensure([body_of(zck)], [upstream]))
    second = asyncio.create_task(relayed.ensure([body_of(zck)], [upstream]))
    await asyncio.sleep(0)
    first.cancel()
    upstream.gate.set()
    await second
    assert upstream.bytes_asked() == body_of(zck).length
    assert first.cancelled()


async def test_a_failed_fetch_fails_its_readers_and_the_next_one_gets_only_the_rest(
    zck: Path, relayed: RelayedFile, upstream: MemorySource
) -> None:
    upstream.fail_after = body_of(zck).length // 2
    with pytest.raises(UnreachableError):
        await relayed.ensure([body_of(zck)], [upstream])
    had = relayed.sparse.count()
    assert 0 < had < len(relayed.sparse.index)
    upstream.fail_after = None
    upstream.requests.clear()
    await relayed.ensure([body_of(zck)], [upstream])
    assert upstream.bytes_asked() == sum(chunk.length for chunk in list(relayed.sparse.index)[had:])


async def test_a_lying_upstream_is_refused_and_the_good_chunks_stay(zck: Path, relayed: RelayedFile) -> None:
    content = bytearray(zck.read_bytes())
    middle = index_of(zck).header[len(index_of(zck).header) // 2]
    content[middle.start] ^= 1
    liar = MemorySource(bytes(content))
    with pytest.raises(UnreachableError, match=r"bundle\.chunk"):
        await relayed.ensure([body_of(zck)], [liar])
    assert liar.failures == 1
    assert relayed.sparse.count() == len(relayed.sparse.index) - 1
    assert not relayed.sparse.holds(middle.index)


@pytest.mark.parametrize(
    "error",
    [UnreachableError("gone"), SlowError("slow"), ProtocolError("odd"), UnauthorizedError("who?"), EndlessDataError("more")],
    ids=lambda error: error.code,
)
async def test_what_one_upstream_does_not_send_the_next_one_is_asked_for(
    zck: Path, relayed: RelayedFile, upstream: MemorySource, error: Exception
) -> None:
    broken = MemorySource(zck.read_bytes())
    broken.fail_after, broken.error = 50_000, lambda: error
    await relayed.ensure([body_of(zck)], [broken, upstream])
    assert (broken.failures, upstream.failures) == (1, 0)
    assert relayed.sparse.path.read_bytes() == zck.read_bytes()
    assert 0 < upstream.bytes_asked() < body_of(zck).length


async def test_the_next_upstream_is_left_alone_when_the_first_has_all(
    zck: Path, relayed: RelayedFile, upstream: MemorySource
) -> None:
    second = MemorySource(zck.read_bytes())
    await relayed.ensure([body_of(zck)], [upstream, second])
    await everything_else_ended()
    assert (len(upstream.requests), second.requests) == (1, [])


async def test_the_file_stays_open_while_a_thread_reads_it(
    zck: Path, open_relay: Opener, upstream: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed under the thread, its number would be the next file's."""
    first = open_relay()
    await first.ensure([body_of(zck)], [upstream])
    await first.close()
    again, reading, go_on = open_relay(), threading.Event(), threading.Event()
    found: list[int] = []
    read_back = SparseFile.read_back

    def slow(sparse: SparseFile, numbers: Sequence[int]) -> list[int]:
        reading.set()
        assert go_on.wait(20)
        found.extend(read_back(sparse, numbers))
        return found

    monkeypatch.setattr(SparseFile, "read_back", slow)
    reader = asyncio.create_task(again.ensure([body_of(zck)], [upstream]))
    await asyncio.to_thread(reading.wait, 20)
    reader.cancel()
    closing = asyncio.create_task(again.close())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not closing.done()
    go_on.set()
    await closing
    assert found == list(range(len(again.sparse.index)))


async def test_a_lying_upstream_costs_only_its_wrong_chunks_at_the_next(
    zck: Path, relayed: RelayedFile, upstream: MemorySource
) -> None:
    content, wrong = bytearray(zck.read_bytes()), [index_of(zck).header[number] for number in (2, 3, 9)]
    for chunk in wrong:
        content[chunk.start + chunk.length - 1] ^= 1
    await relayed.ensure([body_of(zck)], [MemorySource(bytes(content)), upstream])
    assert upstream.bytes_asked() == sum(chunk.length for chunk in wrong)
    assert relayed.sparse.path.read_bytes() == zck.read_bytes()


@pytest.mark.parametrize("error", [UnauthorizedError("who?"), ProtocolError("odd"), EndlessDataError("more")])
async def test_a_node_is_not_blamed_for_our_upstream(
    zck: Path, relayed: RelayedFile, upstream: MemorySource, error: Exception
) -> None:
    upstream.fail_after, upstream.error = 0, lambda: error
    with pytest.raises(UnreachableError, match=str(error)):
        await relayed.ensure([body_of(zck)], [upstream])


async def test_a_defect_in_a_fetch_is_logged_and_nobody_waits_for_ever(
    zck: Path, relayed: RelayedFile, upstream: MemorySource, caplog: pytest.LogCaptureFixture
) -> None:
    upstream.fail_after, upstream.error = 20_000, lambda: ZeroDivisionError("a defect")
    async with asyncio.timeout(10):
        results = await asyncio.gather(*(relayed.ensure([body_of(zck)], [upstream]) for _ in range(3)), return_exceptions=True)
    assert {type(result) for result in results} == {StoreError}
    assert "a defect" in caplog.text
    upstream.fail_after = None
    await relayed.ensure([body_of(zck)], [upstream])


async def test_without_an_upstream_a_reader_is_told_at_once(zck: Path, relayed: RelayedFile) -> None:
    with pytest.raises(UnreachableError, match="none is configured"):
        await relayed.ensure([body_of(zck)], [])


async def test_an_upstream_whose_bytes_cannot_be_stored_is_not_left_open(
    zck: Path, open_relay: Opener, upstream: MemorySource
) -> None:
    def full(operation: Operation) -> None:
        if operation.kind is Kind.WRITE and operation.offset > body_of(zck).length // 2:
            raise NoSpaceError("the disk is full")

    relayed = open_relay(Disk(full))
    with pytest.raises(NoSpaceError):
        await relayed.ensure([body_of(zck)], [upstream])
    assert upstream.open == 0
    assert upstream.failures == 0, "our disk is not the upstream's fault"
    held = relayed.sparse.path.read_bytes()
    for chunk in relayed.sparse.index:
        stored = held[chunk.start : chunk.start + chunk.length]
        assert not relayed.sparse.holds(chunk.index) or hashlib.sha256(stored).digest() == chunk.compressed_digest


async def test_a_disk_that_does_not_make_it_durable_does_not_stop_the_relay(
    zck: Path, tmp_path: Path, open_relay: Opener, upstream: MemorySource, caplog: pytest.LogCaptureFixture
) -> None:
    refused = [True]

    def refuse(operation: Operation) -> None:
        if refused[0] and operation.path.name.endswith(".map.tmp"):
            raise NoSpaceError("no room for the bitmap")

    relayed = open_relay(Disk(refuse))
    await relayed.ensure([body_of(zck)], [upstream])
    await everything_else_ended()
    assert "no room for the bitmap" in caplog.text
    assert not (tmp_path / "x.zck.map").exists()
    refused[0] = False
    await relayed.settle()
    assert (tmp_path / "x.zck.map").exists()


@pytest.mark.parametrize("far_behind", [False, True])
async def test_the_line_goes_on_while_the_disk_syncs_until_that_is_far_behind(
    zck: Path, tmp_path: Path, upstream: MemorySource, monkeypatch: pytest.MonkeyPatch, *, far_behind: bool
) -> None:
    syncing, go_on = threading.Event(), threading.Event()

    def slow(operation: Operation) -> None:
        if operation.kind is Kind.SYNC:
            syncing.set()
            assert go_on.wait(20)

    upstream.piece_bytes = 10_000
    monkeypatch.setattr(module, "WRITE_BYTES", 1)
    monkeypatch.setattr(commits, "COMMIT_EVERY_BYTES", 1)
    monkeypatch.setattr(commits, "MOST_UNCOMMITTED_BYTES", 200_000 if far_behind else 1 << 30)
    sparse = SparseFile.open(Disk(), tmp_path / "x.zck", index_of(zck))
    sparse.close()
    relayed = RelayedFile(SparseFile.open(Disk(slow), tmp_path / "x.zck", index_of(zck)))
    reading = asyncio.create_task(relayed.ensure([body_of(zck)], [upstream]))
    assert await asyncio.to_thread(syncing.wait, 20)
    if far_behind:
        await until(lambda: relayed._commits._bytes >= 200_000)
        for _ in range(200):
            await asyncio.sleep(0)
        assert not reading.done()
        assert relayed._commits._bytes < body_of(zck).length // 2
    else:
        async with asyncio.timeout(20):
            await reading
    go_on.set()
    await reading
    await relayed.close()


async def test_close_with_a_full_disk_still_closes(zck: Path, open_relay: Opener, upstream: MemorySource) -> None:
    def full(operation: Operation) -> None:
        if operation.kind is Kind.SYNC:
            raise NoSpaceError("the disk is full")

    relayed = open_relay(Disk(full))
    await relayed.ensure([body_of(zck)], [upstream])
    await relayed.close()
    assert relayed.sparse.fileno() == -1


async def test_a_restart_finds_what_was_made_durable(zck: Path, open_relay: Opener, upstream: MemorySource) -> None:
    half = Range(body_of(zck).start, body_of(zck).length // 2)
    first = open_relay()
    await first.ensure([half], [upstream])
    await first.close()
    upstream.requests.clear()
    await open_relay().ensure([half], [upstream])
    assert upstream.requests == []


async def test_a_chunk_that_rotted_on_disk_is_fetched_again(zck: Path, open_relay: Opener, upstream: MemorySource) -> None:
    first = open_relay()
    await first.ensure([body_of(zck)], [upstream])
    await first.close()
    damaged = index_of(zck).header[3]
    with first.sparse.path.open("r+b") as file:
        file.seek(damaged.start)
        file.write(bytes([zck.read_bytes()[damaged.start] ^ 255]))
    again = open_relay()
    upstream.requests.clear()
    await again.ensure([body_of(zck)], [upstream])
    assert upstream.requests == [(Range(damaged.start, damaged.length),)]
    assert again.sparse.path.read_bytes() == zck.read_bytes()


async def test_many_scattered_chunks_are_asked_in_bounded_requests(
    zck: Path, relayed: RelayedFile, upstream: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = relayed.sparse.index
    monkeypatch.setattr(module, "RANGES_PER_REQUEST", 5)
    await relayed.ensure([Range(index[number].start, 1) for number in range(0, len(index), 2)], [upstream])
    assert len(upstream.requests) > 3
    assert all(len(request) <= 5 < RANGES_PER_REQUEST for request in upstream.requests)


async def test_on_a_slow_line_who_waits_for_one_chunk_is_not_held_for_the_next_ones(zck: Path, relayed: RelayedFile) -> None:
    upstream, first = HandUpstream("slow", zck.read_bytes(), []), relayed.sparse.index[0]
    everything = asyncio.create_task(relayed.ensure([body_of(zck)], [upstream]))
    await until(lambda: bool(upstream.open))
    upstream.open[0].orders.put_nowait(Send(first.length))
    async with asyncio.timeout(10):
        await relayed.ensure([Range(first.start, first.length)], [upstream])
    assert not everything.done()
    upstream.be_honest()
    await everything


async def test_what_many_ask_for_in_one_moment_travels_as_one_request(
    zck: Path, relayed: RelayedFile, upstream: MemorySource
) -> None:
    """Each of the readers touches neighbours of what the others want."""
    wishes = [[Range(relayed.sparse.index[number].start, 1) for number in range(first, 36, 6)] for first in range(6)]
    await asyncio.gather(*(relayed.ensure(wish, [upstream]) for wish in wishes))
    first, last = relayed.sparse.index[0], relayed.sparse.index[35]
    assert upstream.requests == [(Range(first.start, last.start + last.length - first.start),)]


async def test_what_is_asked_for_while_enough_is_under_way_travels_together_afterwards(
    zck: Path, open_relay: Opener, upstream: MemorySource
) -> None:
    relayed = open_relay()
    index = relayed.sparse.index
    upstream.gate.clear()
    readers = []
    for number in range(CONCURRENT_REQUESTS):
        readers.append(asyncio.create_task(relayed.ensure([Range(index[3 * number].start, 1)], [upstream])))
        await until(lambda: len(upstream.requests) == len(readers))
    late = [asyncio.create_task(relayed.ensure([Range(index[number].start, 1)], [upstream])) for number in (30, 2, 28, 29)]
    await until(lambda: sum(len(queue.waiting) for queue in relayed._queues.values()) == len(late))
    assert len(upstream.requests) == CONCURRENT_REQUESTS
    upstream.gate.set()
    await asyncio.gather(*readers, *late)
    near = Range(index[28].start, index[30].start + index[30].length - index[28].start)
    assert upstream.requests[CONCURRENT_REQUESTS:] == [(Range(index[2].start, index[2].length), near)]


async def test_it_waits_for_others_longer_while_the_line_is_busy_and_never_for_ever(
    zck: Path, tmp_path: Path, upstream: MemorySource
) -> None:
    relayed = RelayedFile(SparseFile.open(Disk(), tmp_path / "x.zck", index_of(zck)), gather_s=100.0)
    index, loop, readers = relayed.sparse.index, asyncio.get_running_loop(), list[asyncio.Task[None]]()

    async def waits_s(number: int) -> float:
        readers.append(asyncio.create_task(relayed.ensure([Range(index[number].start, 1)], [upstream])))
        await until(lambda: len(relayed._coming) == len(readers))
        assert relayed._gathering is not None
        return relayed._gathering.when() - loop.time()

    begun_s = loop.time()
    assert await waits_s(1) <= 100
    relayed._gather_until_s = begun_s + 150.0
    loop_time = loop.time
    loop.time = lambda: loop_time() + 90.0  # type: ignore[method-assign]  # others ask a moment before it is over
    try:
        assert 50 < await waits_s(4) <= 60
    finally:
        loop.time = loop_time  # type: ignore[method-assign]
    upstream.gate.clear()
    relayed._send_out()
    await until(lambda: upstream.open == 1)
    assert await waits_s(7) > 500
    upstream.gate.set()
    relayed._send_out()
    await asyncio.gather(*readers)
    await relayed.close()


async def test_a_line_is_idle_while_the_last_chunks_are_made_durable(zck: Path, tmp_path: Path, upstream: MemorySource) -> None:
    """Who asks for one thing after the other would wait each time for others who might ask."""
    syncing, go_on = threading.Event(), threading.Event()

    def slow(operation: Operation) -> None:
        if operation.kind is Kind.SYNC:
            syncing.set()
            assert go_on.wait(20)

    relayed = RelayedFile(SparseFile.open(Disk(slow), tmp_path / "x.zck", index_of(zck)), gather_s=100.0)
    index, loop = relayed.sparse.index, asyncio.get_running_loop()
    first = asyncio.create_task(relayed.ensure([Range(index[1].start, 1)], [upstream]))
    await until(lambda: relayed._gathering is not None)
    relayed._send_out()
    await first
    await asyncio.to_thread(syncing.wait, 20)
    assert relayed.busy
    second = asyncio.create_task(relayed.ensure([Range(index[4].start, 1)], [upstream]))
    await until(lambda: relayed._gathering is not None)
    assert relayed._gathering is not None
    assert relayed._gathering.when() - loop.time() <= 100
    go_on.set()
    relayed._send_out()
    await second
    await relayed.close()


async def test_a_relay_that_is_closed_tells_those_who_still_wait_for_their_turn(
    zck: Path, open_relay: Opener, upstream: MemorySource
) -> None:
    relayed = open_relay()
    upstream.gate.clear()
    readers = [
        asyncio.create_task(relayed.ensure([Range(relayed.sparse.index[3 * number].start, 1)], [upstream]))
        for number in range(CONCURRENT_REQUESTS + 3)
    ]
    await until(lambda: len(relayed._coming) == len(readers))
    await relayed.close()
    results = await asyncio.gather(*readers, return_exceptions=True)
    assert {type(result) for result in results} == {UnreachableError}


async def test_an_upstream_that_may_send_everything_is_asked_one_thing_at_a_time(
    zck: Path, relayed: RelayedFile, upstream: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RANGES_PER_REQUEST", 2)
    upstream.ranged = False
    upstream.gate.clear()
    spans = [Range(relayed.sparse.index[number].start, 1) for number in range(0, 30, 3)]
    reader = asyncio.create_task(relayed.ensure(spans, [upstream]))
    await until(lambda: bool(upstream.requests))
    await until(lambda: len(relayed._fetches) == CONCURRENT_REQUESTS)
    assert upstream.open == 1
    upstream.gate.set()
    await reader
    assert len(upstream.requests) == 5


async def test_it_is_told_how_many_ranges_can_be_had_at_once(zck: Path, relayed: RelayedFile, upstream: MemorySource) -> None:
    index = relayed.sparse.index
    spans = [Range(0, 10), *(Range(index[number].start, 5) for number in (4, 8, 12))]
    await relayed.ensure([spans[1], spans[3]], [upstream])
    assert [relayed.leading(spans[:count]) for count in range(5)] == [0, 1, 2, 2, 2]


async def test_a_borrowed_descriptor_outlives_the_relay(zck: Path, relayed: RelayedFile, upstream: MemorySource) -> None:
    await relayed.ensure([body_of(zck)], [upstream])
    lease = relayed.lend()
    await relayed.close()
    relayed.sparse.path.rename(relayed.sparse.path.with_name("published"))
    assert os.pread(lease.descriptor, 1 << 30, 0) == zck.read_bytes()
    lease.release()
    lease.release()


@pytest.fixture
def counted_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in threads is done in two steps of the loop, so that every run takes the same steps."""

    async def inline(work: Callable[..., object], *arguments: object) -> object:
        await asyncio.sleep(0)
        result = work(*arguments)
        await asyncio.sleep(0)
        return result

    monkeypatch.setattr(asyncio, "to_thread", inline)


async def test_every_await_can_be_cancelled_and_nothing_hangs_or_leaks(zck: Path, tmp_path: Path, counted_steps: None) -> None:
    """The reader is cancelled after n steps of the loop, for every n; another reader then gets everything, once."""
    content, steps = zck.read_bytes(), 0
    for fetching in range(400):
        steps = fetching
        before = open_descriptors()
        upstream = MemorySource(content)
        upstream.piece_bytes = 60_000
        relayed = RelayedFile(SparseFile.open(Disk(), tmp_path / f"{fetching}.zck", index_of(zck)), gather_s=0)
        reader = asyncio.create_task(relayed.ensure([body_of(zck)], [upstream]))
        for _ in range(fetching):
            await asyncio.sleep(0)
        finished = reader.done()
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
        async with asyncio.timeout(10):
            await relayed.ensure([body_of(zck)], [upstream])
        assert upstream.bytes_asked() == body_of(zck).length, "a chunk was fetched twice"
        await relayed.close()
        await everything_else_ended()
        assert (upstream.open, open_descriptors()) == (0, before)
        if finished:
            break
    assert 10 < steps < 399, "every step was tried"


async def test_closing_at_any_moment_tells_every_reader_and_leaves_nothing(
    zck: Path, tmp_path: Path, counted_steps: None
) -> None:
    content, told = zck.read_bytes(), 0
    for fetching in range(60):
        before = open_descriptors()
        upstream = MemorySource(content)
        relayed = RelayedFile(SparseFile.open(Disk(), tmp_path / f"{fetching}.zck", index_of(zck)), gather_s=0)
        reader = asyncio.create_task(relayed.ensure([body_of(zck)], [upstream]))
        for _ in range(fetching):
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            await relayed.close()
            (result,) = await asyncio.gather(reader, return_exceptions=True)
        assert result is None or isinstance(result, UnreachableError)
        told += result is not None
        if not relayed.sparse.complete:
            with pytest.raises(UnreachableError):
                await relayed.ensure([body_of(zck)], [upstream])
        await everything_else_ended()
        assert (upstream.open, open_descriptors()) == (0, before)
        kept = SparseFile.open(Disk(), tmp_path / f"{fetching}.zck", index_of(zck))
        claimed = kept.unproved(range(len(kept.index)))
        assert kept.read_back(claimed) == claimed
        kept.close()
    assert told > 10


async def test_what_is_read_again_is_read_beside_the_event_loop(
    zck: Path, open_relay: Opener, upstream: MemorySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_relay()
    await first.ensure([body_of(zck)], [upstream])
    await first.close()
    again = open_relay()
    threads: set[threading.Thread] = set()
    read_back = SparseFile.read_back

    def watched(sparse: SparseFile, numbers: Sequence[int]) -> list[int]:
        threads.add(threading.current_thread())
        return read_back(sparse, numbers)

    monkeypatch.setattr(SparseFile, "read_back", watched)
    async with asyncio.timeout(10):
        await asyncio.gather(*(again.ensure([body_of(zck)], [upstream]) for _ in range(4)))
    assert threads
    assert threading.main_thread() not in threads


async def test_many_waiters_of_many_chunks_cost_little(zck: Path, relayed: RelayedFile, upstream: MemorySource) -> None:
    """A waiter hangs on one chunk at a time: with a callback on each, 100 whole-file readers of 1 GiB would take 400 MB."""
    upstream.gate.clear()
    readers = [asyncio.create_task(relayed.ensure([body_of(zck)], [upstream])) for _ in range(50)]
    for _ in range(20):
        await asyncio.sleep(0)
    callbacks = sum(len(coming._callbacks or ()) for coming in relayed._coming.values())
    assert callbacks <= len(relayed._coming) + len(readers)
    upstream.gate.set()
    await asyncio.gather(*readers)


@settings(max_examples=40, deadline=None)
@given(
    wishes=st.lists(st.tuples(st.integers(0, 1 << 21), st.integers(1, 1 << 19)), min_size=1, max_size=8),
    trouble=st.tuples(
        st.integers(500, 300_000), st.none() | st.integers(0, 1 << 20), st.lists(st.integers(0, 1 << 21), max_size=3)
    ),
)
def test_whatever_is_asked_and_whatever_fails_what_is_claimed_is_there(
    zck: Path,
    tmp_path_factory: pytest.TempPathFactory,
    wishes: list[tuple[int, int]],
    trouble: tuple[int, int | None, list[int]],
) -> None:
    content, (piece_bytes, fail_after, lies) = zck.read_bytes(), trouble
    folder = tmp_path_factory.mktemp("relay")
    lied = bytearray(content)
    for place in lies:
        lied[place % len(lied)] ^= 1

    async def run() -> None:
        upstream, liar = MemorySource(content), MemorySource(bytes(lied))
        upstream.piece_bytes, upstream.fail_after = piece_bytes, fail_after
        sources: list[RangeSource] = [liar, upstream] if lies else [upstream]
        relayed = RelayedFile(SparseFile.open(Disk(), folder / "x.zck", index_of(zck)))
        results = await asyncio.gather(*(relayed.ensure([Range(*wish)], sources) for wish in wishes), return_exceptions=True)
        held = relayed.sparse.path.read_bytes()
        for (start, length), result in zip(wishes, results, strict=True):
            if result is None:
                stop = min(start + length, len(content))
                assert held[start:stop] == content[start:stop]
            else:
                assert isinstance(result, UnreachableError)
        held_numbers = [number for number in range(len(relayed.sparse.index)) if relayed.sparse.holds(number)]
        await relayed.close()
        again = SparseFile.open(Disk(), folder / "x.zck", index_of(zck))
        assert again.read_back(again.unproved(range(len(again.index)))) == held_numbers
        again.close()

    asyncio.run(run())
