"""The real zchunk tools read what we write, and we read and cut as they do."""

import re
import subprocess
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path

import pytest

from tests.builders.libraries import library_ext4, library_tar
from tests.peers import need_tool
from tests.update.chunks.models import KINDS, material
from tests.update.chunks.servers import counting_server, nginx
from update.chunks.chunker import file_reader, index_image
from update.chunks.plan import Source, plan_delta
from update.chunks.ranges import MultipartParser, format_range, parse_boundary
from update.chunks.unpack import read_header, unpack
from update.chunks.zchunk import HeaderIndex
from update.durable import Disk
from update.publish.images import write_zchunk

pytestmark = pytest.mark.interop
MIB = 1 << 20


def run(*command: str | Path, folder: Path | None = None) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder).stdout


def zck(image: Path, *options: str) -> Path:
    out = image.with_name(f"{image.name}.theirs.zck")
    run(need_tool("zck"), *options, "-o", out, image)
    return out


def index_file(zck_file: Path) -> HeaderIndex:
    with zck_file.open("rb") as file:
        return read_header(file)


def chunks_of(image: Path) -> list[tuple[int, int, bytes]]:
    with image.open("rb") as file:
        return list(index_image(file_reader(file.fileno()), image.stat().st_size))


def assert_cut_as_zck_does(image: Path) -> int:
    theirs = index_file(zck(image, "-u", "--chunk-hash-type", "sha256", "--compression-format", "none"))
    assert chunks_of(image) == [(chunk.offset, chunk.size, chunk.digest) for chunk in theirs]
    return len(theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_are_those_of_zck(kind: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(material(kind, 3 * MIB + 12345, 8))
    assert assert_cut_as_zck_does(image) > 10


@pytest.mark.parametrize("size", [0, 1, 47, 48, 8192, 131071, 131072, 131073])
def test_chunks_of_small_images_are_those_of_zck(size: int, tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(material("planted", size, size))
    assert_cut_as_zck_does(image)


def test_chunks_of_a_file_system_are_those_of_zck(tmp_path: Path) -> None:
    assert assert_cut_as_zck_does(library_ext4(tmp_path / "image", 12 * MIB, need_tool("mkfs.ext4"))) > 100


@pytest.mark.soak
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["ext4", "tar", "random", "adversarial"])
def test_chunks_of_large_images_are_those_of_zck(kind: str, tmp_path: Path) -> None:
    image = tmp_path / "image"
    match kind:
        case "ext4":
            library_ext4(image, 200 * MIB, need_tool("mkfs.ext4"))
        case "tar":
            library_tar(image, 150 * MIB)
        case "random":
            image.write_bytes(material("random", 110 * MIB, 3))
        case _:
            kinds = ("constant", "periodic", "letters", "planted", "zeros")
            image.write_bytes(b"".join(material(kinds[n % 5], n * 50_000 + n, n) for n in range(68)))
    size = image.stat().st_size
    count = assert_cut_as_zck_does(image)
    assert size >= 100_000_000
    print(f"{kind}: {size} bytes, {count} chunks equal to those of zck")


OPTIONS = {
    "for-deltas": ["-u", "--chunk-hash-type", "sha256"],
    "default": [],
    "uncompressed": ["-u", "--compression-format", "none"],
    "manual": ["-m", "-s", "end of line"],
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_files_of_zck_are_read(options: list[str], tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"a line, and the end of line\n" * 9000 + material("planted", 900_000, 5))
    with zck(image, *options).open("rb") as file:
        assert b"".join(data for _, data in unpack(file)) == image.read_bytes()


def test_a_file_of_zck_with_a_dictionary_is_read(tmp_path: Path) -> None:
    image, dictionary = tmp_path / "image", tmp_path / "dictionary"
    dictionary.write_bytes(b"what the gateway of a factory says " * 500)
    image.write_bytes(b"what the gateway of a factory says, and more " * 30_000)
    out = zck(image, "-D", str(dictionary))
    with out.open("rb") as file:
        assert b"".join(data for _, data in unpack(file)) == image.read_bytes()
    assert index_file(out).dictionary is not None


def test_the_index_says_what_zck_read_header_says(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(material("planted", 2 * MIB, 6))
    file = zck(image, "-u", "--chunk-hash-type", "sha256")
    text = run(need_tool("zck_read_header"), "-c", file)
    rows = re.findall(r"^ +\d+ ([0-9a-f]{64}) ([0-9a-f]{64}) +(\d+) +(\d+) +(\d+)", text, re.MULTILINE)[1:]
    index = index_file(file)
    ours = [(c.compressed_digest.hex(), c.digest.hex(), str(c.start), str(c.length), str(c.size)) for c in index]
    assert ours == rows
    assert f"Header size: {index.header_size}\n" in text
    assert f"Header checksum: {index.digest.hex()}\n" in text


@pytest.mark.parametrize("kind", [*KINDS, "nothing"])
def test_our_files_are_accepted_by_the_tools(kind: str, tmp_path: Path) -> None:
    image, out = tmp_path / "image", tmp_path / "ours.zck"
    image.write_bytes(b"" if kind == "nothing" else material(kind, MIB + 777, 11))
    write_zchunk(image, out, Disk())
    run(need_tool("unzck"), out, folder=tmp_path)
    assert (tmp_path / "ours").read_bytes() == image.read_bytes()
    run(need_tool("zck_read_header"), "-f", out)


def test_our_files_differ_from_those_of_zck_in_compressed_bytes_at_most(tmp_path: Path) -> None:
    image, out = library_ext4(tmp_path / "image", 4 * MIB, need_tool("mkfs.ext4")), tmp_path / "ours.zck"
    ours, theirs = write_zchunk(image, out, Disk()), index_file(zck(image, "-u", "--chunk-hash-type", "sha256"))
    assert [(c.offset, c.size, c.digest) for c in ours] == [(c.offset, c.size, c.digest) for c in theirs]
    assert abs(ours.total_length - theirs.total_length) < theirs.total_length // 200
    same = sum(a.compressed_digest == b.compressed_digest for a, b in zip(ours, theirs, strict=True))
    assert same > len(ours) * 9 // 10


def two_versions(folder: Path) -> tuple[Path, Path]:
    """An old and a new image and their files, all of our making."""
    old = bytearray(material("planted", 3 * MIB, 21))
    (folder / "old").write_bytes(old)
    for at in range(100_000, 3 * MIB, 400_000):
        old[at : at + 3000] = material("random", 3000, at)
    (folder / "new").write_bytes(bytes(old) + material("random", 50_000, 1))
    for name in ("old", "new"):
        write_zchunk(folder / name, folder / f"{name}.zck", Disk())
    return folder / "old.zck", folder / "new.zck"


@pytest.mark.parametrize("max_ranges", [300, 3, 1])
def test_zckdl_updates_by_our_ranges(max_ranges: int, tmp_path: Path) -> None:
    old, new = two_versions(tmp_path)
    (tmp_path / "got").mkdir()
    with counting_server(tmp_path, max_ranges=max_ranges) as (url, server):
        run(need_tool("zckdl"), "-s", old, f"{url}/new.zck", folder=tmp_path / "got")
    assert (tmp_path / "got" / "new.zck").read_bytes() == new.read_bytes()
    partial = sum(length for status, length in server.sent if status == 206)
    assert partial < new.stat().st_size // 2


def test_zckdl_downloads_everything_from_nothing(tmp_path: Path) -> None:
    _, new = two_versions(tmp_path)
    (tmp_path / "got").mkdir()
    with counting_server(tmp_path) as (url, _):
        run(need_tool("zckdl"), f"{url}/new.zck", folder=tmp_path / "got")
    assert (tmp_path / "got" / "new.zck").read_bytes() == new.read_bytes()


def test_parts_of_nginx_are_read(tmp_path: Path) -> None:
    old, new = two_versions(tmp_path)
    plan, content = plan_delta(index_file(new), Source.of_index(index_file(old))), new.read_bytes()
    assert len(plan.ranges) % 3 != 1, "nginx answers a single range without parts"
    got = 0
    with nginx(tmp_path, tmp_path) as address, closing(HTTPConnection(address, timeout=20)) as connection:
        for ranges in (plan.ranges[first : first + 3] for first in range(0, len(plan.ranges), 3)):
            connection.request("GET", "/new.zck", headers={"Range": format_range(ranges)})
            answer = connection.getresponse()
            parser = MultipartParser(str(parse_boundary(answer.headers["Content-Type"])), size=len(content), max_parts=3)
            body = answer.read()
            for block in (body[at : at + 1000] for at in range(0, len(body), 1000)):
                for offset, data in parser.feed(block):
                    assert content[offset : offset + len(data)] == data
                    got += len(data)
            assert parser.complete
    assert got == plan.fetch_bytes
