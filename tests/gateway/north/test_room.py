from pathlib import Path

import pytest

from gateway.north.room import Room
from tests.builders.fleet import bundle
from update.durable import Disk
from update.errors import NoSpaceError
from update.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    made = Store(Disk(), tmp_path / "store")
    (made.layout.sparse / "partial.zck").write_bytes(b"x" * 8192)
    return made


def test_what_is_used_counts_partly_filled_files_by_what_they_really_take(store: Store) -> None:
    with (store.layout.sparse / "hole.zck").open("wb") as hole:
        hole.truncate(1 << 30)
    assert 8192 <= Room(store, quota_bytes=0, reserve_bytes=0).used_bytes() < 1 << 20


@pytest.mark.parametrize(("quota", "admitted"), [(0, True), (10_000, True), (9191, False)])
def test_the_quota_holds_to_the_byte(store: Store, quota: int, *, admitted: bool) -> None:
    room, target = Room(store, quota_bytes=quota, reserve_bytes=0), bundle("1.2", "board:1")
    assert (target.length, room.used_bytes()) == (1000, 8192)
    if admitted:
        room.admit(target)
    else:
        with pytest.raises(NoSpaceError, match=r"8192 of the quota of 9191"):
            room.admit(target)


def test_the_reserve_of_the_disk_is_not_touched(store: Store) -> None:
    with pytest.raises(NoSpaceError, match="reserve"):
        Room(store, quota_bytes=0, reserve_bytes=store.free_bytes() * 2).admit(bundle("1.2", "board:1"))


def test_what_is_published_or_removed_while_it_is_counted_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The relay publishes and the store quarantines in other threads, between the listing of a folder and the look at a file."""
    listed, walked = Path.iterdir, Path.rglob
    (store.layout.repositories / "plant" / "targets").mkdir(parents=True)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", lambda folder: [*listed(folder)] + [folder / "gone.zck"] * (folder.name == "sparse"))
        patched.setattr(Path, "rglob", lambda folder, pattern: [*walked(folder, pattern), folder / f"{'0' * 64}.gone"])
        assert Room(store, quota_bytes=1 << 20, reserve_bytes=0).used_bytes() == 8192
