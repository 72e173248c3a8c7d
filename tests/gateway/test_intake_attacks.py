"""Sticks that were made, or have gone, bad: each is refused by name, brings nothing, and the gateway goes on."""

import asyncio
import errno
import io
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import pytest
import zstandard

from gateway.config import StoreSection
from media.medium import MAX_ENTRIES, Entry, Medium
from media.records import MediumState, Stage, Verdict
from tests.builders import standing_site
from tests.builders.hall import BOARD, Hall, make_hall, whole
from tests.builders.relayed import custom_of, make_zck
from tests.builders.repository import RepositoryBuilder
from tests.builders.standing_site import now
from update.durable import Disk, Kind, Operation
from update.errors import FieldrelayError, NoSpaceError

Opened = Callable[[tuple[str, ...], int, BinaryIO], BinaryIO]


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
async def hall(short: Path) -> Hall:
    hall = await make_hall(short)
    hall.builder.add_target("os/whole-2.swu", whole(short).read_bytes(), BOARD)
    hall.write_stick()
    return hall


def target(hall: Hall, name: str = "whole-2.swu") -> Path:
    return next((hall.folder / "stick" / "targets" / "os").glob(f"*{name}"))


def refusals(state: MediumState) -> dict[str, str]:
    return {each.name: each.code for each in state.contents if each.verdict is Verdict.REFUSED}


def only_single(hall: Hall, name: str) -> Path:
    """A stick that holds one bundle and nothing else."""
    content = target(hall).read_bytes()
    shutil.rmtree(hall.folder / "stick")
    (hall.folder / "stick").mkdir()
    single = hall.folder / "stick" / name
    single.write_bytes(content)
    return single


@dataclass
class Between:
    """A medium that lets `opened` (path, how often before, the file) have its way with what is read."""

    medium: Medium
    opened: Opened

    def __post_init__(self) -> None:
        self._times: dict[tuple[str, ...], int] = {}

    def walk(self) -> Iterator[Entry]:
        return self.medium.walk()

    def open(self, parts: Sequence[str]) -> BinaryIO:
        before = self._times.get(tuple(parts), 0)
        self._times[tuple(parts)] = before + 1
        return self.opened(tuple(parts), before, self.medium.open(parts))

    def trouble(self, error: OSError, parts: Sequence[str]) -> FieldrelayError:
        return self.medium.trouble(error, parts)

    def close(self) -> None:
        self.medium.close()


async def refused(hall: Hall, code: str, opened: Opened | None = None, **keys: object) -> MediumState:
    """Plug it in: it is refused with `code`, nothing is kept, and the gateway takes a good stick afterwards."""
    async with hall.with_media(install=False, **keys).running():
        state = await hall.plug_in(through=lambda medium: medium if opened is None else Between(medium, opened))
        assert code in {state.code, *refusals(state).values()}, (state, refusals(state))
        assert hall.kept() == set()
        assert [each for each in (hall.store / "staging").rglob("*") if each.is_file() and each.stat().st_size > 1 << 20] == []
        (hall.folder / "stick").rename(hall.folder / "bad")
        hall.write_stick()
        assert (await hall.plug_in()).stage is Stage.SAFE
        assert "whole-2.swu" in hall.kept()
    return state


async def test_a_hard_link_to_something_else_is_only_other_bytes(hall: Hall) -> None:
    secret = hall.folder / "secret"
    secret.write_bytes(os.urandom(target(hall).stat().st_size))
    target(hall).unlink()
    name = next(path for path in hall.builder.files if path.endswith("whole-2.swu"))
    os.link(secret, hall.folder / "stick" / name)
    await refused(hall, "trust.length-or-hash")


@pytest.mark.parametrize("kind", ["pipe", "device", "link", "folder"])
async def test_what_is_no_regular_file_is_never_opened(hall: Hall, kind: str) -> None:
    file = target(hall)
    file.unlink()
    match kind:
        case "pipe":
            os.mkfifo(file)
        case "device":
            try:
                os.mknod(file, 0o600 | 0o020000, os.makedev(1, 5))
            except PermissionError:
                pytest.skip("only root makes device nodes")
        case "link":
            file.symlink_to("/etc/passwd")
        case _:
            file.mkdir()
    await refused(hall, "wire.protocol")


async def test_signed_names_lead_nowhere_either(hall: Hall) -> None:
    hall.builder.add_target("../../outside.swu", b"x", BOARD)
    hall.builder.publish()
    for path, data in hall.builder.files.items():
        if ".." not in path:
            place = hall.folder / "stick" / path
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    async with hall.with_media(install=False).running():
        state = await hall.plug_in()
        assert list(refusals(state).values()) == ["trust.metadata"]
        assert hall.kept() <= {"whole-2.swu"}
    assert list(hall.folder.rglob("*outside*")) == []


async def test_more_files_than_any_release_has_are_refused(hall: Hall, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(60):
        (hall.folder / "stick" / f"{number}.jpg").touch()
    with monkeypatch.context() as patch:
        patch.setattr("media.folder.MAX_ENTRIES", 50)
        async with hall.with_media(install=False).running():
            assert (await hall.plug_in()).code == "medium.limit"
            assert hall.kept() == set()
            patch.undo()
            assert (await hall.plug_in()).stage is Stage.SAFE


@pytest.mark.soak
async def test_a_hundred_thousand_and_one_files_are_refused(hall: Hall) -> None:
    (hall.folder / "stick" / "many").mkdir()
    for number in range(MAX_ENTRIES + 1):
        (hall.folder / "stick" / "many" / str(number)).touch()
    await refused(hall, "medium.limit")


async def test_metadata_that_grows_without_end_is_not_read_to_it(hall: Hall) -> None:
    def grow(parts: tuple[str, ...], _before: int, file: BinaryIO) -> BinaryIO:
        if parts[-1] == "timestamp.json":
            with (hall.folder / "stick" / "metadata" / "timestamp.json").open("r+b") as writer:
                writer.truncate(8 << 30)
        return file

    await refused(hall, "trust.endless-data", grow)


async def test_of_a_bundle_that_grows_only_what_was_signed_is_taken(hall: Hall) -> None:
    signed_bytes = target(hall).read_bytes()

    def grow(parts: tuple[str, ...], _before: int, file: BinaryIO) -> BinaryIO:
        if parts[-1].endswith(".swu"):
            with target(hall).open("ab") as writer:
                writer.write(b"more")
        return file

    async with hall.with_media(install=False).running():
        assert (await hall.plug_in(through=lambda medium: Between(medium, grow))).stage is Stage.SAFE
        (kept,) = [file for file in hall.store.rglob("targets/**/*.swu") if file.is_file()]
        assert kept.read_bytes() == signed_bytes


async def test_a_bundle_that_shrinks_is_refused(hall: Hall) -> None:
    def shrink(parts: tuple[str, ...], _before: int, file: BinaryIO) -> BinaryIO:
        if parts[-1].endswith(".swu"):
            os.truncate(target(hall), 100)
        return file

    await refused(hall, "medium.unreadable", shrink)


async def test_what_shows_other_bytes_at_its_second_reading_is_refused(hall: Hall) -> None:
    only_single(hall, "a.swu")

    def change(parts: tuple[str, ...], before: int, file: BinaryIO) -> BinaryIO:
        if parts[-1] != "a.swu" or before == 0:
            return file
        data = bytearray(file.read())
        file.close()
        data[len(data) // 2] ^= 1
        return io.BytesIO(bytes(data))

    await refused(hall, "bundle.hash", change, singles=("plant",))


async def test_a_bomb_in_place_of_an_image_is_not_unpacked(hall: Hall) -> None:
    zck = make_zck(hall.folder, blocks=60)
    hall.builder.add_target("os/image.zck", zck.read_bytes(), custom_of(zck).as_json())
    hall.write_stick()
    bomb = zstandard.ZstdCompressor(level=19).compress(bytes(1 << 28))
    length = zck.stat().st_size
    head = zck.read_bytes()[: length // 2]
    target(hall, "image.zck").write_bytes((head + bomb).ljust(length, b"\0")[:length])
    async with hall.with_media(install=False).running():
        state = await hall.plug_in()
        assert set(refusals(state)) == {"os/image.zck"}
        assert hall.kept() == {"whole-2.swu"}


async def test_snapshot_and_timestamp_of_different_days_are_refused(hall: Hall) -> None:
    old = (hall.folder / "stick" / "metadata" / f"{hall.builder.snapshot.version}.snapshot.json").read_bytes()
    hall.builder.add_target("os/whole-3.swu", whole(hall.folder, "3").read_bytes(), BOARD)
    hall.write_stick()
    (hall.folder / "stick" / "metadata" / f"{hall.builder.snapshot.version}.snapshot.json").write_bytes(old)
    await refused(hall, "trust.mix-and-match")


async def test_a_root_of_somebody_else_is_refused(hall: Hall) -> None:
    stranger = RepositoryBuilder(now=now())
    stranger.root.version += 1
    stranger.publish_root()
    (hall.folder / "stick" / "metadata" / "2.root.json").write_bytes(stranger.files["metadata/2.root.json"])
    await refused(hall, "trust.signature")


async def test_a_file_of_four_gibibytes_meets_the_quota(hall: Hall) -> None:
    os.truncate(only_single(hall, "huge.swu"), (4 << 30) - 1)
    hall.site.config = replace(hall.site.config, store=StoreSection(quota_bytes=64 << 20))
    await refused(hall, "store.no-space", singles=("plant",))


async def test_unreadable_sectors_are_named_and_the_rest_comes_with_the_next_stick(hall: Hall) -> None:
    class Sectors(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def break_down(parts: tuple[str, ...], _before: int, file: BinaryIO) -> BinaryIO:
        if not parts[-1].endswith(".swu"):
            return file
        file.close()
        return Sectors(target(hall), "rb")

    await refused(hall, "medium.unreadable", break_down)


async def test_a_full_disk_of_the_gateway_fails_the_stick_and_not_the_gateway(
    hall: Hall, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = threading.Event()
    full.set()

    def observe(operation: Operation) -> None:
        if full.is_set() and operation.kind is Kind.WRITE and "staging" in operation.path.parts:
            raise NoSpaceError("no space left on this disk")

    monkeypatch.setattr(standing_site, "Disk", lambda: Disk(observe))
    async with hall.with_media(install=False).running():
        state = await hall.plug_in()
        assert "store.no-space" in {state.code, *refusals(state).values()}
        assert hall.kept() == set()
        full.clear()
        assert (await hall.plug_in()).stage is Stage.SAFE
        assert hall.kept() == {"whole-2.swu"}


@asynccontextmanager
async def gateway_process(hall: Hall) -> AsyncIterator[asyncio.subprocess.Process]:
    """The gateway as a process of its own, killed at the end."""
    file = hall.folder / "gateway.toml"
    text = file.read_text()
    if "[media]" not in text:
        text = text.replace("hosts = []", 'hosts = []\naddresses = ["127.0.0.1"]')
        text += f"\n[media]\nenabled = true\ninstall = false\nintake = {json.dumps(str(hall.folder / 'intake'))}\n"
        file.write_text(text)
    program = "import sys; from gateway.cli.main import main; sys.exit(main())"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, "gateway", "--config", str(file), "serve")
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
        await process.wait()


async def test_a_gateway_that_is_killed_in_the_middle_goes_on(hall: Hall) -> None:
    big = os.urandom(40 << 20)
    hall.builder.add_target("os/big.bin", big, BOARD)
    hall.write_stick()
    reached, killed = threading.Event(), threading.Event()

    def wait(parts: tuple[str, ...], before: int, file: BinaryIO) -> BinaryIO:
        if parts[-1].endswith("big.bin") and before == 2:
            reached.set()
            killed.wait(60)
        return file

    async with gateway_process(hall):
        plugged = asyncio.create_task(hall.plug_in(through=lambda medium: Between(medium, wait)))
        assert await asyncio.to_thread(reached.wait, 90)
    assert "big.bin" not in hall.kept()
    async with gateway_process(hall):
        killed.set()
        state = await plugged
        assert (state.stage, refusals(state)) == (Stage.SAFE, {}), state
    assert hall.kept() == {"whole-2.swu", "big.bin"}
