"""Reports leave the outbox once they lie on a medium, and not before."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from media.exporter import Exporter, WritableFolder
from update.durable import Disk, Kind, Operation
from update.errors import MediumFullError, NoSpaceError

NAME = "20260203T040506Z.abc123-plant-1"


@pytest.fixture
def intake(tmp_path: Path) -> Path:
    outbox = tmp_path / "intake" / "outbox"
    outbox.mkdir(parents=True)
    for form in ("html", "json", "txt"):
        (outbox / f"{NAME}.{form}").write_bytes(form.encode() * 10)
    return tmp_path / "intake"


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "stick").mkdir()
    descriptor = os.open(tmp_path / "stick", os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def left(intake: Path) -> set[str]:
    return {each.name for each in (intake / "outbox").iterdir()}


def test_reports_lie_below_the_name_of_their_gateway_and_have_left_the_outbox(intake: Path, stick: int, tmp_path: Path) -> None:
    (intake / "outbox" / "notes.txt").write_text("of somebody else")
    exporter = Exporter(intake)
    assert exporter.waits()
    time = "20260203T040506Z.abc123"
    assert exporter.export(WritableFolder(stick, Disk())) == tuple(
        f"FIELDRELAY/plant-1/{time}.{form}" for form in ("html", "json", "txt")
    )
    folder = tmp_path / "stick" / "FIELDRELAY" / "plant-1"
    assert {each.name: each.read_bytes() for each in folder.iterdir()} == {
        f"{time}.{form}": form.encode() * 10 for form in ("html", "json", "txt")
    }
    assert left(intake) == {"notes.txt"}
    assert not exporter.waits()
    assert exporter.export(WritableFolder(stick, Disk())) == ()


@pytest.mark.parametrize("kind", [Kind.WRITE, Kind.SYNC, Kind.RENAME, Kind.SYNC_FOLDER])
def test_a_full_or_failing_medium_loses_nothing(intake: Path, stick: int, kind: Kind) -> None:
    def fail(operation: Operation) -> None:
        if operation.kind is kind:
            raise NoSpaceError("no room")

    with pytest.raises(MediumFullError, match="waits for another stick"):
        Exporter(intake).export(WritableFolder(stick, Disk(fail)))
    assert len(left(intake)) == 3


class _Forgetful(WritableFolder):
    def read_back(self, folder: tuple[str, ...], name: str, max_bytes: int) -> bytes:
        return super().read_back(folder, name, max_bytes)[:-1] + b"?"


def test_a_medium_that_keeps_other_bytes_has_kept_nothing(intake: Path, stick: int) -> None:
    with pytest.raises(MediumFullError, match="another stick"):
        Exporter(intake).export(_Forgetful(stick, Disk()))
    assert len(left(intake)) == 3


@pytest.mark.parametrize("place", ["FIELDRELAY", "FIELDRELAY/plant-1"])
def test_links_on_the_medium_lead_nowhere(intake: Path, stick: int, tmp_path: Path, place: str) -> None:
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "stick" / place
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MediumFullError):
        Exporter(intake).export(WritableFolder(stick, Disk()))
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert len(left(intake)) == 3


def test_without_an_outbox_there_is_nothing_to_export(tmp_path: Path) -> None:
    assert not Exporter(tmp_path).waits()
