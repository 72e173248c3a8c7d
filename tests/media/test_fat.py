"""A FAT volume read in our own process: what real tools wrote is found, and what an attacker wrote ends by name."""

import random
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from media.fat import FatMedium, read_geometry
from media.fat_names import checksum_of, named_entries, short_name
from media.medium import Entry, EntryKind
from tests.peers import need_tool
from update.errors import FieldrelayError, MediumGoneError, MediumUnreadableError, NotFoundError, ProtocolError

pytestmark = pytest.mark.interop
LONG = "an update with a long name, ä and 部分.swu"


def run(*command: str | Path) -> None:
    subprocess.run([need_tool(str(command[0])), *command[1:]], check=True, capture_output=True, timeout=60)


def make(folder: Path, bits: int, size_kib: int, files: dict[str, bytes]) -> Path:
    """An image as people make them."""
    image = folder / f"fat{bits}.img"
    with image.open("wb") as file:
        file.truncate(size_kib << 10)
    run("mkfs.vfat", "-F", str(bits), "-n", "UPDATE", "-s", "1", image)
    folders = {parent.as_posix() for name in files for parent in Path(name).parents} - {"."}
    for name in sorted(folders):
        run("mmd", "-i", image, f"::{name}")
    for name, content in files.items():
        source = folder / "source"
        source.write_bytes(content)
        run("mcopy", "-o", "-i", image, source, f"::{name}")
    return image


@pytest.fixture(params=[(12, 1440), (16, 16 << 10), (32, 40 << 10)], ids=lambda each: f"fat{each[0]}")
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    content = random.Random(1).randbytes(300_000)
    files = {LONG: content, "SHORT.SWU": b"070702", "lower.txt": b"", "metadata/timestamp.json": b"{}"}
    return make(tmp_path, request.param[0], request.param[1], {**files, "a/b/c/deep.bin": b"deep" * 900})


def test_everything_that_mtools_wrote_is_found(image: Path) -> None:
    medium = FatMedium.at(image)
    found = {entry.parts: entry for entry in medium.walk()}
    assert found[(LONG,)] == Entry((LONG,), EntryKind.FILE, 300_000)
    assert {"/".join(parts) for parts in found} == {
        LONG, "SHORT.SWU", "lower.txt", "metadata", "metadata/timestamp.json", "a", "a/b", "a/b/c", "a/b/c/deep.bin",
    }  # fmt: skip
    with medium.open(("a", "b", "c", "DEEP.BIN")) as file:
        assert file.read() == b"deep" * 900
    with medium.open(("lower.txt",)) as file:
        assert file.read() == b""
    medium.close()


def test_ranges_are_read_in_any_order(image: Path) -> None:
    content = random.Random(1).randbytes(300_000)
    medium = FatMedium.at(image)
    with medium.open((LONG,)) as file:
        for start, length in [(299_990, 100), (0, 5), (511, 2), (70_000, 150_000), (12, 0)]:
            file.seek(start)
            assert file.read(length) == content[start : start + length]
    medium.close()


def test_a_file_in_pieces_is_read_whole(tmp_path: Path) -> None:
    image = make(tmp_path, 16, 16 << 10, {f"f{number}": bytes([number]) * 1500 for number in range(20)})
    for number in range(0, 20, 2):
        run("mdel", "-i", image, f"::f{number}")
    content = random.Random(2).randbytes(40_000)
    (tmp_path / "big").write_bytes(content)
    run("mcopy", "-i", image, tmp_path / "big", "::big")
    medium = FatMedium.at(image)
    with medium.open(("big",)) as file:
        assert file.read() == content
        file.seek(33_333)
        assert file.read(10) == content[33_333:33_343]
    medium.close()


def test_what_cannot_be_opened_is_named(image: Path) -> None:
    medium = FatMedium.at(image)
    for parts, error in [
        (("nothing",), NotFoundError),
        (("metadata",), ProtocolError),
        ((), ProtocolError),
        (("SHORT.SWU", "x"), ProtocolError),
        (("..", "x"), NotFoundError),
    ]:
        with pytest.raises(error):
            medium.open(parts)
    medium.close()


def test_a_device_that_is_gone_is_told_from_one_that_is_damaged(image: Path) -> None:
    there = [True]
    medium = FatMedium.at(image, lambda: there[0])
    failure = OSError(5, "Input/output error")
    assert isinstance(medium.trouble(failure, ("a",)), MediumUnreadableError)
    there[0] = False
    assert isinstance(medium.trouble(failure, ("a",)), MediumGoneError)
    medium.close()


@pytest.mark.parametrize("spoil", ["no signature", "sector", "cluster", "short table", "empty"])
def test_a_boot_sector_that_cannot_be_is_refused(tmp_path: Path, spoil: str) -> None:
    boot = bytearray(make(tmp_path, 16, 16 << 10, {}).read_bytes()[:512])
    match spoil:
        case "no signature":
            boot[510] = 0
        case "sector":
            boot[11:13] = b"\x01\x00"
        case "cluster":
            boot[13] = 3
        case "short table":
            boot[22:24] = b"\x01\x00"
        case _:
            boot[19:21] = boot[32:34] = b"\x00\x00"
            boot[34:36] = b"\x00\x00"
    with pytest.raises(MediumUnreadableError):
        read_geometry(bytes(boot))


def test_a_chain_without_end_is_an_error_and_no_endless_loop(tmp_path: Path) -> None:
    image = make(tmp_path, 16, 16 << 10, {"a": b"x" * 5000} | {f"d/F{number}": b"" for number in range(14)})
    data = bytearray(image.read_bytes())
    geometry = read_geometry(bytes(data[:512]))
    for cluster in range(2, 40):
        data[geometry.table + 2 * cluster : geometry.table + 2 * cluster + 2] = (2).to_bytes(2, "little")
    image.write_bytes(data)
    medium = FatMedium.at(image)
    with pytest.raises(MediumUnreadableError, match="no end"):
        list(medium.walk())
    medium.close()


def hostile(pieces: list[tuple[int, bytes]], original: bytes) -> Iterator[bytes]:
    data = bytearray(original)
    for where, piece in pieces:
        start = where % len(data)
        data[start : start + len(piece)] = piece[: len(data) - start]
        yield bytes(data)


def read_all(medium: FatMedium) -> None:
    try:
        for entry in medium.walk():
            if entry.kind is EntryKind.FILE:
                with medium.open(entry.parts) as file, suppress(OSError):
                    file.read(10_000)
    finally:
        medium.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.tuples(st.integers(0, 60_000), st.binary(min_size=1, max_size=16)), min_size=1, max_size=12))
def test_a_hostile_image_ends_in_a_named_error_or_in_files(tmp_path: Path, pieces: list[tuple[int, bytes]]) -> None:
    origin = tmp_path / "origin.bin"
    if not origin.exists():
        origin.write_bytes(make(tmp_path, 12, 720, {LONG: b"0" * 3000, "d/e/f.bin": b"1" * 2000}).read_bytes())
    for data in hostile(pieces, origin.read_bytes()):
        (tmp_path / "hostile.img").write_bytes(data)
        with suppress(FieldrelayError):
            read_all(FatMedium.at(tmp_path / "hostile.img"))


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_a_folder_of_any_bytes_gives_only_names_that_could_be(blocks: list[bytes]) -> None:
    for named in named_entries(blocks):
        assert named.name not in {"", ".", ".."}
        assert "/" not in named.name


def test_a_torn_long_name_leaves_the_short_one() -> None:
    short = b"UPDATE~1SWU" + bytes([0x20]) + bytes(20)
    part = bytes([0x41]) + "hello".encode("utf-16-le") + b"\x0f\0" + bytes([checksum_of(short)])
    part += "world!".encode("utf-16-le") + b"\0\0" + "..".encode("utf-16-le")
    assert [each.name for each in named_entries([part + short])] == ["helloworld!.."]
    assert [each.name for each in named_entries([part[:13] + b"\x01" + part[14:] + short])] == ["UPDATE~1.SWU"]
    assert short_name(b"README  TXT\x20\x18" + bytes(19)) == "readme.txt"
