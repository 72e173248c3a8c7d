"""The reader's own process and the whole gateway, which meet in one folder only."""

import asyncio
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.sections.media import MediaSection
from media.intake import Intake
from media.records import Stage
from tests.builders.bundles import describe, image, signed
from tests.builders.repository import RepositoryBuilder
from tests.builders.standing_site import Site, now, set_up_site
from update.durable import Disk

CONTENT = b"the whole image" * 1000


@pytest.fixture
def short() -> Iterator[Path]:
    """A folder whose name is short enough for a socket."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


async def set_up(folder: Path) -> Site:
    """A gateway without any line, and a stick that is not plugged in yet."""
    builder = RepositoryBuilder(now=now())
    site = await set_up_site(folder, builder)
    (folder / "upstream").rename(folder / "nowhere")
    bundle = signed(folder, describe(images=[image("a.img", CONTENT, type="raw")]), {"a.img": CONTENT}, name="whole.swu")
    builder.add_target("os/whole.swu", bundle.read_bytes(), {"hwIds": ["board:1"], "version": "1", "releaseCounter": 2})
    builder.publish()
    builder.write_to(folder / "stick")
    media = MediaSection(enabled=True, intake=folder / "intake", install=False)
    return replace(site, config=replace(site.config, media=media))


@contextmanager
def reader(folder: Path) -> "Iterator[subprocess.Popen[bytes]]":
    config = folder / "media.toml"
    config.write_text('format_version = 1\n[media]\nintake = "intake"\nsettle_s = 0.01\n')
    program = str(Path(sys.executable).with_name("fieldrelay"))
    command = [program, "media", "watch", "--config", str(config), "--folder", str(folder / "slot")]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            finally:
                process.kill()


async def until(intake: Intake, *stages: Stage) -> None:
    async with asyncio.timeout(100):
        while (state := intake.state()) is None or state.stage not in stages:  # noqa: ASYNC110 - by another process
            await asyncio.sleep(0.02)


async def test_a_stick_is_plugged_in_brought_and_pulled_out_and_has_nothing_new_the_next_time(short: Path) -> None:
    site = await set_up(short)
    intake = Intake(Disk(), short / "intake", "slot")
    async with site.running():
        with reader(short):
            (short / "stick").rename(short / "slot")
            await until(intake, Stage.SAFE)
            kept = {file.name.partition(".")[2] for file in (short / "state" / "store").rglob("targets/**/*") if file.is_file()}
            assert kept == {"whole.swu"}
            (short / "slot").rename(short / "stick")
            await until(intake, Stage.GONE)
            (short / "stick").rename(short / "slot")
            await until(intake, Stage.NOTHING_NEW)
