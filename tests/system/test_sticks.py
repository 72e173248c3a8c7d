"""Sticks in a whole machine (QEMU): plugged in, brought, pulled out; torn out while they are copied; written with reports."""

import hashlib
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.peers import need_tool
from tests.system.hall import ROOT, Hall, Kernel, build_initrd, run, running

pytestmark = [pytest.mark.system, pytest.mark.interop]

CONTENT = b"070702" + random.Random(6).randbytes(10 << 20)
SECRET = b"070702" + random.Random(7).randbytes(1 << 20)
WHOLE = hashlib.sha256(CONTENT).hexdigest()


def make_stick(folder: Path, kind: str) -> Path:
    """As people make them: FAT on the whole stick, or in a partition (the empty one)."""
    image, content = folder / f"{kind}.img", folder / "release.swu"
    content.write_bytes(CONTENT)
    with image.open("wb") as file:
        file.truncate(40 << 20)
    offset = []
    if kind == "empty":
        subprocess.run([need_tool("sfdisk"), "-q", image], input="start=2048, type=c\n", text=True, check=True, timeout=60)
        offset = ["--offset", "2048"]
    run("mkfs.vfat", "-n", "UPDATE", "-i", f"{len(kind):08x}", *offset, image)
    if kind != "empty":
        run("mcopy", "-i", image, content, "::release.swu")
    return image


def make_encrypted(folder: Path) -> Path:
    """As the site makes them; the last 32 MiB of the volume make room for the header."""
    image, content, key = folder / "secret.img", folder / "secret.swu", folder / "key"
    content.write_bytes(SECRET)
    key.write_bytes(b"the key of this hall")
    with image.open("wb") as file:
        file.truncate(8 << 20)
    run("mkfs.vfat", image)
    run("mcopy", "-i", image, content, "::secret.swu")
    with image.open("r+b") as file:
        file.truncate(40 << 20)
    options = ["--type", "luks2", "--reduce-device-size", "32M", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"]
    run("cryptsetup", "reencrypt", "-q", "--encrypt", *options, "--key-file", key, image)
    return image


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Kernel, Path]:
    kernel = Kernel.find()
    return kernel, build_initrd(tmp_path_factory.mktemp("initrd"), kernel, ROOT / "tests" / "system" / "guest_hall.py")


@pytest.fixture
def hall(prepared: tuple[Kernel, Path], tmp_path: Path) -> Iterator[Hall]:
    sticks = {kind: make_stick(tmp_path, kind) for kind in ("release", "empty")}
    sticks["secret"] = make_encrypted(tmp_path)
    with running(tmp_path, *prepared, sticks) as machine:
        machine.until("READY")
        yield machine
    print("\n".join(line for line in machine.heard if " TAKEN " not in line))


def test_a_stick_is_brought_and_pulled_out_and_a_second_one_takes_the_report(hall: Hall, tmp_path: Path) -> None:
    hall.plug_in("release")
    hall.until("STATE", "found")
    assert WHOLE in hall.until("WHOLE")
    hall.until("STATE", "safe")
    hall.pull("release")
    hall.until("STATE", "gone")
    hall.plug_in("empty")
    hall.until("STATE", "nothing-new")
    hall.pull("empty")
    hall.until("STATE", "gone")
    back = subprocess.run(
        [need_tool("mtype"), "-i", tmp_path / "release.img", "::FIELDRELAY/hall/20260101T000000Z.txt"],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert back.stdout == "what happened in the hall", (back.stderr, hall.heard[-40:])


def test_an_encrypted_stick_is_read_with_the_key_of_the_site_twice(hall: Hall) -> None:
    for stage in ("safe", "nothing-new"):
        hall.plug_in("secret")
        assert hashlib.sha256(SECRET).hexdigest() in hall.until("WHOLE")
        hall.until("STATE", stage)
        hall.pull("secret")
        hall.until("STATE", "gone")


def tear(hall: Hall, moments: list[int]) -> None:
    """Pull the stick out whenever so many bytes were taken; at last let it be."""
    for moment in moments:
        hall.plug_in("release")
        while int(hall.until("TAKEN").split()[3]) < moment:
            continue
        hall.pull("release")
        assert "medium.gone" in hall.until("STATE", "gone")
    hall.plug_in("release")
    first = int(hall.until("TAKEN").split()[3])
    assert first > max(moments), "it goes on where it stopped"
    assert WHOLE in hall.until("WHOLE")
    hall.until("STATE", "safe")


def test_a_stick_that_is_torn_out_goes_on_at_the_next_insert(hall: Hall) -> None:
    tear(hall, [3 << 20])


@pytest.mark.soak
def test_a_stick_that_is_torn_out_ten_times_arrives_whole(hall: Hall) -> None:
    tear(hall, sorted(random.Random(10).sample(range(1 << 20, 9 << 20), 10)))
