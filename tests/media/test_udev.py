"""Devices that come and go, with the real pyudev and umockdev's testbed."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.media.scenes import SCENES
from tests.peers import need_tool

ROOT = Path(__file__).parents[2]


@pytest.mark.interop
@pytest.mark.parametrize("scene", [pytest.param(each, marks=[pytest.mark.soak] if "long" in each else []) for each in SCENES])
def test_the_scene_is_seen_as_it_was_played(scene: str) -> None:
    command = [need_tool("umockdev-wrapper"), sys.executable, "-W", "error", "-m", "tests.media.scenes", scene]
    done = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr[-4000:]
