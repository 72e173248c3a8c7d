"""What older files on the gateway's disk hold is not fetched for a new one, and nothing of it is believed unseen."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.south import seeds as module
from gateway.south.seeds import OldFile, Seeds, old_files
from tests.builders.relay_site import RelaySite
from tests.builders.relayed import MemorySource, body_of, index_of, info_of, make_next, make_zck, new_chunks, until
from update.chunks.ranges import Range
from update.chunks.zchunk import HeaderIndex
from update.digest import Digest, digest_of
from update.durable import Disk, Kind, Operation
from update.errors import NoSpaceError
from update.publish.images import write_zchunk
from update.trust.verified import TargetInfo


@dataclass(frozen=True, slots=True)
class Version:
    """One release of an image."""

    zck: Path
    content: bytes
    info: TargetInfo
    index: HeaderIndex

    @property
    def whole(self) -> Range:
        return Range(0, len(self.content))


def version(zck: Path, name: str) -> Version:
    return Version(zck, zck.read_bytes(), info_of(zck, path=f"os/{name}.zck"), index_of(zck).header)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Version:
    return version(make_zck(tmp_path_factory.mktemp("first")), "first")


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory, first: Version) -> Version:
    return version(make_next(tmp_path_factory.mktemp("second"), first.zck, at=0.3), "second")


@pytest.fixture(scope="module")
def third(tmp_path_factory: pytest.TempPathFactory, second: Version) -> Version:
    return version(make_next(tmp_path_factory.mktemp("third"), second.zck, at=0.7, seed=7), "third")


@pytest.fixture(scope="module")
def versions(first: Version, second: Version) -> tuple[Version, Version]:
    return first, second


@pytest.fixture
def upstream(second: Version) -> MemorySource:
    return MemorySource(second.content)


@pytest.fixture
async def site(tmp_path: Path, upstream: MemorySource) -> AsyncIterator[RelaySite]:
    made = RelaySite(tmp_path, {"plant": [upstream]})
    yield made
    await made.relays.close()


def cost_of(new: Version, *before: Version) -> int:
    """What upstream has to send: the header and what none of `before` has."""
    return new.index.header_size + sum(new_chunks(new.zck, *(each.zck for each in before)).values())


async def test_only_what_the_older_file_lacks_is_fetched(
    site: RelaySite, upstream: MemorySource, first: Version, second: Version
) -> None:
    site.keep(first.info, first.content)
    assert await site.read(second.info, second.whole) == second.content
    assert 0 < cost_of(second, first) < len(second.content) // 4
    assert upstream.bytes_asked() == cost_of(second, first)
    assert len(upstream.requests) == 2, "the header, and one request for all the rest"
    await site.relays.settle()
    assert [each.info.sha256 for each in site.published] == [second.info.sha256]


async def test_a_partly_filled_file_gives_what_it_has(
    site: RelaySite, upstream: MemorySource, first: Version, second: Version
) -> None:
    old_upstream = MemorySource(first.content)
    site.sources["plant"] = [old_upstream]
    body = body_of(first.zck)
    part = Range(body.start, body.length // 2)
    await site.read(first.info, part)
    await site.relays.settle()
    site.sources["plant"] = [upstream]
    assert await site.read(second.info, second.whole) == second.content
    held = {first.index[number].compressed_digest for number in first.index.covering(part.start, part.length)}
    assert old_upstream.bytes_asked() < len(first.content)
    missing = [chunk.length for chunk in second.index if chunk.compressed_digest not in held]
    assert upstream.bytes_asked() == second.index.header_size + sum(missing)


async def test_several_older_files_give_each_what_the_others_lack(
    site: RelaySite, first: Version, second: Version, third: Version
) -> None:
    site.keep(first.info, first.content)
    site.keep(second.info, second.content)
    newest = MemorySource(third.content)
    site.sources["plant"] = [newest]
    assert await site.read(third.info, third.whole) == third.content
    assert newest.bytes_asked() == cost_of(third, first, second) < cost_of(third, first)


async def test_what_was_not_asked_for_is_not_copied(site: RelaySite, first: Version, second: Version) -> None:
    site.keep(first.info, first.content)
    body = body_of(second.zck)
    await site.read(second.info, Range(body.start, 10))
    assert site.relays.progress()[second.info.sha256] == (1, len(second.index))
    assert site.grown == [(second.info.sha256, second.index.header_size), (second.info.sha256, second.index[0].length)]


async def test_copied_chunks_are_durable_like_fetched_ones(
    site: RelaySite, upstream: MemorySource, first: Version, second: Version, tmp_path: Path
) -> None:
    site.keep(first.info, first.content)
    numbers = [number for number in range(len(second.index)) if number not in new_chunks(second.zck, first.zck)]
    await site.read(second.info, Range(second.index[numbers[0]].start, 10))
    await site.relays.settle()
    await site.relays.close()
    (old,) = (held for held in site.store.held() if held.sha256 == first.info.sha256)
    site.store.remove(old)
    asked = upstream.bytes_asked()
    again = RelaySite(tmp_path, {"plant": [upstream]})
    await again.read(second.info, Range(second.index[numbers[0]].start, 10))
    await again.relays.close()
    assert upstream.bytes_asked() == asked


async def test_what_rotted_in_the_older_file_is_fetched(
    site: RelaySite, upstream: MemorySource, first: Version, second: Version
) -> None:
    site.keep(first.info, first.content)
    shared = [chunk for chunk in first.index if chunk.compressed_digest in {each.compressed_digest for each in second.index}]
    with site.store.layout.target(first.info).open("r+b") as file:
        for chunk in shared[:3]:
            file.seek(chunk.start + chunk.length // 2)
            file.write(b"rot")
    assert await site.read(second.info, second.whole) == second.content
    assert upstream.bytes_asked() == cost_of(second, first) + sum(chunk.length for chunk in shared[:3])


@pytest.mark.parametrize("damage", ["gone", "cut", "no header", "larger header than is read", "other file"])
async def test_an_older_file_that_is_of_no_use_costs_nothing_but_bytes(
    site: RelaySite, upstream: MemorySource, versions: tuple[Version, Version], damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = versions
    site.keep(first.info, first.content)
    path = site.store.layout.target(first.info)
    if damage == "gone":
        gone = OldFile(path.with_name("gone.zck"), first.info.sha256, 8, 0.0)
        monkeypatch.setattr(site.relays, "_look", lambda: [gone])
    elif damage == "cut":
        with path.open("r+b") as file:
            file.truncate(first.index.header_size)
    elif damage == "no header":
        path.write_bytes(bytes(100) + first.content[100:])
    elif damage == "larger header than is read":
        monkeypatch.setattr(module, "MAX_HEADERS_BYTES", first.index.header_size - 1)
    else:
        path.write_bytes(b"")
    assert await site.read(second.info, second.whole) == second.content
    assert upstream.bytes_asked() == len(second.content)


async def test_an_older_file_that_is_removed_while_it_is_copied_from_is_fetched_instead(
    site: RelaySite, upstream: MemorySource, first: Version, second: Version
) -> None:
    site.keep(first.info, first.content)
    await site.read(second.info, Range(body_of(second.zck).start, 10))
    (old,) = (held for held in site.store.held() if held.sha256 == first.info.sha256)
    site.store.remove(old)
    assert await site.read(second.info, second.whole) == second.content
    assert upstream.bytes_asked() == len(second.content) - second.index[0].length


async def test_readers_at_the_same_time_have_each_chunk_copied_once(
    site: RelaySite, upstream: MemorySource, first: Version, second: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.keep(first.info, first.content)
    copied: list[int] = []
    read = Seeds.read

    def noting(seeds: Seeds, numbers: list[int]) -> list[tuple[int, bytes]]:
        copied.extend(numbers)
        return read(seeds, numbers)

    monkeypatch.setattr(Seeds, "read", noting)
    body = body_of(second.zck)
    spans = [Range(body.start + at * body.length // 8, body.length // 2) for at in range(5)]
    assert await asyncio.gather(*(site.read(second.info, span) for span in spans)) == [
        second.content[span.start : span.end] for span in spans
    ]
    assert len(copied) == len(set(copied)) > 10
    assert upstream.bytes_asked() == cost_of(second, first)
    assert site.looks == 1


async def test_a_disk_that_refuses_a_copy_is_treated_as_if_nothing_were_there(
    site: RelaySite, first: Version, second: Version, caplog: pytest.LogCaptureFixture
) -> None:
    site.keep(first.info, first.content)
    refused: list[Operation] = []

    def refuse(operation: Operation) -> None:
        if operation.kind is Kind.WRITE and operation.path.suffix == ".zck" and operation.offset and not refused:
            refused.append(operation)
            raise NoSpaceError("full")

    site.fail = [refuse]
    assert await site.read(second.info, second.whole) == second.content
    assert len(refused) == 1
    assert "nothing more is copied" in caplog.text


async def test_what_has_no_room_is_passed_on_from_the_older_file(
    site: RelaySite, upstream: MemorySource, first: Version, second: Version
) -> None:
    site.keep(first.info, first.content)
    site.full = True
    assert await site.read(second.info, second.whole) == second.content
    assert upstream.bytes_asked() == cost_of(second, first)
    assert site.sparse_files == []


async def test_a_relay_that_is_closed_while_it_copies_leaves_nobody_waiting(
    site: RelaySite, upstream: MemorySource, first: Version, second: Version
) -> None:
    site.keep(first.info, first.content)
    await site.read(second.info, Range(0, 10))
    asked, copying, go_on = len(upstream.requests), threading.Event(), threading.Event()

    def hold(operation: Operation) -> None:
        if operation.kind is Kind.WRITE:
            copying.set()
            assert go_on.wait(20)

    site.fail.append(hold)
    reading = asyncio.create_task(site.read(second.info, second.whole))
    assert await asyncio.to_thread(copying.wait, 20)
    (relayed,) = site.relays._files.values()
    closing = asyncio.create_task(site.relays.close())
    await until(lambda: relayed._closed)
    go_on.set()
    async with asyncio.timeout(20):
        await asyncio.wait([reading, closing])
    assert isinstance(reading.exception(), Exception)
    assert len(upstream.requests) == asked


def test_what_is_on_disk_is_listed_by_its_last_use(site: RelaySite, first: Version) -> None:
    site.keep(first.info, first.content)
    sparse = site.store.layout.sparse
    digest = digest_of(b"sparse")
    (sparse / f"{digest}.zck").write_bytes(b"x")
    (sparse / f"{digest}.zck.map").write_bytes(b"x")
    (sparse / "other.zck").write_bytes(b"x")
    (sparse / f"{digest_of(b'link')}.zck").symlink_to(sparse / "other.zck")
    listed = old_files(site.store.layout)
    assert {file.digest for file in listed} == {digest, first.info.sha256}
    assert [file.used_s for file in listed] == sorted((file.used_s for file in listed), reverse=True)


def test_files_are_looked_at_again_when_they_have_changed_and_not_all_the_time(first: Version, second: Version) -> None:
    now, listed = [0.0], list[OldFile]()
    looks = []

    def look() -> list[OldFile]:
        looks.append(now[0])
        return listed

    seeds = Seeds(second.index, second.info.sha256, look, clock=lambda: now[0])
    everything = range(len(second.index))
    assert seeds.find(everything) == []
    listed.append(OldFile(first.zck, first.info.sha256, 8, 1.0))
    assert seeds.find(everything) == []
    now[0] = module.LOOK_S
    shared = sorted(set(everything) - new_chunks(second.zck, first.zck).keys())
    assert seeds.find(everything) == shared
    assert looks == [0.0, module.LOOK_S]
    assert seeds.read([shared[0]]) == [(shared[0], _stored(second, shared[0]))]
    assert seeds.read(new_chunks(second.zck, first.zck)) == []


def test_a_hole_in_one_file_does_not_hide_what_another_one_has(tmp_path: Path, first: Version, second: Version) -> None:
    with (tmp_path / "sparse.zck").open("wb") as file:
        file.write(first.index.raw)
        file.truncate(len(first.content))
    files = [OldFile(tmp_path / "sparse.zck", digest_of(b"sparse"), 8, 2.0), OldFile(first.zck, first.info.sha256, 8, 1.0)]
    seeds = Seeds(second.index, second.info.sha256, lambda: files)
    found = seeds.find(range(len(second.index)))
    assert found
    assert seeds.read(found) == [(number, _stored(second, number)) for number in found]


def test_no_more_files_are_looked_at_than_the_limit(first: Version, second: Version, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_FILES", 1)
    other = OldFile(Path("/nowhere.zck"), Digest("0" * 64), 8, 2.0)
    own = OldFile(second.zck, second.info.sha256, 8, 3.0)
    old = OldFile(first.zck, first.info.sha256, 8, 1.0)
    assert Seeds(second.index, second.info.sha256, lambda: [own, other, old]).find(range(len(second.index))) == []
    assert Seeds(second.index, second.info.sha256, lambda: [own, old]).find(range(len(second.index))) != []


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("images")


_BLOCKS = [random.Random(number).randbytes(140_000 if number % 2 else 9_000) for number in range(5)] + [bytes(300_000)]


@settings(max_examples=40, deadline=None)
@given(
    old=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    new=st.lists(st.integers(0, 5), min_size=1, max_size=6),
    limit=st.sampled_from([module.MAX_CHUNKS, 3]),
)
def test_found_is_what_is_stored_the_same_way_and_read_is_what_is_right(
    folder: Path, old: list[int], new: list[int], limit: int
) -> None:
    versions = []
    for name, blocks in (("old", old), ("new", new)):
        (folder / name).write_bytes(b"".join(_BLOCKS[number] for number in blocks))
        write_zchunk(folder / name, folder / f"{name}.zck", Disk())
        versions.append(version(folder / f"{name}.zck", name))
    before, after = versions
    look = [OldFile(before.zck, digest_of(b"old"), 8, 1.0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MAX_CHUNKS", limit)
        seeds = Seeds(after.index, digest_of(b"new"), lambda: look)
        found = seeds.find(range(len(after.index)))
    expected = set(range(len(after.index))) - new_chunks(after.zck, before.zck).keys()
    assert set(found) == {number for number in expected if number < limit}
    assert seeds.read(found) == [(number, _stored(after, number)) for number in found]


def _stored(version: Version, number: int) -> bytes:
    chunk = version.index[number]
    return version.content[chunk.start : chunk.start + chunk.length]
