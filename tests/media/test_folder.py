"""A medium that stands as a folder: nothing on it leads outside, and what is wrong with it has a name."""

import errno
import os
from pathlib import Path

import pytest

from media import folder as folder_module
from media.folder import FolderMedium
from media.medium import Entry, EntryKind, shown
from update.errors import MediumGoneError, MediumLimitError, MediumUnreadableError, NotFoundError, ProtocolError


@pytest.fixture
def stick(tmp_path: Path) -> Path:
    root = tmp_path / "stick"
    root.mkdir()
    return root


def descriptors() -> set[Path]:
    return set(Path("/proc/self/fd").iterdir())


def walked(root: Path) -> list[Entry]:
    medium = FolderMedium.at(root)
    try:
        return list(medium.walk())
    finally:
        medium.close()


def test_everything_is_walked_folders_first_and_in_order(stick: Path) -> None:
    (stick / "b").mkdir()
    (stick / "b" / "inner.swu").write_bytes(b"12345")
    (stick / "a.txt").write_bytes(b"1")

    assert walked(stick) == [
        Entry(("a.txt",), EntryKind.FILE, 1),
        Entry(("b",), EntryKind.FOLDER),
        Entry(("b", "inner.swu"), EntryKind.FILE, 5),
    ]


def test_links_and_special_files_are_reported_and_never_followed(stick: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("of the gateway")
    (tmp_path / "folder").mkdir()
    (stick / "link").symlink_to(tmp_path / "secret")
    (stick / "folder").symlink_to(tmp_path / "folder")
    os.mkfifo(stick / "pipe")

    assert {entry.parts[-1]: entry.kind for entry in walked(stick)} == dict.fromkeys(("folder", "link", "pipe"), EntryKind.OTHER)
    medium = FolderMedium.at(stick)
    for parts in (("link",), ("folder", "x"), ("pipe",), ("..", "secret")):
        with pytest.raises(ProtocolError):
            medium.open(parts)
    medium.close()


def test_a_device_is_not_opened(stick: Path) -> None:
    try:
        os.mknod(stick / "disk", 0o600 | 0o020000, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("making a device needs more rights")
    medium = FolderMedium.at(stick)
    with pytest.raises(ProtocolError, match="not a regular file"):
        medium.open(("disk",))
    medium.close()


def test_a_file_that_is_not_there_is_named(stick: Path) -> None:
    medium = FolderMedium.at(stick)
    with pytest.raises(NotFoundError, match=r"a/b\.swu"):
        medium.open(("a", "b.swu"))
    medium.close()


def test_too_many_files_are_refused(stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MAX_ENTRIES", 20)
    for number in range(21):
        (stick / f"{number}").touch()

    with pytest.raises(MediumLimitError, match="more than 20 files"):
        walked(stick)


def test_too_many_files_in_many_folders_are_refused(stick: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_module, "MAX_ENTRIES", 20)
    for number in range(7):
        (stick / f"{number}").mkdir()
        (stick / f"{number}" / "a").touch()
        (stick / f"{number}" / "b").touch()

    with pytest.raises(MediumLimitError, match="more than 20 files"):
        walked(stick)


def test_folders_without_end_are_refused(stick: Path) -> None:
    deep = stick
    for _ in range(14):
        deep = deep / "d"
    deep.mkdir(parents=True)

    with pytest.raises(MediumLimitError, match="deeper than 12"):
        walked(stick)


def test_a_medium_that_was_pulled_out_says_so_whatever_the_system_says(stick: Path) -> None:
    present = True
    medium = FolderMedium(os.open(stick, os.O_RDONLY | os.O_DIRECTORY), lambda: present)
    (stick / "file").touch()
    assert isinstance(medium.trouble(OSError(errno.EIO, "Input/output error"), ("file",)), MediumUnreadableError)

    present = False

    assert isinstance(medium.trouble(OSError(errno.EIO, "Input/output error"), ("file",)), MediumGoneError)
    with pytest.raises(MediumGoneError):
        medium.open(("missing",))
    medium.close()


def test_nothing_stays_open(stick: Path) -> None:
    (stick / "a").mkdir()
    (stick / "a" / "file").write_bytes(b"x")
    before = descriptors()
    medium = FolderMedium.at(stick)
    for entry in medium.walk():
        if entry.kind is EntryKind.FILE:
            with medium.open(entry.parts) as file:
                assert file.read() == b"x"
    with pytest.raises(NotFoundError):
        medium.open(("a", "other"))
    medium.close()
    medium.close()

    assert descriptors() == before


@pytest.mark.parametrize(
    ("name", "expected"),
    [("plain.swu", "plain.swu"), ("two\nlines", "two\\nlines"), ("\x1b[2J", "\\x1b[2J"), (os.fsdecode(b"\xff"), "\\udcff")],
)
def test_a_name_cannot_forge_a_line(name: str, expected: str) -> None:
    assert shown((name,)) == expected


def test_a_long_name_is_cut() -> None:
    assert len(shown(("x" * 500,))) == 200
