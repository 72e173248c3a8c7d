"""The systemd unit: how much the gateway could do if it were taken over, and that it runs under these limits."""

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.cli.main import main
from tests.peers import need_tool

UNIT = Path(__file__).parents[2] / "configs" / "systemd" / "fieldrelay-gateway.service"

# PR_SET_MDWE (65) refuses memory that is writable and executable, as MemoryDenyWriteExecute= does; status 77: not here.
UNDER_LIMITS = """
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit(77)
import asyncio, pathlib, tempfile
import gateway.app
from gateway.cli.event_loop import loop_factory
from cryptography.hazmat.primitives.asymmetric import ec
from gateway.database.engine import Database, sqlite_url

async def work():
    ec.generate_private_key(ec.SECP256R1())
    with tempfile.TemporaryDirectory() as folder:
        await (await Database.open(sqlite_url(pathlib.Path(folder) / "x.db"))).close()

with asyncio.Runner(loop_factory=loop_factory()) as runner:
    runner.run(work())
"""


def test_what_the_unit_starts_is_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    unit = configparser.ConfigParser(strict=False, interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]  # the way to keep the case of keys
    unit.read(UNIT)
    program, *arguments = unit["Service"]["ExecStart"].split()
    assert (Path(program).name, unit["Service"]["Type"]) == ("fieldrelay", "notify")
    assert main([*arguments, "--help"]) == 0
    assert "SIGTERM" in capsys.readouterr().out


@pytest.mark.interop
def test_the_exposure_is_what_it_was_measured_to_be() -> None:
    """`--threshold` is ten times the exposure: 1.5."""
    tool = need_tool("systemd-analyze")
    command = [str(tool), "security", "--offline=yes", "--threshold=15", "--no-pager", str(UNIT)]
    measured = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert measured.returncode == 0, measured.stdout[-500:] + measured.stderr


def test_the_gateway_needs_no_memory_that_is_writable_and_executable() -> None:
    ran = subprocess.run([sys.executable, "-c", UNDER_LIMITS], capture_output=True, text=True, check=False, timeout=60)
    if ran.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE (Linux 6.3)")
    assert ran.returncode == 0, ran.stderr
