import asyncio
from pathlib import Path

import pytest

from gateway.south.mirrored import objects as module
from gateway.south.mirrored.objects import Held, Objects
from update.digest import digest_of
from update.durable import Disk
from update.errors import NoSpaceError


def opened(folder: Path, *, quota_bytes: int = 1000) -> Objects:
    objects = Objects(Disk(), folder, quota_bytes=quota_bytes, reserve_bytes=0)
    objects.load()
    return objects


async def keep(objects: Objects, path: str, data: bytes, *, confirmed_s: float = 1.0) -> Held:
    held = Held(path, digest_of(data), len(data), confirmed_s)
    with await objects.stage(path, len(data)) as file:
        file.write_at(0, data)
        file.sync()
    await objects.keep(held, file.path)
    objects.discard(file.path)
    return held


async def content(objects: Objects, path: str) -> bytes | None:
    held = objects.find(path)
    file = None if held is None else await objects.open(held)
    return None if file is None else file.read_bytes()


async def test_content_is_there_after_a_restart(tmp_path: Path) -> None:
    held = await keep(opened(tmp_path), "a/b", b"content")
    again = opened(tmp_path)
    assert (again.find("a/b"), await content(again, "a/b"), again.used_bytes, len(again)) == (held, b"content", 7, 1)


async def test_new_content_replaces_the_old_and_only_it_stays_on_disk(tmp_path: Path) -> None:
    objects = opened(tmp_path)
    await keep(objects, "a", b"old")
    await keep(objects, "a", b"newer")
    assert (await content(objects, "a"), objects.used_bytes) == (b"newer", 5)
    assert len([file for file in (tmp_path / "objects").glob("??/*") if file.suffix != ".json"]) == 1


async def test_the_longest_unused_is_removed_first(tmp_path: Path) -> None:
    objects = opened(tmp_path, quota_bytes=10)
    for name in ("a", "b", "c"):
        await keep(objects, name, name.encode() * 3)
    objects.find("a")
    await keep(objects, "d", b"dddd")
    assert [objects.find(name) is not None for name in "abcd"] == [True, False, True, True]
    assert objects.used_bytes == 10


async def test_what_is_larger_than_the_quota_is_refused_and_nothing_is_removed(tmp_path: Path) -> None:
    objects = opened(tmp_path, quota_bytes=10)
    await keep(objects, "a", b"aaa")
    with pytest.raises(NoSpaceError):
        await objects.stage("b", 11)
    with pytest.raises(NoSpaceError):
        await objects.keep(Held("b", digest_of(b""), 11, 1.0), tmp_path / "staging" / "x")
    assert await content(objects, "a") == b"aaa"


async def test_damaged_content_counts_as_missing_after_a_restart(tmp_path: Path) -> None:
    await keep(opened(tmp_path), "a", b"content")
    (file,) = (file for file in (tmp_path / "objects").glob("??/*") if file.suffix != ".json")
    file.write_bytes(b"c0ntent")
    objects = opened(tmp_path)
    assert await content(objects, "a") is None
    assert (objects.find("a"), objects.used_bytes) == (None, 0)


async def test_rests_of_an_interrupted_run_are_removed_at_start(tmp_path: Path) -> None:
    objects = opened(tmp_path)
    held = await keep(objects, "a", b"content")
    await keep(objects, "b", b"other")
    (await objects.stage("c", 3)).close()
    folder = tmp_path / "objects" / digest_of(b"b")[:2]
    (folder / f"{digest_of(b'b')}.json").write_text("{")
    objects = opened(tmp_path)
    assert (objects.find("a"), objects.find("b"), len(objects)) == (held, None, 1)
    assert list(folder.iterdir()) == []
    assert list((tmp_path / "staging").iterdir()) == []


async def test_what_is_not_there_is_remembered_in_bounded_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ABSENT", 3)
    objects = opened(tmp_path)
    for number in range(5):
        await objects.note(Held(str(number), "", 0, 1.0))
    assert [objects.find(str(number)) is not None for number in range(5)] == [False, False, True, True, True]
    assert len(opened(tmp_path)) == 0
    assert opened(tmp_path).find("4") == Held("4", "", 0, 1.0)


class Crashed(BaseException):
    """Raised in place of an operation of the disk."""


@pytest.mark.parametrize("operation", range(25))
async def test_whatever_a_crash_interrupts_the_path_has_its_old_or_its_new_content(tmp_path: Path, operation: int) -> None:
    await keep(opened(tmp_path), "a", b"old")
    left = [operation]

    def crash(_operation: object) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise Crashed

    objects = Objects(Disk(crash), tmp_path, quota_bytes=1000, reserve_bytes=0)
    try:
        objects.load()
        await keep(objects, "a", b"new")
    except Crashed:
        pass
    again = opened(tmp_path)
    found = await asyncio.wait_for(content(again, "a"), 30)
    assert found in {b"old", b"new"}
    assert again.used_bytes == 3


async def test_a_disk_that_would_be_too_full_costs_the_longest_unused_and_then_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = opened(tmp_path)
    for name in ("a", "b"):
        await keep(objects, name, b"1234")
    free = [5]
    monkeypatch.setattr(Objects, "_free_bytes", lambda self: free[0] + 8 - self.used_bytes)
    (await objects.stage("c", 7)).close()
    assert (objects.find("a"), objects.used_bytes) == (None, 4)
    with pytest.raises(NoSpaceError):
        await objects.stage("d", 7)  # the room is spoken for
    assert objects.used_bytes == 4, "nothing was removed in vain"
