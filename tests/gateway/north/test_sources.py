"""Upstreams are asked in their order, the failing one last for a while; a folder is read without anything left open."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing, suppress
from pathlib import Path

import pytest

from gateway.north.sources import PENALTY_S, FolderUpstream, Preference, TargetSource
from tests.builders.relayed import everything_else_ended, open_descriptors
from update.chunks.ranges import Range
from update.digest import digest_of
from update.durable import Disk
from update.errors import NotFoundError, ProtocolError, UnreachableError
from update.store.staging import Staged
from update.trust.verified import TargetCustom, TargetInfo

CONTENT = bytes(range(256)) * 12_000


@pytest.fixture
def folder(tmp_path: Path) -> FolderUpstream:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "x.zck").write_bytes(CONTENT)
    return FolderUpstream(tmp_path)


def test_who_failed_is_asked_last_for_a_while() -> None:
    now = [1000.0]
    a, b, c = (FolderUpstream(Path(name)) for name in "abc")
    preference = Preference([a, b, c], clock=lambda: now[0])
    assert preference.order() == (a, b, c)
    preference.failed(a)
    assert preference.order() == (b, c, a)
    now[0] += PENALTY_S / 2
    preference.failed(b)
    assert preference.order() == (c, a, b)
    now[0] += PENALTY_S / 2
    assert preference.order() == (a, c, b)
    preference.failed(a)
    preference.failed(c)
    assert preference.order() == (a, b, c), "when all fail, their configured order is as good as any"


def test_a_source_of_a_target_reports_its_upstream(folder: FolderUpstream) -> None:
    other = FolderUpstream(Path("other"))
    info = TargetInfo("plant", "x.zck", len(CONTENT), digest_of(CONTENT), TargetCustom(), "targets", prefixed=False)
    preference = Preference([folder, other])
    source = TargetSource(folder, info, preference)
    source.failed()
    assert (source.name, preference.order()) == (folder.name, (other, folder))


async def read(upstream: FolderUpstream, ranges: Sequence[Range], path: str = "targets/x.zck") -> list[tuple[int, bytes]]:
    return [piece async for piece in upstream.read_ranges(path, ranges)]


async def test_a_folder_sends_exactly_what_is_asked_in_blocks(folder: FolderUpstream) -> None:
    wanted = (Range(5, 10), Range(100, 2_500_000), Range(len(CONTENT) - 1, 1))
    pieces = await read(folder, wanted)
    assert [(at, len(piece)) for at, piece in pieces] == [
        (5, 10),
        (100, 1 << 20),
        (100 + (1 << 20), 1 << 20),
        (100 + (2 << 20), 2_500_000 - (2 << 20)),
        (len(CONTENT) - 1, 1),
    ]
    assert all(CONTENT[at : at + len(piece)] == piece for at, piece in pieces)


async def test_what_a_folder_lacks_has_its_name(folder: FolderUpstream, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        await read(folder, [Range(0, 1)], "targets/y.zck")
    with pytest.raises(ProtocolError):
        await read(folder, [Range(0, 1)], "targets/../../x")
    with pytest.raises(UnreachableError, match=f"ends at byte {len(CONTENT)}"):
        await read(folder, [Range(0, len(CONTENT) + 1)])


async def test_a_folder_fills_the_rest_of_a_staged_file(folder: FolderUpstream, tmp_path: Path) -> None:
    with Staged(Disk(), tmp_path / "x.part", tmp_path / "x.json", length=len(CONTENT)) as staged:
        staged.write_at(0, CONTENT[:100])
        await folder.download("targets/x.zck", staged, length=len(CONTENT))
        await folder.download("targets/x.zck", staged, length=len(CONTENT))
    assert (tmp_path / "x.part").read_bytes() == CONTENT


async def test_reading_a_folder_can_be_cancelled_at_every_step_and_leaves_nothing_open(folder: FolderUpstream) -> None:
    before = open_descriptors()
    for steps in range(60):
        reader = asyncio.create_task(read(folder, [Range(0, len(CONTENT))]))
        for _ in range(steps):
            await asyncio.sleep(0)
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
    async with aclosing(folder.read_ranges("targets/x.zck", [Range(0, len(CONTENT))])) as pieces:
        async for _ in pieces:
            break
    await everything_else_ended()
    await asyncio.get_running_loop().shutdown_default_executor()
    assert open_descriptors() == before
