"""Which file system a device holds, against images of the real tools."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from media.probing import Probed, probe
from tests.peers import need_tool

UUID = "6f1c2b3a-0000-4000-8000-0123456789ab"


def probed(image: Path) -> Probed:
    with image.open("rb") as file:

        def read(offset: int, length: int) -> bytes:
            file.seek(offset)
            return file.read(length)

        return probe(read)


@pytest.mark.interop
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["mkfs.vfat", "-F", "12", "-n", "UPDATE", "-i", "1234ABCD"], Probed("vfat", "UPDATE", "1234-ABCD")),
        (["mkfs.vfat", "-F", "16", "-i", "1234ABCD"], Probed("vfat", "", "1234-ABCD")),
        (["mkfs.vfat", "-F", "32", "-n", "UPDATE", "-i", "1234ABCD"], Probed("vfat", "UPDATE", "1234-ABCD")),
        (["mkfs.exfat", "-L", "Stück"], Probed("exfat", "Stück", "1234-ABCD")),
        (["mkfs.ext4", "-q", "-F", "-L", "UPDATE", "-U", UUID], Probed("ext4", "UPDATE", UUID)),
        (["mkfs.ext4", "-q", "-F", "-t", "ext2", "-U", UUID], Probed("ext2", "", UUID)),
        (["cryptsetup", "luksFormat", "-q", "--type", "luks2", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000",
          "--label", "UPDATE", "--uuid", UUID, "--key-file", "/etc/hostname"], Probed("crypto_LUKS", "UPDATE", UUID)),
    ],
    ids=["fat12", "fat16", "fat32", "exfat", "ext4", "ext2", "luks2"],
)  # fmt: skip
def test_what_real_tools_make_is_recognised(tmp_path: Path, command: list[str], expected: Probed) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(34 << 20)
    tool = need_tool(command[0])
    done = subprocess.run([tool, *command[1:], image], capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stderr
    if command[0] == "mkfs.exfat":  # it chooses the number by itself
        with image.open("r+b") as file:
            file.seek(100)
            file.write(bytes.fromhex("CDAB3412"))
    assert probed(image) == expected


def test_a_partition_table_is_no_file_system(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(bytes(510) + b"\x55\xaa" + bytes(4096))
    assert probed(tmp_path / "image") == Probed()


@given(
    st.binary(max_size=5000), st.sampled_from([(3, b"EXFAT   "), (1080, b"\x53\xef"), (0, b"LUKS\xba\xbe"), (82, b"FAT32   ")])
)
def test_any_bytes_are_something_or_nothing(data: bytes, magic: tuple[int, bytes]) -> None:
    where, mark = magic
    device = bytearray(data.ljust(5000, b"\0"))
    device[where : where + len(mark)] = mark
    probe(lambda offset, length: bytes(device[offset : offset + length]))
