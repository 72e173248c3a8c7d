"""By which reader a medium is read."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from media.config import MediaSection, Reader
from media.fat import FatMedium
from media.folder import FolderMedium
from media.folders import Folders
from media.policy import Device
from media.reading import Readers
from tests.peers import need_tool
from update.errors import MediumRefusedError, MediumUnreadableError

pytestmark = pytest.mark.interop


def there() -> bool:
    return True


@pytest.fixture
def stick(tmp_path: Path) -> Device:
    image = tmp_path / "stick.img"
    with image.open("wb") as file:
        file.truncate(2 << 20)
    subprocess.run([need_tool("mkfs.vfat"), image], check=True, capture_output=True, timeout=60)
    return Device("sda1", str(image), bus="usb", filesystem="vfat")


@pytest.mark.parametrize("reader", [Reader.AUTO, Reader.OWN])
async def test_vfat_is_read_without_a_mounter(tmp_path: Path, stick: Device, reader: Reader) -> None:
    opened = await Readers(MediaSection(socket=tmp_path / "nobody", reader=reader)).open(stick, there)
    assert isinstance(opened.medium, FatMedium)
    assert not opened.writable
    assert list(opened.medium.walk()) == []
    opened.close()
    opened.close()


@pytest.mark.parametrize(("reader", "filesystem"), [(Reader.MOUNT, "vfat"), (Reader.AUTO, "ext4"), (Reader.OWN, "exfat")])
async def test_what_nobody_can_read_here_is_refused_by_name(
    tmp_path: Path, stick: Device, reader: Reader, filesystem: str
) -> None:
    readers = Readers(MediaSection(socket=tmp_path / "nobody", reader=reader))
    with pytest.raises(MediumRefusedError, match="fieldrelay-mounter"):
        await readers.open(replace(stick, filesystem=filesystem), there)


async def test_what_is_no_fat_volume_although_it_was_said_to_be_is_named(tmp_path: Path, stick: Device) -> None:
    Path(stick.node).write_bytes(bytes(100))
    with pytest.raises(MediumUnreadableError):
        await Readers(MediaSection(socket=tmp_path / "nobody")).open(stick, there)


async def test_a_folder_is_read_as_it_stands(tmp_path: Path) -> None:
    folders = Folders(tmp_path / "slot")
    assert folders.look() is None
    (tmp_path / "slot").mkdir()
    assert folders.look() is None, "an empty slot"
    (tmp_path / "slot" / "a").write_bytes(b"x")
    device = folders.look()
    assert device is not None
    opened = await Readers(MediaSection()).open(device, there)
    assert isinstance(opened.medium, FolderMedium)
    opened.close()
    assert folders.is_present(device)
    (tmp_path / "slot").rename(tmp_path / "gone")
    assert not folders.is_present(device)
