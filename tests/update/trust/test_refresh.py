"""A refresh that does not come to its end: what it verified counts against older files, and changes nothing else."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import MetaFile

from tests.builders.repository import START, MemoryFetcher, RepositoryBuilder
from tests.builders.trust import Device
from tests.replay import CrashState, Recorder, assert_every_crash
from update.durable import Disk
from update.errors import ExpiredError, NotFoundError, RollbackError, SignatureError
from update.trust.floor_values import RoleVersions


@pytest.fixture
def builder() -> RepositoryBuilder:
    built = RepositoryBuilder()
    built.delegate("vendor", ["vendor/*"])
    built.publish()
    return built


@pytest.fixture
def device(tmp_path: Path, builder: RepositoryBuilder) -> Device:
    return Device(tmp_path, builder)


def without(builder: RepositoryBuilder, role: str) -> MemoryFetcher:
    """The repository of now, from a source that withholds the newest file of a role."""
    files = dict(builder.files)
    del files[f"metadata/{getattr(builder, role).version}.{role}.json"]
    return MemoryFetcher(files)


async def breaks_off(device: Device, at: str) -> None:
    """Publish once more; a refresh gets everything before the role `at`."""
    device.builder.publish()
    with pytest.raises(NotFoundError):
        await device.repository(without(device.builder, at)).refresh()


async def test_a_timestamp_older_than_one_verified_before_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    await device.repository().refresh()
    builder.publish()
    older = builder.frozen_fetcher()
    await breaks_off(device, at="snapshot")
    assert device.ahead() == ["timestamp"]
    with pytest.raises(RollbackError, match="timestamp version 3 was offered, 4 is already trusted"):
        await device.repository(older).refresh()
    assert (await device.repository().refresh()).versions == RoleVersions(1, 4, 4, 4)


async def test_a_snapshot_older_in_one_role_than_one_verified_before_is_refused(
    device: Device, builder: RepositoryBuilder
) -> None:
    await device.repository().refresh()
    builder.publish()
    older = builder.snapshot.meta["vendor.json"]
    await breaks_off(device, at="targets")
    assert device.ahead() == ["snapshot", "timestamp"]
    builder.snapshot.meta["vendor.json"] = older
    builder.snapshot.version += 1
    described = MetaFile(builder.snapshot.version)
    builder.put("snapshot", builder.snapshot)
    builder.publish_timestamp(lambda timestamp: setattr(timestamp, "snapshot_meta", described))
    with pytest.raises(RollbackError, match=r"vendor\.json version 3 was offered, 4 is already trusted"):
        await device.repository().refresh()


async def test_the_first_refresh_of_all_may_break_off(device: Device, builder: RepositoryBuilder) -> None:
    older = builder.frozen_fetcher()
    await breaks_off(device, at="targets")
    with pytest.raises(RollbackError):
        await device.repository(older).refresh()
    assert (await device.repository().refresh()).versions == RoleVersions(1, 3, 3, 3)


@pytest.mark.parametrize("at", ["snapshot", "targets"])
async def test_restore_gives_the_last_complete_set_whatever_was_verified_since(device: Device, at: str) -> None:
    complete = await device.repository().refresh()
    kept = device.kept()
    await breaks_off(device, at)
    assert device.kept() == kept
    assert await device.repository(MemoryFetcher({})).restore() == complete
    assert device.ahead() == (["timestamp"] if at == "snapshot" else ["snapshot", "timestamp"])


async def test_what_was_verified_before_is_not_fetched_again_and_becomes_the_complete_set(
    device: Device, builder: RepositoryBuilder
) -> None:
    await device.repository().refresh()
    await breaks_off(device, at="targets")
    fetcher = builder.fetcher()
    found = await device.repository(fetcher).refresh()
    assert fetcher.asked == ["metadata/2.root.json", "metadata/timestamp.json", "metadata/3.targets.json"]
    assert device.ahead() == []
    assert await device.repository(MemoryFetcher({})).restore() == found


async def test_what_was_refused_is_not_kept(device: Device, builder: RepositoryBuilder) -> None:
    await device.repository().refresh()
    builder.timestamp.expires = START - timedelta(days=1)
    builder.publish()
    with pytest.raises(ExpiredError):
        await device.repository().refresh()
    assert device.ahead() == []
    builder.timestamp.expires = START + timedelta(days=365)
    builder.publish()
    builder.put("snapshot", builder.snapshot, signers=builder.signers["vendor"])
    described = MetaFile(builder.snapshot.version)
    builder.publish_timestamp(lambda timestamp: setattr(timestamp, "snapshot_meta", described))
    with pytest.raises(SignatureError):
        await device.repository().refresh()
    assert device.ahead() == ["timestamp"]


@pytest.mark.parametrize("damage", [b"", b"{}"])
async def test_a_damaged_file_of_an_unfinished_refresh_costs_a_fetch(
    device: Device, builder: RepositoryBuilder, damage: bytes
) -> None:
    await device.repository().refresh()
    await breaks_off(device, at="targets")
    for file in device.trusted.glob("ahead.*"):
        file.write_bytes(damage)
    assert (await device.repository().refresh()).versions == RoleVersions(1, 3, 3, 3)


def test_a_power_cut_in_an_unfinished_refresh_leaves_the_complete_set(tmp_path: Path, builder: RepositoryBuilder) -> None:
    folder = tmp_path / "device"
    folder.mkdir()
    recorder = Recorder(folder)
    device = Device(folder, builder, Disk(recorder))
    asyncio.run(device.repository().refresh())
    recorder.mark()
    asyncio.run(breaks_off(device, at="targets"))
    recorder.mark()
    asyncio.run(device.repository().refresh())

    def check(crashed: Path, state: CrashState) -> None:
        after = Device(crashed, builder)
        if state.marks:
            restored = asyncio.run(after.repository(MemoryFetcher({})).restore()).versions
            assert restored == RoleVersions(1, 2, 2, 2) or (state.marks > 1 and restored == RoleVersions(1, 3, 3, 3))
        assert asyncio.run(after.repository().refresh()).versions == RoleVersions(1, 3, 3, 3)

    assert_every_crash(recorder.trace(), check, into=tmp_path / "crash", limit=24)


def test_a_rotation_forgets_what_was_verified_before_at_every_power_cut(tmp_path: Path, builder: RepositoryBuilder) -> None:
    """Fast-forward recovery (5.3.11) by the snapshot's key alone: the timestamp that ran ahead is still signed correctly."""
    folder = tmp_path / "device"
    folder.mkdir()
    recorder = Recorder(folder)
    device = Device(folder, builder, Disk(recorder))
    asyncio.run(device.repository().refresh())
    builder.snapshot.version = 1000
    asyncio.run(breaks_off(device, at="snapshot"))
    builder.snapshot.version = 5
    builder.publish()
    with pytest.raises(RollbackError, match="snapshot version 6 was offered, 1001 is already trusted"):
        asyncio.run(device.repository().refresh())
    builder.rotate("snapshot")
    builder.publish()
    recorder.mark()
    asyncio.run(device.repository().refresh())

    def check(crashed: Path, state: CrashState) -> None:
        if state.marks:
            found = asyncio.run(Device(crashed, builder).repository().refresh())
            assert found.versions == RoleVersions(2, 5, 7, 5)

    assert_every_crash(recorder.trace(), check, into=tmp_path / "crash", limit=24)
