"""A stick for one site holds what its devices need and nothing else, and what it holds was read back."""

import json
from pathlib import Path

import pytest

from tests.builders.repository import START, RepositoryBuilder
from update.durable import Disk, Kind, Operation
from update.errors import ConfigurationError, LengthOrHashError, MediumFullError, StateError
from update.publish.stick import Device, read_site, select, write
from update.store.directory import DirectoryFetcher
from update.trust.client import Repository
from update.trust.floor import Floor


def custom(board: str, counter: int, **more: object) -> dict[str, object]:
    return {"hwIds": [f"{board}:1"], "version": str(counter), "releaseCounter": counter, **more}


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    builder = RepositoryBuilder()
    header = {"sha256": "0" * 64, "length": 100}
    for board in ("a", "b"):
        for counter in (1, 2):
            builder.add_target(f"os/{board}-{counter}.swu", f"{board}{counter}".encode() * 100, custom(board, counter))
    builder.add_target("os/a-2-delta.swu", b"delta" * 10, custom("a", 2, deltaOf="os/a-2.swu"))
    builder.add_target("os/a-2.zck", b"chunks" * 100, custom("a", 2, zckHeader=header))
    builder.publish()
    builder.write_to(tmp_path / "repo")
    (tmp_path / "stick").mkdir()
    (tmp_path / "root.json").write_bytes(builder.root_bytes)
    return tmp_path / "repo"


def site(tmp_path: Path, *devices: dict[str, str]) -> tuple[Device, ...]:
    file = tmp_path / "site.json"
    file.write_text(json.dumps({"schema": "fieldrelay-site-1", "devices": devices}))
    return read_site(file)


def sha256_of(repository: Path, name: str) -> str:
    return next((repository / "targets" / "os").glob(f"*.{name}")).name.partition(".")[0]


@pytest.mark.parametrize(
    ("hardware", "runs", "picked"),
    [
        ("a:1", "", {"os/a-2.swu"}),
        ("a:1", "a-1.swu", {"os/a-2-delta.swu", "os/a-2.zck"}),
        ("b:1", "b-1.swu", {"os/b-2.swu"}),
        ("c:1", "", set()),
    ],
)
def test_each_hardware_gets_its_newest_release_in_the_form_that_it_can_use(
    repository: Path, tmp_path: Path, hardware: str, runs: str, picked: set[str]
) -> None:
    sha256 = sha256_of(repository, runs) if runs else ""
    selection = select(repository, site(tmp_path, {"hardware": hardware, "sha256": sha256}))
    assert {info.path for info in selection.targets} == picked
    (prospect,) = selection.prospects
    assert prospect.version == ("2" if picked else "")


async def test_what_was_written_is_a_repository_that_a_client_trusts(repository: Path, tmp_path: Path) -> None:
    stick = tmp_path / "stick"
    selection = select(repository, site(tmp_path, {"hardware": "b:1"}))
    told: list[int] = []
    write(selection, repository, stick, Disk(), lambda _name, done, _total: told.append(done))
    assert told[-1] == selection.size_bytes
    assert len(list((stick / "targets").rglob("*.swu"))) == 1
    copies = (tmp_path / "f1" / "floor.json", tmp_path / "f2" / "floor.json")
    floor = Floor(Disk(), copies)
    floor.create(START)
    root = (tmp_path / "root.json").read_bytes()
    client = Repository(
        "x",
        trusted=tmp_path / "t",
        root=root,
        fetcher=DirectoryFetcher(stick),
        disk=Disk(),
        floor=floor,
        now=lambda: START,
    )
    await client.refresh()
    assert "os/b-2.swu" in {info.path for info in await client.targets()}
    operations: list[Operation] = []
    write(selection, repository, stick, Disk(operations.append), lambda *_: None)
    assert not [each for each in operations if "targets" in each.path.parts], "what is there and right is left alone"


def test_a_stick_that_is_pulled_early_offers_nothing_half(repository: Path, tmp_path: Path) -> None:
    order: list[str] = []

    def observe(operation: Operation) -> None:
        if operation.kind is Kind.RENAME and operation.target is not None:
            order.append(operation.target.name)

    write(select(repository, site(tmp_path, {"hardware": "a:1"})), repository, tmp_path / "stick", Disk(observe), lambda *_: None)
    assert order[0].endswith("a-2.swu")
    assert order[-1] == "timestamp.json"


def test_what_is_damaged_or_too_large_is_named(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    selection = select(repository, site(tmp_path, {"hardware": "b:1"}))
    file = next((repository / "targets" / "os").glob("*.b-2.swu"))
    file.write_bytes(b"?" * file.stat().st_size)
    with pytest.raises(LengthOrHashError, match="b-2"):
        write(selection, repository, tmp_path / "stick", Disk(), lambda *_: None)
    assert not (tmp_path / "stick" / "metadata").exists()
    monkeypatch.setattr("update.publish.stick.shutil.disk_usage", lambda _path: type("Usage", (), {"free": 10}))
    with pytest.raises(MediumFullError, match="10 bytes free"):
        write(selection, repository, tmp_path / "stick", Disk(), lambda *_: None)


def test_a_site_is_told_by_a_report_too(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps({"signed": {"schema": "fieldrelay-report-1", "inventory": [{"node": "n", "hardware": "a:1"}]}}))
    assert [(each.node, str(each.hardware)) for each in read_site(file)] == [("n", "a:1")]
    for text in ("[", "[]", "{}", '{"schema": "fieldrelay-site-1", "devices": 1}'):
        file.write_text(text)
        with pytest.raises(ConfigurationError, match="neither a report"):
            read_site(file)


def test_a_repository_that_publishes_nothing_makes_no_stick(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="nothing"):
        select(tmp_path, ())
