"""The client on honest repositories: what it fetches, keeps, finds, hands to a mirror, and survives."""

import asyncio
import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from tuf.api.metadata import Delegations, SuccinctRoles, Targets

from tests.builders.repository import START, MemoryFetcher, RepositoryBuilder
from tests.builders.trust import Device
from tests.replay import CrashState, Killed, Recorder, assert_every_crash
from update.durable import Disk
from update.errors import (
    ExpiredError,
    FloorError,
    MetadataError,
    NotFoundError,
    NotStoredError,
    StateError,
    UnknownTargetError,
    UnreachableError,
)
from update.trust import rules
from update.trust.client import Repository
from update.trust.floor import Floor
from update.trust.floor_values import RoleVersions


@pytest.fixture
def builder() -> RepositoryBuilder:
    return RepositoryBuilder()


@pytest.fixture
def device(tmp_path: Path, builder: RepositoryBuilder) -> Device:
    return Device(tmp_path, builder)


async def test_a_target_is_described_as_signed(device: Device, builder: RepositoryBuilder) -> None:
    custom = {"hwIds": ["imx8:1"], "version": "1.2", "releaseCounter": 12, "securityCounter": 3, "class": "security", "x": [1]}
    builder.add_target("line/app.swu", b"content", custom)
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    info = await repository.find("line/app.swu")
    digest = hashlib.sha256(b"content").hexdigest()
    assert (info.repository, info.path, info.length, info.sha256, info.role) == ("plant", "line/app.swu", 7, digest, "targets")
    assert (info.custom.release_counter, info.custom.security_counter, info.custom.update_class) == (12, 3, "security")
    assert info.file_name == f"{digest}.app.swu"
    assert info.wire_path == f"targets/line/{digest}.app.swu"
    assert info.wire_path in builder.files


async def test_nothing_is_fetched_twice_and_nothing_is_written_when_nothing_is_new(
    device: Device, builder: RepositoryBuilder
) -> None:
    await device.repository().refresh()
    written: list[object] = []
    device.disk = Disk(written.append)
    fetcher = builder.fetcher()
    await device.repository(fetcher).refresh()
    assert fetcher.asked == ["metadata/2.root.json", "metadata/timestamp.json"]
    assert written == []


async def test_only_what_changed_is_fetched(device: Device, builder: RepositoryBuilder) -> None:
    await device.repository().refresh()
    builder.publish_timestamp()
    fetcher = builder.fetcher()
    await device.repository(fetcher).refresh()
    assert fetcher.asked == ["metadata/2.root.json", "metadata/timestamp.json"]
    builder.publish()
    fetcher = builder.fetcher()
    await device.repository(fetcher).refresh()
    assert fetcher.asked[2:] == ["metadata/2.snapshot.json", "metadata/2.targets.json"]


async def test_all_roots_are_walked_and_kept(device: Device, builder: RepositoryBuilder) -> None:
    for _ in range(5):
        builder.rotate("root")
    builder.publish()
    found = await device.repository().refresh()
    assert found.versions.root == 6
    assert {f"{version}.root.json" for version in range(2, 7)} <= {file.name for file in device.trusted.iterdir()}


async def test_a_walk_of_roots_is_bounded(device: Device, builder: RepositoryBuilder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_ROOTS", 3)
    for _ in range(5):
        builder.rotate("root")
    assert (await device.repository().refresh()).versions.root == 4
    assert (await device.repository().refresh()).versions.root == 6


@pytest.mark.parametrize("damage", [b"", b"{}", b"not json"])
async def test_damaged_kept_files_are_fetched_again(device: Device, builder: RepositoryBuilder, damage: bytes) -> None:
    builder.rotate("timestamp")
    builder.publish()
    await device.repository().refresh()
    for file in device.trusted.iterdir():
        file.write_bytes(damage)
    found = await device.repository().refresh()
    assert found.versions == RoleVersions(2, 2, 2, 2)
    assert (device.trusted / "2.root.json").read_bytes() == builder.files["metadata/2.root.json"]
    assert (await device.repository().restore()).versions == found.versions


async def test_restore_needs_no_source_and_verifies_again(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("vendor", ["vendor/*"])
    builder.add_target("vendor/a.swu", b"a", role="vendor")
    builder.publish()
    first = device.repository()
    found = await first.refresh()
    await first.targets()
    nothing = MemoryFetcher({})
    restored = device.repository(nothing)
    assert await restored.restore() == found
    assert [info.path for info in await restored.targets()] == ["vendor/a.swu"]
    assert nothing.asked == []


async def test_restore_without_a_complete_refresh_says_so(device: Device, builder: RepositoryBuilder) -> None:
    with pytest.raises(NotStoredError):
        await device.repository().restore()


async def test_nothing_can_be_asked_before_a_refresh(device: Device) -> None:
    with pytest.raises(StateError):
        await device.repository().find("line/app.swu")


async def test_a_refresh_that_breaks_off_leaves_the_last_complete_set(device: Device, builder: RepositoryBuilder) -> None:
    class BreaksOff(MemoryFetcher):
        async def fetch(self, path: str, *, max_bytes: int) -> bytes:
            if path.endswith("targets.json"):
                raise UnreachableError("the line is dead")
            return await super().fetch(path, max_bytes=max_bytes)

    found = await device.repository().refresh()
    builder.publish()
    with pytest.raises(UnreachableError):
        await device.repository(BreaksOff(builder.files)).refresh()
    assert (await device.repository(MemoryFetcher({})).restore()).versions == found.versions


async def test_a_refusal_leaves_a_trace_of_how_far_it_came(device: Device, builder: RepositoryBuilder) -> None:
    repository = device.repository()
    await repository.refresh()
    assert [role for role, _ in repository.accepted] == ["root", "timestamp", "snapshot", "targets"]
    builder.rotate("root")
    builder.publish()
    del builder.files["metadata/2.snapshot.json"]
    with pytest.raises(NotFoundError):
        await repository.refresh()
    assert list(repository.accepted) == [("root", 2), ("timestamp", 2)]


async def test_after_a_refused_refresh_nothing_is_trusted_in_memory(device: Device, builder: RepositoryBuilder) -> None:
    builder.add_target("line/app.swu", b"x")
    builder.publish()
    fetcher = builder.fetcher()
    repository = device.repository(fetcher)
    await repository.refresh()
    fetcher.files = {}
    with pytest.raises(NotFoundError):
        await repository.refresh()
    with pytest.raises(StateError):
        await repository.find("line/app.swu")
    await repository.restore()
    assert (await repository.find("line/app.swu")).path == "line/app.swu"


async def test_without_strict_time_stale_roles_are_reported_with_their_age(device: Device) -> None:
    device.strict_time = False
    device.time = START + timedelta(days=1)
    assert (await device.repository().refresh()).stale == ()
    for signed in (device.builder.timestamp, device.builder.snapshot):
        signed.expires = START + timedelta(days=14)
    device.builder.publish()
    device.time = START + timedelta(days=16)
    found = await device.repository().refresh()
    assert found.stale == ("timestamp", "snapshot")
    assert found.stale_since == START + timedelta(days=14)
    assert found.stale_for == timedelta(days=2)


async def test_the_time_floor_follows_the_issue_time_and_judges_a_clock_that_lost_its_battery(
    device: Device, builder: RepositoryBuilder
) -> None:
    builder.publish(issued=START + timedelta(days=10))
    found = await device.repository().refresh()
    assert found.issued == START + timedelta(days=10)
    device.time = START.replace(year=1970)
    assert (await device.repository().refresh()).time == START + timedelta(days=10)
    builder.timestamp.expires = START + timedelta(days=5)
    builder.publish()
    with pytest.raises(ExpiredError):
        await device.repository().refresh()


async def test_a_malformed_issue_time_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    builder.publish_timestamp(lambda timestamp: timestamp.unrecognized_fields.update({"x-issued": "yesterday"}))
    with pytest.raises(MetadataError):
        await device.repository().refresh()


async def test_without_a_floor_nothing_is_trusted(device: Device) -> None:
    for copy in device.copies:
        copy.unlink()
    with pytest.raises(FloorError):
        await device.repository().refresh()


async def test_a_mirror_gets_the_exact_bytes_timestamp_last(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("vendor", ["vendor/*"])
    builder.rotate("targets")
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    files = await repository.metadata_files()
    assert [name for name, _ in files] == [
        "metadata/1.root.json",
        "metadata/2.root.json",
        "metadata/2.vendor.json",
        "metadata/2.targets.json",
        "metadata/2.snapshot.json",
        "metadata/timestamp.json",
    ]
    assert all(builder.files[name] == data for name, data in files)


async def test_a_repository_without_consistent_snapshots_is_followed(tmp_path: Path) -> None:
    builder = RepositoryBuilder(consistent_snapshot=False)
    builder.add_target("line/app.swu", b"x")
    builder.publish()
    device = Device(tmp_path, builder)
    repository = device.repository()
    await repository.refresh()
    assert (await repository.find("line/app.swu")).wire_path == "targets/line/app.swu"
    builder.publish()
    assert (await repository.refresh()).versions == RoleVersions(1, 3, 3, 3)
    assert [name for name, _ in await repository.metadata_files()][1:] == [
        "metadata/targets.json",
        "metadata/snapshot.json",
        "metadata/timestamp.json",
    ]


async def test_delegations_are_searched_in_order_and_depth_first(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("first", ["a/*"], terminating=False)
    builder.delegate("below", ["a/*"], terminating=False, by="first")
    builder.delegate("second", ["a/*"], terminating=False)
    builder.add_target("a/x.swu", b"second", role="second")
    builder.add_target("a/x.swu", b"below", role="below")
    builder.add_target("a/y.swu", b"second", role="second")
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    assert (await repository.find("a/x.swu")).role == "below"
    assert (await repository.find("a/y.swu")).role == "second"


async def test_a_terminating_delegation_ends_the_search(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("first", ["a/*"], terminating=True)
    builder.delegate("second", ["a/*"], terminating=False)
    builder.add_target("a/y.swu", b"second", role="second")
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    with pytest.raises(UnknownTargetError):
        await repository.find("a/y.swu")


async def test_a_terminating_delegation_ends_the_search_of_those_above_too(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("first", ["a/*"], terminating=False)
    builder.delegate("below", ["a/*"], terminating=True, by="first")
    builder.delegate("second", ["a/*"], terminating=False)
    builder.add_target("a/y.swu", b"second", role="second")
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    with pytest.raises(UnknownTargetError):
        await repository.find("a/y.swu")


async def test_a_search_is_bounded(device: Device, builder: RepositoryBuilder) -> None:
    for number in range(rules.MAX_DELEGATIONS + 5):
        builder.delegate(f"role{number}", ["a/*"], terminating=False)
    builder.add_target("a/last.swu", b"x", role=f"role{rules.MAX_DELEGATIONS + 4}")
    builder.add_target("a/near.swu", b"x", role=f"role{rules.MAX_DELEGATIONS - 1}")
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    assert (await repository.find("a/near.swu")).role == f"role{rules.MAX_DELEGATIONS - 1}"
    with pytest.raises(UnknownTargetError):
        await repository.find("a/last.swu")


async def test_a_cycle_of_delegations_ends(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("one", ["a/*"], terminating=False)
    builder.delegate("two", ["a/*"], terminating=False, by="one")
    builder.delegate("one", ["a/*"], terminating=False, by="two")
    assert builder.targets.delegations is not None
    builder.targets.add_key(builder.signers["one"][0].public_key, "one")
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    with pytest.raises(UnknownTargetError):
        await repository.find("a/x.swu")
    assert await repository.targets() == []


async def test_a_refused_vendor_does_not_hide_the_others(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("bad", ["bad/*"])
    builder.delegate("good", ["good/*"])
    builder.add_target("good/a.swu", b"good", role="good")
    builder.add_target("bad/a.swu", b"bad", role="bad")
    builder.delegated["bad"].expires = START - timedelta(days=1)
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    assert [info.path for info in await repository.targets()] == ["good/a.swu"]
    assert [(name, error.code) for name, error in repository.problems] == [("bad", "trust.expired")]
    with pytest.raises(ExpiredError):
        await repository.find("bad/a.swu")


async def test_a_role_is_verified_for_each_who_delegates_to_it(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("mine", ["a/*"], terminating=False)
    builder.delegate("other", ["b/*"], terminating=False)
    own = builder.signers["other"]
    builder.delegate("other", ["a/*"], terminating=False, by="mine")  # with a key that "other" does not use
    builder.signers["other"] = own
    builder.add_target("a/x.swu", b"x", role="other")
    builder.add_target("b/x.swu", b"x", role="other")
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    assert [info.path for info in await repository.targets()] == ["b/x.swu"]
    assert {name: error.code for name, error in repository.problems} == {"other": "trust.signature", "a/x.swu": "trust.signature"}


async def test_hash_bins_are_followed(device: Device, builder: RepositoryBuilder) -> None:
    signer = builder.signers["snapshot"][0]
    bins = SuccinctRoles([], 1, 2, "bin")
    builder.targets.delegations = Delegations({}, succinct_roles=bins)
    builder.targets.add_key(signer.public_key)
    for name in bins.get_roles():
        builder.signers[name] = [signer]
        builder.delegated[name] = Targets(1, expires=START + timedelta(days=9))
    builder.add_target("any/path.swu", b"x", role=bins.get_role_for_target("any/path.swu"))
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    assert [info.path for info in await repository.targets()] == ["any/path.swu"]
    assert len(await repository.metadata_files()) == 1 + 4 + 1 + 1 + 1


@pytest.mark.parametrize("role", ["../outside", "a/b", "1.root", "timestamp.json", "é", "?#"])
async def test_no_role_name_leaves_the_folder_or_takes_anothers_place(
    device: Device, builder: RepositoryBuilder, role: str
) -> None:
    builder.delegate(role, ["a/*"])
    builder.add_target("a/x.swu", b"x", role=role)
    builder.publish()
    quoted = {path.replace(role, as_on_the_wire(role)): data for path, data in builder.files.items()}
    repository = device.repository(MemoryFetcher(quoted))
    await repository.refresh()
    assert (await repository.find("a/x.swu")).role == role
    names = {file.name for file in device.trusted.iterdir()}
    assert f"2.delegated.{as_on_the_wire(role)}.json" in names
    assert {file.parent for file in device.folder.rglob("*.json")} == {device.trusted}
    assert (device.trusted / "timestamp.json").read_bytes() == builder.files["metadata/timestamp.json"]


def as_on_the_wire(role: str) -> str:
    return {"../outside": "..%2Foutside", "a/b": "a%2Fb", "é": "%C3%A9", "?#": "%3F%23"}.get(role, role)


async def test_old_versions_are_pruned(device: Device, builder: RepositoryBuilder) -> None:
    for _ in range(3):
        builder.publish()
        await device.repository().refresh()
    assert sorted(file.name for file in device.trusted.iterdir()) == ["4.snapshot.json", "4.targets.json", "timestamp.json"]


def test_a_power_cut_anywhere_leaves_a_complete_old_or_new_set(tmp_path: Path, builder: RepositoryBuilder) -> None:
    """Every crash state of a refresh that brings a new release: restore gives the old or the new, and a refresh completes."""
    folder = tmp_path / "device"
    folder.mkdir()
    recorder = Recorder(folder)
    device = Device(folder, builder, Disk(recorder))
    asyncio.run(device.repository().refresh())
    recorder.mark()
    builder.publish()
    asyncio.run(device.repository().refresh())
    recorder.mark()
    allowed = [RoleVersions(), RoleVersions(1, 1, 1, 1), RoleVersions(1, 2, 2, 2)]

    def check(crashed: Path, state: CrashState) -> None:
        floor = Floor(Disk(), (crashed / "floor-a" / "floor", crashed / "floor-b" / "floor"))
        if not floor.exists():
            assert state.marks == 0
            return
        found = asyncio.run(restored(crashed, floor, builder))
        assert found in allowed[state.marks : state.marks + 1 + state.busy], found
        assert asyncio.run(refreshed(crashed, floor, builder)) == RoleVersions(1, 2, 2, 2)

    assert_every_crash(recorder.trace(), check, into=tmp_path / "crash", limit=24)


async def restored(folder: Path, floor: Floor, builder: RepositoryBuilder) -> RoleVersions:
    try:
        return (await client(folder, floor, builder).restore()).versions
    except (NotStoredError, FloorError):
        return RoleVersions()


async def refreshed(folder: Path, floor: Floor, builder: RepositoryBuilder) -> RoleVersions:
    return (await client(folder, floor, builder).refresh()).versions


def client(folder: Path, floor: Floor, builder: RepositoryBuilder) -> Repository:
    return Repository(
        "plant",
        trusted=folder / "trusted",
        root=builder.root_bytes,
        fetcher=builder.fetcher(),
        disk=Disk(),
        floor=floor,
        now=lambda: START,
    )


async def test_a_kill_at_every_step_of_a_rotation_ends_well(tmp_path: Path, builder: RepositoryBuilder) -> None:
    """Fast-forward recovery killed before each operation: the next refresh completes, and the floor never opens for good."""
    builder.timestamp.version = 1000
    builder.publish()
    fast = builder.frozen_fetcher()
    builder.timestamp.version = 5
    builder.rotate("timestamp")
    builder.publish()
    for count in range(200):
        folder = tmp_path / str(count)
        folder.mkdir()
        recorder = Recorder(folder)
        device = Device(folder, builder, Disk(recorder))
        await device.repository(fast).refresh()
        recorder.kill_at(count)
        try:
            await device.repository().refresh()
        except Killed:
            pass
        else:
            break
        found = await device.repository().refresh()
        assert found.versions == device.floor.load().versions("plant") == RoleVersions(2, 6, 3, 3)
    else:
        pytest.fail("the refresh has more than 200 operations")
    assert count > 20
