"""Encrypted media: what is refused before any key is touched, and what a key that does not fit leads to."""

import subprocess
from pathlib import Path

import pytest

from media import locked
from media.locked import Unlocked, unlock
from tests.peers import need_tool
from update.errors import MediumRefusedError, MediumUnreadableError


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """A real LUKS volume, whose key is not ours."""
    (tmp_path / "theirs").write_bytes(b"their key")
    (tmp_path / "ours").write_bytes(b"our key")
    volume = tmp_path / "volume"
    with volume.open("wb") as file:
        file.truncate(20 << 20)
    options = ["--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    command = [need_tool("cryptsetup"), "luksFormat", "-q", *options, "--key-file", str(tmp_path / "theirs"), str(volume)]
    subprocess.run(command, check=True, capture_output=True, timeout=100)
    return volume


def test_without_a_key_an_encrypted_medium_is_refused() -> None:
    with pytest.raises(MediumRefusedError, match="key_file"):
        unlock("/dev/sda1", None, writable=False)


def test_without_the_tool_it_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locked, "_SEARCH", str(tmp_path))
    with pytest.raises(MediumRefusedError, match="cryptsetup"):
        unlock("/dev/sda1", tmp_path / "key", writable=False)


@pytest.mark.interop
def test_a_key_that_does_not_fit_is_named(image: Path) -> None:
    with pytest.raises(MediumUnreadableError, match="volume"):
        unlock(str(image), image.parent / "ours", writable=False)


@pytest.mark.interop
def test_what_is_no_volume_is_named_and_closing_what_is_not_open_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "nothing").write_bytes(bytes(4096))
    (tmp_path / "key").write_bytes(b"x")
    with pytest.raises(MediumUnreadableError):
        unlock(str(tmp_path / "nothing"), tmp_path / "key", writable=False)
    Unlocked(need_tool("cryptsetup"), "fieldrelay-nothing").close()
