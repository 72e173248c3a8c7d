"""`fieldrelay media write`, as a release engineer uses it."""

import json
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.builders.repository import RepositoryBuilder
from update.errors import UsageError


@pytest.fixture
def work(tmp_path: Path) -> Path:
    builder = RepositoryBuilder()
    builder.add_target("os/a-2.swu", b"a" * 100, {"hwIds": ["a:1"], "version": "2", "releaseCounter": 2})
    builder.publish()
    builder.write_to(tmp_path / "repo")
    (tmp_path / "stick").mkdir()
    devices = [{"node": "n1", "hardware": "a:1", "version": "1"}, {"node": "n2", "hardware": "z:1"}]
    (tmp_path / "site.json").write_text(json.dumps({"schema": "fieldrelay-site-1", "devices": devices}))
    return tmp_path


def run(work: Path, *more: str) -> int:
    place = str(work / "stick")
    return main(["media", "write", place, "--repo", str(work / "repo"), "--for", str(work / "site.json"), *more])


def test_it_says_what_will_happen_and_writes_it(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(work, "--dry-run", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["written"] is False
    assert list((work / "stick").iterdir()) == []
    assert [(each["node"], each["version"]) for each in told["devices"]] == [("n1", "2"), ("n2", "")]
    assert run(work) == 0
    out = capsys.readouterr().out
    assert "runs 1 and will get this" in out
    assert "nothing here is for it" in out
    assert "good until 2027-03-01" in out
    assert (work / "stick" / "metadata" / "timestamp.json").exists()


def test_a_device_is_to_be_formatted_by_a_person(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (work / "stick").rmdir()
    (work / "stick").touch()
    with_status = run(work)
    assert with_status == UsageError.exit_status
    assert "mkfs.vfat" in capsys.readouterr().err
