"""The attacks of the TUF and Uptane threat models, each refused with its own code and with nothing kept."""

from datetime import timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import MetaFile, Timestamp

from tests.builders.repository import START, MemoryFetcher, RepositoryBuilder
from tests.builders.trust import Device
from update.errors import (
    EndlessDataError,
    ExpiredError,
    FastForwardError,
    FieldrelayError,
    HardwareError,
    LengthOrHashError,
    MetadataError,
    MixAndMatchError,
    RollbackError,
    SignatureError,
    SlowError,
    ThresholdError,
    TrustError,
    UnknownTargetError,
)
from update.identity import Hardware
from update.trust.floor_values import FloorValues, RoleVersions
from update.trust.policy import NodePolicy, judge
from update.trust.verified import Provenance, verify_target


@pytest.fixture
def builder() -> RepositoryBuilder:
    built = RepositoryBuilder()
    built.add_target("line/app.swu", b"version one", {"hwIds": ["imx8:1"], "version": "1.0", "releaseCounter": 1})
    built.publish()
    return built


@pytest.fixture
def device(tmp_path: Path, builder: RepositoryBuilder) -> Device:
    return Device(tmp_path, builder)


async def refused(
    device: Device, error: type[FieldrelayError], code: str, fetcher: MemoryFetcher | None = None
) -> FieldrelayError:
    """A refresh is refused with this code, and leaves the disk and the last complete state as they were."""
    before = device.kept()
    with pytest.raises(error) as caught:
        await device.repository(fetcher).refresh()
    assert type(caught.value) is error
    assert caught.value.code == code
    assert device.kept() == before
    return caught.value


async def test_rollback_an_older_repository_is_refused_after_a_newer_one_was_seen(
    device: Device, builder: RepositoryBuilder
) -> None:
    old_stick = builder.frozen_fetcher()
    builder.publish()
    await device.repository().refresh()
    await refused(device, RollbackError, "trust.rollback", old_stick)


async def test_rollback_is_refused_even_when_the_kept_files_were_lost(device: Device, builder: RepositoryBuilder) -> None:
    old_stick = builder.frozen_fetcher()
    builder.publish()
    await device.repository().refresh()
    for file in device.trusted.iterdir():
        file.write_bytes(b"")
    await refused(device, RollbackError, "trust.rollback", old_stick)
    await device.repository().refresh()


async def test_rollback_of_the_root_is_refused_by_the_floor(device: Device, builder: RepositoryBuilder) -> None:
    before_rotation = builder.frozen_fetcher()
    builder.rotate("targets")
    builder.publish()
    await device.repository().refresh()
    (device.trusted / "2.root.json").unlink()
    await refused(device, RollbackError, "trust.rollback", before_rotation)


async def test_withholding_a_root_that_was_seen_is_a_rollback(device: Device, builder: RepositoryBuilder) -> None:
    """Everything else is current: a source that hides the rotation after the device lost it brings revoked keys back."""
    builder.rotate("targets")
    builder.publish()
    await device.repository().refresh()
    (device.trusted / "2.root.json").unlink()
    hiding = MemoryFetcher({path: data for path, data in builder.files.items() if path != "metadata/2.root.json"})
    caught = await refused(device, RollbackError, "trust.rollback", hiding)
    assert "leads to root version 1, 2 was already trusted" in str(caught)


@pytest.mark.parametrize(
    "floor",
    [RoleVersions(timestamp=3), RoleVersions(snapshot=3), RoleVersions(targets=3)],
    ids=["timestamp", "snapshot", "targets"],
)
async def test_each_version_of_the_floor_holds_alone(device: Device, floor: RoleVersions) -> None:
    device.floor.raise_versions("plant", floor)
    await refused(device, RollbackError, "trust.rollback")


async def test_rollback_of_a_snapshot_under_a_new_timestamp_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    old = builder.files["metadata/2.snapshot.json"]
    builder.publish()
    await device.repository().refresh()
    builder.publish_timestamp(lambda timestamp: setattr(timestamp, "snapshot_meta", MetaFile.from_data(2, old, ["sha256"])))
    await refused(device, RollbackError, "trust.rollback")


async def test_rollback_of_targets_under_a_new_snapshot_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    old = MetaFile.from_data(2, builder.files["metadata/2.targets.json"], ["sha256"])
    builder.publish()
    await device.repository().refresh()
    publish_snapshot(builder, {"targets.json": old})
    await refused(device, RollbackError, "trust.rollback")


async def test_a_snapshot_that_forgets_a_role_is_a_rollback(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("vendor", ["vendor/*"])
    builder.publish()
    await device.repository().refresh()
    publish_snapshot(builder, {"targets.json": builder.snapshot.meta["targets.json"]})
    await refused(device, RollbackError, "trust.rollback")


async def test_freeze_an_expired_timestamp_is_refused(device: Device) -> None:
    await device.repository().refresh()
    device.time = START + timedelta(days=366)
    caught = await refused(device, ExpiredError, "trust.expired")
    assert "expired at 2027-03-01T12:00:00Z, it is now 2027-03-02T12:00:00Z" in str(caught)


@pytest.mark.parametrize("role", ["root", "targets"])
async def test_an_expired_root_or_targets_is_refused_even_when_staleness_is_tolerated(
    device: Device, builder: RepositoryBuilder, role: str
) -> None:
    device.strict_time = False
    getattr(builder, role).expires = START + timedelta(days=1)
    builder.root.version += 1
    builder.publish_root()
    builder.publish()
    device.time = START + timedelta(days=2)
    caught = (await any_refusal(device)).value
    assert isinstance(caught, ExpiredError)
    assert str(caught).startswith(role)


async def any_refusal(device: Device) -> pytest.ExceptionInfo[TrustError]:
    with pytest.raises(TrustError) as caught:
        await device.repository().refresh()
    return caught


async def test_mix_and_match_genuine_targets_of_another_publication_are_refused(
    device: Device, builder: RepositoryBuilder
) -> None:
    old = builder.files["metadata/2.targets.json"]
    builder.add_target("line/other.swu", b"other")
    builder.publish()
    builder.files["metadata/3.targets.json"] = old
    caught = await refused(device, MixAndMatchError, "trust.mix-and-match")
    assert "targets version 2 is genuine" in str(caught)


async def test_mix_and_match_is_found_without_announced_hashes_too(device: Device, builder: RepositoryBuilder) -> None:
    builder.publish()
    old = builder.files["metadata/2.snapshot.json"]
    builder.publish_timestamp(lambda timestamp: setattr(timestamp, "snapshot_meta", MetaFile(3)))
    builder.files["metadata/3.snapshot.json"] = old
    await refused(device, MixAndMatchError, "trust.mix-and-match")


async def test_a_root_under_another_number_is_mix_and_match(device: Device, builder: RepositoryBuilder) -> None:
    builder.rotate("targets")
    builder.rotate("targets")
    builder.publish()
    builder.files["metadata/2.root.json"] = builder.files["metadata/3.root.json"]
    await refused(device, MixAndMatchError, "trust.mix-and-match")


async def test_endless_metadata_is_refused_before_it_is_parsed(device: Device, builder: RepositoryBuilder) -> None:
    builder.files["metadata/timestamp.json"] += b" " * 20_000
    await refused(device, EndlessDataError, "trust.endless-data")


async def test_a_fetcher_that_ignores_the_limit_is_caught(device: Device, builder: RepositoryBuilder) -> None:
    class Careless(MemoryFetcher):
        async def fetch(self, path: str, *, max_bytes: int) -> bytes:
            return await super().fetch(path, max_bytes=1 << 40)

    builder.files["metadata/timestamp.json"] += b" " * 20_000
    await refused(device, EndlessDataError, "trust.endless-data", Careless(builder.files))


async def test_an_announcement_above_the_limit_is_endless_data(device: Device, builder: RepositoryBuilder) -> None:
    builder.publish_timestamp(lambda timestamp: setattr(timestamp.snapshot_meta, "length", 3_000_000))
    fetcher = builder.fetcher()
    await refused(device, EndlessDataError, "trust.endless-data", fetcher)
    assert not any("snapshot" in path for path in fetcher.asked)


async def test_slow_retrieval_passes_through_with_its_own_code(device: Device, builder: RepositoryBuilder) -> None:
    class Slow(MemoryFetcher):
        async def fetch(self, path: str, *, max_bytes: int) -> bytes:
            if "snapshot" in path:
                raise SlowError("1 byte per second, at least 1000 are demanded")
            return await super().fetch(path, max_bytes=max_bytes)

    await refused(device, SlowError, "wire.slow", Slow(builder.files))


async def test_arbitrary_software_metadata_by_unknown_keys_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    builder.put("timestamp", builder.timestamp, signers=[CryptoSigner.generate_ed25519()])
    await refused(device, SignatureError, "trust.signature")


async def test_arbitrary_software_a_changed_target_list_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    name = "metadata/2.targets.json"
    builder.files[name] = builder.files[name].replace(b"line/app.swu", b"line/bad.swu")
    await refused(device, LengthOrHashError, "trust.length-or-hash")


async def test_arbitrary_software_changed_bytes_of_a_target_are_refused(device: Device, tmp_path: Path) -> None:
    repository = device.repository()
    await repository.refresh()
    info = await repository.find("line/app.swu")
    file = tmp_path / info.file_name
    file.write_bytes(b"version 0ne")
    with pytest.raises(LengthOrHashError) as caught:
        verify_target(info, file)
    assert caught.value.code == "trust.length-or-hash"


async def test_wrong_hardware_is_refused_by_policy(device: Device) -> None:
    repository = device.repository()
    await repository.refresh()
    info = await repository.find("line/app.swu")
    with pytest.raises(HardwareError) as caught:
        judge(info.custom, Provenance.TUF, hardware=Hardware("imx8", "2"), floor=FloorValues(), policy=NodePolicy())
    assert caught.value.code == "trust.hardware"


async def test_a_key_below_the_threshold_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    builder.targets.version += 1
    stolen = builder.put("targets", builder.targets, signers=builder.signers["targets"][:1])
    publish_snapshot(builder, {"targets.json": MetaFile.from_data(builder.targets.version, stolen, ["sha256"])})
    caught = await refused(device, ThresholdError, "trust.threshold")
    assert "1 of 2" in str(caught)


async def test_one_key_listed_under_two_ids_counts_once(device: Device, builder: RepositoryBuilder) -> None:
    holder = builder.signers["targets"][0]
    alias = CryptoSigner(holder._private_key, type(holder.public_key)("aa" * 32, "ed25519", "ed25519", holder.public_key.keyval))
    builder.root.add_key(alias.public_key, "targets")
    builder.root.version += 1
    builder.publish_root()
    builder.signers["targets"] = [holder, alias]
    builder.publish()
    await refused_after_root(device, ThresholdError)


async def refused_after_root(device: Device, error: type[TrustError]) -> None:
    caught = await any_refusal(device)
    assert type(caught.value) is error


async def test_a_new_root_without_the_old_holders_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    builder.signers["root"] = [CryptoSigner.generate_ed25519() for _ in range(3)]
    for keyid in list(builder.root.roles["root"].keyids):
        builder.root.revoke_key(keyid, "root")
    for signer in builder.signers["root"]:
        builder.root.add_key(signer.public_key, "root")
    builder.root.version += 1
    builder.publish_root()
    await refused(device, SignatureError, "trust.signature")


async def test_a_new_root_without_its_own_holders_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    old = builder.signers["root"]
    builder.rotate("root")
    builder.signers["root"] = []
    builder.publish_root(also=old)
    await refused(device, SignatureError, "trust.signature")


async def test_a_revoked_key_no_longer_counts(device: Device, builder: RepositoryBuilder) -> None:
    revoked = builder.signers["timestamp"]
    builder.rotate("timestamp")
    builder.publish()
    builder.put("timestamp", builder.timestamp, signers=revoked)
    await refused_after_root(device, SignatureError)


@pytest.mark.parametrize("version", [2**31, 10**15])
async def test_fast_forward_a_version_without_successor_is_refused(
    device: Device, builder: RepositoryBuilder, version: int
) -> None:
    builder.publish_timestamp(lambda timestamp: setattr(timestamp, "version", version))
    await refused(device, FastForwardError, "trust.fast-forward")


async def test_fast_forward_of_an_announced_version_is_refused(device: Device, builder: RepositoryBuilder) -> None:
    builder.publish_timestamp(lambda timestamp: setattr(timestamp.snapshot_meta, "version", 2**31))
    await refused(device, FastForwardError, "trust.fast-forward")


async def test_fast_forward_of_a_delegated_role_is_refused_when_it_is_needed(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("vendor", ["vendor/*"])
    builder.add_target("vendor/a.swu", b"fine", role="vendor")
    builder.delegated["vendor"].version = 2**31 - 1
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    with pytest.raises(FastForwardError):
        await repository.find("vendor/a.swu")
    assert (await repository.find("line/app.swu")).role == "targets"


@pytest.mark.parametrize("role", ["snapshot", "targets"])
async def test_fast_forward_of_snapshot_and_targets_is_recovered_by_rotating_the_snapshot_key(
    device: Device, builder: RepositoryBuilder, role: str
) -> None:
    signed = builder.snapshot if role == "snapshot" else builder.targets
    signed.version = 2**31 - 2
    builder.publish()
    await device.repository().refresh()
    signed.version = 5
    builder.publish()
    await refused(device, RollbackError, "trust.rollback")
    builder.rotate("snapshot")
    builder.publish()
    found = await device.repository().refresh()
    assert getattr(found.versions, role) == 7
    assert device.floor.load().versions("plant") == found.versions


async def test_fast_forward_of_the_time_floor_is_bounded_by_the_root(device: Device, builder: RepositoryBuilder) -> None:
    def far(timestamp: Timestamp) -> None:
        timestamp.unrecognized_fields["x-issued"] = "2099-01-01T00:00:00Z"

    builder.publish_timestamp(far)
    await refused(device, FastForwardError, "trust.fast-forward")


async def test_fast_forward_is_recovered_by_rotating_the_keys(device: Device, builder: RepositoryBuilder) -> None:
    thief = builder.frozen_fetcher()
    builder.timestamp.version = builder.snapshot.version = 2**31 - 2
    builder.publish()
    await device.repository().refresh()
    assert device.floor.load().versions("plant").timestamp == 2**31 - 1
    builder.timestamp.version, builder.snapshot.version = 5, 5
    builder.publish()
    await refused(device, RollbackError, "trust.rollback")
    builder.rotate("timestamp")
    builder.publish()
    found = await device.repository().refresh()
    assert (found.versions.root, found.versions.timestamp, found.versions.snapshot) == (2, 7, 7)
    assert device.floor.load().versions("plant") == found.versions
    await refused_after_root_lost(device, thief)


async def refused_after_root_lost(device: Device, thief: MemoryFetcher) -> None:
    """Walking the rotation a second time, after the kept files were lost, does not lower the floor a second time."""
    for file in device.trusted.iterdir():
        file.unlink()
    current = dict(device.builder.files)
    with pytest.raises(TrustError):
        await device.repository(MemoryFetcher({**thief.files, "metadata/2.root.json": current["metadata/2.root.json"]})).refresh()
    assert device.floor.load().versions("plant").timestamp == 7


async def test_a_vendor_cannot_sign_outside_its_path(device: Device, builder: RepositoryBuilder) -> None:
    builder.delegate("vendor", ["vendor/*"])
    builder.add_target("vendor/a.swu", b"fine", role="vendor")
    builder.add_target("line/evil.swu", b"evil", role="vendor")
    builder.add_target("vendor/deep/b.swu", b"below", role="vendor")
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    assert (await repository.find("vendor/a.swu")).role == "vendor"
    for path in ("line/evil.swu", "vendor/deep/b.swu", "vendor/../line/app.swu"):
        with pytest.raises(UnknownTargetError) as caught:
            await repository.find(path)
        assert caught.value.code == "trust.unknown-target"
    assert [info.path for info in await repository.targets()] == ["line/app.swu", "vendor/a.swu"]


@pytest.mark.parametrize(
    "path",
    ["../app.swu", "/app.swu", "a//b.swu", "a/./b.swu", ".hidden", "a b.swu", "a%2fb.swu", "a\\b.swu", "a\0b", "é.swu", ""],
)
async def test_a_target_path_that_is_no_plain_path_is_refused(device: Device, builder: RepositoryBuilder, path: str) -> None:
    builder.add_target(path, b"content")
    builder.publish()
    repository = device.repository()
    await repository.refresh()
    with pytest.raises(MetadataError):
        await repository.find(path)
    assert [info.path for info in await repository.targets()] == ["line/app.swu"]
    assert [name for name, _ in repository.problems] == [path]


def publish_snapshot(builder: RepositoryBuilder, meta: dict[str, MetaFile]) -> None:
    """A snapshot and timestamp, correctly signed, over whatever `meta` says."""
    builder.snapshot.meta = meta
    builder.snapshot.version += 1
    data = builder.put("snapshot", builder.snapshot)
    described = MetaFile.from_data(builder.snapshot.version, data, ["sha256"])
    builder.publish_timestamp(lambda timestamp: setattr(timestamp, "snapshot_meta", described))
