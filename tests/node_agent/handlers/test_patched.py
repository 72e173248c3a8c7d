"""Chunks out of patches: the image is right whatever a patch holds, nothing wrong counts as good, trouble costs bytes only."""

import asyncio
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from node_agent.handlers.delta import DeltaWriter, OldImage
from node_agent.handlers.part import Part
from node_agent.handlers.patched import Base, Missing, Pulled, apply
from tests.contract.devices import FileChunks, Patch
from tests.update.chunks.edits import edited, read_of
from tests.update.chunks.indexed import indexed
from update.chunks.pair import PatchForm, PatchOffer, write_pair
from update.chunks.plan import Reuse, Source, plan_delta
from update.chunks.zchunk import HeaderIndex
from update.digest import digest_of
from update.durable import Disk
from update.errors import ChunkError, EndlessDataError, FieldrelayError, LimitError, SlowError, UnreachableError, WireError
from update.trust.verified import Provenance, VerifiedChunkIndex

URL = "http://plant/targets/os/image.zck"
OLD = random.Random(1).randbytes(1_000_000) + bytes(200_000)
NEW = edited(OLD, 5, 10, longest=200)
MEMORY = 4 << 20


def patch_of(old: bytes = OLD, new: bytes = NEW, form: PatchForm = PatchForm.WINDOWS) -> bytes:
    out: list[bytes] = []
    write_pair(form, indexed(old), indexed(new), out.append, memory_bytes=MEMORY)
    return b"".join(out)


PATCH = patch_of()


def spoiled(patch: bytes, seed: int, places: int = 1) -> bytes:
    dice, data = random.Random(seed), bytearray(patch)
    for _ in range(places):
        data[dice.randrange(len(data))] ^= dice.randrange(1, 256)
    return bytes(data)


@dataclass(slots=True)
class Update:
    """One image written into a part of a file: from OLD in the other slot to NEW."""

    folder: Path
    old: bytes = OLD
    new: bytes = NEW
    believed: bytes = OLD
    known: bool = True
    patch: Patch | None = None
    memory: int = MEMORY
    resume: bool = False
    puts: list[int] = field(default_factory=list)

    @property
    def target(self) -> Path:
        return self.folder / "slot"

    async def run(self) -> tuple[DeltaWriter, FileChunks]:
        old, new = indexed(self.believed), indexed(self.new)
        (self.folder / "new.zck").write_bytes(new.index.raw + self.new)
        if not self.target.exists():
            self.target.write_bytes(b"\xff" * (len(self.new) + 5000))
        base = digest_of(old.index.raw)
        patches = {(URL, base): self.patch} if self.patch else {}
        chunks = FileChunks({URL: self.folder / "new.zck"}, patches=patches, patch_memory_bytes=self.memory)
        header = (base, len(self.believed)) if self.known else (None, 0)
        image = OldImage(read_of(self.old), Source.of_index(old.index), *header)
        with Disk().open_device(self.target) as file:
            writer = DeltaWriter(proved(new.index), Part("root", file), old=image, placed=None, resume=self.resume)
            await writer.write(URL, chunks, self.puts.append)
            assert sum(writer.read_back()) == len(self.new)
        assert self.target.read_bytes()[: len(self.new)] == self.new
        assert sum(self.puts) == len(self.new)
        return writer, chunks


def proved(index: HeaderIndex) -> VerifiedChunkIndex:
    return VerifiedChunkIndex(index, digest_of(index.raw), Provenance.TUF)


def offered(
    data: bytes, *, size: int | None = None, form: PatchForm = PatchForm.WINDOWS, breaks: WireError | None = None
) -> Patch:
    return Patch(PatchOffer(form, len(data) if size is None else size), data, breaks)


@pytest.mark.parametrize("form", list(PatchForm))
async def test_a_smaller_patch_is_taken_and_no_chunk_is_fetched(tmp_path: Path, form: PatchForm) -> None:
    patch = patch_of(form=form)
    writer, chunks = await Update(tmp_path, patch=offered(patch, form=form)).run()
    assert chunks.asked == []
    assert writer.tally.downloaded == len(patch)
    assert writer.tally.fetched + writer.tally.reused + writer.tally.zero == len(NEW)


async def missing_bytes(folder: Path) -> int:
    """What the chunks take."""
    writer, _ = await Update(folder).run()
    return writer.tally.downloaded


async def test_the_cheaper_one_is_taken_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / "chunks").mkdir()
    chunk_bytes = await missing_bytes(tmp_path / "chunks")
    assert chunk_bytes > 10 * len(PATCH)
    for size, taken in ((chunk_bytes, False), (chunk_bytes - 1, True)):
        folder = tmp_path / str(size)
        folder.mkdir()
        _, chunks = await Update(folder, patch=offered(PATCH, size=size)).run()
        assert (chunks.asked == []) is taken


@pytest.mark.parametrize(
    "patch",
    [
        offered(b""),
        offered(PATCH[: len(PATCH) // 2]),
        offered(PATCH, breaks=UnreachableError("the gateway went away")),
        offered(PATCH[:1000], breaks=SlowError("no byte came")),
        offered(PATCH, size=100),
        offered(PATCH + b"more", size=len(PATCH)),
        offered(patch_of(OLD, NEW[:-1])),
        offered(patch_of(OLD[:-1], NEW)),
        offered(patch_of(random.Random(2).randbytes(len(OLD)), NEW), size=1000),
        offered(patch_of(OLD, random.Random(2).randbytes(len(NEW))), size=1000),
        offered(b"\0" * 1000, form=PatchForm.LIBRSYNC),
        offered(PATCH, form=PatchForm.LIBRSYNC),
        offered(patch_of(form=PatchForm.LIBRSYNC)),
        *(offered(spoiled(PATCH, seed)) for seed in range(12)),
        *(offered(spoiled(patch_of(form=PatchForm.LIBRSYNC), seed), form=PatchForm.LIBRSYNC) for seed in range(12)),
    ],
)
async def test_any_trouble_with_a_patch_ends_in_the_right_image_by_chunks(tmp_path: Path, patch: Patch) -> None:
    await Update(tmp_path, patch=patch).run()


async def test_a_patch_that_another_image_comes_out_of_is_refused_at_its_first_chunk(tmp_path: Path) -> None:
    """A well-formed patch to another image of the same size: only the signed index can tell."""
    other = NEW[:300_000] + random.Random(9).randbytes(40_000) + NEW[340_000:]
    (tmp_path / "chunks").mkdir()
    chunk_bytes = await missing_bytes(tmp_path / "chunks")
    patch = patch_of(OLD, other)
    _, chunks = await Update(tmp_path, patch=offered(patch, size=min(len(patch), chunk_bytes - 1))).run()
    assert chunks.asked != []


async def test_what_a_patch_brought_before_it_broke_is_not_fetched_again(tmp_path: Path) -> None:
    """Windows of a small patch: the first ones are whole, the last one is spoiled."""
    out: list[bytes] = []
    write_pair(PatchForm.WINDOWS, indexed(OLD), indexed(NEW), out.append, memory_bytes=1 << 18)
    whole = b"".join(out)
    (tmp_path / "chunks").mkdir()
    chunk_bytes = await missing_bytes(tmp_path / "chunks")
    patch = offered(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert patch.offer.size < chunk_bytes
    writer, chunks = await Update(tmp_path, patch=patch).run()
    assert 0 < sum(length for _, length in chunks.asked) < chunk_bytes
    assert writer.tally.downloaded < chunk_bytes + len(whole)


async def test_a_patch_that_needs_more_memory_than_allowed_is_not_applied(tmp_path: Path) -> None:
    _, chunks = await Update(tmp_path, patch=offered(PATCH), memory=MEMORY - 1).run()
    assert chunks.asked != []


async def test_no_patch_is_asked_for_where_the_old_image_is_not_known_or_was_changed(tmp_path: Path) -> None:
    plan = plan_delta(indexed(NEW).index, Source.of_index(indexed(OLD).index))
    changed = bytearray(OLD)
    changed[next(step.source_offset for step in plan.steps if isinstance(step, Reuse))] ^= 1
    for number, update in enumerate((Update(tmp_path, known=False), Update(tmp_path, old=bytes(changed)))):
        folder = tmp_path / str(number)
        folder.mkdir()
        writer, chunks = await replace(update, folder=folder, patch=offered(PATCH), puts=[]).run()
        assert chunks.asked != []
        assert writer.tally.downloaded == sum(length for _, length in chunks.asked)


async def test_no_patch_is_asked_for_where_hardly_anything_is_missing(tmp_path: Path) -> None:
    new = OLD[:500] + b"X" + OLD[501:]
    writer, chunks = await Update(tmp_path, new=new, patch=offered(patch_of(OLD, new))).run()
    assert writer.tally.downloaded == sum(length for _, length in chunks.asked) < 64 << 10


async def test_an_interrupted_patch_goes_on_by_what_is_in_place(tmp_path: Path) -> None:
    """Killed in the middle: half of the image is there. What it misses now decides what is cheaper."""
    update = Update(tmp_path, patch=offered(PATCH), resume=True)
    update.target.write_bytes(NEW[: len(NEW) // 2] + b"\xff" * len(NEW))
    writer, chunks = await update.run()
    assert chunks.asked == []
    assert writer.tally.kept > len(NEW) // 3
    (tmp_path / "again").mkdir()
    again = Update(tmp_path / "again", patch=offered(PATCH), resume=True)
    again.target.write_bytes(NEW + b"\xff" * 5000)
    writer, chunks = await again.run()
    assert (chunks.asked, writer.tally.downloaded) == ([], 0)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), places=st.integers(0, 3), form=st.sampled_from(PatchForm), cut=st.floats(0, 1))
def test_nothing_but_the_signed_chunks_is_ever_written(
    tmp_path: Path, seed: int, places: int, form: PatchForm, cut: float
) -> None:
    """Random edits, and a patch that is damaged and cut anywhere: what counts as done is right."""
    old = random.Random(seed).randbytes(60_000)
    new = edited(old, seed, 5)
    patch = spoiled(patch_of(old, new, form), seed, places)[: int(cut * 1e5)]
    index = indexed(new).index
    target = tmp_path / "target"
    target.write_bytes(b"\xff" * len(new))

    async def run(done: bytearray) -> None:
        with Disk().open_device(target) as file:
            missing = Missing(index, done, Part("root", file), lambda _: None)
            stream, base = Pulled(pieces(patch), len(patch)), Base(read_of(old), len(old))
            await apply(PatchOffer(form, len(patch)), stream, base, missing, size=len(new), memory_bytes=MEMORY)

    done = bytearray(len(index))
    try:
        asyncio.run(run(done))
    except FieldrelayError:
        pass
    else:
        assert all(done)
    written = target.read_bytes()
    for chunk in index:
        part = slice(chunk.offset, chunk.offset + chunk.size)
        assert written[part] == (new[part] if done[chunk.index] else b"\xff" * chunk.size)


async def pieces(data: bytes, size: int = 700) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def test_a_stopped_update_ends_the_thread_before_it_ends(tmp_path: Path) -> None:
    (tmp_path / "slot").write_bytes(b"\xff" * len(NEW))
    begun = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield PATCH[:100]
        begun.set()
        await asyncio.Event().wait()

    index = indexed(NEW).index
    with Disk().open_device(tmp_path / "slot") as file:
        missing = Missing(index, bytearray(len(index)), Part("root", file), lambda _: None)
        stream, base = Pulled(stuck(), len(PATCH)), Base(read_of(OLD), len(OLD))
        work = asyncio.ensure_future(
            apply(PatchOffer(PatchForm.WINDOWS, len(PATCH)), stream, base, missing, size=len(NEW), memory_bytes=MEMORY)
        )
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
    with pytest.raises(UnreachableError, match="stopped"):
        await asyncio.to_thread(stream.read, 10_000)


async def test_more_than_was_announced_is_refused() -> None:
    stream = Pulled(pieces(b"x" * 2000), 1000)
    with pytest.raises(EndlessDataError):
        await asyncio.to_thread(lambda: [stream.read(300) for _ in range(10)])


def test_an_image_that_goes_on_is_refused_and_a_wrong_chunk_is_named(tmp_path: Path) -> None:
    index = indexed(OLD[:50_000], piece=10_000).index
    (tmp_path / "slot").write_bytes(bytes(50_000))
    put: list[int] = []
    with Disk().open_device(tmp_path / "slot") as file:
        done = bytearray([1, 0, 0, 0, 0])
        missing = Missing(index, done, Part("root", file), put.append)
        missing.write(bytes(10_000))
        missing.write(OLD[10_000:30_000])
        assert (bytes(done), put) == (b"\1\1\1\0\0", [10_000, 10_000])
        with pytest.raises(ChunkError, match="chunk 3 became another"):
            missing.write(bytes(10_000))
        missing.write(OLD[40_000:50_000])
        with pytest.raises(LimitError):
            missing.write(b"x")
    assert (tmp_path / "slot").read_bytes() == bytes(10_000) + OLD[10_000:30_000] + bytes(10_000) + OLD[40_000:50_000]
