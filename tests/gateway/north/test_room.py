"""What is short of room takes the place of what was used longest ago, and of nothing that is needed."""

import os
import sys
from collections.abc import Callable, Collection
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.north.room import Room
from tests.builders.fleet import bundle
from update.digest import Digest, digest_of
from update.durable import Disk
from update.errors import NoSpaceError
from update.store.store import Store
from update.trust.verified import TargetCustom, TargetInfo, ZckHeader, verify_target

NEW = bundle("1.2", "board:1")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(Disk(), tmp_path / "store")


def put(store: Store, name: str, *, used_s: float, relayed: bool = False, repository: str = "plant") -> TargetInfo:
    """A content of 1000 bytes, last used so many seconds after the epoch."""
    data = name.encode().ljust(1000)
    custom = TargetCustom(zck_header=ZckHeader(digest_of(b"header"), 100) if relayed else None)
    info = TargetInfo(repository, name, len(data), digest_of(data), custom, "targets")
    with store.stage(info) as staged:
        staged.write_at(0, data)
    os.utime(store.publish(verify_target(info, staged.path)), (used_s, used_s))
    return info


def put_sparse(store: Store, name: str, *, used_s: float) -> Digest:
    """A partly filled file that takes 8192 bytes and claims a megabyte."""
    digest = digest_of(name.encode())
    path = store.layout.sparse / f"{digest}.zck"
    with path.open("wb") as file:
        file.write(b"x" * 8192)
        file.truncate(1 << 20)
    path.with_name(path.name + ".map").write_bytes(b"")
    os.utime(path, (used_s, used_s))
    return digest


def names(store: Store) -> set[str]:
    return {held.file.name.partition(".")[2] for held in store.held()}


def evicting(store: Store, gone: list[Digest]) -> Callable[[Digest], object]:
    async def evict(digest: Digest) -> bool:
        gone.append(digest)
        (store.layout.sparse / f"{digest}.zck").unlink()
        return True

    return evict


def room_of(store: Store, quota: int, *, reserve: int = 0, repositories: Collection[str] = (), wanted: object = ()) -> Room:
    async def wants() -> Collection[Digest]:
        return wanted  # type: ignore[return-value]  # a set of digests

    return Room(store, quota_bytes=quota, reserve_bytes=reserve, repositories=repositories, wanted=wants)


def test_what_is_used_counts_partly_filled_files_by_what_they_really_take(store: Store) -> None:
    put_sparse(store, "part", used_s=1)
    with (store.layout.sparse / "hole.zck").open("wb") as hole:
        hole.truncate(1 << 30)
    assert 8192 <= room_of(store, 0).used_bytes() < 1 << 20


async def test_the_state_tells_how_full_it_is_and_what_was_found_damaged(store: Store) -> None:
    put(store, "a.swu", used_s=1)
    room = room_of(store, 5000)
    room.note_damage(2)
    room.note_damage(1)
    state = await room.state()
    assert (state.used_bytes, state.quota_bytes, state.damaged) == (1000, 5000, 3)
    assert state.free_bytes > 0


@pytest.mark.parametrize(("quota", "admitted"), [(0, True), (10_000, True), (9191, False)])
async def test_the_quota_holds_to_the_byte(store: Store, quota: int, *, admitted: bool) -> None:
    put_sparse(store, "in use", used_s=1)
    room = room_of(store, quota)
    assert (NEW.length, room.used_bytes()) == (1000, 8192)
    if admitted:
        await room.admit(NEW)
    else:
        with pytest.raises(NoSpaceError, match=r"8192 of the quota of 9191"):
            await room.admit(NEW)


async def test_the_reserve_of_the_disk_is_not_touched(store: Store) -> None:
    with pytest.raises(NoSpaceError, match="reserve"):
        await room_of(store, 0, reserve=store.free_bytes() * 2).admit(NEW)


async def test_what_was_used_longest_ago_goes_and_no_more_than_needed(store: Store) -> None:
    for age, name in enumerate(("oldest.swu", "older.swu", "old.swu")):
        put(store, name, used_s=age)
    (store.layout.quarantine / "junk").write_bytes(b"junk")
    forgotten: list[Digest] = []
    room = room_of(store, 3500)
    room.let_to(evicting(store, []), forgotten.append)  # type: ignore[arg-type]  # a coroutine function
    await room.admit(NEW)
    assert names(store) == {"older.swu", "old.swu"}
    assert forgotten == [digest_of(b"oldest.swu".ljust(1000))], "nobody keeps its bytes by having it open"
    assert list(store.layout.quarantine.iterdir()) == []


async def test_while_there_is_room_nothing_goes(store: Store) -> None:
    put(store, "withdrawn.swu", used_s=1)
    (store.layout.quarantine / "junk").write_bytes(b"junk")
    room = room_of(store, 2000)
    room.shown("plant", [])
    await room.admit(NEW)
    assert names(store) == {"withdrawn.swu"}
    assert len(list(store.layout.quarantine.iterdir())) == 1


async def test_what_is_listed_pinned_or_wanted_by_an_order_never_goes(store: Store) -> None:
    listed, pinned, wanted = (put(store, name, used_s=1) for name in ("listed.swu", "pinned.swu", "wanted.swu"))
    put(store, "withdrawn.swu", used_s=9)
    put(store, "image.zck", used_s=8, relayed=True)
    store.pin(pinned.sha256, "runs on node-1")
    room = room_of(store, 6000, wanted={wanted.sha256})
    image = next(held for held in store.held() if held.file.name.endswith("image.zck"))
    room.shown("plant", [listed, TargetInfo("plant", "image.zck", 1000, image.sha256, relayed_custom(), "targets")])
    with pytest.raises(NoSpaceError, match="3000 bytes must stay"):
        await room.grow(NEW, 4000)
    assert len(names(store)) == 5, "room that cannot be made costs nothing"
    await room.grow(NEW, 3000)
    assert names(store) == {"listed.swu", "pinned.swu", "wanted.swu"}


def relayed_custom() -> TargetCustom:
    return TargetCustom(zck_header=ZckHeader(digest_of(b"header"), 100))


async def test_of_a_repository_that_was_not_shown_yet_nothing_goes(store: Store) -> None:
    put(store, "a.swu", used_s=1)
    put(store, "b.swu", used_s=2, repository="other")
    room = room_of(store, 2000, repositories=["plant", "gone"])
    await room.admit(NEW)
    assert names(store) == {"a.swu"}
    room.shown("plant", [])
    await room.grow(NEW, 2000)
    assert names(store) == set()


async def test_what_is_on_its_way_in_is_neither_evicted_nor_swept(store: Store) -> None:
    first, second = (TargetInfo("plant", name, 1000, digest_of(name.encode()), TargetCustom(), "targets") for name in "ab")
    room = room_of(store, 2500, repositories=["plant"])
    room.shown("plant", [])
    for info in (first, second, bundle("0", "x:1")):
        with store.stage(info) as staged:
            staged.write_at(0, b"begun")
            staged.sync()
    await room.admit(first)
    arrived = put(store, "c.swu", used_s=1)
    await room.admit(arrived)
    put(store, "d.swu", used_s=2)
    await room.admit(second)
    assert names(store) == {"c.swu"}
    assert {path.stem for path in store.layout.staging.iterdir()} == {first.sha256, second.sha256}


async def test_partly_filled_files_go_by_their_last_use_too(store: Store) -> None:
    put(store, "young.swu", used_s=9)
    sparse, gone = put_sparse(store, "part", used_s=5), list[Digest]()
    room = room_of(store, 9500)
    room.let_to(evicting(store, gone), lambda _digest: None)  # type: ignore[arg-type]  # a coroutine function
    await room.admit(NEW)
    assert (gone, names(store)) == ([sparse], {"young.swu"})


async def test_a_partly_filled_file_in_use_stays_and_the_next_one_goes(store: Store) -> None:
    put(store, "young.swu", used_s=9)
    put_sparse(store, "part", used_s=5)
    room = room_of(store, 9500)  # nobody said who could let go of it: it counts as in use
    await room.admit(NEW)
    assert (names(store), len(list(store.layout.sparse.iterdir()))) == (set(), 2)
    with pytest.raises(NoSpaceError):
        await room.grow(NEW, 5000)


async def test_the_relay_grows_by_grants_that_keep_the_quota(store: Store) -> None:
    put(store, "old.swu", used_s=1)
    room = room_of(store, 9000)
    used = 0
    path = store.layout.sparse / f"{NEW.sha256}.zck"
    for _ in range(200):
        try:
            await room.grow(NEW, 100)
        except NoSpaceError:
            break
        used += 100
        path.write_bytes(b"x" * used)  # blocks of 4096
    assert 4096 <= used <= 9000
    assert names(store) == set()


@settings(max_examples=60, deadline=None)
@given(
    ages=st.lists(st.integers(0, 5), max_size=5),
    kept=st.sets(st.integers(0, 4)),
    needed=st.integers(1, 6000),
    quota=st.integers(1, 6000),
)
async def test_room_is_made_or_nothing_is_touched(
    tmp_path_factory: pytest.TempPathFactory, ages: list[int], kept: set[int], needed: int, quota: int
) -> None:
    store = Store(Disk(), tmp_path_factory.mktemp("store"))
    infos = [put(store, f"{position}.swu", used_s=age) for position, age in enumerate(ages)]
    room = room_of(store, quota, repositories=["plant"])
    listed = [info for position, info in enumerate(infos) if position in kept]
    room.shown("plant", listed)
    before = names(store)
    try:
        await room.grow(NEW, needed)
    except NoSpaceError:
        assert names(store) == before
        assert len(listed) * 1000 + needed > quota
        return
    assert room.used_bytes() + needed <= quota
    assert names(store) >= {info.path for info in listed}
    if gone := before - names(store):
        assert (len(names(store)) + 1) * 1000 + needed > quota, "one less would have been enough"
        ages_of = {f"{position}.swu": age for position, age in enumerate(ages)}
        spared = names(store) - {info.path for info in listed}
        assert max(ages_of[name] for name in gone) <= min((ages_of[name] for name in spared), default=sys.maxsize)


def test_what_is_published_or_removed_while_it_is_counted_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay publishes and the store quarantines in other threads, between the listing of a folder and the look at a file."""
    put_sparse(store, "part", used_s=1)
    listed, walked = Path.iterdir, Path.rglob
    (store.layout.repositories / "plant" / "targets").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", lambda folder: [*listed(folder)] + [folder / "gone.zck"] * (folder.name == "sparse"))
        patched.setattr(Path, "rglob", lambda folder, pattern: [*walked(folder, pattern), folder / f"{'0' * 64}.gone"])
        assert room_of(store, 1 << 20).used_bytes() == 8192


async def test_pair_patches_count_and_go_like_any_cache_but_not_while_they_are_made(store: Store) -> None:
    kept, gone, digest = store.layout.pairs, list[Digest](), digest_of(b"patch")
    old = kept / f"{'a' * 64}.{'b' * 64}.windows-67108864.{digest}"
    part = kept / f"{'b' * 64}.{'c' * 64}.windows-67108864.part"
    for path in (old, part):
        path.write_bytes(b"x" * 500)
        os.utime(path, (1, 1))
    put(store, "relayed", used_s=9, relayed=True)
    room = Room(store, quota_bytes=2400, reserve_bytes=0)
    room.let_to(evicting(store, []), gone.append)  # type: ignore[arg-type]
    assert room.used_bytes() == 2000
    await room.grow(NEW, 800)
    assert (old.exists(), part.exists(), gone) == (False, True, [digest])
    assert names(store) == {"relayed"}


async def test_what_nobody_asked_for_gets_only_room_that_nothing_has_to_leave_for(store: Store) -> None:
    put(store, "old", used_s=1)
    room = Room(store, quota_bytes=0, reserve_bytes=0)
    room.quota_bytes = room.used_bytes() + 5000
    assert not await room.spare(5001)
    assert await room.spare(4000)
    assert names(store) == {"old"}
    room.quota_bytes = 100
    assert await room.spare(100), "granted with what was asked for before"
    assert not await room.spare(5000)
    assert names(store) == {"old"}
