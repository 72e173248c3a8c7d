"""`fieldrelay media`: the real process, with a folder in the place of a stick."""

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from gateway.cli.main import main
from media.intake import Intake
from media.records import Answer, Course, Stage
from update.durable import Disk

_T = TypeVar("_T")


async def eventually(look: Callable[[], _T | None]) -> _T:
    async with asyncio.timeout(100):
        while (found := look()) is None:  # noqa: ASYNC110 - by another process
            await asyncio.sleep(0.02)
    return found


def shown(intake: Intake, stage: Stage) -> bool | None:
    state = intake.state()
    return True if state is not None and state.stage is stage else None


def start(*options: str) -> "subprocess.Popen[str]":
    command = [str(Path(sys.executable).with_name("fieldrelay")), "media", "watch", *options]
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


async def test_the_process_reads_what_stands_there_and_ends_by_a_signal(tmp_path: Path) -> None:
    config, slot = tmp_path / "media.toml", tmp_path / "slot"
    config.write_text('format_version = 1\n[media]\nintake = "intake"\nsettle_s = 0.01\n')
    slot.mkdir()
    (slot / "a.swu").write_bytes(b"070702" + bytes(5000))
    with start("--config", str(config), "--folder", str(slot)) as process:
        try:
            intake = Intake(Disk(), tmp_path / "intake", "slot")
            offer = await eventually(intake.offer)
            said = Answer(medium="slot", visit=offer.visit, course=Course.UPDATING, since=1, taken_bytes=5, wanted_bytes=5)
            intake.write_answer(said)
            await eventually(lambda: shown(intake, Stage.SAFE))
            process.send_signal(signal.SIGTERM)
            _, told = await asyncio.to_thread(process.communicate, timeout=100)
        finally:
            process.kill()
    assert process.returncode == 0, told
    assert shown(intake, Stage.GONE)
    assert "slot: safe" in told


def test_a_mounter_without_its_user_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "media.toml"
    config.write_text('format_version = 1\n[media]\nuser = "nobody-of-that-name"\n')
    assert main(["media", "mounter", "--config", str(config)]) == 11
    assert "nobody-of-that-name" in capsys.readouterr().err
