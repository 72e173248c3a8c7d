"""The catalogue over all repositories: looked up by name, polled in the background, the same content known as such."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.north.mirrors import Mirrors
from gateway.north.sources import Current, FolderUpstream
from gateway.north.upstream import Mirror
from tests.builders.relayed import everything_else_ended
from tests.builders.repository import START, RepositoryBuilder
from update.durable import Disk
from update.errors import UnknownTargetError
from update.store.store import Store
from update.trust.client import Repository
from update.trust.floor import Floor

MakeMirrors = Callable[[], Mirrors]


def mirror(store: Store, floor: Floor, name: str, builder: RepositoryBuilder, folder: Path) -> Mirror:
    builder.write_to(folder)
    upstream = FolderUpstream(folder)
    current, trusted = Current(upstream), store.layout.trusted(name)
    repository = Repository(
        name, trusted=trusted, root=builder.root_bytes, fetcher=current, disk=Disk(), floor=floor, now=lambda: START
    )
    return Mirror(
        repository, current, [upstream], store, hardware=(), inspect=lambda _file, _info: None, now=lambda: datetime.now(UTC)
    )


@pytest.fixture
def make(tmp_path: Path) -> MakeMirrors:
    builders = {"plant": RepositoryBuilder(), "other": RepositoryBuilder()}
    builders["plant"].add_target("os/a.swu", b"the same bytes")
    builders["plant"].add_target("os/b.swu", b"other bytes")
    builders["other"].add_target("elsewhere/c.swu", b"the same bytes")
    for builder in builders.values():
        builder.publish()

    def mirrors() -> Mirrors:
        store, floor = Store(Disk(), tmp_path / "store"), Floor(Disk(), (tmp_path / "floor-1", tmp_path / "floor-2"))
        if not floor.exists():
            floor.create()
        made = [mirror(store, floor, name, builder, tmp_path / name) for name, builder in builders.items()]
        return Mirrors(made, dict.fromkeys(builders, 3600.0))

    return mirrors


async def test_targets_and_metadata_are_found_by_repository_and_name(make: MakeMirrors) -> None:
    mirrors = make()
    assert mirrors.repositories() == ("plant", "other")
    assert {(await mirrors.refresh(name)).problem for name in mirrors.repositories()} == {""}
    (info,) = mirrors.targets("other")
    assert mirrors.find("other", info.wire_path) is info
    assert mirrors.find("plant", info.wire_path) is None
    assert mirrors.find("nobody", info.wire_path) is None
    assert (mirrors.targets("nobody"), mirrors.metadata("nobody", "timestamp.json")) == ((), None)
    assert mirrors.metadata("plant", "timestamp.json") != mirrors.metadata("other", "timestamp.json")
    assert [source.info for source in mirrors.sources_of(info)] == [info]
    with pytest.raises(UnknownTargetError, match="configured: plant, other"):
        await mirrors.refresh("nobody")


async def test_a_repository_is_unread_until_something_of_it_was_verified(make: MakeMirrors) -> None:
    mirrors = make()
    assert list(mirrors.unread()) == ["plant", "other"]
    await mirrors.refresh("plant")
    assert list(mirrors.unread()) == ["other"]


async def test_the_same_content_is_known_in_other_repositories(make: MakeMirrors) -> None:
    mirrors = make()
    for name in mirrors.repositories():
        await mirrors.refresh(name)
    a, b = mirrors.targets("plant")
    (c,) = mirrors.targets("other")
    assert [list(mirrors.twins(info)) for info in (a, b, c)] == [[c], [], [a]]


async def test_it_shows_what_is_on_disk_and_then_polls_every_repository(
    make: MakeMirrors, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make()
    await first.refresh("plant")
    mirrors, refreshed, slept = make(), list[str](), list[float]()

    def refresh(self: Mirror) -> Coroutine[None, None, None]:
        async def note() -> None:
            refreshed.append(self.name)
            assert mirrors.restored.is_set()
            assert len(mirrors.targets("plant")) == 2, "what was mirrored before is shown before the first poll"

        return note()

    really = asyncio.sleep

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await really(0)

    monkeypatch.setattr(Mirror, "refresh", refresh)
    with monkeypatch.context() as patched:
        patched.setattr("gateway.north.mirrors.asyncio.sleep", sleep)
        running = asyncio.create_task(mirrors.run())
        while len(refreshed) < 20:
            await really(0)
        running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await everything_else_ended()
    assert set(refreshed) == {"plant", "other"}
    assert all(3600 * 0.9 <= seconds <= 3600 * 1.1 for seconds in slept if seconds)
    assert len(set(slept)) > 5


async def test_whoever_watches_hears_of_every_refresh_and_of_what_was_on_disk(make: MakeMirrors) -> None:
    mirrors = make()
    heard: list[int] = []
    mirrors.watch(lambda: heard.append(len(mirrors.targets("plant"))))
    await mirrors.refresh("plant")
    assert heard == [2], "after readers see it"
    again = make()
    again.watch(lambda: heard.append(len(again.targets("plant"))))
    running = asyncio.create_task(again.run())
    await again.restored.wait()
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.wait([running])
    assert heard[:2] == [2, 2]
