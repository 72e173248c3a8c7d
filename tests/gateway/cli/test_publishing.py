"""The publisher's commands, from an image to a repository that the client accepts."""

import json
import random
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.builders.keys import make_pki
from update.durable import Disk
from update.errors import DescriptionError, FieldrelayError, MetadataError, StateError, ThresholdError, UsageError
from update.publish.images import encoder_name
from update.store.directory import DirectoryFetcher
from update.trust.client import Repository
from update.trust.floor import Floor
from update.trust.verified import UpdateClass

SPEC = """\
[bundle]
name = "controller"
version = "{version}"
repository = "plant"
hardware = {{ board = "demo", revisions = ["1.0"] }}
[[slots]]
set = "stable"
mode = "copy1"
[[images]]
name = "rootfs"
file = "rootfs-{version}.img"
type = "delta"
devices = {{ "stable,copy1" = "/dev/a" }}
sources = {{ "stable,copy1" = "/dev/b" }}
"""


@pytest.fixture
def work(tmp_path: Path) -> Path:
    dice = random.Random(11)
    blocks = [dice.randbytes(4096) for _ in range(100)]
    for version in ("1.0", "1.1"):
        (tmp_path / f"rootfs-{version}.img").write_bytes(b"".join(blocks))
        (tmp_path / f"{version}.toml").write_text(SPEC.format(version=version))
        blocks[50] = dice.randbytes(4096)
    make_pki().write(tmp_path / "pki")
    return tmp_path


def build(work: Path, version: str, *more: str) -> int:
    files = make_pki().write(work / "pki")
    signer = ["--signer", str(files.certificate("signer0")), str(files.key("signer0"))]
    return main(["bundle", "build", str(work / f"{version}.toml"), "--out", str(work / "out"), *signer, *more])


def verify(work: Path, bundle: Path, *more: str) -> int:
    files = make_pki().write(work / "pki")
    return main(["bundle", "verify", str(bundle), "--root", str(files.anchors), *more])


def result(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_bundle_is_built_inspected_verified_and_signed_once_more(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert build(work, "1.0", "--json") == 0
    built = result(capsys)
    bundle = Path(str(built["file"]))
    assert bundle.is_file()
    deltas: list[dict[str, str]] = built["deltas"]  # type: ignore[assignment]  # what the schema says
    assert [delta["encoder"] for delta in deltas] == [encoder_name()]
    assert main(["bundle", "inspect", str(bundle), "--json"]) == 0
    assert result(capsys)["version"] == "1.0"
    assert verify(work, bundle, "--threshold", "2") == ThresholdError.exit_status
    files = make_pki().write(work / "pki")
    more = ["--signer", str(files.certificate("signer1")), str(files.key("signer1"))]
    assert main(["bundle", "sign", str(bundle), *more]) == 0
    assert verify(work, bundle, "--threshold", "2") == 0


def test_what_travels_between_two_bundles_is_shown(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(work, "1.0")
    build(work, "1.1")
    capsys.readouterr()
    out = work / "out"
    old, new = str(out / "controller-1.0.swu"), str(out / "controller-1.1.swu")
    assert main(["bundle", "diff", old, new, "--json"]) == 0
    images: list[dict[str, int]] = result(capsys)["images"]  # type: ignore[assignment]  # what the schema says
    image = images[0]
    assert 0 < image["fetch_bytes"] < image["total_bytes"] / 2
    assert main(["bundle", "diff", old, new]) == 0
    assert "% travels" in capsys.readouterr().out


def test_a_dry_run_builds_nothing(work: Path) -> None:
    assert build(work, "1.0", "--dry-run") == 0
    assert not (work / "out").exists()


def test_a_wrong_specification_is_refused_by_name(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "1.0.toml").write_text(SPEC.format(version="1.0").replace('type = "delta"', 'type = "telta"'))
    assert build(work, "1.0") != 0
    assert "images" in capsys.readouterr().err
    (work / "bad.swu").write_bytes(b"not a bundle")
    assert verify(work, work / "bad.swu") // 10 == DescriptionError.exit_status // 10


def make_repository(work: Path) -> Path:
    folder = work / "plant"
    holders = []
    for name in ("root-1", "root-2", "targets-1", "targets-2", "snapshot-1", "timestamp-1"):
        assert main(["repo", "key", str(work / name)]) == 0
        holders += ["--holder", f"{name.partition('-')[0]}={work / name}.pub"]
    assert main(["repo", "init", str(folder), *holders, "--threshold", "root=2", "--threshold", "targets=2"]) == 0
    return folder


def publish(work: Path, folder: Path) -> int:
    keys = [f"--key={role}={work / role}-1" for role in ("snapshot", "timestamp")]
    return main(["repo", "publish", str(folder), *keys])


async def test_a_repository_is_published_when_enough_holders_have_signed(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(work, "1.0")
    folder = make_repository(work)
    assert main(["repo", "add", str(folder), str(work / "out" / "controller-1.0.swu"), "--release-counter", "1"]) == 0
    for role, holder in (("root", 1), ("root", 2), ("targets", 1)):
        assert main(["repo", "sign", str(folder), role, "--key", str(work / f"{role}-{holder}")]) == 0
    assert publish(work, folder) == ThresholdError.exit_status
    assert not (folder / "metadata" / "timestamp.json").exists()
    assert main(["repo", "sign", str(folder), "targets", "--key", str(work / "targets-2")]) == 0
    assert publish(work, folder) == 0
    capsys.readouterr()
    assert main(["repo", "status", str(folder), "--json"]) == 0
    assert result(capsys)["staged"] == []

    floor = Floor(Disk(), (work / "f1", work / "f2"))
    floor.create()
    client = Repository(
        "plant",
        trusted=work / "trusted",
        root=(folder / "metadata" / "1.root.json").read_bytes(),
        fetcher=DirectoryFetcher(folder),
        disk=Disk(),
        floor=floor,
        now=lambda: datetime.now(UTC),
    )
    await client.refresh()
    found = {info.path: info for info in await client.targets()}
    assert set(found) == {"controller-1.0.swu", "rootfs-1.0.zck"}
    assert found["controller-1.0.swu"].custom.hw_ids == ("demo:1.0",)
    assert found["rootfs-1.0.zck"].custom.zck_header is not None


def release(work: Path) -> Path:
    build(work, "1.0")
    folder = make_repository(work)
    assert main(["repo", "add", str(folder), str(work / "out" / "controller-1.0.swu"), "--release-counter", "1"]) == 0
    for role in ("root", "targets"):
        sign(work, folder, role)
    assert publish(work, folder) == 0
    return folder


def sign(work: Path, folder: Path, role: str) -> None:
    for holder in (1, 2):
        assert main(["repo", "sign", str(folder), role, "--key", str(work / f"{role}-{holder}")]) == 0


@pytest.mark.parametrize("role", ["root", "targets"])
def test_a_role_that_nobody_changes_is_renewed(role: str, work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = release(work)
    capsys.readouterr()
    assert main(["repo", "renew", str(folder), role, "--json"]) == 0
    assert result(capsys)["version"] == 2
    sign(work, folder, role)
    assert publish(work, folder) == 0
    name = f"2.{role}.json"
    renewed = json.loads((folder / "metadata" / name).read_text())["signed"]
    before = json.loads((folder / "metadata" / f"1.{role}.json").read_text())["signed"]
    assert renewed["expires"] >= before["expires"]
    assert {**renewed, "version": 1, "expires": ""} == {**before, "expires": ""}


@pytest.mark.parametrize(("role", "status"), [("timestamp", UsageError), ("snapshot", UsageError), ("nobody", StateError)])
def test_what_cannot_be_renewed_is_said(role: str, status: type[FieldrelayError], work: Path) -> None:
    assert main(["repo", "renew", str(release(work)), role]) == status.exit_status


@pytest.mark.parametrize("update_class", list(UpdateClass))
def test_the_class_of_a_release_is_signed(update_class: UpdateClass, work: Path) -> None:
    build(work, "1.0")
    folder = make_repository(work)
    bundle = str(work / "out" / "controller-1.0.swu")
    assert main(["repo", "add", str(folder), bundle, "--release-counter", "1", "--class", update_class.value]) == 0
    sign(work, folder, "root")
    sign(work, folder, "targets")
    assert publish(work, folder) == 0
    listed = json.loads((folder / "metadata" / "1.targets.json").read_text())["signed"]["targets"]
    assert listed["controller-1.0.swu"]["custom"].get("class") == update_class


def test_a_delta_says_which_bundle_is_whole_and_its_images_do_not(work: Path) -> None:
    build(work, "1.0")
    folder = make_repository(work)
    bundle = str(work / "out" / "controller-1.0.swu")
    for path, status in (("../whole.swu", MetadataError.exit_status), ("os/whole.swu", 0)):
        assert main(["repo", "add", str(folder), bundle, "--release-counter", "1", "--delta-of", path]) == status
    staged = json.loads((folder / "staged" / "targets.signed.json").read_text())["targets"]
    assert {path: each["custom"].get("deltaOf") for path, each in staged.items()} == {
        "controller-1.0.swu": "os/whole.swu",
        "rootfs-1.0.zck": None,
    }


def test_an_rdiff_says_what_it_leads_from(work: Path) -> None:
    build(work, "1.0")
    folder = make_repository(work)
    bundle = str(work / "out" / "controller-1.0.swu")
    add, base = ["repo", "add", str(folder), bundle, "--release-counter", "1"], "ab" * 32
    assert main([*add, "--delta-from", base]) == UsageError.exit_status
    assert main([*add, "--delta-of", "whole.swu", "--delta-from", "AB"]) == MetadataError.exit_status
    assert main([*add, "--delta-of", "whole.swu", "--delta-from", base]) == 0
    staged = json.loads((folder / "staged" / "targets.signed.json").read_text())["targets"]
    assert {path: each["custom"].get("deltaFrom") for path, each in staged.items()} == {
        "controller-1.0.swu": base,
        "rootfs-1.0.zck": None,
    }


def test_the_status_of_a_folder_that_is_not_there_is_refused(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["repo", "status", str(work / "plamt")]) == StateError.exit_status
    assert "plamt" in capsys.readouterr().err
    assert not (work / "plamt").exists()


def test_a_delta_without_its_images_is_not_published(work: Path) -> None:
    build(work, "1.0")
    folder = make_repository(work)
    (work / "out" / "rootfs-1.0.zck").unlink()
    bundle = str(work / "out" / "controller-1.0.swu")
    assert main(["repo", "add", str(folder), bundle, "--release-counter", "1"]) == UsageError.exit_status


def test_a_repository_or_key_is_never_overwritten(work: Path) -> None:
    make_repository(work)
    assert main(["repo", "key", str(work / "root-1")]) == StateError.exit_status
    holders = [f"--holder={role}={work / role}-1.pub" for role in ("root", "targets", "snapshot", "timestamp")]
    assert main(["repo", "init", str(work / "plant"), *holders]) == StateError.exit_status
