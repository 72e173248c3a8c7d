"""A publisher's repository: several hands sign, nothing signed changes, clients never see an incomplete set."""

import asyncio
import json
import shutil
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata, Timestamp

from tests.builders.repository import START
from tests.replay import CrashState, Killed, Recorder, assert_every_crash
from update.digest import digest_of
from update.durable import Disk
from update.errors import (
    ConfigurationError,
    CorruptError,
    ExpiredError,
    MetadataError,
    NotFoundError,
    SignatureError,
    StateError,
    StoreError,
    ThresholdError,
)
from update.publish.release import Release
from update.publish.repository import PublishedRepository
from update.publish.roles import RoleKeys, Validity
from update.store.directory import DirectoryFetcher
from update.trust.client import Refreshed, Repository
from update.trust.floor import Floor
from update.trust.floor_values import RoleVersions
from update.trust.verified import TargetCustom, TargetInfo, ZckHeader, verify_target

KEYS = {
    role: [CryptoSigner.generate_ecdsa() for _ in range(count)]
    for role, count in (("root", 3), ("targets", 3), ("snapshot", 1), ("timestamp", 1))
}
STRANGER = CryptoSigner.generate_ed25519()
CUSTOM = TargetCustom(hw_ids=("imx8:1",), version="1.0", release_counter=1, zck_header=ZckHeader(digest_of(b""), 4))


def role_keys(signers: list[CryptoSigner], threshold: int) -> RoleKeys:
    return RoleKeys(tuple(signer.public_key for signer in signers), threshold)


PLAN = {role: role_keys(signers, 2 if len(signers) > 1 else 1) for role, signers in KEYS.items()}
ONLINE = {role: KEYS[role] for role in ("snapshot", "timestamp")}


@dataclass
class Desk:
    """A publisher's desk: set `time` freely."""

    folder: Path
    disk: Disk = field(default_factory=Disk)
    time: datetime = START
    validity: Validity = field(default_factory=Validity)

    @property
    def repository(self) -> PublishedRepository:
        return PublishedRepository(self.folder / "repository", self.disk, lambda: self.time, validity=self.validity)

    @property
    def metadata(self) -> Path:
        return self.folder / "repository" / "metadata"

    def add(self, path: str, content: bytes, role: str = "targets") -> TargetInfo:
        file = self.folder / "made"
        file.write_bytes(content)
        return self.repository.add(file, path, CUSTOM, role=role)

    def sign(self, role: str, *signers: CryptoSigner) -> None:
        for signer in signers or KEYS[role][:2]:
            self.repository.sign(role, signer)

    def publish(self) -> Release:
        return self.repository.publish(ONLINE)

    def begin(self) -> None:
        self.repository.init(PLAN)
        self.sign("root")
        self.sign("targets")
        self.publish()


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def client(desk: Desk, folder: Path | None = None) -> Repository:
    """A fresh device that pins the first root."""
    home = desk.folder / "device" if folder is None else folder
    floor = Floor(Disk(), (home / "a" / "floor", home / "b" / "floor"))
    if not floor.exists():
        floor.create()
    return Repository(
        "plant",
        trusted=home / "trusted",
        root=(desk.metadata / "1.root.json").read_bytes(),
        fetcher=DirectoryFetcher(desk.folder / "repository"),
        disk=Disk(),
        floor=floor,
        now=lambda: desk.time,
    )


async def test_a_target_goes_from_the_desk_to_a_device(desk: Desk) -> None:
    desk.repository.init(PLAN)
    added = desk.add("line/app.swu", b"a bundle")
    desk.sign("root")
    desk.sign("targets")
    release = desk.publish()
    assert [name for name, _ in release.files] == ["1.root.json", "1.targets.json", "1.snapshot.json", "timestamp.json"]
    repository = client(desk)
    found = await repository.refresh()
    assert found.versions == release.versions == RoleVersions(1, 1, 1, 1)
    assert found.issued == START
    (info,) = await repository.targets()
    assert (info.path, info.sha256, info.length, info.custom) == (added.path, added.sha256, added.length, CUSTOM)
    assert verify_target(info, desk.folder / "repository" / info.wire_path).info == info
    assert list((desk.folder / "repository" / "staged").iterdir()) == []


def test_the_first_publication_needs_every_threshold(desk: Desk) -> None:
    desk.repository.init(PLAN)
    with pytest.raises(SignatureError):
        desk.publish()
    desk.sign("root", KEYS["root"][0])
    with pytest.raises(ThresholdError):
        desk.publish()
    desk.sign("root", KEYS["root"][2])
    desk.sign("targets", KEYS["targets"][0])
    with pytest.raises(ThresholdError) as caught:
        desk.publish()
    assert "targets version 1 was signed by 1 of 2" in str(caught.value)
    assert not desk.metadata.exists()
    desk.sign("targets", KEYS["targets"][1])
    desk.publish()


def test_status_says_who_signed_and_who_is_missing(desk: Desk) -> None:
    desk.repository.init(PLAN)
    assert desk.repository.status().published == ()
    signed = desk.repository.sign("root", KEYS["root"][1])
    assert (signed.role, signed.version, signed.complete, dict(signed.missing)) == ("root", 1, False, {"root version 1": 1})
    root, targets = desk.repository.status().staged
    assert (root.role, root.complete, root.groups[0].signed) == ("root", False, (KEYS["root"][1].public_key.keyid,))
    assert (targets.role, targets.groups[0].missing, len(targets.groups[0].unsigned)) == ("targets", 2, 3)
    assert desk.repository.sign("root", KEYS["root"][0]).complete
    desk.sign("targets")
    desk.publish()
    status = desk.repository.status()
    assert status.staged == ()
    assert [(role.role, role.version, role.threshold, len(role.keyids), role.expired) for role in status.published] == [
        ("snapshot", 1, 1, 1, False),
        ("timestamp", 1, 1, 1, False),
        ("targets", 1, 2, 3, False),
        ("root", 1, 2, 3, False),
    ]
    desk.time += timedelta(days=14)
    assert [role.role for role in desk.repository.status().published if role.expired] == ["snapshot", "timestamp"]


def test_what_is_signed_is_frozen_until_it_is_published_or_discarded(desk: Desk) -> None:
    desk.begin()
    desk.add("line/app.swu", b"one")
    text = (desk.folder / "repository" / "staged" / "targets.signed.json").read_bytes()
    desk.sign("targets", KEYS["targets"][0])
    with pytest.raises(StateError) as caught:
        desk.add("line/late.swu", b"two")
    assert "frozen" in str(caught.value)
    desk.sign("targets", KEYS["targets"][1])
    assert (desk.folder / "repository" / "staged" / "targets.signed.json").read_bytes() == text
    desk.publish()
    assert text in (desk.metadata / "2.targets.json").read_bytes()


def test_a_signed_root_is_frozen_too(desk: Desk) -> None:
    desk.begin()
    desk.repository.rotate({})
    desk.sign("root", KEYS["root"][0])
    with pytest.raises(StateError):
        desk.repository.rotate({"timestamp": role_keys([STRANGER], 1)})
    desk.repository.discard("root")
    assert desk.repository.status().staged == ()


def test_an_expired_root_is_not_published(desk: Desk) -> None:
    desk.validity = Validity(root=timedelta(days=30))
    desk.begin()
    desk.time += timedelta(days=31)
    with pytest.raises(ExpiredError) as caught:
        desk.publish()
    assert str(caught.value).startswith("root")


def test_discarded_signatures_let_a_text_change_again(desk: Desk) -> None:
    desk.begin()
    desk.add("line/app.swu", b"one")
    desk.sign("targets", KEYS["targets"][0])
    desk.repository.discard("targets", signatures_only=True)
    desk.add("line/late.swu", b"two")
    desk.sign("targets")
    assert desk.publish().versions.targets == 2
    assert json.loads((desk.metadata / "2.targets.json").read_bytes())["signed"]["targets"].keys() == {
        "line/app.swu",
        "line/late.swu",
    }


def test_signatures_can_be_made_elsewhere_and_carried(desk: Desk, tmp_path: Path) -> None:
    """A holder takes the text to his own machine and brings back one small file."""
    desk.begin()
    desk.add("line/app.swu", b"one")
    desk.sign("targets", KEYS["targets"][0])
    here = desk.folder / "repository"
    elsewhere = Desk(tmp_path / "elsewhere")
    for name in ("metadata", "staged"):
        there = elsewhere.folder / "repository" / name
        there.mkdir(parents=True)
        for file in (here / name).glob("*.json"):
            (there / file.name).write_bytes(file.read_bytes())
    elsewhere.sign("targets", KEYS["targets"][2])
    (brought,) = (elsewhere.folder / "repository" / "staged").glob("*.sig")
    (here / "staged" / brought.name).write_bytes(brought.read_bytes())
    assert desk.publish().versions.targets == 2


def test_signing_twice_counts_once_and_strangers_are_named(desk: Desk) -> None:
    desk.repository.init(PLAN)
    desk.sign("root", KEYS["root"][0], KEYS["root"][0])
    assert desk.repository.status().staged[0].groups[0].missing == 1
    with pytest.raises(ConfigurationError) as caught:
        desk.repository.sign("root", STRANGER)
    assert STRANGER.public_key.keyid[:16] in str(caught.value)
    with pytest.raises(StateError):
        desk.repository.sign("vendor", STRANGER)


def test_a_forged_signature_file_does_not_count_when_publishing(desk: Desk) -> None:
    desk.repository.init(PLAN)
    desk.sign("root")
    desk.sign("targets", KEYS["targets"][0])
    keyid = KEYS["targets"][1].public_key.keyid
    staged = desk.folder / "repository" / "staged"
    own = next(staged.glob("targets.*.sig")).read_bytes()
    (staged / f"targets.{keyid}.sig").write_bytes(own)
    with pytest.raises(CorruptError):
        desk.publish()
    (staged / f"targets.{keyid}.sig").write_bytes(own.replace(KEYS["targets"][0].public_key.keyid.encode(), keyid.encode()))
    with pytest.raises(ThresholdError):
        desk.publish()
    assert not desk.metadata.exists()


def test_a_new_timestamp_alone_is_no_new_snapshot(desk: Desk) -> None:
    desk.begin()
    desk.validity = Validity(snapshot=timedelta(days=30), timestamp=timedelta(days=7))
    desk.publish()
    desk.time += timedelta(days=5)
    assert desk.publish().versions == RoleVersions(1, 3, 1, 1)
    timestamp = Metadata[Timestamp].from_file(str(desk.metadata / "timestamp.json")).signed
    assert timestamp.unrecognized_fields["x-issued"] == "2026-03-06T12:00:00Z"
    assert timestamp.expires == START + timedelta(days=12)
    desk.time += timedelta(days=5)
    assert desk.publish().versions == RoleVersions(1, 4, 2, 1), "the first snapshot would expire before this timestamp"


def test_a_role_that_waits_for_signatures_does_not_hold_up_the_timestamp(desk: Desk) -> None:
    desk.begin()
    desk.add("line/app.swu", b"one")
    desk.sign("targets", KEYS["targets"][0])
    assert desk.publish().versions.targets == 1
    assert desk.repository.status().staged[0].role == "targets"
    desk.sign("targets", KEYS["targets"][1])
    assert desk.publish().versions.targets == 2


def test_without_online_keys_nothing_is_published(desk: Desk) -> None:
    desk.repository.init(PLAN)
    desk.sign("root")
    desk.sign("targets")
    for signers in ({}, {"snapshot": KEYS["snapshot"]}):
        with pytest.raises(ConfigurationError):
            desk.repository.publish(signers)
    with pytest.raises(SignatureError):
        desk.repository.publish({"snapshot": [STRANGER], "timestamp": KEYS["timestamp"]})
    assert not desk.metadata.exists()


def test_nothing_expired_is_published_and_renewing_helps(desk: Desk) -> None:
    desk.begin()
    desk.time += timedelta(days=366)
    with pytest.raises(ExpiredError):
        desk.publish()
    desk.repository.renew("targets")
    desk.sign("targets")
    assert desk.publish().versions == RoleVersions(1, 2, 2, 2)


async def test_every_key_can_be_rotated(desk: Desk) -> None:
    desk.begin()
    repository = client(desk)
    await repository.refresh()
    fresh = {role: [CryptoSigner.generate_ecdsa() for _ in signers] for role, signers in KEYS.items()}
    staged = desk.repository.rotate({role: role_keys(signers, PLAN[role].threshold) for role, signers in fresh.items()})
    assert staged.signed.version == 2
    assert not desk.repository.sign("root", KEYS["root"][0]).complete
    desk.sign("root", KEYS["root"][1], fresh["root"][0])
    assert dict(desk.repository.sign("root", fresh["root"][1]).missing) == {"root version 1": 0, "root version 2": 0}
    desk.repository.renew("targets")
    with pytest.raises(ConfigurationError):
        desk.repository.sign("targets", KEYS["targets"][0])
    desk.sign("targets", *fresh["targets"][:2])
    release = desk.repository.publish({role: fresh[role] for role in ("snapshot", "timestamp")})
    assert release.versions == RoleVersions(2, 2, 2, 2)
    assert (await repository.refresh()).versions == release.versions
    root = json.loads((desk.metadata / "2.root.json").read_bytes())["signed"]
    assert len(root["keys"]) == 8


async def test_a_vendor_signs_for_its_own_path(desk: Desk) -> None:
    vendor = CryptoSigner.generate_ed25519()
    desk.begin()
    desk.repository.delegate("vendor", role_keys([vendor], 1), ["vendor/*"])
    desk.sign("targets")
    desk.add("vendor/drive.swu", b"drive", role="vendor")
    with pytest.raises(ConfigurationError):
        desk.repository.sign("vendor", KEYS["targets"][0])
    desk.sign("vendor", vendor)
    assert desk.repository.status().staged[1].groups[0].of == "the delegating targets role"
    desk.publish()
    repository = client(desk)
    await repository.refresh()
    assert [(info.path, info.role) for info in await repository.targets()] == [("vendor/drive.swu", "vendor")]
    desk.add("vendor/drive.swu", b"drive 2", role="vendor")
    desk.sign("vendor", vendor)
    desk.publish()
    await repository.refresh()
    assert (await repository.find("vendor/drive.swu")).length == 7


def test_a_removed_target_is_no_longer_listed(desk: Desk) -> None:
    desk.begin()
    desk.add("line/app.swu", b"one")
    desk.repository.remove("line/app.swu")
    with pytest.raises(StateError):
        desk.repository.remove("line/app.swu")


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({}, "needs keys for root"),
        ({**PLAN, "targets": role_keys(KEYS["targets"], 4)}, "threshold of 4"),
        ({**PLAN, "targets": role_keys(KEYS["targets"], 0)}, "threshold of 0"),
        ({**PLAN, "targets": role_keys([KEYS["root"][0], KEYS["root"][0]], 2)}, "named twice"),
    ],
)
def test_a_plan_that_cannot_be_met_is_refused(desk: Desk, plan: dict[str, RoleKeys], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        desk.repository.init(plan)
    assert said in str(caught.value)
    assert not (desk.folder / "repository").exists()


def test_a_repository_is_begun_once(desk: Desk) -> None:
    for attempt in (lambda: desk.add("a.swu", b""), lambda: desk.repository.rotate({}), desk.publish):
        with pytest.raises(StateError):
            attempt()
    desk.repository.init(PLAN)
    with pytest.raises(StateError):
        desk.repository.init(PLAN)


def test_bad_paths_and_missing_files_stage_nothing(desk: Desk) -> None:
    desk.begin()
    with pytest.raises(MetadataError):
        desk.add("../app.swu", b"x")
    with pytest.raises(StoreError):
        desk.repository.add(desk.folder / "missing", "app.swu", CUSTOM)
    assert desk.repository.status().staged == ()


def test_a_power_cut_anywhere_in_publishing_shows_clients_the_old_or_the_new_set(tmp_path: Path) -> None:
    home = tmp_path / "desk"
    home.mkdir()
    desk = Desk(home)
    desk.begin()
    desk.add("line/app.swu", b"a bundle")
    desk.sign("targets")
    recorder = Recorder(home)
    recorder.mark()
    desk.disk = Disk(recorder)
    desk.publish()
    recorder.mark()
    rounds = iter(range(10_000))

    def check(folder: Path, state: CrashState) -> None:
        versions = asyncio.run(follow(Desk(folder), tmp_path / f"device{next(rounds)}")).versions
        allowed = [RoleVersions(1, 1, 1, 1), RoleVersions(1, 2, 2, 2)]
        assert versions in allowed[state.marks - 1 : state.marks + state.busy]

    assert assert_every_crash(recorder.trace(), check, into=tmp_path / "crash", limit=12) > 20


async def follow(desk: Desk, device: Path) -> Refreshed:
    return await client(desk, device).refresh()


def test_publishing_killed_anywhere_is_completed_by_publishing_again(tmp_path: Path) -> None:
    prepared = Desk(tmp_path / "prepared")
    prepared.folder.mkdir()
    prepared.begin()
    prepared.repository.rotate({})
    prepared.sign("root")
    prepared.add("line/app.swu", b"a bundle")
    prepared.sign("targets")
    for count in range(200):
        home = tmp_path / str(count)
        shutil.copytree(prepared.folder, home)
        recorder = Recorder(home)
        desk = Desk(home, Disk(recorder))
        recorder.kill_at(count)
        try:
            desk.publish()
        except Killed:
            pass
        else:
            break
        desk.publish()
        found = asyncio.run(follow(desk, home / "device"))
        assert (found.versions.root, found.versions.targets) == (2, 2)
        assert list((home / "repository" / "staged").iterdir()) == []
    else:
        pytest.fail("publishing has more than 200 operations")
    assert count > 20


def test_a_file_of_the_repository_that_is_gone_is_named(desk: Desk) -> None:
    desk.begin()
    (desk.metadata / "1.targets.json").unlink()
    with pytest.raises(CorruptError) as caught:
        desk.publish()
    assert "1.targets.json" in str(caught.value)
    with pytest.raises(NotFoundError):
        asyncio.run(follow(desk, desk.folder / "device"))
