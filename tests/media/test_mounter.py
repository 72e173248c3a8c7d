"""The privileged process with the real mount(2), a real ext4 on a loop device, and LUKS where the kernel has it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from media.folder import FolderMedium
from media.handed import decode, encode, hand_over
from media.medium import EntryKind
from tests.peers import need_tool
from update.errors import FieldrelayError, MediumRefusedError

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Process:
    """A running mounter."""

    child: "subprocess.Popen[str]"
    socket: Path

    def anything(self) -> str:
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write("?\n")
        self.child.stdin.flush()
        return self.child.stdout.readline().strip()

    async def until(self, said: str) -> None:
        async with asyncio.timeout(60):
            while self.anything() != said:  # noqa: ASYNC110 - it is another process
                await asyncio.sleep(0.02)


def make_image(folder: Path, size: int = 8 << 20) -> Path:
    """A stick that an attacker has prepared: links that lead out, a set-uid program."""
    tree = folder / "tree"
    tree.mkdir()
    (tree / "release.swu").write_bytes(b"070702" + bytes(3000))
    (tree / "out").symlink_to("/etc/passwd")
    (tree / "suid").write_bytes(b"#!/bin/sh\n")
    (tree / "suid").chmod(0o4755)
    image = folder / "stick.img"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([need_tool("mkfs.ext4"), "-q", "-F", "-d", tree, image], check=True, timeout=60)
    return image


@contextmanager
def loop_device(image: Path) -> Iterator[Path]:
    done = subprocess.run(
        [need_tool("losetup"), "--find", "--show", image], capture_output=True, text=True, timeout=60, check=False
    )
    if done.returncode:
        pytest.skip(f"no loop device can be had here: {done.stderr.strip()}; `make system` mounts in a machine of its own")
    node = done.stdout.strip()
    try:
        yield Path(node)
    finally:
        subprocess.run([need_tool("losetup"), "--detach", node], check=True, timeout=60)


@contextmanager
def mounter(node: Path, folder: Path, *arguments: str) -> Iterator[Process]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs CAP_SYS_ADMIN; `make system` mounts in a machine of its own")
    where = folder / "socket"
    command = [sys.executable, "-m", "tests.media.mounting", str(node), str(where), *arguments]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            assert child.stdout is not None
            if child.stdout.readline() != "READY\n":
                child.kill()
                pytest.skip("no mount namespace of our own can be had here; `make system` mounts in a machine of its own")
            yield Process(child, where)
        finally:
            if child.stdin is not None:
                child.stdin.close()
            try:
                child.wait(30)
            finally:
                child.kill()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    with loop_device(make_image(tmp_path)) as node, mounter(node, tmp_path) as running:
        yield running


def test_what_is_handed_over_can_be_read_and_does_no_harm(process: Process) -> None:
    async def scene() -> None:
        handed = await hand_over(process.socket, "stick")
        medium = FolderMedium(handed.descriptor)
        kinds = {"/".join(entry.parts): entry.kind for entry in medium.walk()}
        assert (kinds["release.swu"], kinds["out"]) == (EntryKind.FILE, EntryKind.OTHER)
        with medium.open(("release.swu",)) as file:
            assert file.read(6) == b"070702"
        flags = os.fstatvfs(handed.descriptor).f_flag
        assert flags & os.ST_RDONLY
        assert flags & os.ST_NOSUID
        assert flags & os.ST_NODEV
        assert flags & os.ST_NOEXEC
        with pytest.raises(OSError, match="symbolic links"):
            os.open("out", os.O_RDONLY, dir_fd=handed.descriptor)
        with pytest.raises(OSError, match="Read-only"):
            os.mkdir("x", dir_fd=handed.descriptor)
        assert "mounts/stick" not in Path("/proc/self/mounts").read_text(), "nobody else sees it"
        assert process.anything() == "MOUNTED"
        medium.close()
        handed.close()
        await process.until("NOTHING")

    asyncio.run(scene())


def test_what_is_pulled_out_is_let_go_while_somebody_still_reads(process: Process) -> None:
    async def scene() -> None:
        handed = await hand_over(process.socket, "stick")
        (process.socket.parent / "gone").touch()
        await process.until("NOTHING")
        with pytest.raises(FieldrelayError):
            async with handed.writing():
                pass
        os.close(handed.descriptor)
        handed.close()

    asyncio.run(scene())


def test_one_medium_is_mounted_once_and_again_after_it_was_let_go(process: Process) -> None:
    async def scene() -> None:
        for _ in range(3):
            handed = await hand_over(process.socket, "stick")
            with pytest.raises(MediumRefusedError):
                await hand_over(process.socket, "stick")
            os.close(handed.descriptor)
            handed.close()
            await process.until("NOTHING")

    asyncio.run(scene())


@pytest.mark.parametrize("name", ["other", "../stick", "", "x" * 100])
def test_what_is_no_medium_is_refused_by_name(process: Process, name: str) -> None:
    with pytest.raises(FieldrelayError):
        asyncio.run(hand_over(process.socket, name))
    assert process.anything() == "NOTHING"


def test_ext4_is_never_written(process: Process) -> None:
    async def scene() -> None:
        handed = await hand_over(process.socket, "stick")
        assert not handed.writable
        with pytest.raises(MediumRefusedError):
            async with handed.writing():
                pass
        os.close(handed.descriptor)
        handed.close()

    asyncio.run(scene())


def test_another_user_is_not_served(tmp_path: Path) -> None:
    with loop_device(make_image(tmp_path)) as node, mounter(node, tmp_path, "12345") as running:
        with pytest.raises(FieldrelayError, match="let the medium go"):
            asyncio.run(hand_over(running.socket, "stick"))
        assert running.anything() == "NOTHING"


def test_a_process_that_dies_leaves_nothing_mounted(process: Process) -> None:
    code = (
        "import asyncio,os,sys\nfrom pathlib import Path\nfrom media.handed import hand_over\n"
        "asyncio.run(hand_over(Path(sys.argv[1]), 'stick'))\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, process.socket], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -9
    asyncio.run(process.until("NOTHING"))


def test_a_damaged_file_system_is_named(tmp_path: Path) -> None:
    image = make_image(tmp_path)
    with image.open("r+b") as file:
        file.seek(1024 + 4)
        file.write(b"\xff" * 40)
    with (
        loop_device(image) as node,
        mounter(node, tmp_path) as running,
        pytest.raises(FieldrelayError, match="cannot mount"),
    ):
        asyncio.run(hand_over(running.socket, "stick"))


async def test_nobody_who_mounts_is_named(tmp_path: Path) -> None:
    with pytest.raises(MediumRefusedError, match="fieldrelay-mounter"):
        await hand_over(tmp_path / "nothing", "stick")


def test_messages_are_objects_within_their_limit() -> None:
    assert decode(encode({"do": "write"})) == {"do": "write"}
    for data in (b"", b"[]", b"\xff", b"{" * 5000, b'{"a":"' + b"x" * 9000 + b'"}'):
        assert decode(data) is None
