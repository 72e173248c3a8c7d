"""`fieldrelay repo add-plan`: from the engineer's TOML to a published target."""

import json
from pathlib import Path

import pytest

from gateway.cli.main import main
from update.digest import digest_file
from update.errors import ConfigurationError, PlanError
from update.plans.document import parse_plan
from update.trust.verified import TargetCustom

PLAN = """
format_version = 1
[plan]
name = "press-line"
version = "2026.11"
[[members]]
name = "motor"
select = { attributes = { role = "motor" } }
bundle = "os/motor.img"
[[members]]
name = "controller"
select = { nodes = ["controller-1"] }
[[requirements]]
need = "motor >= 2.1, < 3"
while = "controller == 5.*"
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One that lists an image of version 2.1."""
    folder, image = tmp_path / "plant", tmp_path / "motor.img"
    image.write_bytes(b"motor")
    for role in ("root", "targets", "snapshot", "timestamp"):
        assert main(["repo", "key", str(tmp_path / f"{role}.pem")]) == 0
    holders = [f"--holder={role}={tmp_path / role}.pem.pub" for role in ("root", "targets", "snapshot", "timestamp")]
    assert main(["repo", "init", str(folder), *holders]) == 0
    assert add(folder, image, "--version", "2.1", "--below", "os") == 0
    return folder


def add(folder: Path, image: Path, *more: str) -> int:
    return main(["repo", "add", str(folder), str(image), "--hardware", "motor:1", "--release-counter", "1", *more])


def add_plan(folder: Path, text: str, *more: str) -> int:
    file = folder.with_name("line.toml")
    file.write_text(text)
    return main(["repo", "add-plan", str(folder), str(file), "--release-counter", "7", *more])


def test_a_plan_is_pinned_listed_and_published(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert add_plan(repository, PLAN, "--below", "lines", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["path"], said["plan"], said["version"]) == ("lines/press-line-2026.11.plan.json", "press-line", "2026.11")
    for role in ("root", "targets"):
        assert main(["repo", "sign", str(repository), role, "--key", str(tmp_path / f"{role}.pem")]) == 0
    online = [f"--key={role}={tmp_path / role}.pem" for role in ("snapshot", "timestamp")]
    assert main(["repo", "publish", str(repository), *online]) == 0
    listed = json.loads((repository / "metadata" / "1.targets.json").read_text())["signed"]["targets"][said["path"]]
    custom = TargetCustom.parse(listed["custom"])
    assert (custom.plan, custom.version, custom.release_counter, custom.hw_ids) == ("press-line", "2026.11", 7, ())
    data = (repository / "targets" / "lines" / f"{said['sha256']}.press-line-2026.11.plan.json").read_bytes()
    bundle = parse_plan(data, "it").member("motor").bundle
    assert bundle is not None
    assert (bundle.path, bundle.sha256, bundle.version) == ("os/motor.img", digest_file(tmp_path / "motor.img")[0], "2.1")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("os/motor.img", "os/other.img", "lists no target 'os/other.img'"),
        ('"os/motor.img"', "7", "bundle is the path of a target"),
        ("motor >= 2.1, < 3", "motor >= 2.1 < 3", "requirements[0].need"),
        ('while = "controller == 5.*"', "", ""),
        ("need = ", "needs = ", "requirements[0].needs: no such key"),
    ],
)
def test_mistakes_are_named_and_nothing_is_listed(
    repository: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, words: str
) -> None:
    before = (repository / "staged").rglob("*")
    staged = {each: each.read_bytes() for each in before if each.is_file()}
    status = add_plan(repository, PLAN.replace(old, new))
    if not words:
        assert status == 0  # the good one beside the bad ones
        return
    assert status == PlanError.exit_status
    assert words in capsys.readouterr().err
    assert {each: each.read_bytes() for each in (repository / "staged").rglob("*") if each.is_file()} == staged
    assert not list(repository.parent.glob("*.plan.json"))


def test_bundles_that_break_the_plans_own_requirement_are_refused(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(repository, tmp_path / "motor.img", "--version", "5.3", "--below", "cpu") == 0
    both = PLAN.replace('["controller-1"] }', '["controller-1"] }\nbundle = "cpu/motor.img"')
    assert add_plan(repository, both) == 0
    assert add_plan(repository, both.replace(">= 2.1", ">= 2.2")) == PlanError.exit_status
    assert "would not hold at the end: the plan brings motor 2.1 beside controller 5.3" in capsys.readouterr().err


def test_a_delta_and_a_target_without_a_version_cannot_be_planned(
    repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("delta.img", "plain.img"):
        (tmp_path / name).write_bytes(name.encode())
    assert add(repository, tmp_path / "delta.img", "--version", "2.1", "--delta-of", "os/motor.img") == 0
    assert add(repository, tmp_path / "plain.img") == 0
    assert add_plan(repository, PLAN.replace("os/motor.img", "delta.img")) == PlanError.exit_status
    assert "name os/motor.img" in capsys.readouterr().err
    assert add_plan(repository, PLAN.replace("os/motor.img", "plain.img")) == PlanError.exit_status
    assert "listed without a version" in capsys.readouterr().err


def test_what_is_no_toml_is_refused(repository: Path) -> None:
    assert add_plan(repository, "= what") == ConfigurationError.exit_status
